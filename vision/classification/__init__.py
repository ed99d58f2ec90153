"""Image classification: CIFAR and image-folder data, networks timm does not carry, and scores."""

from vision.classification.cifar import Cifar10, Cifar100
from vision.classification.cifar_resnet import CifarResNet, cifar_resnet, cifar_resnet8x4, cifar_resnet32x4
from vision.classification.data import ClassificationData, ClassificationDataset
from vision.classification.digits import Digits, MnistNpz
from vision.classification.folder import ImageFolder
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
    "load_weights",
    "preact_resnet",
    "preact_resnet18",
    "read_weights",
    "timm",
    "wide_resnet",
]
