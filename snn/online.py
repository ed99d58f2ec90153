"""STOP as one function beside spikingjelly's ``ottt_online_training``, for whoever has a loop of their own."""

from collections.abc import Callable

import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from snn.network import SpikingNetwork
from snn.neurons import SequenceError
from snn.rules import Learn, constrain, set_rule
from snn.stop import Reduction


def stop_online_training(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    x_seq: Tensor,
    target_seq: Tensor,
    f_loss_t: Callable[[Tensor, Tensor], Tensor],
    online: bool,
    learn: Learn = "WTL",
    reduction: Reduction = "mean",
    learn_output_neuron: bool = True,
    time_first: bool = False,
) -> tuple[Tensor, Tensor]:
    """Trains a network on one batch of sequences by STOP; the state is forgotten before and after.

    Args:
        model: a network of :mod:`snn.networks`, or one that :func:`snn.convert.convert` made; called once a step.
        optimizer: of its parameters.
        x_seq: inputs, ``[N, T, ...]``.
        target_seq: targets, ``[N, T, ...]``.
        f_loss_t: loss of one step from output and target.
        online: update after every step; the traces then keep what the old parameters left. False updates once, by the
            sum over the steps.
        learn: any of W, T and L.
        reduction: of the gradients of thresholds and leaks.
        learn_output_neuron: whether T and L hold for the last neurons too.
        time_first: sequences are ``[T, N, ...]``.

    Returns:
        The sum of the losses over the steps, and the outputs ``[N, T, ...]``, both detached.

    Raises:
        SequenceError: inputs and targets of different batches or lengths, or none.
        ConfigError: as :func:`snn.rules.set_rule`.
    """
    if x_seq.shape[:2] != target_seq.shape[:2] or 0 in x_seq.shape[:2]:
        raise SequenceError(
            f"x_seq is {list(x_seq.shape)} and target_seq {list(target_seq.shape)}; expected the same "
            f"{'[T, N' if time_first else '[N, T'}, ...] with T and N of 1 or more"
        )
    if not time_first:
        x_seq, target_seq = x_seq.transpose(0, 1), target_seq.transpose(0, 1)
    set_rule(model, "stop", learn, reduction, learn_output_neuron)
    _reset(model, len(x_seq))
    optimizer.zero_grad()
    total, outputs = x_seq.new_zeros(()), []
    for x, target in zip(x_seq, target_seq, strict=True):
        out = model.step(x) if isinstance(model, SpikingNetwork) else model(x)
        loss = f_loss_t(out, target.contiguous())
        loss.backward()
        total = total + loss.detach()
        outputs.append(out.detach())
        if online:
            _update(model, optimizer)
    if not online:
        _update(model, optimizer)
    _reset(model, len(x_seq))
    return total, torch.stack(outputs, 1)


def _update(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.step()
    optimizer.zero_grad()
    constrain(model)


def _reset(model: nn.Module, steps: int) -> None:
    if isinstance(model, SpikingNetwork):
        model.reset(steps)
    else:
        functional.reset_net(model)
