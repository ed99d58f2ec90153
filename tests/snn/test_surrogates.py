"""Surrogate derivatives against the finite differences of their primitives."""

from typing import get_args

import pytest
import torch
from spikingjelly.activation_based import surrogate as library

from snn.surrogates import Exponential, SurrogateName, surrogate_of, weigh
from vision.engine.errors import ConfigError

X = torch.linspace(-2.03, 2.01, 41, dtype=torch.float64)
WITHOUT_PRIMITIVE = {"super_spike": lambda x: 1 / (1 + x.abs()) ** 2}
"""Those whose library writes no primitive, by their published derivative."""


@pytest.mark.parametrize("name", get_args(SurrogateName))
def test_the_derivative_is_that_of_the_primitive(name: str) -> None:
    surrogate = surrogate_of(name)
    gradient = torch.linspace(1, 3, len(X), dtype=torch.float64)
    found = weigh(surrogate, gradient, X)
    if name in WITHOUT_PRIMITIVE:
        expected = WITHOUT_PRIMITIVE[name](X)
    else:
        step, primitive = 1e-6, lambda x: surrogate.primitive_function(x, **surrogate._sg_params)
        expected = (primitive(X + step) - primitive(X - step)) / (2 * step)
    torch.testing.assert_close(found, gradient * expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", get_args(SurrogateName))
def test_forwards_it_is_a_step_with_one_at_equality(name: str) -> None:
    x = torch.tensor([-1.0, -1e-6, 0.0, 1e-6, 2.0])
    assert surrogate_of(name)(x).tolist() == [0, 0, 1, 1, 1]


def test_the_exponential_is_twice_spikingjellys_piecewise_exponential() -> None:
    ones = torch.ones_like(X)
    torch.testing.assert_close(weigh(Exponential(), ones, X), 2 * weigh(library.PiecewiseExp(alpha=1.0), ones, X))
    torch.testing.assert_close(weigh(Exponential(), ones, X), torch.exp(-X.abs()))


def test_parameters_of_a_library_surrogate_are_kept() -> None:
    ones = torch.ones_like(X)
    steep = weigh(library.Sigmoid(alpha=8.0), ones, X)
    s = torch.sigmoid(8 * X)
    torch.testing.assert_close(steep, 8 * s * (1 - s))


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no 'exponentail' \(did you mean 'exponential'\?\)"):
        surrogate_of("exponentail")
