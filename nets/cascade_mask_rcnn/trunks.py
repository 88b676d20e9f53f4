"""Trunks with a feature pyramid: MobileNetV2, ResNet and ResNeSt."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torchvision.models import get_model
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from ..optional_packages import needed_by
from ..weights import fit_weights, read_weights
from .resnest import deform


@dataclass(frozen=True)
class Stages:
    """Layers of a classifier whose results have strides of 4, 8, 16 and 32, and their channels."""

    layers: tuple[str, str, str, str]
    channels: tuple[int, int, int, int]


_RESNET_LAYERS = ("layer1", "layer2", "layer3", "layer4")
BACKBONES = {
    "mobilenet_v2": Stages(("3", "6", "13", "16"), (24, 32, 96, 160)),
    "resnet18": Stages(_RESNET_LAYERS, (64, 128, 256, 512)),
    "resnet50": Stages(_RESNET_LAYERS, (256, 512, 1024, 2048)),
    "resnest200": Stages(_RESNET_LAYERS, (256, 512, 1024, 2048)),
}


def trunk_with_pyramid(
    backbone: str, fpn_channels: int, *, weights: str | os.PathLike | None = None
) -> BackboneWithFPN:
    """Build a trunk from images (B, 3, H, W) to a pyramid of maps (B, ``fpn_channels``, h, w).

    The maps are called "0" to "3", with strides of 4 to 32, and "pool", with 64.

    Args:
        backbone: "mobilenet_v2", "resnet18", "resnet50" or "resnest200". The last has deformable convolutions in its
            last three stages.
        fpn_channels: channels of every map.
        weights: file with the weights of the classifier, under the names of torchvision, or of timm's "resnest200e";
            what lies behind the last stage may be missing. None leaves random weights.

    Raises:
        ValueError: an unknown name, or weights that do not fit.
        FileNotFoundError: there is no such file of weights.
        ModuleNotFoundError: "resnest200" without the package timm.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"backbone is {backbone!r}, expected one of {', '.join(BACKBONES)}.")
    stages = BACKBONES[backbone]
    classifier: nn.Module
    if backbone == "resnest200":
        with needed_by(backbone):
            import timm
        classifier = timm.create_model("resnest200e", pretrained=False, num_classes=0)
    else:
        classifier = get_model(backbone, weights=None)
    body = classifier.get_submodule("features") if backbone == "mobilenet_v2" else classifier
    names = {layer: str(number) for number, layer in enumerate(stages.layers)}
    trunk = BackboneWithFPN(body, names, list(stages.channels), fpn_channels)
    if weights is not None:
        content = read_weights(weights, purpose="weights of the trunk")
        fit_weights(trunk.body, _of_stages(content, classifier, trunk.body), source=weights, part=backbone)
    if backbone == "resnest200":
        deform(trunk.body)
    return trunk


def _of_stages(content: Mapping[str, torch.Tensor], classifier: nn.Module, body: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights under the names of ``body``, without those of what the classifier has behind it."""
    behind = {name.removeprefix("features.") for name in classifier.state_dict()} - body.state_dict().keys()
    behind |= {"fc.weight", "fc.bias"}  # timm builds a network without classes without this layer
    plain = {name.removeprefix("features."): value for name, value in content.items()}
    return {name: value for name, value in plain.items() if name not in behind}


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """Return all batch norms in a module."""
    return [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
