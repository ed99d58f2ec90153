"""Fixtures of the engine's tests."""

import pytest

from vision.engine import registry


@pytest.fixture
def own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    registry.load_all()
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
