"""Batches, loss and gradients of a training whose targets are instances, for MONAI's trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from monai.engines import Trainer
from monai.engines.utils import IterationEvents
from torch.nn import functional as F

TARGETS = ("boxes", "points", "point_labels", "supervision", "masks")


def collate_instances(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Join items whose numbers of instances differ.

    Args:
        items: with ``image`` (C, H, W) and the instances as :class:`..transforms.points.InstancesFollowd` leaves them.

    Returns:
        ``image`` (B, C, H, W), smaller ones padded by zeros at the right and below, and ``instances``, a dict of
        tensors for each image.
    """
    images = [item["image"].as_tensor() if isinstance(item["image"], MetaTensor) else item["image"] for item in items]
    height, width = (max(image.shape[axis] for image in images) for axis in (-2, -1))
    instances = [{key: item[key] for key in TARGETS if key in item} for item in items]
    for one in instances:
        if "masks" in one:
            one["masks"] = _padded(one["masks"], height, width)
    return {"image": torch.stack([_padded(image, height, width) for image in images]), "instances": instances}


def _padded(values: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return F.pad(values, (0, width - values.shape[-1], 0, height - values.shape[-2]))


def prepare_instances(
    batch: Mapping[str, Any], device: str | torch.device | None = None, non_blocking: bool = False, **kwargs: Any
) -> tuple[torch.Tensor, list[dict[str, torch.Tensor]], tuple, dict]:
    """Give MONAI's trainer a batch of :func:`collate_instances`: the network takes images and instances.

    Returns:
        images, instances, and the further arguments of the network, all on ``device``.
    """
    images = batch["image"].to(device=device, non_blocking=non_blocking, **kwargs)
    instances = [
        {key: value.to(device=device, non_blocking=non_blocking) for key, value in one.items()}
        for one in batch["instances"]
    ]
    return images, instances, (instances,), {}


def total_loss(losses: Mapping[str, torch.Tensor], _: Any) -> torch.Tensor:
    """Add up the losses that a network returns by name.

    Raises:
        ValueError: one of them is not finite; the message names it.
    """
    total = torch.stack(list(losses.values())).sum()
    if not torch.isfinite(total):
        values = ", ".join(f"{name} {float(value):.3g}" for name, value in losses.items())
        raise ValueError(f"the loss is not finite ({values}): a smaller learning_rate or a longer warm-up may help.")
    return total


class ClipGradients:
    """Scale the gradients of a step down to a largest norm.

    Args:
        max_norm: of the gradients of all parameters together; None leaves them.
    """

    def __init__(self, max_norm: float | None) -> None:
        if max_norm is not None and not max_norm > 0:
            raise ValueError(f"max_norm is {max_norm}, expected a number above 0, or None.")
        self.max_norm = max_norm

    def attach(self, engine: Trainer) -> None:
        """Register with a trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Clip the gradients that the step takes next."""
        if self.max_norm is None:
            return
        if engine.amp and engine.scaler is not None:
            engine.scaler.unscale_(engine.optimizer)
        torch.nn.utils.clip_grad_norm_(engine.network.parameters(), self.max_norm)
