"""Random transforms of a training on its device, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.engines import PrepareBatch
from monai.utils import convert_to_tensor


class BatchAugmentation(PrepareBatch):
    """Move a batch to the device and put it through random transforms there, as the trainer's ``prepare_batch``.

    A data loader's workers then only copy what is cached. The epoch's seed reaches the transforms (EpochSeed), so that
    a resumed training repeats an unbroken one.

    Args:
        transforms: of a dict of plain tensors (B, C, H, W), in their order.
        keys: of the image and the label that go to the network and the loss.
    """

    def __init__(
        self, transforms: Sequence[Callable[[dict], dict]], keys: tuple[str, str] | Sequence[str] = ("image", "label")
    ) -> None:
        self.transforms = list(transforms)
        self.keys = tuple(keys)

    def __call__(  # type: ignore[override]
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return image and label, augmented, on the device."""
        batch = {
            key: convert_to_tensor(value, track_meta=False).to(device, non_blocking=non_blocking, **kwargs)
            for key, value in batchdata.items()
            if isinstance(value, torch.Tensor)
        }
        for transform in self.transforms:
            batch = transform(batch)
        image, label = (batch[key] for key in self.keys)
        return image, label


def check_device_options(augment_on: str, **needs_cpu: bool) -> None:
    """Refuse a word that is no place, and options that a batch on the device cannot have.

    Args:
        augment_on: "cpu", image by image in the data loader, or "device", a batch at a time.
        needs_cpu: by the words to name it with, whether an option is set that only the data loader can do.

    Raises:
        ValueError: in both cases.
    """
    if augment_on not in ("cpu", "device"):
        raise ValueError(f"--augment_on is {augment_on!r}, expected cpu or device.")
    asked = [words.replace("_is_not_", " other than ") for words, value in needs_cpu.items() if value]
    if augment_on == "device" and asked:
        raise ValueError(f"--augment_on device cannot go with --{' and --'.join(asked)}, which takes --augment_on cpu.")
