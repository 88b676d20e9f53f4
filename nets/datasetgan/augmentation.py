"""Augmentations of StyleGAN2-ADA: what the discriminator sees of real and generated images alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from .affine_warp import product, rotation, scaling, translation, warp
from .color_maps import brightness, contrast, hue_rotation, luma_flip, recolor, saturation

BLIT = ("x_flip", "rotate_90", "integer_translation")
GEOMETRY = ("isotropic_scale", "rotation", "anisotropic_scale", "fractional_translation")
COLOR = ("brightness", "contrast", "luma_flip", "hue", "saturation")
TRANSFORMS = BLIT + GEOMETRY + COLOR
GROUPS = {
    "b": BLIT,
    "blit": BLIT,
    "g": GEOMETRY,
    "geom": GEOMETRY,
    "c": COLOR,
    "color": COLOR,
    "bg": BLIT + GEOMETRY,
    "bgc": TRANSFORMS,
    # Air and bone of a CT slice never change places.
    "ct": tuple(name for name in TRANSFORMS if name != "luma_flip"),
    "none": (),
}


class Parameters(NamedTuple):
    """What is done to each image of a batch."""

    flip: torch.Tensor  # (N,), bool: left and right change places, first of all
    quarter_turns: torch.Tensor  # (N,), int64: 0 to 3, from x towards minus y, next
    inverse: torch.Tensor  # (N, 3, 3): places of the output to places of the turned image, in pixels from its centre
    color: torch.Tensor  # (N, 4, 4): (red, green, blue, 1) of [-1, 1] to the new one


def transform_names(transforms: str | Sequence[str]) -> frozenset[str]:
    """Return the transforms that a name, or a sequence of names of groups and of transforms, stands for.

    Raises:
        ValueError: if a name is neither a group's nor a transform's.
    """
    names = [transforms] if isinstance(transforms, str) else list(transforms)
    for name in names:
        if name not in GROUPS and name not in TRANSFORMS:
            choices = ", ".join([*GROUPS, *TRANSFORMS])
            raise ValueError(f"transforms holds {name!r}, which is none of {choices}.")
    return frozenset(transform for name in names for transform in GROUPS.get(name, (name,)))


class AdaptiveAugmentation(nn.Module):
    """Augment each image of a batch by random transforms, each applied with one common probability.

    Images (N, C, S, S) of [-1, 1] with one or three channels give images of the same shape and type. With probability 0
    they come back as they are. The result can be differentiated twice with respect to the images. Hue and saturation
    do nothing to one channel. Random numbers come from torch's generator of the probability's device.

    Args:
        transforms: names of transforms or groups: "b" (flip, quarter turns, whole pixels), "g" (scale, rotation,
            fractions of pixels), "c" (brightness, contrast, luma flip, hue, saturation), "bg", "bgc", or "ct", which is
            "bgc" without the luma flip; "none" leaves the images as they are.
        probability: at the start; the buffer of this name is what :class:`AdaptiveProbability` moves.

    Raises:
        ValueError: if a name is unknown, the probability is not of [0, 1], or images are not square.

    Source: Karras et al., Training generative adversarial networks with limited data, 2020, appendix B. Flips and
    quarter turns move pixels here, where the reference filters them; the rest of the geometry is one :func:`warp`.
    """

    probability: torch.Tensor

    def __init__(self, transforms: str | Sequence[str] = "bgc", probability: float = 0.0) -> None:
        super().__init__()
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must be of 0 to 1, but is {probability}.")
        self.transforms = transform_names(transforms)
        self.register_buffer("probability", torch.tensor(float(probability)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Augment images (N, C, S, S)."""
        if images.dim() != 4 or images.shape[2] != images.shape[3] or images.shape[1] not in (1, 3):
            raise ValueError(
                f"images must be square, (N, 1 or 3, S, S), to be augmented, but are {tuple(images.shape)}."
            )
        # On a GPU the question would wait for all work ahead; there identical images come from the last steps instead.
        if not self.transforms or (self.probability.device.type == "cpu" and self.probability == 0):
            return images
        return self.apply_parameters(images, self.draw(images.shape))

    def draw(self, shape: Sequence[int]) -> Parameters:
        """Draw what is done to images of a shape (N, C, S, S)."""
        count, channels, side, _ = shape
        flip, turns = self._draw_moves(count)
        return Parameters(flip, turns, self._draw_inverse(count, side), self._draw_color(count, channels))

    def apply_parameters(self, images: torch.Tensor, parameters: Parameters) -> torch.Tensor:
        """Do to images (N, C, S, S) what was drawn."""
        dtype = images.dtype
        with torch.autocast(images.device.type, enabled=False):
            augmented = images.float() if dtype in (torch.bfloat16, torch.float16) else images
            if "x_flip" in self.transforms:
                augmented = torch.where(_per_image(parameters.flip), augmented.flip(-1), augmented)
            if "rotate_90" in self.transforms:
                turns = _per_image(parameters.quarter_turns)
                augmented = torch.where(turns >= 2, augmented.flip(-1, -2), augmented)
                augmented = torch.where(turns % 2 == 1, augmented.rot90(1, (-2, -1)), augmented)
            if self.transforms.intersection((*GEOMETRY, "integer_translation")):
                augmented = _warp_changed(augmented, parameters.inverse)
            if self.transforms.intersection(COLOR):
                augmented = recolor(augmented, parameters.color)
            return augmented.to(dtype)

    def _uniform(self, count: int) -> torch.Tensor:
        """Draw (count,) values of 0 to 1."""
        return torch.rand(count, device=self.probability.device)

    def _normal(self, count: int) -> torch.Tensor:
        return torch.randn(count, device=self.probability.device)

    def _angle(self, count: int) -> torch.Tensor:
        """Draw angles (count,) of a full circle, in radians."""
        return math.pi * (2 * self._uniform(count) - 1)

    def _draw_one(
        self, name: str, count: int, neutral: float, draw: Callable[[], torch.Tensor], twice: bool = False
    ) -> torch.Tensor:
        """Draw values (count,), neutral where the transform is not applied; ``twice``: at one of two tries together."""
        if name not in self.transforms:
            return torch.full((count,), neutral, device=self.probability.device)
        probability = 1 - (1 - self.probability).sqrt() if twice else self.probability
        values = draw()
        return torch.where(self._uniform(count) < probability, values, torch.full_like(values, neutral))

    def _draw_moves(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw flips (count,) and numbers of quarter turns (count,)."""
        flip = self._draw_one("x_flip", count, 0, lambda: (2 * self._uniform(count)).floor())
        turns = self._draw_one("rotate_90", count, 0, lambda: (4 * self._uniform(count)).floor())
        return flip > 0, turns.long()

    def _draw_inverse(self, count: int, side: int) -> torch.Tensor:
        """Draw maps (count, 3, 3) from output to input places: a later transform stands further right."""
        # A shift is applied along both axes or along none.
        one = torch.ones(count, device=self.probability.device)
        applied = self._draw_one("integer_translation", count, 0, lambda: one)
        inverse = translation(*(-applied * (side / 8 * (2 * self._uniform(count) - 1)).round() for _ in range(2)))
        scale = self._draw_one("isotropic_scale", count, 1, lambda: torch.exp2(0.2 * self._normal(count)))
        inverse = product(inverse, scaling(1 / scale, 1 / scale))
        angle = self._draw_one("rotation", count, 0, lambda: self._angle(count), twice=True)
        inverse = product(inverse, rotation(angle))
        scale = self._draw_one("anisotropic_scale", count, 1, lambda: torch.exp2(0.2 * self._normal(count)))
        inverse = product(inverse, scaling(1 / scale, scale))
        angle = self._draw_one("rotation", count, 0, lambda: self._angle(count), twice=True)
        inverse = product(inverse, rotation(angle))
        applied = self._draw_one("fractional_translation", count, 0, lambda: one)
        return product(inverse, translation(*(-applied * side / 8 * self._normal(count) for _ in range(2))))

    def _draw_color(self, count: int, channels: int) -> torch.Tensor:
        """Draw maps (count, 4, 4) of colours: a later transform stands further left."""
        shift = self._draw_one("brightness", count, 0, lambda: 0.2 * self._normal(count))
        color = brightness(shift)
        scale = self._draw_one("contrast", count, 1, lambda: torch.exp2(0.5 * self._normal(count)))
        color = product(contrast(scale), color)
        flip = self._draw_one("luma_flip", count, 0, lambda: (2 * self._uniform(count)).floor())
        color = product(luma_flip(flip), color)
        if channels == 1:
            return color
        angle = self._draw_one("hue", count, 0, lambda: self._angle(count))
        color = product(hue_rotation(angle), color)
        scale = self._draw_one("saturation", count, 1, lambda: torch.exp2(self._normal(count)))
        return product(saturation(scale), color)


def _per_image(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None, None]


def _warp_changed(images: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """Warp the images (N, C, S, S) whose map is not the identity, which would leave them as they are up to rounding."""
    changed = (inverse != torch.eye(3, device=inverse.device)).flatten(1).any(1)
    if images.device.type != "cpu":
        # To count the images would wait for the device.
        return torch.where(_per_image(changed), warp(images, inverse), images)
    numbers = changed.nonzero()[:, 0]
    if len(numbers) == len(images):
        return warp(images, inverse)
    return (
        images.index_copy(0, numbers, warp(images.index_select(0, numbers), inverse[numbers]))
        if len(numbers)
        else images
    )
