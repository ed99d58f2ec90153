"""The page: whole, self-contained, with every figure of the folders; and readable on a phone."""

import base64
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.report.conftest import TABLES, MakeRun, write_result
from tests.report.page import Page
from vision.engine.errors import UserError
from vision.report.html import WIDEST, inline, write_report


def page_of(*runs: Path) -> Page:
    output = write_report(list(runs), runs[0].parent / "report.html")
    return Page(output.read_text(encoding="utf-8"))


def require_self_contained(page: Page) -> None:
    """Nothing is fetched, nothing is run, every reference inside the page leads somewhere."""
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert len(set(ids)) == len(ids)
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "link", "iframe", "object", "base", "form"})
    for tag, found in page.elements:
        assert not any(name.startswith("on") for name in found)
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            value = found.get(name)
            if value is None:
                continue
            assert value.startswith(("data:image/png;base64,", "#")), f"<{tag} {name}={value[:60]}>"
            if value.startswith("#"):
                assert value[1:] in ids, f"{value} leads nowhere"
        for target in re.findall(r"url\((.*?)\)", " ".join(found.values())):
            assert target.startswith("#"), target
            assert target[1:] in ids, f"{target} leads nowhere"


def test_page_of_one_run(make_run: MakeRun) -> None:
    page = page_of(make_run("digits", accuracy=0.875))
    require_self_contained(page)
    assert page.headings[0] == "digits"
    sections = ["Figures", "Training", "Evaluations while training", "In detail", "Example predictions"]
    assert [heading for heading in page.headings if heading in sections] == sections
    for said in ("A small test.", "test · accuracy", "0.8750", "best weights (epoch 2)", "best at epoch 2, step 20"):
        assert said in page.text
    for said in ("trained 1 min 40 s", "seed 0", "Some CPU", "stopped: time budget", "type: digits", "torch"):
        assert said in page.text


def test_tables_of_results_are_those_of_the_files(make_run: MakeRun) -> None:
    page = page_of(make_run("digits", accuracy=0.875))
    figures, *maps = page.tables
    assert figures == [
        ["figure", "test", "val"],
        ["accuracy", "0.8750", "0.8850"],
        ["nll", "0.2500", "0.5000"],
        ["samples", "20", "20"],
    ]
    confusion = [["", "cat", "dog"], ["cat", "8", "2"], ["dog", "1", "9"]]
    assert maps == [confusion, confusion] + 2 * [[["bin", "count"], ["0.5", "3"], ["1", "7"]]]
    shares = [found["style"] for tag, found in page.elements if tag == "td" and "style" in found]
    assert shares[:4] == ["--p: 80%", "--p: 20%", "--p: 10%", "--p: 90%"]


def test_charts_are_drawn_for_everything_recorded(make_run: MakeRun) -> None:
    charts = page_of(make_run("digits")).values("svg", "aria-label")
    assert charts == [
        "loss",
        "learning rate",
        "gradient norm",
        "samples per second",
        "entropy (training)",
        "accuracy (val)",
        "nll (val)",
        "ROC (test)",
        "ROC (val)",
    ]


def test_examples_are_inside_the_page(make_run: MakeRun) -> None:
    folder = make_run("digits")
    page = page_of(folder)
    files = sorted((folder / "eval" / "test" / "examples").glob("*.png"))
    sources = page.values("img", "src")
    assert len(sources) == 4
    for file, source in zip(files, sources, strict=False):
        inside = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        assert np.array_equal(np.asarray(inside), np.asarray(Image.open(file)))
    assert page.values("img", "width") == ["32"] * 4
    assert page.values("img", "height") == ["24"] * 4
    assert all(page.values("img", "alt"))


def test_warnings_of_an_evaluation_stand_beside_its_figures(make_run: MakeRun) -> None:
    folder = make_run()
    assert "Warning" not in page_of(folder).text
    file = folder / "eval" / "test" / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"warnings": {"autoattack": ["too few <classes>"]}}))
    assert "Warning, test, autoattack: too few <classes>." in page_of(folder).text


def test_several_runs_are_compared(make_run: MakeRun) -> None:
    make_run("s/seed0", 0, 0.5)
    seeds = make_run("s/seed1", 1, 0.75).parent
    other = make_run("b", 0, 0.6, recipe={"optimizer": {"type": "sgd", "lr": 0.5}})
    page = page_of(seeds, other)
    require_self_contained(page)
    assert page.headings[0] == "3 runs"
    assert page.tables[0] == [
        ["run", "accuracy", "nll"],
        ["s/seed0", "0.5000", "0.2500"],
        ["s/seed1", "0.7500", "0.2500"],
        ["s, 2 seeds", "0.6250 ± 0.1768", "0.2500 ± 0.0000"],
        ["b", "0.6000", "0.2500"],
    ]
    differing = next(table for table in page.tables if table[0][0] == "key")
    assert differing[1:] == [["optimizer.lr", "0.1", "0.1", "0.5"], ["seed", "0", "1", "0"]]
    assert page.values("a", "href") == ["#run1", "#run2", "#run3"]
    assert page.values("details", "id") == ["run1", "run2", "run3"]


