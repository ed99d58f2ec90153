"""What exporting needs beyond PyTorch, and how to install it."""

from importlib import import_module
from typing import Any

from vision.engine.errors import UserError

EXPORT = ("onnx", "onnxscript", "onnxruntime")


def needed(*names: str) -> list[Any]:
    """The modules of those names.

    Raises:
        UserError: one is not installed.
    """
    found = []
    for name in names:
        try:
            found.append(import_module(name))
        except ImportError as error:
            raise UserError(
                f"{name} cannot be imported ({error}); exporting needs the extra 'export': "
                'python -m pip install "triptych[export]"'
            ) from error
    return found
