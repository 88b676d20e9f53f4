"""The modules behind the commands, as tests import them."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], ModuleType]:
    """From a name below clinbundles.scripts, such as audit.run, to its module."""

    def load(name: str) -> ModuleType:
        return importlib.import_module(f"clinbundles.scripts.{name}")

    return load


@pytest.fixture(scope="session")
def mobilenet_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of MobileNetV2 without its classifier, scaled so that different images have different features."""
    torch.manual_seed(0)
    network = mobilenet_v2(weights=None).features.train()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # one batch then gives its statistics
    with torch.no_grad():
        network(torch.randn(8, 3, 64, 64))
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2.pt"
    torch.save(network.state_dict(prefix="features."), path)
    return path
