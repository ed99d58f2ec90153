"""Lays the pages out for Sphinx: README as the home page, Markdown as it is, a page for each file that one links to."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

import api

CHECKOUT = Path(__file__).resolve().parents[2]

HOW_TO = (
    "own_data", "own_skeleton", "own_network", "resume", "distributed", "judge_and_predict",
    "people", "report", "export", "benchmark", "experiments", "when_it_fails",
)  # fmt: skip
CARDS = [path.relative_to(CHECKOUT) for path in sorted((CHECKOUT / "vision/models").glob("*/README.md"))]
"""The cards of the networks that ship."""
NAVIGATION = {
    "Start": ["docs/configuration", "docs/trainer", "docs/demo"],
    "How do I ...": ["docs/how_to"] + [f"docs/how_to/{page}" for page in HOW_TO],
    "Vision": ["docs/classification", "docs/tbcnet", "docs/pose", "docs/dhrnet", "docs/selective_scan"],
    "Spiking networks": ["docs/stop"],
    "Robust learning": ["docs/robust", "docs/robust_methods", "docs/distillation"],
    "Deployment": ["docs/deploy", "docs/benchmark"],
    "Networks that ship": ["docs/models"] + [card.with_suffix("").as_posix() for card in CARDS],
    "Figures": ["docs/results", "docs/performance", "docs/reliability"],
    "Reference": [f"api/{package}" for package in api.PACKAGES],
    "Project": ["docs/index", "CONTRIBUTING", "CHANGELOG"],
}
"""The side bar. A page that is missing here fails the build."""

LINK = re.compile(r"(!?)(\[[^][]*\])\(([^)\s]+)\)")
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
SHOWN = {".cff", ".cpp", ".cu", ".cuh", ".h", ".json", ".py", ".sh", ".toml", ".txt", ".yaml"}
"""Suffixes of the files that get a page; a file without suffix, such as LICENSE, gets one too."""
LANGUAGES = {
    ".cff": "yaml",
    ".cpp": "cpp",
    ".cu": "cuda",
    ".cuh": "cuda",
    ".h": "cpp",
    ".json": "json",
    ".py": "python",
    ".sh": "bash",
    ".toml": "toml",
    ".yaml": "yaml",
}


def stage(folder: Path) -> None:
    """Writes all sources of the site into an empty folder."""
    linked: set[Path] = set()
    for page in written():
        place = folder / staged(page)
        place.parent.mkdir(parents=True, exist_ok=True)
        text = with_site_links(page, linked)
        place.write_text(text + side_bar() if page == Path("README.md") else text, encoding="utf-8")
    (folder / "docs/images").symlink_to(CHECKOUT / "docs/images")
    for name, text in {**api.pages(CHECKOUT), **file_pages(linked)}.items():
        place = folder / f"{name}.rst"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")


def written() -> list[Path]:
    """The Markdown pages, by path from the checkout."""
    pages = [*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md")]
    return [path.relative_to(CHECKOUT) for path in pages] + CARDS


def staged(page: Path) -> Path:
    """Where a page or a linked file lies among the site's sources."""
    if page.suffix == ".md":
        return Path("index.md") if page == Path("README.md") else page
    parts = page.with_suffix("").parts
    if (parts[0] in api.PACKAGES and page.suffix == ".py") or (CHECKOUT / page / "__init__.py").is_file():
        return Path("api", ".".join(part for part in parts if part != "__init__") + ".rst")
    return Path("files", f"{page}.rst")


def with_site_links(page: Path, linked: set[Path]) -> str:
    """A page's text, its links to files led to their pages on the site; these files are added to ``linked``."""

    def led(found: re.Match[str]) -> str:
        image, text, link = found.groups()
        path, _, anchor = link.partition("#")
        target = Path(os.path.relpath(CHECKOUT / page.parent / path, CHECKOUT))
        if image or not path or re.match(r"[a-z]+:", link) or not (CHECKOUT / target).exists():
            return found[0]  # a link that leads nowhere is Sphinx's to report
        linked.add(target)
        to = os.path.relpath(staged(target), staged(page).parent)
        return f"{text}({to}{anchor and '#' + anchor})"

    parts = FENCED.split((CHECKOUT / page).read_text(encoding="utf-8"))
    return "".join(part if part.startswith("```") else LINK.sub(led, part) for part in parts)


def side_bar() -> str:
    """The navigation, as the home page holds it."""
    blocks = []
    for caption, names in NAVIGATION.items():
        lines = "\n".join(names)
        blocks.append(f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{lines}\n```\n")
    return "".join(blocks)


def file_pages(linked: Iterable[Path]) -> dict[str, str]:
    """The pages, by name, of files and folders that are neither pages themselves nor modules of the reference."""
    found = {}
    asked = [path for path in sorted(linked) if staged(path).parts[0] == "files"]
    while asked:
        path = asked.pop()
        name = str(staged(path).with_suffix(""))
        if name in found:
            continue
        if (CHECKOUT / path).is_dir():
            inside = shown_in(path)
            asked += inside
            found[name] = folder_page(path, inside)
        else:
            found[name] = file_page(path)
    return found


def shown_in(folder: Path) -> list[Path]:
    """The files below a folder that are shown, by path from the checkout."""
    every = sorted((CHECKOUT / folder).rglob("*"))
    return [path.relative_to(CHECKOUT) for path in every if path.is_file() and path.suffix in SHOWN]


def folder_page(folder: Path, inside: list[Path]) -> str:
    """A list of the files of a folder, each a link."""
    lines = "\n".join(f"- :doc:`{path.relative_to(folder)} </{staged(path).with_suffix('')}>`" for path in inside)
    return f"{head(folder)}\n{lines}\n"


def file_page(path: Path) -> str:
    """A file's text, highlighted."""
    text = (CHECKOUT / path).read_text(encoding="utf-8")
    body = "\n".join(f"   {line}".rstrip() for line in text.splitlines())
    return f"{head(path)}\n.. code-block:: {LANGUAGES.get(path.suffix, 'text')}\n\n{body}\n"


def head(path: Path) -> str:
    """The top of a page that is neither searched nor in the side bar."""
    return f":orphan:\n:nosearch:\n\n{api.title(str(path))}"
