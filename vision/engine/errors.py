"""The package's own errors: what was given, what was expected, and the fix, on one or two lines."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake the user can mend. Tools print it without a traceback and exit with status 2."""


class ConfigError(UserError):
    """A recipe that does not hold: an unknown key, a wrong type, a missing file it extends."""


class DataError(UserError):
    """Data that cannot be used as it is: a missing folder, a corrupt image, a label out of range."""


class CheckpointError(UserError):
    """A checkpoint that cannot be read or written, or that belongs to another network or task."""


class ExportedFileError(UserError):
    """An exported file that cannot be read or used: damaged, incomplete, of another program or a newer version."""


class DeviceError(UserError):
    """A device, backend or number of processes that was asked for and is not there."""


class TrainingError(UserError):
    """Training that cannot go on, for example because a loss is not finite."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A ``did you mean`` clause for ``name``, or an empty string when nothing is near.

    Example:
        >>> nearest("tbcnett", ["tbcnet", "scm"])
        " (did you mean 'tbcnet'?)"
    """
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""