def test_runs_judged_by_other_figures_stand_apart(make_run: MakeRun) -> None:
    page = page_of(make_run("a"), make_run("b", 1), make_run("c", primary="nll"))
    require_self_contained(page)
    sections = [heading for heading in page.headings if heading.startswith(("Judged", "On "))]
    below = ["On test", "On val"]
    assert sections == ["Judged by accuracy on digits", *below, "Judged by nll on digits", *below]
    rows = [[row[0] for row in table] for table in page.tables if table[0][0] == "run"]
    assert rows == 2 * [["run", "a", "b", "a and 1 more, 2 seeds"]] + 2 * [["run", "c"]]


def test_runs_on_other_data_stand_apart(make_run: MakeRun) -> None:
    elsewhere = {"data": {"type": "folder", "root": "some/photos"}}
    page = page_of(make_run("a"), make_run("b", 1), make_run("c", recipe=elsewhere))
    assert [heading for heading in page.headings if heading.startswith("Judged")] == [
        "Judged by accuracy on digits", "Judged by accuracy on photos",
    ]  # fmt: skip
    assert [[row[0] for row in table] for table in page.tables if table[0][0] == "run"][-1] == ["run", "c"]


def test_a_figure_measured_once_has_no_chart_among_several_runs(make_run: MakeRun) -> None:
    often, once = make_run("a"), make_run("b", 1)
    lines = [json.loads(line) for line in (once / "metrics.jsonl").read_text().splitlines()]
    kept = [line for line in lines if line["kind"] != "eval" or line["step"] == 20]
    kept[-2]["metrics"] |= {"rare": 0.5}
    (once / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    page = page_of(often, once)
    assert "accuracy (val)" in page.text and "rare (val)" not in page.text


def test_a_pipeline_shows_its_stages_and_steps(tmp_path: Path, make_run: MakeRun) -> None:
    folder = make_run("p/teacher").parent
    (folder / "config.yaml").write_text(
        "# sha256: 1\nname: p\ndescription: From teacher to search.\nstages: [{name: teacher}, {name: search}]\n"
    )
    (folder / "search").mkdir()
    (folder / "search" / "config.yaml").write_text("# sha256: 2\nname: search\nstep: {type: grid}\n")
    page = page_of(folder)
    assert "This step is not finished." in page.text
    (folder / "search" / "done.json").write_text(json.dumps({"result": {"temperature": 2.5, "scores": {"nll": 0.25}}}))
    page = page_of(folder)
    require_self_contained(page)
    assert page.headings[0] == "p"
    assert "From teacher to search." in page.text
    terms = dict(zip(*(re.findall(rf"<{tag}>(.*?)</{tag}>", _source(folder)) for tag in ("dt", "dd")), strict=True))
    assert terms["temperature"] == "2.500"
    assert terms["scores.<wbr>nll"] == "0.2500"


def _source(folder: Path) -> str:
    return (folder.parent / "report.html").read_text(encoding="utf-8")


def test_missing_pieces_are_said(make_run: MakeRun) -> None:
    folder = make_run("fresh", accuracy=None, trained=False)
    page = page_of(folder)
    require_self_contained(page)
    for said in ("No evaluation yet", "No training step was recorded.", "None was recorded.", "None was drawn."):
        assert said in page.text
    assert "It was not noted." in page.text
    pair = page_of(folder, make_run("new", 3, accuracy=None, trained=False))
    assert "No run has been evaluated yet." in pair.text


def test_one_evaluation_makes_no_curve(make_run: MakeRun) -> None:
    folder = make_run("a")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = [line for line in lines if line["kind"] != "eval" or line["step"] == 20]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    page = page_of(folder)
    assert "One, at step 20." in page.text
    assert not [chart for chart in page.values("svg", "aria-label") if chart.endswith("(val)") and "ROC" not in chart]


def test_runs_that_cannot_be_compared_are_shown_open(make_run: MakeRun) -> None:
    page = page_of(make_run("a"), make_run("c", primary="nll"))
    assert not [heading for heading in page.headings if heading.startswith(("Judged", "On "))]
    assert len(page.values("details", "open")) == 2


def test_before_any_evaluation_the_best_seen_is_shown(make_run: MakeRun) -> None:
    page = page_of(make_run("going", accuracy=None))
    assert "val · nll" in page.text
    assert "while training, epoch 2; no evaluation of the finished weights yet" in page.text


def test_the_same_folder_gives_the_same_page(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("digits")
    pages = [write_report([folder], tmp_path / "out" / f"{place}.html").read_bytes() for place in range(2)]
    assert pages[0] == pages[1]


def test_nothing_in_a_folder_becomes_markup(make_run: MakeRun) -> None:
    hostile = "</code></pre><script>alert('x')</script><img src=http://example.org/a.png>"
    folder = make_run("digits", recipe={"description": hostile, "task": {"type": hostile}})
    tables = {hostile: {**TABLES["confusion"], "title": hostile, "labels": [hostile, "b"]}, "c": TABLES["roc"]}
    tables["c"] = {**tables["c"], "title": hostile, "x_label": hostile}
    write_result(folder / "eval" / "other", hostile, {hostile: 0.5}, primary=hostile, tables=tables)
    page = page_of(folder)
    require_self_contained(page)
    assert hostile in page.text


def test_a_matrix_of_many_classes_is_a_picture(make_run: MakeRun) -> None:
    folder = make_run("digits", accuracy=None)
    values = (np.eye(100, dtype=int) * 10).tolist()
    matrix = {"type": "matrix", "labels": list(range(100)), "values": values}
    write_result(folder / "eval" / "test", "test", {"accuracy": 1.0}, pictures=0, tables={"confusion": matrix})
    page = page_of(folder)
    require_self_contained(page)
    (source,) = page.values("img", "src")
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))
    assert np.array_equal(picture[..., 3], 255 * np.eye(100))


