"""Processes to kill."""

from tests.engine.conftest import forks

__all__ = ["forks"]
