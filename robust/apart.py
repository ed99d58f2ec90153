"""APART: perturbations whose strengths are learnt by ascent (Li, Liu, Dong & Shang 2020, arXiv 2010.08034)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vision.engine.errors import ConfigError, TrainingError, nearest

Side = Literal["input", "output"]
BnUpdate = Literal["both", "second"]
ZeroGrad = Literal["none", "zero"]


def layer_names(network: nn.Module, patterns: Sequence[str]) -> list[str]:
    """The modules of a network that names or patterns (``stages.*.conv1``) stand for, in the network's order.

    Raises:
        ConfigError: a pattern that no module answers to.
    """
    known = [name for name, _ in network.named_modules() if name]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise ConfigError(f"layers: the network has no module '{pattern}'{nearest(pattern, known)}")
    return [name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns)]


@dataclass
class Perturbed:
    r"""What the two passes of a step leave for its updates.

    Attributes:
        loss: of the second pass, mean over the batch; to be minimised by the network and maximised by the strengths.
        images: the second pass's perturbed images :math:`x_1`, which keep their gradient, ``[N, C, H, W]``.
        logits: of the second pass, ``[N, K]``.
        ratio: :math:`\alpha / (\alpha_\omega + 10^{-7})` as it was before the step's update.
    """

    loss: Tensor
    images: Tensor
    logits: Tensor
    ratio: float


class Apart(nn.Module):
    r"""Learnable input and layer-wise perturbations of any network, in two passes a step.

    With the stored direction :math:`\omega` of each image and :math:`\Pi` the clamp to :math:`\pm\epsilon`:

    .. math::
        \delta_0 = \Pi(\alpha_\omega \omega), \quad x_0 = \mathrm{clip}(x + \delta_0), \quad
        \delta_1 = \Pi(\delta_0 + \alpha\,\mathrm{sign}\,\nabla_{x_0} L(x_0)), \quad x_1 = \mathrm{clip}(x + \delta_1)

    The second pass, on :math:`x_1`, adds :math:`\alpha_b\,\mathrm{sign}\,\nabla_{h_b} L(x_0)` at each listed layer
    :math:`b`. :math:`\alpha, \alpha_\omega, \alpha_b` are parameters that climb the second pass's loss.

    Args:
        network: takes images in [0, 1]; it is not changed, and gets hooks only while a step runs.
        layers: names or patterns of the modules to perturb at; empty perturbs the input alone.
        side: ``input`` perturbs what enters a layer, which leaves a shortcut beside it alone; ``output`` what leaves.
        eps: bound of the input's perturbation, in image range; the layers' are not bounded.
        step: first :math:`\alpha`.
        start_scale: first :math:`\alpha_\omega`.
        layer_step: first :math:`\alpha_b`.
        bn_update: whether BatchNorm's running statistics see both passes, as in the release, or the second only.

    Attributes:
        names: of the layers, in order.
        step: :math:`\alpha` as learnt, shape ``[1]``.
        start_scale: :math:`\alpha_\omega` as learnt, shape ``[1]``.
        layer_steps: shape ``[1]`` for each layer.

    Raises:
        ConfigError: a layer the network does not have, or an ``eps`` out of range.

    Deviation: gradients of the first pass are taken for what they are needed for alone; the release deposits them on
    every weight and clears them.

    Source: the authors' release; 0.031 is its bound in training, where 8/255 is used to judge.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str] = (),
        side: Side = "input",
        eps: float = 0.031,
        step: float = 1e-4,
        start_scale: float = 1e-4,
        layer_step: float = 0.0,
        bn_update: BnUpdate = "both",
    ) -> None:
        super().__init__()
        if not 0 <= eps <= 1:
            raise ConfigError(f"eps: {eps} is outside [0, 1], the range of images; {eps:g}/255 was likely meant")
        self.names = layer_names(network, layers)
        self._network = [network]  # a list, so that its weights are not also this module's
        self.side, self.eps, self.bn_update = side, eps, bn_update
        like = next(network.parameters())
        self.step, self.start_scale = (nn.Parameter(like.new_tensor([value])) for value in (step, start_scale))
        self.layer_steps = nn.ParameterList(nn.Parameter(like.new_tensor([layer_step])) for _ in self.names)

    @property
    def network(self) -> nn.Module:
        """What is perturbed."""
        return self._network[0]

    def perturbed(self, images: Tensor, directions: Tensor, labels: Tensor) -> Perturbed:
        r"""Both passes over a batch, in the network's own mode.

        Args:
            images: in [0, 1], ``[N, C, H, W]``.
            directions: :math:`\omega`, in [-1, 1], of the same shape.
            labels: int64, ``[N]``.

        Returns:
            The second pass's loss with its graph; call ``backward`` on it, then :meth:`refreshed`.
        """
        delta = (self.start_scale * directions).clamp(-self.eps, self.eps)
        first = (images + delta).clamp(0, 1)
        with self._statistics_kept(self.bn_update == "second"):
            with self._recording() as found:
                loss = F.cross_entropy(self.network(first), labels)
            if missing := [name for name in self.names if name not in found]:
                raise TrainingError(f"layers: '{missing[0]}' takes no part in the forward pass; leave it out")
            input_sign, *signs = (g.sign() for g in torch.autograd.grad(loss, [first, *(found[n] for n in self.names)]))
        delta = (delta + self.step * input_sign).clamp(-self.eps, self.eps)
        second = (images + delta).clamp(0, 1)
        second.retain_grad()
        with self._adding(signs):
            logits = self.network(second)
        ratio = self.step.item() / (self.start_scale.item() + 1e-7)
        return Perturbed(F.cross_entropy(logits, labels), second, logits, ratio)

    @staticmethod
    def refreshed(directions: Tensor, found: Perturbed) -> Tensor:
        r"""The next directions, ``[N, C, H, W]``, once the loss has been backpropagated.

        They are :math:`\omega + \alpha / (\alpha_\omega + 10^{-7}) \,\mathrm{sign}\,\nabla_{x_1} L`, clipped to
        [-1, 1].
        """
        assert found.images.grad is not None
        return (directions + found.ratio * found.images.grad.sign()).clamp(-1, 1).detach()

    def strengths(self) -> dict[str, float]:
        """Every learnt strength by name: ``step``, ``start_scale``, then the layers."""
        values = [self.step, self.start_scale, *self.layer_steps]
        return dict(zip(["step", "start_scale", *self.names], [float(v.detach()) for v in values], strict=True))

    @contextmanager
    def _recording(self) -> Iterator[dict[str, Tensor]]:
        """Inside, the tensors at the layers are kept by name, apart from what in-place modules make of them."""
        found: dict[str, Tensor] = {}

        def see(name: str, value: Tensor) -> Tensor:
            if name in found:
                raise TrainingError(f"layers: '{name}' is called more than once a pass; leave it out")
            found[name] = value.view_as(value)
            return found[name].clone()

        with self._hooked([lambda value, name=name: see(name, value) for name in self.names]):
            yield found

    @contextmanager
    def _adding(self, signs: Sequence[Tensor]) -> Iterator[None]:
        pairs = zip(self.layer_steps, signs, strict=True)
        with self._hooked([lambda value, a=a, sign=sign: value + a * sign for a, sign in pairs]):
            yield

    @contextmanager
    def _hooked(self, actions: Sequence[Any]) -> Iterator[None]:
        handles = []
        try:
            for name, action in zip(self.names, actions, strict=True):
                layer = self.network.get_submodule(name)
                if self.side == "input":
                    handles.append(layer.register_forward_pre_hook(lambda _, x, act=action: (act(x[0]), *x[1:])))
                else:
                    handles.append(layer.register_forward_hook(lambda _, x, y, act=action: act(y)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def _statistics_kept(self, keep: bool) -> Iterator[None]:
        """Inside, with ``keep``, running statistics change; afterwards they are what they were."""
        norms = [m for m in self.network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)] if keep else []
        before = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
        yield
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


class Ascent(nn.Module):
    r"""Gradient ascent of the strengths, with momentum and a strong pull to zero.

    .. math:: v \leftarrow m v - \nabla_a L + \lambda a, \qquad a \leftarrow a - \eta v

    so that a strength rests where :math:`a = \nabla_a L / \lambda`. The momentum is kept in buffers, so that a run
    resumes exactly.

    Args:
        parameters: the strengths.
        weight_decay: :math:`\lambda`; 400 in the release.
        zero_grad: ``none`` leaves the strengths to the ascent alone. ``zero`` also gives them the network's own
            optimiser with a gradient of zero, that is its weight decay, as the release does under versions of torch
            whose ``zero_grad`` fills with zeros; see :meth:`decay`.

    Source: the authors' release.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], weight_decay: float = 400.0, zero_grad: ZeroGrad = "none"
    ) -> None:
        super().__init__()
        self.strengths = list(parameters)
        self.weight_decay, self.zero_filled = weight_decay, zero_grad == "zero"
        like = parameters[0].detach()
        self.register_buffer("velocity", torch.zeros(len(parameters), dtype=like.dtype, device=like.device))
        self.register_buffer("decay_velocity", torch.zeros_like(self.get_buffer("velocity")))

    @torch.no_grad()
    def ascend(self, lr: float, momentum: float) -> None:
        """One update from the gradients of the loss, which are cleared."""
        for parameter, velocity in zip(self.strengths, self.get_buffer("velocity"), strict=True):
            if parameter.grad is None:
                continue
            velocity.mul_(momentum).add_((self.weight_decay * parameter - parameter.grad).squeeze())
            parameter.sub_(lr * velocity)
            parameter.grad = None

    @torch.no_grad()
    def decay(self, lr: float, momentum: float, weight_decay: float) -> None:
        r"""What the network's optimiser does to the strengths after the ascent where ``zero_grad`` is ``zero``.

        :math:`w \leftarrow m w + \lambda' a`, then :math:`a \leftarrow a - \eta' w`.
        """
        if self.zero_filled:
            for parameter, velocity in zip(self.strengths, self.get_buffer("decay_velocity"), strict=True):
                velocity.mul_(momentum).add_((weight_decay * parameter).squeeze())
                parameter.sub_(lr * velocity)
