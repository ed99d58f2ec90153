"""Try trained networks on a page in the browser: python tools/demo.py [NETWORK...]."""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial, wraps
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from robust.loading import Attackable
from snn.raster import raster_picture
from snn.scores import SpikeScores
from vision.classification.scores import Scores
from vision.deploy.opening import opened
from vision.deploy.predicting import Predicting
from vision.deploy.shipped import MODELS, networks_below, place_of, shipped_models
from vision.engine.command import run_command
from vision.engine.errors import ConfigError, DataError, UserError
from vision.engine.memory import give_back
from vision.engine.prediction import Picture, Prediction
from vision.report.figures import enlarge

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before Gradio is imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")

MOST, STEPS = 16, 20
"""Largest eps of the slider in 1/255, and gradient steps at first."""
AS_PREDICTED = "as predicted"
TICK = 0.5
"""Seconds that a time step of a raster is shown for."""
VISITORS = 16
"""Whose last answer is kept in memory, about 1 MiB each; Gradio would keep 10,000."""
OFFLINE = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' data: blob:; "
    "frame-ancestors 'self'; form-action 'self'"
)
"""The page's content security policy: a browser asks no other machine for anything."""
CSS = """
footer {display: none !important}
.gradio-container {max-width: 1200px !important; width: 100% !important; margin: 0 auto !important}
#drawn img, #raster img {object-fit: contain}
#raster {border: 0 !important}
#given img {image-rendering: pixelated; object-fit: contain}
"""


@cache
def gradio() -> Any:
    """The library of the page.

    Raises:
        UserError: it is not installed.
    """
    try:
        import gradio as library
    except ImportError as error:
        raise UserError(
            f"gradio cannot be imported ({error}); the page needs the extra 'demo': "
            'python -m pip install "triptych[demo]"'
        ) from error
    return library


@dataclass
class Shown:
    """What the page shows of a prediction.

    Attributes:
        drawn: the picture.
        numbers: plain JSON.
        said: a line of text.
        frames: the raster up to each time step; empty where there are no spikes to show.
    """

    drawn: Picture
    numbers: dict[str, Any]
    said: str
    frames: list[Picture] = field(default_factory=list)


@lru_cache(maxsize=3)
def network_of(path: str) -> Predicting[Any]:
    """The network of a run or an exported file, in memory from the second time on; a classifier can be attacked."""
    give_back()  # what networks that were pushed out have left
    network = opened(path)
    return Attackable(network, path) if network.after.get("type") == "classes" else network


def gradients_of(network: Predicting[Any]) -> bool:
    """Whether a network can be attacked: it names classes, and is no exported file."""
    return isinstance(network, Attackable) and hasattr(network.network, "task")


def classes_of(network: Predicting[Any]) -> list[str]:
    """The classes that a classifier knows; none of other networks."""
    return [str(name) for name in network.after.get("classes", [])] if isinstance(network, Attackable) else []


def show(path: str, file: str | None, eps: float = 0.0, steps: int = STEPS, label: str = AS_PREDICTED) -> Shown:
    """What a network says of a user's image, drawn.

    Args:
        path: of the network.
        file: the image.
        eps: radius of an attack in 1/255; 0 for none.
        steps: gradient steps of it.
        label: the true class, which the attack leads away from.

    Raises:
        UserError: no image, one that cannot be read, or an attack on a network without gradients.
    """
    if not path:
        raise ConfigError("choose a network first")
    if not file:
        raise DataError("there is no image yet: drop one, or take an example")
    network, name = network_of(path), Path(file).name
    if eps > 0:
        return _attacked(network, file, name, eps, int(steps), None if label == AS_PREDICTED else label)
    said = network.predict(_image(network, file, name), name=name)
    frames: list[Picture] = []
    if isinstance(said, SpikeScores) and said.rasters:
        count = len(next(iter(said.rasters.values())))
        frames = [raster_picture(said.rasters, step) for step in range(1, count + 1)]
    return Shown(_drawn(said, network.picture(file)), said.to_dict(), "", frames)


def _drawn(said: Prediction, picture: Picture) -> Picture:
    """The prediction on the picture; spikes are shown elsewhere."""
    return Scores.draw(said, enlarge(picture, 320)) if isinstance(said, Scores) else said.draw(picture)


