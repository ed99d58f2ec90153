"""What is wrong with the arguments of a scan, all of it in one message."""

from typing import Any

import torch
from torch import Tensor

from vision.engine.errors import nearest
from vision.ops.cross_scan import DIRECTIONS
from vision.ops.selective_scan.errors import ScanError

LAYOUTS = ("bdl", "bld")
_INPUTS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

Shape = tuple[int | str, ...]  # a letter stands for any size


class _Findings:
    """Collects mistakes among the arguments of one call; ``first`` is that whose dtype and device the others share."""

    def __init__(self, caller: str, tensors: dict[str, Any], first: str) -> None:
        self.caller = caller
        self.tensors: dict[str, Tensor | None] = tensors
        self.first = first
        self.mistakes: list[str] = []
        for name, t in tensors.items():
            if t is not None and not isinstance(t, Tensor):
                self.mistakes.append(f"{name} is a {type(t).__name__}, expected a tensor")
        self.refuse()  # nothing more can be asked of what is no tensor

    def shape(self, name: str, *expected: Shape) -> bool:
        """Whether a tensor has one of the shapes expected, or is absent."""
        t = self.tensors[name]
        if t is None:
            return True
        sizes = t.shape
        for shape in expected:
            if _fits(sizes, shape):
                return True
        wanted = " or ".join(f"[{', '.join(map(str, shape))}]" for shape in expected)
        self.mistakes.append(f"{name} has shape {list(t.shape)}, expected {wanted}")
        return False

    def like_first(self, *names: str) -> None:
        """Inputs: all of one floating-point dtype."""
        dtype = self._there(self.first).dtype
        if dtype not in _INPUTS:
            known = ", ".join(map(_word, _INPUTS))
            self.mistakes.append(f"{self.first} has dtype {_word(dtype)}, expected one of {known}")
            return
        for name in names:
            t = self.tensors[name]
            if t is not None and t.dtype != dtype:
                expected = f"{_word(dtype)}, that of {self.first}"
                self.mistakes.append(f"{name} has dtype {_word(t.dtype)}, expected {expected}")

    def parameters(self, *names: str) -> None:
        """Parameters: real, and not wider than what is computed in."""
        dtype = self._there(self.first).dtype
        for name in names:
            t = self.tensors[name]
            if t is None or t.dtype in _INPUTS[:3] or t.dtype == dtype == torch.float64:
                continue
            why = ""
            if t.is_complex():
                why = " (complex states are not supported)"
            elif t.dtype == torch.float64:
                why = f" (float64 only when {self.first} is float64)"
            self.mistakes.append(f"{name} has dtype {_word(t.dtype)}, expected float32{why}")

    def devices(self) -> None:
        """All on one device."""
        device = self._there(self.first).device
        for name, t in self.tensors.items():
            if t is not None and t.device != device:
                self.mistakes.append(f"{name} is on {t.device}, expected {device}, where {self.first} is")

    def refuse(self) -> None:
        """Raises when something was found."""
        if self.mistakes:
            raise ScanError(f"{self.caller}: " + "; ".join(self.mistakes))

    def _there(self, name: str) -> Tensor:
        t = self.tensors[name]
        assert t is not None
        return t


def _fits(sizes: tuple[int, ...], shape: Shape) -> bool:
    """Called for every tensor of every scan, hence the loop."""
    if len(sizes) != len(shape):
        return False
    for have, want in zip(sizes, shape, strict=True):  # noqa: SIM110
        if not isinstance(want, str) and have != want:
            return False
    return True


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def check_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    layout: str,
) -> None:
    """Refuses arguments of ``selective_scan`` that do not fit together.

    Raises:
        ScanError: with every mistake that was found.
    """
    if layout not in LAYOUTS:
        known = " or ".join(map(repr, LAYOUTS))
        raise ScanError(f"selective_scan: layout is {layout!r}, expected {known}{nearest(str(layout), LAYOUTS)}")
    lengthwise = layout == "bdl"
    found = _Findings("selective_scan", {
        "u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias,
        "initial_state": initial_state,
    }, first="u")  # fmt: skip
    batch, channels, length = _sizes(u, "NDL" if lengthwise else "NLD")
    rows: Shape = (batch, channels, length) if lengthwise else (batch, length, channels)
    found.shape("u", rows)
    found.shape("delta", rows)
    found.shape("z", rows)
    states = A.shape[1] if found.shape("A", (channels, "S")) else "S"
    _shared(found, "B", "C", batch, length, channels, states, lengthwise)
    found.shape("D", (channels,))
    found.shape("delta_bias", (channels,))
    found.shape("initial_state", (batch, channels, states))
    constant = [name for name, t in (("B", B), ("C", C)) if t.ndim == 2]
    found.like_first("delta", "z", *(name for name in ("B", "C") if name not in constant))
    found.parameters("A", "D", "delta_bias", "initial_state", *constant)
    found.devices()
    found.refuse()


