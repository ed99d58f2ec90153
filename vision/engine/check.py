"""One finding about an installation."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        status: ``ok``; ``warn``: something is slower or left out; ``fail``: something does not work.
        found: what there is.
        fix: what to do about it; empty when there is nothing to do.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    fix: str = ""


def as_dict(check: Check) -> dict[str, Any]:
    """A finding as plain values."""
    return {"name": check.name, "status": check.status, "found": check.found, "fix": check.fix}
