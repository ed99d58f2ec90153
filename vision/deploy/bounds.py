"""How far an exported network may be from the one in PyTorch, by precision, and why."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bound:
    """The largest differences that pass; of outputs in shares of the largest value that PyTorch gives.

    Attributes:
        largest: of any number of an output.
        mean: of an output's mean absolute difference.
        cosine: what the cosine of both outputs is at least.
        flipped: share of an output's numbers that may differ by more, where the graph gives spikes: a membrane beside
            its threshold falls to either side.
        figure: change of the task's own figure, besides that of one sample.
    """

    largest: float
    mean: float
    cosine: float
    flipped: float
    figure: float


BOUNDS = {
    # Sums in another order: 1e-7 a layer, some 1e-6 after a network; 1e-4 is far below what any figure shows.
    "fp32": Bound(1e-4, 1e-5, 0.99999, 1e-3, 0.002),
    # 11 bits round by 5e-4 a layer; errors of some tens of layers add up like their square root.
    "fp16": Bound(3e-2, 3e-3, 0.999, 2e-2, 0.01),
    # 8 bits round by 2e-3 of a range, and what exceeds the range is cut off: single numbers may be far off, most not.
    "int8": Bound(0.5, 5e-2, 0.97, 0.1, 0.02),
}
