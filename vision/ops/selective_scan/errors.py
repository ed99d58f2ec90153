"""What a call of a scan raises."""

from vision.engine.errors import DeviceError, UserError


class ScanError(UserError, ValueError):
    """Arguments that do not fit together: all that is wrong with them, in one message."""


class BackendError(DeviceError, RuntimeError):
    """A path that was asked for and cannot run: what stands in the way, and what to do about it."""