def _image(network: Predicting[Any], file: str, name: str) -> str:
    if network.after.get("type") == "spikes" and getattr(getattr(network, "task", None), "_images", True) is None:
        raise DataError(f"{name}: this network takes recordings of an event camera; predict with tools/predict.py")
    return file


def _attacked(network: Predicting[Any], file: str, name: str, eps: float, steps: int, label: str | None) -> Shown:
    if not isinstance(network, Attackable):
        raise ConfigError("only networks that name classes of images are attacked here")
    found = network.attacked(file, label, eps / 255, steps, name)
    pace = "one step of eps" if steps == 1 else f"{steps} steps of eps/4"
    change = "stays" if found.clean.label == found.scores.label else f"turns into {found.scores.label}"
    said = f"PGD, linf, eps = {eps:g}/255, {pace}, away from class {found.truth}: {found.clean.label} {change}."
    return Shown(found.draw(), found.to_dict(), said)


def example(path: str, number: int) -> tuple[Picture, str | None]:
    """An image to try, and its class where that is known: of a run's own test data, of an exported file a photograph.

    Raises:
        UserError: there is none.
    """
    network = network_of(path)
    task = getattr(network.network if isinstance(network, Attackable) else network, "task", None)
    if task is None:
        if "skeleton" not in network.after:
            raise DataError("an exported file brings no images; drop one")
        files = sorted((MODELS.parent / "samples/people/images").glob("*.jpg"))
        return network.picture(files[number % len(files)]), None
    try:
        data = task.test_data() or task.val_data()
    except UserError as error:
        raise DataError(f"the run's own images cannot be read ({error}); drop one") from error
    batch = task.collate([data[number * 7 % len(data)]])  # neighbours are often alike
    truths = task.truths(batch) if classes_of(network) else []
    return np.asarray(task.pictures(batch)[0]), truths[0] if truths else None


@dataclass
class Parts:
    """The components of the page: on the left what is given, on the right what a network says of it."""

    network: Any
    given: Any
    predict: Any
    another: Any
    attack: Any
    eps: Any
    steps: Any
    label: Any
    without: Any
    drawn: Any
    said: Any
    spikes: Any
    raster: Any
    step: Any
    play: Any
    numbers: Any
    number: Any
    frames: Any
    timer: Any


def page(networks: dict[str, str]) -> Any:
    """The page.

    Args:
        networks: paths by what the page calls them.
    """
    gr = gradio()
    with gr.Blocks(title="Triptych", analytics_enabled=False, delete_cache=(3600, 3600)) as made:
        gr.Markdown("# Triptych\nChoose a trained network, drop an image, and see what the network says.")
        state = {"number": gr.State(0), "frames": gr.State([]), "timer": gr.Timer(TICK, active=False)}
        with gr.Row():
            with gr.Column():
                left = _left(networks)
            with gr.Column():
                right = _right()
        _wire(Parts(**left, **right, **state), made.load, Path(made.GRADIO_CACHE))
    return made


def _left(networks: dict[str, str]) -> dict[str, Any]:
    gr, found = gradio(), {}
    first = next(iter(networks.values()), None)
    found["network"] = gr.Dropdown(list(networks.items()), value=first, label="Network", elem_id="network")
    found["given"] = gr.Image(
        type="filepath", image_mode=None, sources=["upload", "clipboard"], label="Image", height=300, buttons=[],
        elem_id="given",
    )  # fmt: skip
    type(found["given"]).preprocess = _dropped  # of the class: an update makes the component anew
    with gr.Row():
        found["predict"] = gr.Button("Predict", variant="primary", elem_id="predict")
        found["another"] = gr.Button("Example", elem_id="example")
    with gr.Group(visible=False) as found["attack"]:
        found["eps"] = gr.Slider(0, MOST, value=0, step=0.5, label="Attack: eps in 1/255 (0: none)", elem_id="eps")
        found["steps"] = gr.Slider(1, 50, value=STEPS, step=1, label="Gradient steps", elem_id="steps")
        found["label"] = gr.Dropdown([AS_PREDICTED], value=AS_PREDICTED, label="True class", elem_id="label")
    found["without"] = gr.Markdown("An exported file has no gradients: choose its run to attack it.", visible=False)
    return found


