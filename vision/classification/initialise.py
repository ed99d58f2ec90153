"""The starting weights the convolutional networks of this package share."""

from torch import nn


def initialise(network: nn.Module) -> None:
    r"""Draws the weights of ``network`` in place, from torch's global generator.

    Convolutions: :math:`\mathcal N(0, 2 / n)` with fan-out :math:`n = k^2 C_{out}` (He et al. 2015). BatchNorm and
    GroupNorm: weight 1, bias 0. Linear layers: torch's default weight and bias 0.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
