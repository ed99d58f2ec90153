"""Exported files from strangers: descriptions, ONNX graphs, packages of compiled code and engines with payloads."""

import functools
import json
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import vision.pose
from benchmarks.reliability.outcomes import Expected
from benchmarks.reliability.payloads import CANARY, CODE, LIVE, Stranger, pickles
from tools import benchmark, demo, predict
from vision.deploy.description import KEY, SIDECAR
from vision.deploy.runner import Predictor
from vision.deploy.torch_package import compiler
from vision.engine.errors import ConfigError
from vision.pose.keypoints import Skeleton

Tree = dict[str, Any]
Edit = Callable[[onnx.ModelProto, Tree], None]

GIVEN, PHOTO, SECRET = "runs/given", "photo.png", "secret.bin"
"""Where the stranger's export lies, what is predicted on, and a file outside that it has no business with."""

_ARROW = Skeleton("arrow", ("tip", "tail"), (), (("tip", "tail"),), (0.05, 0.05))


def tree_of_model() -> Tree:
    """The description of a small pose network, as an export has it."""
    ports = {
        "inputs": {"image": {"shape": ["N", 3, 48, 32], "dtype": "float32"}},
        "outputs": {"maps": {"shape": ["N", 2, 12, 8], "dtype": "float32"}},
    }
    size = [32, 48]
    return {
        "format": 1, "triptych": "0", "task": "top_down_pose", "graphs": {"model": {"file": "model.onnx", **ports}},
        "before": {"type": "crop", "input_size": size, "padding": 1.25, "mean": [0.5] * 3, "std": [0.5] * 3},
        "after": {"type": "heatmap", "input_size": size, "flip_test": False,
                  "skeleton": json.loads(json.dumps(asdict(_ARROW)))},
    }  # fmt: skip


