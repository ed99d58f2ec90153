"""The Python that tests of commands fork from: it has imported all that any tool imports."""

import gc
import json
import os
import runpy
import sys
from pathlib import Path

from tests.engine.forks import serve

CHECKOUT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None) -> int:
    """Becomes ``python tools/<tool>.py ...``; the first argument says in JSON which, where, and with what."""
    assert arguments is not None
    order = json.loads(arguments[0])
    os.chdir(order["cwd"])
    os.environ.update(order["env"])
    os.dup2(os.open(order["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    script = str(CHECKOUT / "tools" / f"{order['tool']}.py")
    sys.argv = [script, *order["arguments"]]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as ended:
        sys.stdout.flush()
        os._exit(int(ended.code or 0))  # Python's own end takes seconds after a fork: it touches every module's memory
    return 1


if __name__ == "__main__":
    import sklearn.datasets
    import sklearn.model_selection  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401
    import torchvision.transforms.v2  # noqa: F401

    import vision.engine.pipeline
    import vision.engine.train
    import vision.report.card
    import vision.report.html  # noqa: F401
    from vision.engine.registry import load_all

    load_all()
    gc.freeze()  # what is here already is not looked through again in each process
    serve()
