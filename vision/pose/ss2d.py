"""SS2D, the four-direction selective scan of VMamba as a layer (Liu et al., NeurIPS 2024, arXiv 2401.10166).

Everything in this file follows VMamba's released code: names and shapes of parameters, the order of operations, the
initialisation. Its two families are settings here: ``gate`` with ``state_size=16`` is its v0, no gate with
``state_size=1`` and without ``conv_bias`` its v05.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vision.engine.errors import ConfigError
from vision.ops.cross_scan import DIRECTIONS
from vision.ops.selective_scan import ss2d
from vision.pose.linear import linear

CHANNELS_A_RANK = 16
SHORTEST_STEP, LONGEST_STEP, STEP_FLOOR = 1e-3, 1e-1, 1e-4


class SS2D(nn.Module):
    r"""Mixes all positions of an image by four selective scans.

    .. math::
        (u, z) &= W_{in} x, \qquad u \leftarrow \mathrm{silu}(\mathrm{DW}_{3 \times 3}(u)) \\
        (r_k, B_k, C_k) &= W_k u, \qquad \Delta_k = \mathrm{softplus}(W^\Delta_k r_k + b_k), \qquad k = 1 \dots 4 \\
        y &= \sum_k \mathrm{scan}_k(u, \Delta_k, -e^{A_k}, B_k, C_k, D_k) \\
        \mathrm{out} &= W_{out} (\mathrm{LN}(y) \odot \mathrm{silu}(z))

    Letters: N batch, H W rows and columns, C channels, E = ratio * C inner channels, R = ceil(C / 16) rank of the step
    sizes, S states of a channel, K = 4 directions.

    Parameters by name: ``in_proj.weight [2E, C]`` (``[E, C]`` without the gate), ``conv2d.weight [E, 1, 3, 3]``,
    ``conv2d.bias [E]``, ``x_proj_weight [K, R + 2S, E]``, ``dt_projs_weight [K, E, R]``, ``dt_projs_bias [K, E]``,
    ``A_logs [K E, S]``, ``Ds [K E]``, ``out_norm.weight [E]``, ``out_norm.bias [E]``, ``out_proj.weight [C, E]``: the
    names and shapes of VMamba, so that its weights load.

    Args:
        channels: C.
        state_size: S.
        ratio: E / C; ``ratio * channels`` must be a whole number.
        gate: whether half of the first projection gates the output.
        conv_bias: whether the depth-wise convolution has a bias.

    Raises:
        ConfigError: a size that is not positive, or a ratio that does not give whole channels.

    Source: class SS2D of VMamba's released code, v0 and v05.

    Deviation: one matrix product gives the projections of all four directions, from features in the image's own order;
    VMamba copies the features four times first. Equal up to rounding.
    """

    def __init__(
        self, channels: int, state_size: int = 1, ratio: float = 2.0, gate: bool = True, conv_bias: bool = True
    ) -> None:
        super().__init__()
        inner = round(ratio * channels)
        if min(channels, state_size, inner) < 1 or not math.isclose(inner, ratio * channels):
            raise ConfigError(
                f"SS2D: channels {channels}, state_size {state_size}, ratio {ratio:g}; expected positive sizes and a "
                "ratio that gives a whole number of channels"
            )
        self.inner, self.state_size, self.rank = inner, state_size, math.ceil(channels / CHANNELS_A_RANK)
        self.in_proj = nn.Linear(channels, (2 if gate else 1) * inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=conv_bias)
        self.x_proj_weight = nn.Parameter(torch.empty(DIRECTIONS, self.rank + 2 * state_size, inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(DIRECTIONS, inner, self.rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(DIRECTIONS, inner))
        self.A_logs = nn.Parameter(torch.empty(DIRECTIONS * inner, state_size))
        self.Ds = nn.Parameter(torch.empty(DIRECTIONS * inner))
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, channels, bias=False)
        self.gate = gate
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """VMamba's initial values: step sizes between 0.001 and 0.1, decay rates 1 to S, skips 1."""
        nn.init.trunc_normal_(self.in_proj.weight, std=0.02)
        nn.init.trunc_normal_(self.out_proj.weight, std=0.02)
        nn.init.uniform_(self.x_proj_weight, -(self.inner**-0.5), self.inner**-0.5)  # nn.Linear's own
        nn.init.uniform_(self.dt_projs_weight, -(self.rank**-0.5), self.rank**-0.5)
        nn.init.uniform_(self.dt_projs_bias, math.log(SHORTEST_STEP), math.log(LONGEST_STEP))
        steps = self.dt_projs_bias.exp().clamp_min(STEP_FLOOR)
        self.dt_projs_bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # the inverse of softplus
        self.A_logs.copy_(torch.arange(1.0, self.state_size + 1).log().expand_as(self.A_logs))
        nn.init.ones_(self.Ds)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that an optimiser should not draw to zero, besides norms and biases."""
        return {"A_logs", "Ds", "dt_projs_bias"}

    def forward(self, x: Tensor) -> Tensor:
        """Mixes the positions of ``x``, channels last: ``[N, H, W, C]`` to ``[N, H, W, C]``, contiguous."""
        _, height, width, _ = x.shape
        # Two products instead of one that is cut: what follows then reads and writes contiguous memory.
        u = linear(x, self.in_proj.weight[: self.inner])
        in_place = not torch.is_grad_enabled()  # memory that is at hand already is the fastest to write to
        u = F.silu(self.conv2d(u.permute(0, 3, 1, 2)), inplace=in_place).permute(0, 2, 3, 1)
        y = self.scan(u.flatten(1, 2), height, width)
        y = self.out_norm(y).unflatten(1, (height, width))
        if self.gate:
            z = linear(x, self.in_proj.weight[self.inner :], activation="silu")
            y = z.mul_(y) if in_place and z.dtype == y.dtype else y * z
        return linear(y, self.out_proj.weight)

    def scan(self, u: Tensor, height: int, width: int) -> Tensor:
        """The four scans, summed: ``[N, L, E]`` to ``[N, L, E]``, positions in row-major order."""
        projected = linear(u, self.x_proj_weight.flatten(0, 1)).unflatten(2, (DIRECTIONS, -1))
        steps, into, out_of = projected.split([self.rank, self.state_size, self.state_size], dim=-1)
        return ss2d(
            u,
            steps,
            self.dt_projs_weight,
            self.dt_projs_bias,
            -self.A_logs.exp().view(DIRECTIONS, self.inner, self.state_size),
            into,
            out_of,
            self.Ds.view(DIRECTIONS, self.inner),
            height,
            width,
        )
