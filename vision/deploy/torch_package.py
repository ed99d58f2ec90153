"""A graph of a network as a package of PyTorch: compiled ahead of time, run without its Python code."""

import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vision.deploy.onnx import shapes_of
from vision.deploy.session import Feeds
from vision.engine.deployment import Deployment, DeploymentError, Graph

NAMESPACE = "triptych"


def compiler() -> str:
    """The C++ compiler that packages are compiled with: ``CXX``, else g++ or clang++.

    Raises:
        DeploymentError: there is none.
    """
    found = shutil.which(os.environ.get("CXX", "")) or shutil.which("g++") or shutil.which("clang++")
    if found is None:
        raise DeploymentError(
            "--format torch compiles the network ahead of time and needs a C++ compiler: install g++ or clang++, or "
            "name one in CXX; or export to ONNX, which needs none"
        )
    return found


def package(graph: Graph, path: Path) -> bool:
    """Writes ``path``, a ``.pt2`` package of the graph.

    Args:
        graph: of a deployed network.
        path: ends in ``.pt2``.

    Returns:
        Whether it calls the kernels of this package, so that their library has to be loaded where it runs.

    Raises:
        DeploymentError: no compiler, or PyTorch cannot export or compile the graph.
    """
    compiler()
    anything = {
        name: dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for name, axes in graph.dynamic.items()
    }  # checked by export: an axis that became fixed is an error
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(graph.module, graph.example, dynamic_shapes=shapes_of(graph, anything))
            torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    except Exception as error:  # inductor raises whatever its passes raise
        told = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise DeploymentError(f"graph '{graph.name}' cannot be compiled for PyTorch: {told[:300]}") from error
    return any(str(node.target).startswith(NAMESPACE) for node in program.graph.nodes)


class PackageSession:
    """Packages of PyTorch behind the protocol :class:`vision.deploy.session.Session`.

    Args:
        files: of each graph.
        deployment: the graphs, for the names of their inputs and outputs.
    """

    def __init__(self, files: Mapping[str, Path], deployment: Deployment) -> None:
        self._loaded = {name: torch._inductor.aoti_load_package(str(path)) for name, path in files.items()}
        self._graphs = deployment

    def run(self, graph: str, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """The outputs of a graph by name."""
        # compiled for rows after rows: of any other layout it reads the wrong numbers, without a word
        given = (torch.from_numpy(np.array(feeds[name], order="C")) for name in self._graphs[graph].inputs)
        with torch.no_grad():
            found = self._loaded[graph](*given)
        found = found if isinstance(found, tuple | list) else (found,)
        return {name: value.numpy() for name, value in zip(self._graphs[graph].outputs, found, strict=True)}