def _sizes(t: Tensor, letters: str) -> tuple[int | str, int | str, int | str]:
    """Batch, channels and length of an input; its letters when it has not three axes."""
    if t.ndim != 3:
        return ("N", "D", "L")
    return (t.shape[letters.index("N")], t.shape[letters.index("D")], t.shape[letters.index("L")])


def _shared(
    found: _Findings,
    first: str,
    second: str,
    batch: int | str,
    length: int | str,
    channels: int | str,
    states: int | str,
    lengthwise: bool,
) -> None:
    """B and C: their shapes, and that both have the same groups, which divide the channels."""
    expected: list[Shape] = [
        (batch, states, length) if lengthwise else (batch, length, states),
        (batch, "G", states, length) if lengthwise else (batch, length, "G", states),
        (channels, states),
    ]
    groups = []
    for name in (first, second):
        t = found.tensors[name]
        if found.shape(name, *expected) and t is not None and t.ndim > 2:
            groups.append((name, 1 if t.ndim == 3 else t.shape[1 if lengthwise else 2]))
    for name, count in groups:
        if not isinstance(channels, str) and (count == 0 or channels % count != 0):
            found.mistakes.append(f"{name} has {count} groups, which do not divide the {channels} channels")
    if len(groups) == 2 and groups[0][1] != groups[1][1]:
        found.mistakes.append(f"{first} has {groups[0][1]} groups, {second} has {groups[1][1]}; both need the same")
    if states == 0:
        found.mistakes.append("A has no states, expected at least one")


def check_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
) -> None:
    """Refuses arguments of ``selective_state_update`` that do not fit together.

    Raises:
        ScanError: with every mistake that was found.
    """
    found = _Findings("selective_state_update", {
        "state": state, "x": x, "dt": dt, "A": A, "B": B, "C": C, "D": D, "z": z, "dt_bias": dt_bias,
    }, first="x")  # fmt: skip
    batch, channels = (x.shape[0], x.shape[1]) if found.shape("x", ("N", "D")) else ("N", "D")
    states = A.shape[1] if found.shape("A", (channels, "S")) else "S"
    found.shape("state", (batch, channels, states))
    found.shape("dt", (batch, channels))
    found.shape("z", (batch, channels))
    for name, t in (("B", B), ("C", C)):
        found.shape(name, (batch, states), (batch, "G", states))
        if t.ndim == 3 and isinstance(channels, int) and (t.shape[1] == 0 or channels % t.shape[1] != 0):
            found.mistakes.append(f"{name} has {t.shape[1]} groups, which do not divide the {channels} channels")
    if B.ndim == C.ndim == 3 and B.shape[1] != C.shape[1]:
        found.mistakes.append(f"B has {B.shape[1]} groups, C has {C.shape[1]}; both need the same")
    found.shape("D", (channels,))
    found.shape("dt_bias", (channels,))
    found.like_first("dt", "B", "C", "z")
    found.parameters("A", "D", "dt_bias", "state")
    found.devices()
    found.refuse()


def check_ss2d(
    x: Tensor,
    dts: Tensor,
    dt_weight: Tensor | None,
    dt_bias: Tensor | None,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    height: int,
    width: int,
) -> None:
    """Refuses arguments of ``ss2d`` that do not fit together.

    Raises:
        ScanError: with every mistake that was found.
    """
    found = _Findings("ss2d", {
        "x": x, "dts": dts, "dt_weight": dt_weight, "dt_bias": dt_bias, "A": A, "B": B, "C": C, "D": D,
    }, first="x")  # fmt: skip
    batch, channels, length = _sizes(x, "NLD")
    if found.shape("x", (batch, length, channels)) and length != height * width:
        found.mistakes.append(f"x has {length} positions, expected height * width = {height} * {width}")
    states = A.shape[2] if found.shape("A", (DIRECTIONS, channels, "S")) else "S"
    if dt_weight is None:
        found.shape("dts", (batch, length, DIRECTIONS, channels))
    else:
        fits = found.shape("dt_weight", (DIRECTIONS, channels, "R"))
        rank = dt_weight.shape[2] if fits else "R"
        found.shape("dts", (batch, length, DIRECTIONS, rank))
        if rank == 0:
            found.mistakes.append("dt_weight has rank 0, expected at least 1")
    if states == 0:
        found.mistakes.append("A has no states, expected at least one")
    found.shape("B", (batch, length, DIRECTIONS, states))
    found.shape("C", (batch, length, DIRECTIONS, states))
    found.shape("dt_bias", (DIRECTIONS, channels))
    found.shape("D", (DIRECTIONS, channels))
    found.like_first("dts", "B", "C")
    found.parameters("dt_weight", "dt_bias", "A", "D")
    found.devices()
    found.refuse()
