"""Inferers: a forward pass in a precision of choice, and one on plain tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from monai.inferers import SimpleInferer
from monai.utils import convert_to_tensor

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class PrecisionInferer(SimpleInferer):
    """Run a network under autocast to a precision, on the device of the image, and return its result in float32.

    A result of whole numbers stays, and of losses by name each becomes float32.

    MONAI's ``amp`` computes in float16, on CUDA alone. bfloat16 needs no scaling of gradients, and a CPU that has
    instructions for it trains about twice as fast. float16 does, so a training takes ``amp`` beside it.

    Args:
        precision: "float32" (no autocast), "bfloat16" or "float16".

    Raises:
        ValueError: another word; in a call, float16 on a CPU, where nothing scales gradients.
    """

    def __init__(self, precision: str = "float32") -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise ValueError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}.")
        self.precision = precision

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> Any:
        """Run ``network`` on ``inputs``."""
        device = inputs.device.type
        if self.precision == "float32":
            return super().__call__(inputs, network, *args, **kwargs)
        if self.precision == "float16" and device == "cpu":
            raise ValueError("precision is 'float16', which needs a GPU; on a CPU take 'bfloat16'.")
        with torch.autocast(device, PRECISIONS[self.precision]):
            return _in_float32(super().__call__(inputs, network, *args, **kwargs))


def _in_float32(result: Any) -> Any:
    if isinstance(result, Mapping):
        return {name: _in_float32(value) for name, value in result.items()}
    return result.float() if result.is_floating_point() else result


class PlainTensorInferer(PrecisionInferer):
    """Run a network in a precision, as its base class does, on plain tensors without MONAI's meta data.

    A ``MetaTensor`` is dispatched through Python at every layer, which takes a millisecond or two: much, where a small
    network classifies one image at a time.
    """

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run ``network`` on ``inputs``."""
        return super().__call__(convert_to_tensor(inputs, track_meta=False), network, *args, **kwargs)


class SlicewiseInferer(PrecisionInferer):
    """Run a network of two dimensions on the slices of a volume, a batch of them at a time.

    Of a network that returns a dict, as torchvision's for segmentation do, ``out`` is taken.

    Args:
        precision: as of :class:`PrecisionInferer`.
        slices: at a time.
    """

    def __init__(self, precision: str = "float32", slices: int = 64) -> None:
        super().__init__(precision)
        self.slices = slices

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Map volumes (N, C, H, W, D) to (N, K, H, W, D), K the channels of the network's result."""
        volume = convert_to_tensor(inputs, track_meta=False)
        n, channels, height, width, depth = volume.shape
        flat = volume.permute(0, 4, 1, 2, 3).reshape(n * depth, channels, height, width)
        run = super().__call__
        results = [run(part, network, *args, **kwargs) for part in flat.split(self.slices)]
        parts = [result["out"] if isinstance(result, Mapping) else result for result in results]
        result = torch.cat(parts).unflatten(0, (n, depth)).permute(0, 2, 3, 4, 1)
        # What was done to the image, so that a later step can undo it to the result.
        return MetaTensor(result).copy_meta_from(inputs) if isinstance(inputs, MetaTensor) else result
