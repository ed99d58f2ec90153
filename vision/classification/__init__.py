"""Image classification: CIFAR and image-folder data, networks timm does not carry, and scores."""

from typing import TYPE_CHECKING

from vision.engine.lazy import lazily

if TYPE_CHECKING:
    from vision.classification.cifar import Cifar10, Cifar100
    from vision.classification.cifar_resnet import CifarResNet, cifar_resnet, cifar_resnet8x4, cifar_resnet32x4
    from vision.classification.data import ClassificationData, ClassificationDataset
    from vision.classification.digits import Digits, MnistNpz
    from vision.classification.folder import ImageFolder
    from vision.classification.loading import load
    from vision.classification.networks import MLP, DigitsCNN, Normalised
    from vision.classification.preact_resnet import PreActResNet, preact_resnet, preact_resnet18, wide_resnet
    from vision.classification.timm_network import timm
    from vision.classification.weights import load_weights, read_weights

__all__ = [
    "MLP",
    "Cifar10",
    "Cifar100",
    "CifarResNet",
    "ClassificationData",
    "ClassificationDataset",
    "Digits",
    "DigitsCNN",
    "ImageFolder",
    "MnistNpz",
    "Normalised",
    "PreActResNet",
    "cifar_resnet",
    "cifar_resnet8x4",
    "cifar_resnet32x4",
    "load",
    "load_weights",
    "preact_resnet",
    "preact_resnet18",
    "read_weights",
    "timm",
    "wide_resnet",
]

lazily(
    __name__,
    {
        "vision.classification.cifar": ("Cifar10", "Cifar100"),
        "vision.classification.cifar_resnet": ("CifarResNet", "cifar_resnet", "cifar_resnet8x4", "cifar_resnet32x4"),
        "vision.classification.data": ("ClassificationData", "ClassificationDataset"),
        "vision.classification.digits": ("Digits", "MnistNpz"),
        "vision.classification.folder": ("ImageFolder",),
        "vision.classification.loading": ("load",),
        "vision.classification.networks": ("MLP", "DigitsCNN", "Normalised"),
        "vision.classification.preact_resnet": ("PreActResNet", "preact_resnet", "preact_resnet18", "wide_resnet"),
        "vision.classification.timm_network": ("timm",),
        "vision.classification.weights": ("load_weights", "read_weights"),
    },
)
