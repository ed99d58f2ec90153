"""What several tests of the scans ask for."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ops.problems import PATHS


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> str:
    """Each path that runs here."""
    return str(request.param)


@pytest.fixture(scope="session")
def kept_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a folder that stays between runs, unless pytest keeps no cache."""
    cache = getattr(request.config, "cache", None)
    return tmp_path_factory.mktemp if cache is None else cache.mkdir
