"""Any network of the timm library as a classifier."""

from typing import Any

from torch import nn

from vision.engine.errors import CheckpointError, ConfigError, nearest
from vision.engine.registry import register


@register("timm")
def timm(
    model: str,
    classes: int,
    in_channels: int = 3,
    pretrained: bool = False,
    options: dict[str, Any] | None = None,
) -> nn.Module:
    """A network of timm by its name, with a fresh classifier where ``classes`` differs from the weights'.

    Args:
        model: ``architecture`` or ``architecture.tag``, as ``timm.list_models(pretrained=True)`` shows them.
        classes: how many logits.
        in_channels: channels of the image; pretrained stems are adapted by timm.
        pretrained: fetch trained weights (from timm's cache, else from the network).
        options: anything else the model's constructor takes, such as ``drop_path_rate``.

    Raises:
        ConfigError: no such model (with the nearest name), or an option it does not take.
        CheckpointError: the trained weights cannot be fetched.
    """
    import timm as library  # slow to import, and most recipes do not need it

    architecture, _, _ = model.partition(".")
    if not library.is_model(architecture):
        raise ConfigError(f"timm.model: there is no '{model}'{nearest(architecture, library.list_models())}")
    if pretrained and not library.is_model_pretrained(architecture):
        raise CheckpointError(f"timm.pretrained: no weights were published for '{model}'; set pretrained: false")
    given = {"num_classes": classes, "in_chans": in_channels, **(options or {})}
    try:
        network: nn.Module = library.create_model(model, pretrained=False, **given)
    except (TypeError, RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(f"timm.model: '{model}' cannot be built with {given}: {error}") from error
    if not pretrained:
        return network
    try:
        return library.create_model(model, pretrained=True, **given)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"timm.pretrained: the weights of '{model}' cannot be fetched ({reason}); check the network connection, "
            "or set pretrained: false"
        ) from error
