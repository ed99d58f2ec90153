"""Visitors of the demo page: small trained networks, the page that offers them, and what a visitor does there."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.reliability.recipes import write_recipe
from tools import export, train

CHECKOUT = Path(__file__).resolve().parents[2]

OFFERED = ("regularised_classification", "spiking_classification", "infrared_targets", "target_counting",
           "top_down_pose", "single_stage_pose")  # fmt: skip
"""Recipes whose runs are on the page, one for each kind of answer; more than the page keeps in memory."""

EXPORTED = "regularised_classification"
"""The run whose ONNX export is on the page too."""


def trained(folder: Path) -> None:
    """Trains what the page offers, below ``folder/runs``."""
    here = Path.cwd()
    os.chdir(folder)
    try:
        for name in OFFERED:
            train.main([str(write_recipe(name, folder)), "trainer.workers=0"])
        export.main([f"runs/{EXPORTED}", "--limit", "8"])
    finally:
        os.chdir(here)


@contextmanager
def served(folder: Path) -> Iterator[tuple[int, str]]:
    """The page of ``folder/runs`` as a user starts it: its process and its address."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "GRADIO_TEMP_DIR": str(folder / "cache")}
    command = [sys.executable, str(CHECKOUT / "tools" / "demo.py"), "--runs", "runs", "--port", str(_free_port())]
    with (folder / "page.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            raise RuntimeError((folder / "page.log").read_text())
        yield process.pid, address
    finally:
        process.terminate()
        process.wait(30)


def _free_port() -> int:
    import socket

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def visits(address: str, folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """One visitor after the other, without end, each in a session of its own and with a network of its own.

    A visitor opens the page, chooses a network, takes two examples, drops an image, moves the slider of the attack,
    lets spikes play, drops a file that is no image, and leaves.
    """
    names = [f"runs/{name}" for name in OFFERED] + [f"runs/{EXPORTED}/export/onnx-fp32"]
    for number, network in enumerate(cycle(names)):
        yield network, lambda network=network, number=number: _visit(address, network, number, folder)  # type: ignore[misc]


def _visit(address: str, network: str, number: int, folder: Path) -> None:
    from gradio_client import Client, handle_file

    photo, words = folder / "photo.png", folder / "words.png"
    pixels = np.random.default_rng(number).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(pixels).convert("RGB").save(photo)
    words.write_text("no image")
    patient = {"timeout": 120}
    client = Client(address, verbose=False, analytics_enabled=False, download_files=False, httpx_kwargs=patient)
    try:
        client.predict(network, api_name="/chosen")
        taken = [_numbers(client.predict(network, 0, 20, api_name="/brought")) for _ in range(2)]
        if any(numbers is None for numbers in taken) and "onnx" not in network:
            raise ValueError(f"{network}: no example")
        if _numbers(client.predict(network, handle_file(str(photo)), 0, 20, api_name="/predicted")) is None:
            raise ValueError(f"{network}: no answer")
        client.predict(network, handle_file(str(photo)), 4, 5, api_name="/predicted_2")
        if "spiking" in network:
            client.predict(api_name="/played")
            client.predict(1, api_name="/ticked")
        if _numbers(client.predict(network, handle_file(str(words)), 0, 20, api_name="/predicted_1")) is not None:
            raise ValueError(f"{network}: an answer to a file that is no image")
    finally:
        client.close()
        time.sleep(0.1)


def _numbers(answer: tuple[Any, ...]) -> Any:
    """The numbers on the page: behind them come the raster, its slider and the timer."""
    return answer[-4]