def _right() -> dict[str, Any]:
    gr, found = gradio(), {}
    plain = {"show_label": False, "interactive": False, "buttons": [], "format": "png"}
    found["drawn"] = gr.Image(label="What it says", elem_id="drawn", **plain)
    found["said"] = gr.Markdown(elem_id="said")
    with gr.Group(visible=False) as found["spikes"]:
        found["raster"] = gr.Image(label="Spikes", height=360, elem_id="raster", **plain)
        found["step"] = gr.Slider(1, 2, value=1, step=1, label="Time step", elem_id="step")
        found["play"] = gr.Button("Play", elem_id="play")
    found["numbers"] = gr.JSON(label="Numbers", open=True, elem_id="numbers")
    return found


def _wire(parts: Parts, load: Any, cache_folder: Path) -> None:
    """Says which answer follows what a visitor does; networks answer one visitor after the other."""
    gr, p = gradio(), parts
    alone = {"concurrency_id": "network", "concurrency_limit": 1}
    inputs = [p.network, p.given, p.eps, p.steps, p.label]
    outputs = [p.drawn, p.said, p.numbers, p.frames, p.spikes, p.raster, p.step, p.timer]
    of_choice = [p.attack, p.eps, p.label, p.without, p.spikes, p.drawn, p.said, p.numbers, p.frames, p.number]
    for event in (load, p.network.change):
        event(
            told(chosen, lambda: [gr.skip()] * len(of_choice)), [p.network], of_choice, show_progress="hidden", **alone
        )
    p.predict.click(told(predicted, nothing), inputs, outputs, **alone)
    p.given.upload(told(predicted, nothing), inputs, outputs, **alone)
    for change in (p.eps.release, p.steps.release, p.label.input):
        change(told(predicted, nothing), inputs, outputs, trigger_mode="always_last", **alone)
    p.another.click(
        told(partial(brought, cache_folder), lambda: [gr.skip()] * 3 + nothing()),
        [p.network, p.number, p.eps, p.steps], [p.given, p.number, p.label, *outputs], api_name="brought", **alone,
    )  # fmt: skip
    shown = [p.step, p.raster, p.timer]
    p.step.input(told(moved, stopped), [p.step, p.frames], shown, show_progress="hidden")
    p.play.click(told(played, stopped), [p.frames], shown, show_progress="hidden")
    p.timer.tick(told(ticked, stopped), [p.step, p.frames], shown, show_progress="hidden")


def chosen(path: str) -> list[Any]:
    """What a choice of a network changes: whether it can be attacked, its classes, and no answer yet."""
    gr, network = gradio(), network_of(path)
    classes, attackable = classes_of(network), gradients_of(network)
    return [
        gr.Group(visible=attackable), gr.Slider(value=0), gr.Dropdown([AS_PREDICTED, *classes], value=AS_PREDICTED),
        gr.Markdown(visible=bool(classes) and not attackable), gr.Group(visible=False), None, "", None, [], 0,
    ]  # fmt: skip


def predicted(path: str, file: str | None, eps: float, steps: int, label: str) -> list[Any]:
    """What :func:`show` finds, for the right side of the page; spikes begin to play."""
    gr, found = gradio(), show(path, file, eps, steps, label)
    last = len(found.frames)
    return [
        found.drawn, found.said, found.numbers, found.frames, gr.Group(visible=last > 0),
        found.frames[0] if last else None, gr.Slider(maximum=max(last, 2), value=1), gr.Timer(active=last > 1),
    ]  # fmt: skip


def brought(cache_folder: Path, path: str, number: int, eps: float, steps: int) -> list[Any]:
    """An example for the left side, the number of the next, its class, and what the network says of it."""
    picture, truth = example(path, number)
    file, name = _as_file(picture, cache_folder, number), truth or AS_PREDICTED
    return [file, number + 1, name, *predicted(path, file, eps, steps, name)]


def nothing() -> list[Any]:
    """The right side of the page without an answer."""
    gr = gradio()
    return [None, "", None, [], gr.Group(visible=False), None, gr.Slider(), gr.Timer(active=False)]


def played(pictures: list[Picture]) -> list[Any]:
    """The first time step, from which the timer goes on."""
    return [1, frame(pictures, 1), gradio().Timer(active=True)]


def ticked(now: int, pictures: list[Picture]) -> list[Any]:
    """The next time step; after the last the timer rests."""
    following = min(int(now) + 1, len(pictures))
    return [following, frame(pictures, following), gradio().Timer(active=following < len(pictures))]


def moved(now: int, pictures: list[Picture]) -> list[Any]:
    """The time step that the slider was moved to, which stays."""
    gr = gradio()
    return [gr.skip(), frame(pictures, int(now)), gr.Timer(active=False)]


