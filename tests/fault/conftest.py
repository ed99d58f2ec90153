"""Processes to kill, tools to give bad input to, and runs to damage."""

from tests.cli.conftest import commands, trained, trained_tbcnet
from tests.engine.conftest import forks

__all__ = ["commands", "forks", "trained", "trained_tbcnet"]
