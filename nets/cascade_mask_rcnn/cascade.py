"""Heads of a cascade: box stages that each refine the boxes of the one before, and a mask head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.ops import MultiScaleRoIAlign, clip_boxes_to_image

OVERLAPS = (0.5, 0.6, 0.7)  # least IoU of a positive, by stage
COORDINATE_WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
POSITIVE_SHARE = 0.25
BOX_CELLS, MASK_CELLS = 7, 14
LEAST_SIDE = 1e-2  # px
MASKS_AT_A_TIME = 500


class ScaleGradient(torch.autograd.Function):
    """The identity, with a gradient times ``factor``."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, factor: float) -> torch.Tensor:
        """Return the values as they are."""
        ctx.factor = factor
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the scaled gradient."""
        return gradients[0] * ctx.factor, None


@dataclass(frozen=True)
class MaskSamples:
    """Positive proposals of a batch whose masks are trained: logits (R, 1, S, S), and boxes and instances by image."""

    logits: torch.Tensor
    boxes: list[torch.Tensor]
    matches: list[torch.Tensor]


class BoxPredictor(nn.Module):
    """The logits of background and cell (R, 2), and a box for both (R, 4), from features (R, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scores = nn.Linear(channels, 2)
        self.boxes = nn.Linear(channels, 4)
        for layer, std in ((self.scores, 0.01), (self.boxes, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits and box regression in float32, which boxes need under autocast."""
        return self.scores(features).float(), self.boxes(features).float()


class CascadeStage(RoIHeads):
    """torchvision's heads, whose gradient into the features is scaled."""

    def predict(
        self, features: dict[str, torch.Tensor], boxes: list[torch.Tensor], size: tuple[int, int], gradient: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits (R, 2) and box regression (R, 4) of the boxes of images of a size in px, padding included.

        The gradient into the features is multiplied by ``gradient``.
        """
        pooled = self.box_roi_pool(features, boxes, [size] * len(boxes))
        if not torch.jit.is_scripting():
            pooled = ScaleGradient.apply(pooled, gradient)
        return self.box_predictor(self.box_head(pooled))


class CascadeHeads(nn.Module):
    """Refine and score proposals in stages, and predict a mask for each that remains.

    Stage k learns from proposals that overlap an instance by 0.5, 0.6 and 0.7, the boxes of stage k - 1 from k = 2 on;
    its gradient into the features is divided by the number of stages. The mask head is trained on the positive
    proposals that stage 1 samples, and runs on the last stage's boxes in testing. There the score is the mean over the
    stages. With one stage these are the heads of Mask R-CNN. Each stage uses the parts of torchvision's ``RoIHeads``.

    Args:
        channels: of the feature maps.
        maps: names of the maps that proposals are pooled from.
        n_stages: 1 to 3.
        box_units, box_layers, box_conv_layers: width and number of the linear layers of each box head, and number of
            the convolutions before them.
        mask_channels, mask_layers: of the convolutions of the mask head.
        box_rois, mask_rois: proposals that an image trains the box heads with, at most a quarter positive ones, and at
            most so many of these the mask head.
        score_threshold, nms_threshold, detections: what is kept of an image in testing.

    Source: Cai and Vasconcelos, Cascade R-CNN: High Quality Object Detection and Instance Segmentation, 2019; its
    implementation in Detectron2.
    """

    def __init__(
        self,
        channels: int,
        maps: Sequence[str],
        *,
        n_stages: int,
        box_units: int,
        box_layers: int,
        box_conv_layers: int,
        mask_channels: int,
        mask_layers: int,
        box_rois: int,
        mask_rois: int,
        score_threshold: float,
        nms_threshold: float,
        detections: int,
    ) -> None:
        super().__init__()
        if n_stages not in (1, 2, 3):
            raise ValueError(f"n_stages is {n_stages}, expected 1, 2 or 3.")
        self.mask_rois = mask_rois
        # TorchScript reads no names of a module.
        self.mask_side = 2 * MASK_CELLS
        self.masks_at_a_time = MASKS_AT_A_TIME
        self.stages: Any = nn.ModuleList(
            CascadeStage(
                MultiScaleRoIAlign(list(maps), BOX_CELLS, sampling_ratio=0),
                FastRCNNConvFCHead(
                    (channels, BOX_CELLS, BOX_CELLS), [channels] * box_conv_layers, [box_units] * box_layers
                ),
                BoxPredictor(box_units),
                overlap,
                overlap,
                box_rois,
                POSITIVE_SHARE,
                weights,
                score_threshold,
                nms_threshold,
                detections,
            )
            for overlap, weights in list(zip(OVERLAPS, COORDINATE_WEIGHTS, strict=True))[:n_stages]
        )
        self.mask_pool = MultiScaleRoIAlign(list(maps), MASK_CELLS, sampling_ratio=0)
        self.mask_head = nn.Sequential(
            MaskRCNNHeads(channels, [mask_channels] * mask_layers, 1),
            MaskRCNNPredictor(mask_channels, mask_channels, 1),
        )

    def losses(
        self,
        features: dict[str, torch.Tensor],
        proposals: list[torch.Tensor],
        targets: Sequence[Mapping[str, torch.Tensor]],
        *,
        image_size: tuple[int, int],
        padded_size: tuple[int, int],
    ) -> tuple[dict[str, torch.Tensor], MaskSamples]:
        """Return the losses of the box stages, and the positive proposals with their mask logits.

        Args:
            features: maps by their names (B, C, h, w).
            proposals: those of each image (N, 4) in px.
            targets: the true ``boxes`` (K, 4) of each image, in px.
            image_size: height and width of the images without padding, in px.
            padded_size: the same with it.
        """
        given = [target["boxes"] for target in targets]
        labels = [torch.ones(len(boxes), dtype=torch.int64, device=boxes.device) for boxes in given]
        instances = [{"boxes": boxes, "labels": label} for boxes, label in zip(given, labels, strict=True)]
        boxes, matches, classes, regression = self.stages[0].select_training_samples(list(proposals), instances)
        samples = self._mask_samples(features, boxes, matches, classes, padded_size)
        losses = {}
        for number, stage in enumerate(self.stages, start=1):
            if number > 1:
                matches, classes = stage.assign_targets_to_proposals(boxes, given, labels)
                truths = [
                    of_image[match] if len(of_image) > 0 else torch.zeros_like(proposed)
                    for of_image, match, proposed in zip(given, matches, boxes, strict=True)
                ]
                regression = stage.box_coder.encode(truths, boxes)
            logits, moves = stage.predict(features, boxes, padded_size, 1 / len(self.stages))
            # torchvision reads the moves of the class, so both classes have the same.
            score_loss, box_loss = fastrcnn_loss(logits, moves.repeat(1, 2), classes, regression)
            losses[f"loss_classifier_{number}"] = score_loss
            losses[f"loss_box_reg_{number}"] = box_loss
            if number < len(self.stages):
                boxes = _moved(stage.box_coder.decode(moves.detach(), boxes), boxes, image_size)
        return losses, samples

    def detect(
        self,
        features: dict[str, torch.Tensor],
        proposals: list[torch.Tensor],
        *,
        image_size: tuple[int, int],
        padded_size: tuple[int, int],
    ) -> list[dict[str, torch.Tensor]]:
        """Return ``boxes`` (K, 4), ``scores`` (K,), falling, and mask probabilities ``masks`` (K, S, S) by image.

        Args: as of :meth:`losses`.
        """
        boxes, probabilities = proposals, []
        for number, stage in enumerate(self.stages, start=1):
            logits, moves = stage.predict(features, boxes, padded_size, 1 / len(self.stages))
            probabilities.append(logits.softmax(dim=1))
            if number < len(self.stages):
                boxes = _moved(stage.box_coder.decode(moves.detach(), boxes), boxes, image_size)
        # torchvision takes the softmax of what it is given, which undoes the logarithm.
        found, scores, _ = stage.postprocess_detections(
            torch.stack(probabilities).mean(dim=0).log(), moves.repeat(1, 2), boxes, [image_size] * len(boxes)
        )
        masks = self._masks(features, found, padded_size)
        return [{"boxes": found[i], "scores": scores[i], "masks": masks[i]} for i in range(len(found))]

    def _mask_samples(
        self,
        features: dict[str, torch.Tensor],
        boxes: list[torch.Tensor],
        matches: list[torch.Tensor],
        classes: list[torch.Tensor],
        size: tuple[int, int],
    ) -> MaskSamples:
        rows = [torch.where(label > 0)[0] for label in classes]
        if self.mask_rois < max(len(row) for row in rows):
            rows = [row[torch.randperm(len(row), device=row.device)[: self.mask_rois]] for row in rows]
        positives = [of_image[row] for of_image, row in zip(boxes, rows, strict=True)]
        logits = self.mask_head(self.mask_pool(features, positives, [size] * len(boxes))).float()
        return MaskSamples(logits, positives, [match[row] for match, row in zip(matches, rows, strict=True)])

    def _masks(
        self, features: dict[str, torch.Tensor], boxes: list[torch.Tensor], size: tuple[int, int]
    ) -> list[torch.Tensor]:
        """Return mask probabilities (K, S, S) of the boxes of each image, a bounded number at a time."""
        masks = []
        for number, of_image in enumerate(boxes):
            maps = {name: values[number : number + 1] for name, values in features.items()}
            parts = [of_image.new_zeros((0, self.mask_side, self.mask_side))]
            # What is traced has no loop for another number of boxes.
            for part in [of_image] if torch.jit.is_tracing() else of_image.split(self.masks_at_a_time):
                if len(part) > 0:
                    logits = self.mask_head(self.mask_pool(maps, [part], [size]))
                    parts.append(logits[:, 0].float().sigmoid())
            masks.append(torch.cat(parts))
        return masks


def _moved(
    decoded: torch.Tensor, boxes: list[torch.Tensor], image_size: tuple[int, int], least_side: float = LEAST_SIDE
) -> list[torch.Tensor]:
    """Return the boxes that a stage makes of its proposals, within the image and none without area."""
    clipped = clip_boxes_to_image(decoded.reshape(-1, 4), image_size)
    corners = torch.cat([clipped[:, :2], torch.maximum(clipped[:, 2:], clipped[:, :2] + least_side)], dim=1)
    return list(corners.split([of_image.shape[0] for of_image in boxes]))  # which is traced, as len is not
