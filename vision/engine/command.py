"""How every command of the package behaves: its log, its errors, its exit status."""

import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from functools import cache
from typing import NoReturn

from rich.console import Console
from rich.logging import RichHandler

from vision.engine.errors import UserError

log = logging.getLogger(__name__)

OWN_PACKAGES = ("vision", "snn", "robust", "triptych", "tools", "__main__")


@cache
def terminal() -> Console:
    """The console that logs and progress share, on standard error, so that results on standard output stay clean."""
    return Console(stderr=True)


def set_up_logging() -> None:
    """Sends the package's log (from INFO) and everyone's warnings to standard error; coloured on a terminal."""
    handler: logging.Handler
    if terminal().is_terminal:
        handler = RichHandler(console=terminal(), show_path=False, show_level=False, log_time_format="%H:%M:%S")
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for package in OWN_PACKAGES:
        logging.getLogger(package).setLevel(logging.INFO)
    logging.captureWarnings(True)
    threading.excepthook = _of_a_thread
    sys.unraisablehook = _ignored


def _of_a_thread(failed: "threading.ExceptHookArgs") -> None:
    """A thread that cannot write (TensorBoard's, on a full disk) is one line: the run tells of it by itself."""
    if isinstance(failed.exc_value, OSError):
        log.warning("a background thread ended: %s", failed.exc_value)
    else:
        threading.__excepthook__(failed)


def _ignored(failed: "sys.UnraisableHookArgs") -> None:
    """Torch tells of a dead worker once more while it puts a loader away; once is enough."""
    if not str(failed.exc_value).startswith("DataLoader worker"):
        sys.__unraisablehook__(failed)


def run_command(main: Callable[[list[str] | None], int | None], argv: list[str] | None = None) -> NoReturn:
    """Runs a command's ``main`` and ends the process with its status.

    ========  ==========================================================================
    status    when
    ========  ==========================================================================
    0         done (or what ``main`` returned)
    1         a fault of the package: the traceback is shown
    2         a mistake the user can mend: one ``error:`` line (argparse uses 2 as well)
    130       interrupted with Ctrl-C
    141       the reader of standard output went away
    ========  ==========================================================================

    Args:
        main: takes the arguments after the command's name.
        argv: those arguments; by default the process's own.
    """
    set_up_logging()
    try:
        status = main(sys.argv[1:] if argv is None else argv) or 0
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at exit
        status = 141
    except Exception:
        traceback.print_exc()
        print("this is a fault of triptych, please report it with the lines above", file=sys.stderr)
        status = 1
    if os.environ.get("WORLD_SIZE", "1") != "1":
        _end(status)
    sys.exit(status)


def _end(status: int) -> NoReturn:
    """Ends one process of several at once: as Python puts its objects away, gloo would wait for the others.

    Its threads live as long as anything refers to a process group, such as a frame that some library keeps. After a run
    that went well they would now and then abort a process whose Python is gone.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
