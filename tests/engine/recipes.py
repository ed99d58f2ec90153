"""What tests of recipe files share: one to write, how a refusal reads, and any tree that a recipe could be."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st

from vision.engine.errors import ConfigError

Write = Callable[..., Path]
unhurried = settings(deadline=None, max_examples=60)

RECIPE = """\
name: run
task:
  type: toy
  network: {type: toy_network, width: 3}
data: toy_data
optimizer:
  type: sgd
  lr: 1e-2
trainer:
  epochs: 2
"""

texts = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: "${stages." not in text)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), texts)
keys = texts.filter(lambda key: key not in ("extends", "stages", "<<") and "${" not in key)
trees = st.dictionaries(
    keys, st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=8)
)


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as refused:
        action()
    return str(refused.value)