def stopped() -> list[Any]:
    """The time step as it is, which stays."""
    gr = gradio()
    return [gr.skip(), gr.skip(), gr.Timer(active=False)]


def frame(pictures: list[Picture], step: int) -> Picture:
    """The raster up to a time step.

    Raises:
        DataError: the page no longer keeps this visitor's answer.
    """
    if not pictures:
        raise DataError("these spikes are no longer kept, as others have come since; predict again")
    return pictures[step - 1]


def _dropped(component: Any, payload: Any) -> str | None:
    """The file as it was dropped: Gradio would open it here, and tell what is no image by a traceback."""
    return payload.path if payload is not None else None


def _as_file(picture: Picture, folder: Path, number: int) -> str:
    """The picture as a file that the page may show; its pixels as they are."""
    from PIL import Image

    own = f"{crc32(picture.tobytes()):08x}"  # a browser keeps what it has had under a name
    path = folder / "examples" / own / f"example_{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return str(path)


def told(answer: Callable[..., list[Any]], otherwise: Callable[[], list[Any]]) -> Callable[..., list[Any]]:
    """An answer of the page that tells a user's mistake as a short message on it.

    Args:
        answer: gives the outputs.
        otherwise: gives them after a mistake.
    """

    @wraps(answer)
    def careful(*arguments: Any) -> list[Any]:
        try:
            return answer(*arguments)
        except UserError as error:
            gradio().Warning(str(error), duration=10)
            return otherwise()

    return careful


class Offline:
    """Forbids the browser to ask other machines; around the page's application, as ASGI has it."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", OFFLINE.encode())]
            await send(message)

        await self.app(scope, receive, sent)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description="Try trained networks on a page in the browser: poses, targets, classes under attack, spikes.",
        epilog="example: python tools/demo.py runs/digits_cnn runs/digits_cnn/export/onnx-fp32",
    )
    p.add_argument("networks", nargs="*", metavar="NETWORK", help="run folders and exported files or folders to offer")
    p.add_argument("--runs", default="runs", help="without NETWORK, offer what lies below this folder (default: runs)")
    p.add_argument("--port", type=int, default=7860, help="of the page (default: 7860)")
    p.add_argument("--host", default="127.0.0.1", help="the page's address; 0.0.0.0 opens it to the network")
    return p


def offered(given: list[str], folder: Path) -> dict[str, str]:
    """Paths of networks by what the page calls them.

    Raises:
        ConfigError: there is none, or one that is given is not there.
    """
    if given:
        return {name: str(place_of(name)) for name in given}
    found = {path.relative_to(folder).as_posix(): str(path) for path in networks_below(folder)}
    found |= {f"{name} (ships with the package)": str(path) for name, path in shipped_models().items()}
    if not found:
        raise ConfigError(f"{folder}: no trained run and no exported file below it; train one, or name one")
    return found


def main(argv: list[str] | None = None) -> int:
    """Runs the command until it is interrupted; returns its exit status."""
    arguments = parser().parse_args(argv)
    networks = offered(arguments.networks, Path(arguments.runs))
    gr = gradio()
    from starlette.middleware import Middleware  # comes with Gradio

    letters = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    try:
        page(networks).launch(
            server_name=arguments.host, server_port=arguments.port, share=False, ssr_mode=False, run_history=False,
            state_session_capacity=VISITORS, footer_links=[], quiet=True, prevent_thread_lock=True,
            app_kwargs={"middleware": [Middleware(Offline)]},
            theme=gr.themes.Default(font=letters, font_mono=["ui-monospace", "Consolas", "monospace"]), css=CSS,
        )  # fmt: skip
    except OSError as error:
        raise ConfigError(f"--port {arguments.port}: cannot be opened ({error}); take another") from error
    except ValueError as error:  # Gradio has asked its own page, and had no answer
        raise ConfigError(
            f"--host {arguments.host}: this machine cannot reach its own page ({error}); leave localhost out of the "
            "proxy's addresses (NO_PROXY=localhost,127.0.0.1), or try again where the machine was busy"
        ) from error
    print(f"http://{arguments.host}:{arguments.port}", flush=True)
    _wait()
    return 0


def _wait() -> None:
    from threading import Event

    Event().wait()


if __name__ == "__main__":
    run_command(main)
