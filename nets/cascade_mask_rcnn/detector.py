"""The part of a Cascade Mask R-CNN that finds instances, which TorchScript takes."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from .cascade import CascadeHeads
from .instances import label_map_by_torch

DIVISOR = 32


class FloatRPNHead(RPNHead):
    """torchvision's head of the proposals, with results in float32, which boxes need under autocast."""

    def forward(self, x: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return logits and box regression of each map."""
        logits, moves = [], []
        for values in x:
            features = self.conv(values)
            logits.append(self.cls_logits(features).float())
            moves.append(self.bbox_pred(features).float())
        return logits, moves


class CascadeDetector(nn.Module):
    """Find the instances of one class in images (B, 3, H, W), without learning.

    ``forward(images)`` returns label maps int32 (B, 1, H, W), as :func:`.instances.label_map` draws them.

    Args:
        trunk, proposals, heads, double_first, label_score_threshold, min_size, max_size: of
            :class:`.network.CascadeMaskRCNN`.
        mean, std: of each channel, by a tensor (3, 1, 1).
        chosen_threshold: least score in the label map where ``label_score_threshold`` is None, a tensor ().
    """

    def __init__(
        self,
        trunk: nn.Module,
        proposals: RegionProposalNetwork,
        heads: CascadeHeads,
        *,
        double_first: bool,
        mean: torch.Tensor,
        std: torch.Tensor,
        chosen_threshold: torch.Tensor,
        label_score_threshold: float | None,
        min_size: int | None,
        max_size: int,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.proposals = proposals
        self.heads = heads
        self.double_first = double_first
        self.fixed_threshold = label_score_threshold
        self.min_size = min_size
        self.max_size = max_size
        self.divisor = DIVISOR  # TorchScript reads no name of a module
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.chosen_threshold: torch.Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.register_buffer("chosen_threshold", chosen_threshold)

    @property
    def label_score_threshold(self) -> float:
        """The least score in the label map."""
        return float(self.chosen_threshold) if self.fixed_threshold is None else self.fixed_threshold

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the label maps int32 (B, 1, H, W) of images (B, 3, H, W)."""
        if self.training:
            raise ValueError("this network finds instances and learns nothing: set it to evaluate, by eval().")
        if not are_images(images):
            raise ValueError(f"images of shape {list(images.shape)}: expected floating-point (B, 3, H, W).")
        height, width = size_of(images)
        maps = []
        with torch.no_grad():
            for one in self.detect(images):
                boxes, scores, masks = one["boxes"], one["scores"], one["masks"]
                maps.append(label_map_by_torch(boxes, scores, masks, height, width, self.label_score_threshold))
        return torch.stack(maps)[:, None].to(images.device)

    def detect(self, images: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        """Return ``boxes``, ``scores`` and ``masks`` of each image, in its px, on the CPU."""
        size = size_of(images)
        scaled = self._scaled(images)
        features, padded = self._features(scaled)
        boxes, _ = self.proposals(*self._maps_to_propose(features, scaled, padded))
        detections = self.heads.detect(features, boxes, image_size=size_of(scaled), padded_size=size_of(padded))
        factors = torch.tensor([size[1] / scaled.shape[3], size[0] / scaled.shape[2]] * 2)
        found = [{name: values.cpu() for name, values in one.items()} for one in detections]
        for one in found:
            one["boxes"] = one["boxes"] * factors
        return found

    def _scaled(self, images: torch.Tensor) -> torch.Tensor:
        if self.min_size is None:
            return images
        sides = size_of(images)
        factor = min(self.min_size / min(sides), self.max_size / max(sides))
        size = [max(1, int(round(side * factor))) for side in sides]  # noqa: RUF046, as TorchScript rounds to float
        return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)

    def _features(self, images: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Return the maps in float32, and the images as they went in, padded to multiples of 32."""
        normal = (images - self.mean) / self.std
        height, width = size_of(images)
        padded = F.pad(normal, (0, -width % self.divisor, 0, -height % self.divisor))
        return {name: values.float() for name, values in self.trunk(padded).items()}, padded

    def _maps_to_propose(
        self, features: dict[str, torch.Tensor], images: torch.Tensor, padded: torch.Tensor
    ) -> tuple[ImageList, dict[str, torch.Tensor]]:
        """Return what torchvision's network of proposals takes."""
        maps = {"first": features["0"]} if self.double_first else {}
        maps.update(features)
        return ImageList(padded, [size_of(images)] * len(images)), maps


def are_images(images: torch.Tensor) -> bool:
    """Tell whether a tensor is floating-point (B, 3, H, W) and not empty."""
    return images.ndim == 4 and images.shape[1] == 3 and images.numel() > 0 and images.is_floating_point()


def size_of(images: torch.Tensor) -> tuple[int, int]:
    """Return height and width of images (..., H, W)."""
    return images.shape[-2], images.shape[-1]
