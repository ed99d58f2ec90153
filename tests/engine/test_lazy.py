"""Packages that import what they offer on demand."""

import importlib
import subprocess
import sys

import pytest

PACKAGES = ("vision.classification", "vision.infrared", "vision.pose", "snn", "robust")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_is_offered_and_is_what_its_module_has(package: str) -> None:
    found = importlib.import_module(package)
    for name in found.__all__:
        value = getattr(found, name)
        assert getattr(sys.modules[value.__module__], name) is value
        assert name in dir(found)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = found.nothing


def test_packages_below_are_offered_too() -> None:
    code = "import sys, vision; assert 'vision.pose' not in sys.modules; vision.pose.load; print('pose' in dir(vision))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_module_does_not_hide_a_function_of_its_name() -> None:
    code = (
        "import snn.convert, vision.classification.cifar_resnet\n"
        "from snn import convert\nfrom vision.classification import cifar_resnet\n"
        "assert convert.__name__ == 'convert' and callable(convert)\n"
        "assert cifar_resnet.__name__ == 'cifar_resnet' and callable(cifar_resnet)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
