r"""How much work a spiking network does for a sample, and an estimate of the energy, beside the same network as an ANN.

.. math:: E = E_{MAC} \, n_{MAC} + E_{AC} \, n_{AC}

A spike that meets a weight is one accumulation (AC); a real-valued input that meets a weight is one multiplication and
addition (MAC), which the encoding layer of direct coding does at every step. The ANN does one MAC for each connection,
once. Neuron updates (one MAC a neuron and step) are counted in a row of their own. Memory is not in it, and it can cost
more than all of this; such figures compare networks on paper, not chips.

Source: :math:`E_{MAC} = 4.6` pJ and :math:`E_{AC} = 0.9` pJ are the usual figures for 32-bit floating point in 45 nm
(Horowitz, ISSCC 2014), from memory.
"""

from collections.abc import Mapping, Sequence
from typing import Any

MAC_PJ, AC_PJ = 4.6, 0.9


def energy_nj(operations: Mapping[str, float], analogue: Mapping[str, bool], updates: float) -> float:
    """Energy of one sample, nanojoules.

    Args:
        operations: synaptic operations of each layer.
        analogue: whether its input is real-valued.
        updates: neuron updates, neurons times steps.

    Example:
        >>> energy_nj({"conv1": 1000.0, "conv2": 1000.0}, {"conv1": True, "conv2": False}, updates=0)
        5.5
    """
    picojoules = sum(count * (MAC_PJ if analogue[name] else AC_PJ) for name, count in operations.items())
    return (picojoules + updates * MAC_PJ) / 1000


def energy_card(
    operations: Mapping[str, float], analogue: Mapping[str, bool], macs: Mapping[str, int], updates: float
) -> dict[str, Any]:
    """A table for results: by layer, operations and energy of the spiking network and of the ANN, and their sums.

    Args:
        operations: synaptic operations of each layer, mean over samples.
        analogue: whether the layer's input is real-valued.
        macs: of each layer, one dense pass without those into padding.
        updates: neuron updates, neurons times steps.
    """
    rows: list[Sequence[Any]] = []
    for name, count in operations.items():
        kind = "MAC" if analogue[name] else "AC"
        own = energy_nj({name: count}, analogue, 0)
        rows.append([name, kind, round(count), own, macs[name], macs[name] * MAC_PJ / 1000])
    rows.append(["neurons", "MAC", round(updates), updates * MAC_PJ / 1000, 0, 0.0])
    sums = [sum(row[place] for row in rows) for place in (2, 3, 4, 5)]
    rows.append(["all", "", *sums])
    return {
        "type": "bins",
        "title": f"Energy a sample on paper: {MAC_PJ} pJ a MAC, {AC_PJ} pJ an AC; memory is not in it",
        "columns": ["layer", "kind", "operations", "nJ", "as an ANN: MACs", "as an ANN: nJ"],
        "rows": rows,
    }
