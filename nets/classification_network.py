"""Image classifiers behind one name: a small network of our own, and those of torchvision and timm."""

from __future__ import annotations

from collections.abc import Sequence

import torchvision
from torch import nn
from torchvision.models import get_model, list_models

from .optional_packages import needed_by
from .pneumonia_cnn import PneumoniaCNN

OWN_NETWORK = "PneumoniaCNN"
_TIMM = "timm/"
_SEVERAL_OUTPUTS = ("googlenet", "inception_v3")


def classification_network(
    network_name: str,
    num_classes: int,
    *,
    channels: Sequence[int] = (32, 64, 128, 128),
    dense_units: int = 512,
    dropout: float = 0.5,
    image_size: int = 224,
) -> nn.Module:
    """Build the classifier of a name, from images (B, 3, H, W) to logits (B, ``num_classes``), with random weights.

    A network of torchvision or timm keeps the names of its layers, so that its published weights fit; its last linear
    layer is one of ``num_classes``.

    Args:
        network_name: "PneumoniaCNN", a classifier of torchvision such as "resnet50", or one of timm such as
            "timm/tf_efficientnet_lite0".
        num_classes: number of classes.
        channels, dense_units, dropout, image_size: of :class:`clinbundles.nets.pneumonia_cnn.PneumoniaCNN`; the others
            have their own.

    Raises:
        ValueError: unknown name, a network whose last layer is not linear, or one of several outputs in training.
    """
    if network_name == OWN_NETWORK:
        return PneumoniaCNN(
            num_classes, channels=channels, dense_units=dense_units, dropout=dropout, image_size=image_size
        )
    if network_name.startswith(_TIMM):
        with needed_by(network_name):
            import timm  # seconds of a start, for networks of its own alone

        name = network_name.removeprefix(_TIMM)
        if not timm.is_model(name):
            raise ValueError(f"network_name is {network_name!r}: timm has no network {name}.")
        return timm.create_model(name, pretrained=False, num_classes=num_classes)
    if network_name not in list_models(module=torchvision.models):  # what detects or segments lies in modules below
        raise ValueError(
            f"network_name is {network_name!r}: expected {OWN_NETWORK}, a classifier of torchvision such as resnet50, "
            f"or one of timm such as {_TIMM}tf_efficientnet_lite0."
        )
    if network_name in _SEVERAL_OUTPUTS:
        raise ValueError(f"network_name is {network_name!r}: it has more than one output in training.")
    network = get_model(network_name, weights=None)
    layers = [(name, layer) for name, layer in network.named_modules() if not list(layer.children())]
    name, last = layers[-1]
    if not isinstance(last, nn.Linear):
        raise ValueError(f"network_name is {network_name!r}: its last layer {name} is no linear one to replace.")
    network.set_submodule(name, nn.Linear(last.in_features, num_classes))
    return network
