"""Colour spaces of endoscopy frames: RGB, CIE LUV and HSV."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

import numpy as np
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_data_type, convert_to_dst_type
from skimage.color.colorconv import rgb2hsv, rgb2luv

# Extremes of L, u and v over the sRGB cube under D65.
_LUV_MIN = np.array([0.0, -83.08, -134.11], dtype=np.float32)
_LUV_MAX = np.array([100.0, 175.06, 107.42], dtype=np.float32)


def _unit_luv(rgb: np.ndarray) -> np.ndarray:
    return np.clip((rgb2luv(rgb) - _LUV_MIN) / (_LUV_MAX - _LUV_MIN), 0, 1)


class ColorSpace(Transform):
    """Convert an RGB image (3, H, W) in [0, 1] to another colour space, with every channel in [0, 1].

    LUV channels are scaled by their extremes over the sRGB cube, so that one normalisation serves all three spaces.

    Args:
        color_space: "RGB" (unchanged), "LUV" or "HSV".

    Raises:
        ValueError: another ``color_space``, or an image that has not three channels in [0, 1].

    Source: Mao et al., Medical Image Segmentation on Attention-based Gaussian Blurring, section 2.1.
    """

    def __init__(self, color_space: str) -> None:
        converters: dict[str, Callable | None] = {"RGB": None, "LUV": _unit_luv, "HSV": rgb2hsv}
        if color_space not in converters:
            raise ValueError(f"color_space is {color_space!r}, expected one of {', '.join(converters)}.")
        self._convert = converters[color_space]

    def __call__(self, image: NdarrayOrTensor) -> NdarrayOrTensor:
        """Convert one image (3, H, W)."""
        if self._convert is None:
            return image
        rgb = convert_data_type(image, np.ndarray)[0]
        if rgb.ndim != 3 or rgb.shape[0] != 3:
            raise ValueError(f"image has shape {tuple(rgb.shape)}, expected (3, H, W).")
        if rgb.min() < 0 or rgb.max() > 1:
            raise ValueError(f"image values span {rgb.min():.3g} to {rgb.max():.3g}, expected [0, 1].")
        converted = np.moveaxis(self._convert(np.moveaxis(rgb, 0, -1)), -1, 0).astype(np.float32)
        return convert_to_dst_type(np.ascontiguousarray(converted), image)[0]


class ColorSpaced(MapTransform):
    """Convert the RGB images of a sample; the dict form of :class:`ColorSpace`."""

    def __init__(self, keys: KeysCollection, color_space: str, *, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self._converter = ColorSpace(color_space)

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Convert the images under ``keys``."""
        return {**data, **{key: self._converter(data[key]) for key in self.key_iterator(data)}}
