"""The site: it is built without a warning, needs no network, and holds every page, formula and public name."""

import html
import importlib
import inspect
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs.pages import CHECKOUT

for module in ("sphinx", "furo", "myst_parser", "latex2mathml", "sphinx-mathjax-offline"):
    pytest.importorskip(module, reason=f"the extra docs is not installed (no {module}); `make site` installs it")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

WEBSITE = CHECKOUT / "docs" / "website"
FETCHED = re.compile(r"<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)=\"([^\"]*)\"")
STYLED = re.compile(r"(?:url\(|@import)\s*[\"']?([^\"')\s]+)")
SHOWN_CODE = re.compile(r"<(pre|code|script|style)\b.*?</\1>", re.DOTALL)
FORMULA = re.compile(r"<(?:div|span) class=\"math[^\"]*\"[^>]*>(.*?)</(?:div|span)>", re.DOTALL)
WRONG = r"""# Page

[a link](nowhere.md)

[an anchor](#nowhere)

$\nosuchcommand + \frac{1}{$

```{eval-rst}
:class:`vision.NoSuchClass`

.. autoclass:: vision.pose.codecs.NoSuchCodec
```
"""
TOLD_OF = ("nowhere.md", "'nowhere'", "formula", "vision.NoSuchClass", "NoSuchCodec")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, str(WEBSITE / "build.py"), "-o", str(folder)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def pages(site: Path) -> list[Path]:
    return [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]


def text_of(page: Path) -> str:
    """What a page says outside of code and formulas."""
    body = page.read_text(encoding="utf-8").partition("<article")[2].partition("</article>")[0]
    return html.unescape(re.sub(r"<[^>]+>", "", FORMULA.sub("", SHOWN_CODE.sub("", body))))


def modules() -> Iterator[str]:
    for package in ("vision", "snn", "robust"):
        yield package
        found = pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
        yield from (module.name for module in found if "._" not in module.name)


def test_every_page_of_the_checkout_is_there_with_its_title(site: Path) -> None:
    for page in [CHECKOUT / "CHANGELOG.md", CHECKOUT / "CONTRIBUTING.md", *(CHECKOUT / "docs").rglob("*.md")]:
        title = page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        built = site / page.relative_to(CHECKOUT).with_suffix(".html")
        assert f"<title>{title} - Triptych</title>" in html.unescape(built.read_text(encoding="utf-8"))
    for page in pages(site):
        text = page.read_text(encoding="utf-8")
        assert re.search(r"<title>[^<]+</title>", text), page
        assert page.name in ("search.html", "genindex.html", "py-modindex.html") or text.count("<h1") == 1, page


def test_home_is_the_readme_with_its_pictures(site: Path) -> None:
    home = (site / "index.html").read_text(encoding="utf-8")
    assert "<h1>Triptych" in home
    pictures = re.findall(r'<img[^>]*src="(_images/[^"]+)"', home)
    assert {Path(picture).name for picture in pictures} == {"detections.png", "poses.jpg", "spikes.png", "attack.png"}
    assert all((site / picture).is_file() for picture in pictures)


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    fetched = [(page, link) for page in pages(site) for link in FETCHED.findall(page.read_text(encoding="utf-8"))]
    assert len(fetched) > len(pages(site))
    assert [(page, link) for page, link in fetched if re.match(r"(\w+:)?//", link)] == []
    styles = list(site.rglob("*.css"))
    assert styles
    used = [link for style in styles for link in STYLED.findall(style.read_text(encoding="utf-8"))]
    used += [link for page in pages(site) for link in STYLED.findall(page.read_text(encoding="utf-8"))]
    assert [link for link in used if re.match(r"(\w+:)?//", link)] == []


def test_every_link_leads_to_a_page_and_a_place_on_it(site: Path) -> None:
    texts = {page.resolve(): page.read_text(encoding="utf-8") for page in pages(site)}
    places = {page: set(re.findall(r'\bid="([^"]+)"', text)) for page, text in texts.items()}
    broken, followed = [], 0
    for page, text in texts.items():
        for link in map(html.unescape, re.findall(r'<a\b[^>]*\bhref="([^"]+)"', text)):
            if re.match(r"[a-z]+:", link):
                continue
            followed += 1
            path, _, anchor = unquote(link).partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.exists() or (anchor and anchor not in places.get(target, {anchor})):
                broken.append(f"{page.relative_to(site.resolve())}: {link}")
    assert not broken
    assert followed > 10_000


def test_no_markup_is_left_to_be_seen(site: Path) -> None:
    for page in pages(site):
        if page.relative_to(site).parts[0] != "files":
            assert not re.findall(r"\$\$|:(?:math|class|func|meth|mod|data|attr):|\.\. math::|```", text_of(page)), page


def test_pages_with_formulas_bring_mathjax_and_its_fonts(site: Path) -> None:
    with_formulas = [page for page in pages(site) if FORMULA.search(page.read_text(encoding="utf-8"))]
    expected = {"stop.html", "tbcnet.html", "robust_methods.html", "snn.neurons.html"}
    assert expected <= {page.name for page in with_formulas}
    for page in with_formulas:
        (script,) = [link for link in FETCHED.findall(page.read_text(encoding="utf-8")) if "mathjax" in link]
        assert (page.parent / script.partition("?")[0]).is_file()
    assert len(list((site / "_static/mathjax").rglob("*.woff"))) > 15


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine")
@pytest.mark.parametrize("name", ["docs/stop.html", "docs/tbcnet.html", "api/snn.neurons.html"])
def test_a_browser_sets_every_formula(site: Path, name: str) -> None:
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
    command = ["chromium", *options, (site / name).as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    formulas = FORMULA.findall((site / name).read_text(encoding="utf-8"))
    assert formulas
    assert shown.count("<mjx-container") == len(formulas)
    assert "<mjx-merror" not in shown


def test_the_reference_has_every_public_name(site: Path) -> None:
    missing, found = [], 0
    for name in modules():
        module = importlib.import_module(name)
        text = (site / "api" / f"{name}.html").read_text(encoding="utf-8")
        for other, value in vars(module).items():
            own = inspect.isclass(value) or inspect.isfunction(value)
            if other.startswith("_") or not own or value.__module__ != name:
                continue
            found += 1
            if f'id="{name}.{value.__qualname__}"' not in text:
                missing.append(f"{name}.{other}")
        missing += [f"{name}: {other}" for other in getattr(module, "__all__", []) if other not in text]
    assert not missing
    assert found > 500


def test_it_can_be_searched_from_files(site: Path) -> None:
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert index.startswith("Search.setIndex(")
    assert '"docs/tbcnet"' in index
    assert "centroid" in index


def test_what_is_broken_is_told_and_fails(tmp_path: Path) -> None:
    (tmp_path / "index.md").write_text(WRONG)
    settings = ["--fail-on-warning", "--quiet", "-c", str(WEBSITE), str(tmp_path), str(tmp_path / "out")]
    command = [sys.executable, "-m", "sphinx", *settings]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert [told for told in TOLD_OF if told not in done.stderr] == []
