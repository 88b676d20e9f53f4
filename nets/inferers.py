"""Inferers: a forward pass in bfloat16, and one on plain tensors."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import SimpleInferer
from monai.utils import convert_to_tensor


class BFloat16Inferer(SimpleInferer):
    """Image in, float32 logits out, computed under bfloat16 autocast on the image's own device.

    MONAI's ``amp`` is for CUDA alone. bfloat16 needs no gradient scaler, and a CPU that has instructions for it trains
    about twice as fast.

    Args:
        enabled: False makes this a plain ``SimpleInferer``.
    """

    def __init__(self, enabled: bool = True) -> None:
        super().__init__()
        self.enabled = enabled

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run ``network`` on ``inputs``."""
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.enabled):
            result = super().__call__(inputs, network, *args, **kwargs)
        return result.float() if self.enabled else result


class PlainTensorInferer(SimpleInferer):
    """Image, with MONAI's meta data or without, in; logits without meta data out.

    A ``MetaTensor`` is dispatched through Python at every layer, which takes a millisecond or two: much, where a small
    network classifies one image at a time.
    """

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run ``network`` on ``inputs``."""
        return super().__call__(convert_to_tensor(inputs, track_meta=False), network, *args, **kwargs)
