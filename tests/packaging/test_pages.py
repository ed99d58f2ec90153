"""The pages people read: links lead somewhere, and the citation and licence are what they say."""

import re
from pathlib import Path

import yaml

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)[^)]*\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def _pages(checkout: Path) -> list[Path]:
    return sorted([*checkout.glob("*.md"), *(checkout / "docs").rglob("*.md")])


def _anchor(heading: str) -> str:
    """A heading's anchor as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")


def test_every_relative_link_leads_somewhere(checkout: Path) -> None:
    broken, followed = [], 0
    for page in _pages(checkout):
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in LINK.findall(text):
            if re.match(r"[a-z]+:", link):
                continue
            followed += 1
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            anchors = {_anchor(h) for h in HEADING.findall(target.read_text())} if target.suffix == ".md" else {anchor}
            if not target.exists() or (anchor and anchor not in anchors):
                broken.append(f"{page.relative_to(checkout)}: {link}")
    assert not broken
    assert followed, "no link was found at all: the pattern is wrong"


def test_the_citation_names_the_software_its_version_and_licence(checkout: Path) -> None:
    citation = yaml.safe_load((checkout / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"].startswith("Triptych")
    assert citation["license"] == "Apache-2.0"
    assert f'version = "{citation["version"]}"' in (checkout / "pyproject.toml").read_text()
    assert {"message", "type", "authors"} <= set(citation)


def test_the_licence_is_apache_2(checkout: Path) -> None:
    text = (checkout / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