def model() -> onnx.ModelProto:
    """Its graph, one convolution."""
    weights = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    node = helper.make_node("Conv", ["image", "weights"], ["maps"], strides=[4, 4])
    ports = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 48, 32])]
    ends = [helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["N", 2, 12, 8])]
    graph = helper.make_graph([node], "graph", ports, ends, [numpy_helper.from_array(weights, "weights")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def planted(edit: Edit, folder: Path) -> Path:
    """Writes an export that ``edit`` has changed, a photograph and a secret; the folder of the export."""
    place = folder / GIVEN
    place.mkdir(parents=True)
    made, tree = model(), tree_of_model()
    edit(made, tree)
    helper.set_model_props(made, {KEY: json.dumps(tree)})
    (place / "model.onnx").write_bytes(made.SerializeToString())
    (place / SIDECAR).write_text(json.dumps(tree))
    Image.fromarray(np.full((48, 32, 3), 99, np.uint8)).save(folder / PHOTO)
    (folder / SECRET).write_bytes(bytes(1 << 12))
    return place


# -- what a user does with one ---------------------------------------------------------------------------------------


def _run(path: str) -> None:
    Predictor(path)(PHOTO)


def _load(path: str) -> None:
    vision.pose.load(path)(PHOTO)


def _tool(path: str) -> None:
    predict.main([path, PHOTO, "-o", "out", "--device", "cpu"])


def _page(path: str) -> None:
    """Lists what lies below ``runs``, chooses each, and predicts; a file that is not listed is not opened."""
    listed = [path for path in demo.offered([], Path("runs")).values() if Path(path).is_relative_to("runs")]
    if not listed:
        raise ConfigError("runs: no trained run and no exported file that the page offers")
    for path in listed:
        demo.network_of(path)
        demo.show(path, PHOTO)


def _speed(path: str) -> None:
    benchmark.main(["speed", path, "--seconds", "0.01", "--no-memory"])


USES = {"Predictor": _run, "vision.pose.load": _load, "tools/predict.py": _tool, "the demo page": _page}


def _opens(use: Callable[[str], None]) -> Callable[[list[str] | None], int]:
    def main(arguments: list[str] | None) -> int:
        (path,) = arguments or []
        use(path)
        return 0

    return main


def opened(
    case: str, plant: Callable[[Path], object], names: tuple[str, ...], expected: Expected = "refused",
    path: str = GIVEN, uses: dict[str, Callable[[str], None]] = USES,
) -> Iterator[Stranger]:  # fmt: skip
    """The same file, used in each way."""
    for name, use in uses.items():
        if use is _page and path != GIVEN:
            continue  # it lists folders
        named = (*names, path, *["runs: no trained run and no exported file"] * (use is _page))
        yield Stranger("exported file", f"{case}: {name}", plant, _opens(use), (path,), named, expected)


# -- descriptions ----------------------------------------------------------------------------------------------------


def _set(*place: str, value: Any) -> Edit:
    def edit(made: onnx.ModelProto, tree: Tree) -> None:
        for key in place[:-1]:
            tree = tree[key]
        tree[place[-1]] = value

    return edit


DESCRIPTIONS: dict[str, Edit] = {
    **{f"a task of {name}": _set("after", "type", value=name) for name in ("os.mkdir", "builtins.exec", "snn.task")},
    **{f"an input of {name}": _set("before", "type", value=name) for name in ("os.mkdir", CODE)},
    **{f"a graph in {file}": _set("graphs", "model", "file", value=file)
       for file in ("../../secret.bin", "/etc/passwd", "..", f"$(mkdir {CANARY})")},
    "a dtype in Python": _set("graphs", "model", "inputs", "image", "dtype", value=CODE),
    "a dtype of objects": _set("graphs", "model", "inputs", "image", "dtype", value="object"),
    "a dtype that torch has": _set("graphs", "model", "inputs", "image", "dtype", value="load"),
    "a size in Python": _set("before", "input_size", value=[CODE, CODE]),
    "a size of a billion": _set("before", "input_size", value=[10**9, 10**9]),
    "a skeleton in Python": _set("after", "skeleton", value={"name": CODE}),
    "a skeleton that is a text": _set("after", "skeleton", value=CODE),
}  # fmt: skip


def _without_metadata(content: bytes) -> Callable[[Path], object]:
    """A sidecar of these bytes."""

    def plant(folder: Path) -> None:
        (planted(_as_it_is, folder) / SIDECAR).write_bytes(content)

    return plant


def _as_it_is(made: onnx.ModelProto, tree: Tree) -> None:
    """A good export."""


# -- graphs ----------------------------------------------------------------------------------------------------------


def _operator(domain: str, operator: str, **attributes: Any) -> Edit:
    def edit(made: onnx.ModelProto, tree: Tree) -> None:
        del made.graph.node[:]
        made.graph.node.append(helper.make_node(operator, ["image"], ["maps"], domain=domain, **attributes))
        made.opset_import.append(helper.make_opsetid(domain, 1))

    return edit


def _outside(location: str) -> Edit:
    """Weights that lie in another file."""

    def edit(made: onnx.ModelProto, tree: Tree) -> None:
        (weights,) = made.graph.initializer
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", str(4 * 2 * 3 * 4 * 4))):
            entry = weights.external_data.add()
            entry.key, entry.value = key, value

    return edit


def _huge(made: onnx.ModelProto, tree: Tree) -> None:
    """A constant of four terabytes made by a node of a few bytes."""
    made.graph.initializer.append(numpy_helper.from_array(np.array([10**12]), "many"))
    del made.graph.node[:]
    made.graph.node.append(helper.make_node("ConstantOfShape", ["many"], ["maps"]))


GRAPHS: dict[str, Edit] = {
    "an operator of a domain of its own": _operator("stranger", "Exec", code=CODE),
    "an operator that calls Python": _operator("ai.onnx.contrib", "PyOp", code=CODE),
    "Microsoft's operator that calls Python": _operator("com.microsoft", "PythonOp", func_name=CODE),
    "weights in ../../secret.bin": _outside(f"../../{SECRET}"),
    "weights in a subfolder's parent": _outside(f"x/../../../{SECRET}"),
    "weights in /etc/passwd": _outside("/etc/passwd"),
    "weights in /proc/self/mem": _outside("/proc/self/mem"),
    "weights at an address of memory": _outside("*/_ORT_MEM_ADDR_/*"),
    "a constant of four terabytes": _huge,
}


def _by_a_link(folder: Path) -> None:
    """Weights in a file beside the graph that is a link to one outside."""
    place = planted(_outside("weights.bin"), folder)
    (place / "weights.bin").symlink_to(folder / SECRET)


# -- packages and engines --------------------------------------------------------------------------------------------

_SOURCE = f"""
#include <sys/stat.h>
__attribute__((constructor)) static void run(void) {{ mkdir("{CANARY}", 0777); }}
"""


@functools.cache
def package() -> bytes:
    """A package of PyTorch whose library makes the canary as soon as it is loaded."""
    with tempfile.TemporaryDirectory() as name:
        source, library, file = (Path(name) / each for each in ("e.cpp", "e.so", "model.pt2"))
        source.write_text(_SOURCE)
        subprocess.run([compiler(), "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
        inside = "model/data/aotinductor/model/e.wrapper"
        with zipfile.ZipFile(file, "w") as archive:
            for entry, content in {
                "model/archive_format": b"pt2", "model/archive_version": b"0", "model/byteorder": b"little",
                f"{inside}.so": library.read_bytes(), f"{inside}.cpp": b"",
                f"{inside}_metadata.json": b'{"AOTI_DEVICE_KEY": "cpu"}',
            }.items():  # fmt: skip
                archive.writestr(entry, content)
        return file.read_bytes()


def _in_place_of_the_graph(name: str, content: Callable[[], bytes]) -> Callable[[Path], object]:
    """An export whose graph is another file."""

    def plant(folder: Path) -> None:
        place = planted(_set("graphs", "model", "file", value=name), folder)
        (place / "model.onnx").unlink()
        (place / name).write_bytes(content())

    return plant


def _a_run(folder: Path) -> None:
    """A run's folder whose weights are a pickle and whose recipe has a tag."""
    shutil.rmtree(planted(_as_it_is, folder))
    (folder / GIVEN / "checkpoints").mkdir(parents=True)
    for name in ("best", "last"):
        (folder / GIVEN / "checkpoints" / f"{name}.safetensors").write_bytes(pickles()["a torch archive"])
    (folder / GIVEN / "config.yaml").write_text(
        "name: given\ntask: {type: top_down_pose, network: {type: mamkpd_t, input_size: [32, 32]}}\n"
        "data: {type: sample_people, input_size: [32, 32]}\noptimizer: {type: adam, lr: 1e-3}\n"
        f"trainer: {{steps: 1}}\ndescription: !!python/object/apply:os.mkdir [{CANARY}]\n"
    )


def a_package_on_purpose() -> Iterator[Stranger]:
    """That the payload of a package is live: opened as PyTorch does, it runs."""

    def load(path: str) -> None:
        import torch

        try:
            torch._C._aoti.AOTIModelPackageLoader(path, "model", False, 1, -1)  # type: ignore[attr-defined]
        except RuntimeError:
            return  # it is no network, and its library has been loaded

    plant = _in_place_of_the_graph("model.pt2", package)
    yield Stranger(LIVE, "a .pt2 package", plant, _opens(load), (f"{GIVEN}/model.pt2",), (), "either")


def exports() -> Iterator[Stranger]:
    """Everything above, in each way that a user opens an exported file."""
    yield from opened("a good export", functools.partial(planted, _as_it_is), (), "accepted")
    for form, content in pickles().items():
        yield from opened(f"{form} as model.json", _without_metadata(content), (SIDECAR,))
        plant = _in_place_of_the_graph("model.onnx", lambda content=content: content)  # type: ignore[misc]
        yield from opened(f"{form} as model.onnx", plant, ("model.onnx",))
    for case, edit in {**DESCRIPTIONS, **GRAPHS}.items():
        plant = functools.partial(planted, edit)
        yield from opened(case, plant, (SIDECAR, "model.onnx", "graph 'model'"))
        if case in DESCRIPTIONS:  # a single graph may have another name
            wanted: Expected = "either" if case.startswith("a graph in") else "refused"
            yield from opened(f"{case}, in the file", plant, ("model.onnx",), wanted, f"{GIVEN}/model.onnx")
    yield from opened("weights by a link", _by_a_link, ("model.onnx",))
    for name, content in (("model.pt2", package), ("model.engine", pickles()["a bare pickle"].__bytes__)):
        for path in (GIVEN, f"{GIVEN}/{name}"):
            how = "its folder" if path == GIVEN else "the file"
            yield from opened(f"{name}, {how}", _in_place_of_the_graph(name, content), (name,), path=path)
        plant = _in_place_of_the_graph(name, content)
        yield from opened(
            name,
            plant,
            (name, "tensorrt runs on NVIDIA GPUs only"),
            path=f"{GIVEN}/{name}",
            uses={"tools/benchmark.py speed": _speed},
        )
    yield from opened("a run of pickles", _a_run, ("config.yaml",))