def test_wide_pictures_are_made_smaller(tmp_path: Path) -> None:
    Image.new("RGB", (3000, 300), (10, 20, 30)).save(tmp_path / "wide.png")
    example = inline(tmp_path / "wide.png")
    assert (example.width, example.height) == (WIDEST, 128)
    inside = Image.open(io.BytesIO(base64.b64decode(example.source.partition(",")[2])))
    assert inside.size == (WIDEST, 128)
    assert inside.getpixel((0, 0)) == (10, 20, 30)


def test_a_broken_picture_is_named(make_run: MakeRun) -> None:
    folder = make_run("digits")
    (folder / "eval" / "test" / "examples" / "sample_0.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"sample_0\.png: cannot be read as a picture"):
        page_of(folder)


def test_no_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a report of no runs"):
        write_report([], tmp_path / "report.html")


MEASURE = """
<!doctype html><meta charset="utf-8"><body><script>
const frame = document.createElement("iframe");
frame.style.cssText = "width: %(width)dpx; height: 900px; border: 0";
frame.onload = () => {
  const inside = frame.contentDocument;
  inside.querySelectorAll("details").forEach(part => part.open = true);
  const scrolled = [...inside.querySelectorAll(".scroll *, pre *")];
  const over = [...inside.querySelectorAll("main *")].filter(
    e => e.getBoundingClientRect().right > %(width)d + 0.5 && !scrolled.includes(e));
  const broken = [...inside.images].filter(image => !image.complete || image.naturalWidth === 0);
  document.title = JSON.stringify({
    width: inside.documentElement.scrollWidth,
    over: over.map(e => `${e.tagName}.${e.className}`),
    broken: broken.length,
    images: inside.images.length,
  });
};
frame.srcdoc = %(page)s;
document.body.append(frame);
</script>
"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium to draw the page with")
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_the_screen(make_run: MakeRun, tmp_path: Path, width: int) -> None:
    long = "a_run_with_a_name_that_goes_on_and_on_and_on"
    labels = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    matrix = {"type": "matrix", "labels": labels, "values": np.full((10, 10), 12345).tolist()}
    runs = [make_run(long, 0, 0.5), make_run("b", 1, 0.6, recipe={"task": {"type": "x" * 60}})]
    figures = {f"a_figure_of_long_name_{place}": 0.5 for place in range(8)}
    write_result(runs[0] / "eval" / "other", "test", figures, tables={"confusion": matrix})
    page = write_report(runs, tmp_path / "report.html").read_text(encoding="utf-8")
    (tmp_path / "measure.html").write_text(
        MEASURE % {"width": width, "page": json.dumps(page).replace("</", "<\\/")}, encoding="utf-8"
    )
    flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update"
    call = ["chromium", *flags.split(), "--disable-sync", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}"]
    call += [
        "--hide-scrollbars",
        "--window-size=1400,1000",
        "--virtual-time-budget=5000",
        "--dump-dom",
        f"file://{tmp_path}/measure.html",
    ]
    dom = subprocess.run(call, capture_output=True, text=True, timeout=120, check=True).stdout
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title is not None
    measured = json.loads(title[1])
    assert measured == {"width": width, "over": [], "broken": 0, "images": measured["images"]}
    assert measured["images"] == 10
