"""A forward pass on plain tensors."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import SimpleInferer
from monai.utils import convert_to_tensor


class PlainTensorInferer(SimpleInferer):
    """Image, with MONAI's meta data or without, in; logits without meta data out.

    A ``MetaTensor`` is dispatched through Python at every layer, which takes a millisecond or two: much, where a small
    network classifies one image at a time.
    """

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run ``network`` on ``inputs``."""
        return super().__call__(convert_to_tensor(inputs, track_meta=False), network, *args, **kwargs)
