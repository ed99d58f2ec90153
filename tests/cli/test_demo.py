"""The page of tools/demo.py: what it shows, by itself and through clicks in a browser."""

import http.client
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vision
from snn.raster import PAPER, raster_picture
from tests.cli.launching import CHECKOUT
from tools import demo
from vision.engine.config import load
from vision.engine.distributed import World
from vision.engine.errors import ConfigError, DataError, UserError
from vision.engine.train import dry_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
RECIPES = {
    "digits": ("digits_cnn", "data.limit=64", "task.network.width=8"),
    "spikes": ("stop_digits", "data.limit=64", "task.network.hidden=[16]"),
    "people": ("dhrnet_w18s_samples", "data.size=64", "task.network.output_size=16"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs of one update each."""
    root = tmp_path_factory.mktemp("runs")
    for name, (recipe, *overrides) in RECIPES.items():
        (root / name).mkdir()
        dry_run(load(recipe, overrides), root / name, False, World(torch.device("cpu")))
    return root


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("photo") / "digit.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return str(path)


# -- without a browser -------------------------------------------------------------------------------------------------


def test_the_networks_that_are_offered(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = {f"{name} (ships with the package)": str(path) for name, path in vision.shipped_models().items()}
    assert demo.offered([], runs) == {name: str(runs / name) for name in sorted(RECIPES)} | shipped
    assert demo.offered(["stop_digits"], tmp_path) == {"stop_digits": str(vision.shipped_models()["stop_digits"])}
    assert demo.offered([str(runs / "digits")], tmp_path) == {str(runs / "digits"): str(runs / "digits")}
    monkeypatch.setattr("vision.deploy.shipped.MODELS", tmp_path)
    with pytest.raises(ConfigError, match="no trained run and no exported file below it"):
        demo.offered([], tmp_path)
    with pytest.raises(ConfigError, match="no such file or folder"):
        demo.offered([str(tmp_path / "nothing")], tmp_path)


def test_a_class_without_and_under_attack(runs: Path, photo: str) -> None:
    path = str(runs / "digits")
    clean, attacked = demo.show(path, photo), demo.show(path, photo, 16, 5, "3")
    said = vision.classification.load(path)(photo).to_dict()
    assert clean.numbers == {**said, "id": "digit.png"} and clean.frames == []
    assert attacked.said.startswith("PGD, linf, eps = 16/255, 5 steps of eps/4, away from class 3: ")
    assert attacked.numbers["clean"]["probabilities"] == pytest.approx(said["probabilities"], abs=1e-5)
    assert attacked.numbers["eps"] == 16 / 255 and attacked.numbers["attacked"] != attacked.numbers["clean"]
    assert "one step of eps, away" in demo.show(path, photo, 2, 1, "3").said


def test_spikes_step_by_step(runs: Path, photo: str) -> None:
    shown = demo.show(str(runs / "spikes"), photo)
    assert len(shown.frames) == len(shown.numbers["answers"]) == 6
    whole = {"layer": np.ones((6, 2), np.uint8)}
    blank = [int((raster_picture(whole, step) != PAPER).any(2).sum()) for step in range(7)]
    assert blank == sorted(blank) and blank[0] < blank[1] < blank[6]
    rows = slice(5, 5 + 2 * 8)  # of the block, less its caption
    np.testing.assert_array_equal(raster_picture(whole, 6)[rows], raster_picture(whole)[rows])
    with pytest.raises(ConfigError, match="only networks that name classes of images are attacked"):
        demo.show(str(runs / "spikes"), photo, 1)


def test_examples_are_the_runs_own_and_mistakes_are_told(runs: Path, photo: str, tmp_path: Path) -> None:
    first, truth = demo.example(str(runs / "digits"), 0)
    task = demo.network_of(str(runs / "digits")).network.task
    sample = task.test_data()[0]
    np.testing.assert_allclose(
        first[..., 0] / 255, sample["image"][0] * task.data.std[0] + task.data.mean[0], atol=0.01
    )
    assert truth == task.data.classes[int(sample["label"])]
    assert demo.example(str(runs / "people"), 0)[0].shape[2] == 3
    with pytest.raises(ConfigError, match="choose a network first"):
        demo.show("", photo)
    with pytest.raises(DataError, match="there is no image yet"):
        demo.show(str(runs / "digits"), None)
    (tmp_path / "words.png").write_text("no image")
    with pytest.raises(DataError, match=r"words\.png: .*not an image"):
        demo.show(str(runs / "digits"), str(tmp_path / "words.png"))


def test_an_exported_file_has_no_gradients(tmp_path: Path, photo: str) -> None:
    pytest.importorskip("onnx", reason="no onnx")
    pytest.importorskip("onnxruntime", reason="no onnxruntime")
    from tests.deploy import stubs

    folder = str(stubs.KIND["classes"](tmp_path / "export"))
    network = demo.network_of(folder)
    assert not demo.gradients_of(network) and demo.classes_of(network) == stubs.CLASSES
    assert demo.show(folder, photo).numbers["label"] in stubs.CLASSES
    with pytest.raises(ConfigError, match="an exported file has no gradients"):
        demo.show(folder, photo, 4)
    with pytest.raises(DataError, match="an exported file brings no images"):
        demo.example(folder, 0)
    people = str(stubs.KIND["udp_heatmap"](tmp_path / "people"))
    assert demo.example(people, 1)[0].dtype == np.uint8


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    demo.gradio.cache_clear()
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match="the page needs the extra 'demo'"):
        demo.gradio()
    demo.gradio.cache_clear()


# -- served, and in a browser -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(runs: Path) -> Iterator[str]:
    """Of a page that is served as a user starts it."""
    pytest.importorskip("gradio", reason="no gradio")
    call = [sys.executable, "tools/demo.py", "--runs", str(runs), "--port", "7873"]
    served = subprocess.Popen(call, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, env={**_environment()})
    try:
        assert served.stdout is not None
        found = served.stdout.readline().strip()
        assert found == "http://127.0.0.1:7873"
        yield found
    finally:
        served.terminate()
        served.wait(30)


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[tuple[Any, str, list[str]]]:
    """A page in Chromium, its address, and every address that was asked for."""
    api = pytest.importorskip("playwright.sync_api", reason="no playwright")
    if CHROMIUM is None:
        pytest.skip("no chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        made = browser.new_page(viewport={"width": 1280, "height": 1000})
        made.set_default_timeout(60_000)
        asked: list[str] = []
        made.on("request", lambda request: asked.append(request.url))
        made.goto(address)
        made.wait_for_selector("#predict")
        yield made, address, asked
        browser.close()


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}


def choose(page: Any, name: str) -> None:
    page.locator("#network input").focus()
    page.keyboard.press("Control+a")
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#numbers').innerText.indexOf('{') < 0")


def numbers(page: Any, word: str) -> str:
    """The numbers on the page, once they have this word."""
    page.wait_for_function(f"document.querySelector('#numbers').innerText.includes({word!r})")
    return str(page.inner_text("#numbers"))


@pytest.mark.slow
def test_a_file_that_is_no_image_and_answers_that_are_gone_are_told(
    address: str, runs: Path, photo: str, tmp_path: Path
) -> None:
    """Of Gradio's own errors a client hears by an AppError; told mistakes leave the outputs empty."""
    client, digits, spikes = _client(address), str(runs / "digits"), str(runs / "spikes")
    words = tmp_path / "words.png"
    words.write_text("no image")
    from gradio_client import handle_file

    for file, answered in ((str(words), False), (photo, True), (str(words), False)):
        numbers = client.predict(digits, handle_file(file), 0, 20, "as predicted", api_name="/predicted")[2]
        assert (numbers is not None) is answered
    assert client.predict(spikes, 0, 20, api_name="/brought")[4] is not None
    assert client.predict(api_name="/played")[1] is not None  # play
    for _ in range(demo.VISITORS):  # others, whose answers push this one out
        _client(address).predict(spikes, 0, 20, api_name="/brought")
    for name, given in (("/played", ()), ("/moved", (1,)), ("/ticked", (1,))):
        assert client.predict(*given, api_name=name)[1] == {"__type__": "update"}


def _client(address: str) -> Any:
    library = pytest.importorskip("gradio_client", reason="no gradio_client")
    patient = {"timeout": 120}
    return library.Client(address, verbose=False, analytics_enabled=False, download_files=False, httpx_kwargs=patient)


@pytest.mark.slow
def test_a_user_tries_every_system(page: tuple[Any, str, list[str]], photo: str, tmp_path: Path) -> None:
    made, address, asked = page
    choose(made, "digits")
    made.click("#predict")
    made.wait_for_selector("text=there is no image yet: drop one, or take an example")
    made.set_input_files("#given input[type=file]", photo)
    assert "confidence" in numbers(made, "digit.png")
    slider = made.locator("#eps input[type=range]").bounding_box()
    made.mouse.click(slider["x"] + slider["width"] - 2, slider["y"] + slider["height"] / 2)
    made.wait_for_selector("text=PGD, linf, eps = 16/255, 20 steps of eps/4, away from class")
    assert "attacked" in numbers(made, "attacked")
    choose(made, "spikes")
    made.click("#example")
    numbers(made, "answers")
    made.wait_for_function("document.querySelector('#step input[type=number]').value == '6'")  # played to its end
    made.click("#play")
    made.wait_for_function("document.querySelector('#step input[type=number]').value == '2'")
    choose(made, "people")
    made.click("#example")
    numbers(made, "people")
    made.wait_for_selector("#drawn img")
    (tmp_path / "words.png").write_text("no image")
    made.click("#given button[aria-label='Clear'], #given button[aria-label='Remove Image']")
    made.set_input_files("#given input[type=file]", tmp_path / "words.png")
    made.wait_for_selector(".toast-body")
    made.set_viewport_size({"width": 390, "height": 844})
    assert made.evaluate("document.documentElement.scrollWidth") <= 390
    foreign = {url for url in asked if not url.startswith((address, "data:", "blob:"))}
    assert foreign == set(), "the page must do without a network"


@pytest.mark.slow
def test_the_page_forbids_other_addresses(page: tuple[Any, str, list[str]]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", 7873, timeout=30)
    connection.request("GET", "/")
    answer = connection.getresponse()
    assert answer.getheader("content-security-policy") == demo.OFFLINE
    failed = page[0].evaluate("fetch('http://127.0.0.2:9/').then(() => 'went', error => String(error))")
    assert "Failed to fetch" in failed
