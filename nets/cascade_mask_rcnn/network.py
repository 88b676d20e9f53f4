"""Cascade Mask R-CNN with one class: losses in training, a label map of instances in evaluation."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RegionProposalNetwork

from ..weights import fit_weights, read_weights
from .cascade import CascadeHeads
from .detector import CascadeDetector, FloatRPNHead, are_images, size_of
from .instances import label_map
from .supervision import MASK, POINTS, instance_losses
from .trunks import batch_norms, trunk_with_pyramid

MAPS = ("0", "1", "2", "3")  # strides of 4 to 32
Targets = Sequence[Mapping[str, torch.Tensor]]


class CascadeMaskRCNN(CascadeDetector):
    """Find the instances of one class in images (B, 3, H, W).

    Boxes and points are x before y in continuous pixel coordinates: pixel i covers [i, i + 1).

    In training, ``forward(images, targets)`` returns losses by name. ``targets`` holds for each image

    - ``boxes`` float (K, 4): x1, y1, x2, y2 in px.
    - ``supervision`` (K,): what the mask learns from, 0 the box alone, 1 points, 2 a mask.
    - ``points`` float (K, P, 2) in px and ``point_labels`` (K, P): 1 cell, 0 background, -1 ignored; needed where
      ``supervision`` is 1. Images with fewer points than others of the batch count the missing ones as ignored.
    - ``masks`` uint8 (K, H, W) of 0 and 1; needed where ``supervision`` is 2.

    In evaluation, ``forward(images)`` returns the label map int32 (B, 1, H, W): see :func:`.instances.label_map`. The
    instances themselves, all with a score of ``score_threshold`` or more, are then in ``detections``, a dict for each
    image with ``boxes`` (K, 4), ``scores`` (K,), falling, and ``masks`` (K, 28, 28), probabilities over the box, all on
    the CPU; :mod:`.instances` makes pixels of them.

    The weights carry what they were trained with: mean and deviation of the images, anchors, and the least score in the
    label map. Loading weights of another mean, deviation or anchors is refused.

    Args:
        trunk: from images to feature maps "0" to "3" and "pool".
        proposals: torchvision's network of proposals.
        heads: what becomes of them.
        double_first: the proposals read the first map twice, with anchors of two sizes.
        anchors: sizes and ratios that the proposals were made with, to be compared with those of weights.
        mean, std: of each channel of the images, which are RGB of 0 to 1.
        label_score_threshold: least score in the label map; None for that of the weights, which is 0.5 until
            :meth:`choose_label_score_threshold` sets another.
        min_size, max_size: an image to evaluate is scaled so that its short side is ``min_size`` px, or less if its
            long side were longer than ``max_size`` px; None leaves it as it is. Results are in px of the image given.
        ramp_steps: training steps over which the pairwise term of boxes alone grows to its full weight.
        frozen_batch_norms: the batch norms of the trunk stay as they are in training.
    """

    def __init__(
        self,
        trunk: nn.Module,
        proposals: RegionProposalNetwork,
        heads: CascadeHeads,
        *,
        double_first: bool,
        anchors: Sequence[float],
        mean: Sequence[float],
        std: Sequence[float],
        label_score_threshold: float | None,
        min_size: int | None,
        max_size: int,
        ramp_steps: int,
        frozen_batch_norms: bool,
    ) -> None:
        super().__init__(
            trunk,
            proposals,
            heads,
            double_first=double_first,
            mean=torch.tensor(mean, dtype=torch.float32)[:, None, None],
            std=torch.tensor(std, dtype=torch.float32)[:, None, None],
            chosen_threshold=torch.tensor(0.5),
            label_score_threshold=label_score_threshold,
            min_size=min_size,
            max_size=max_size,
        )
        self.ramp_steps = ramp_steps
        self.frozen_batch_norms = frozen_batch_norms
        self.anchors: torch.Tensor
        self.steps: torch.Tensor
        self.register_buffer("anchors", torch.tensor(anchors, dtype=torch.float32))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))  # of training, so that the ramp is resumed
        self.register_load_state_dict_pre_hook(_refuse_other_settings)
        self.detections: list[dict[str, torch.Tensor]] = []
        if frozen_batch_norms:
            for layer in batch_norms(trunk):
                layer.requires_grad_(False)
        self.train()

    def choose_label_score_threshold(self, threshold: float) -> None:
        """Keep the least score in the label map with the weights, for where none is fixed."""
        self.chosen_threshold.fill_(threshold)

    def train(self, mode: bool = True) -> CascadeMaskRCNN:
        """Set the mode, but for frozen batch norms, and return the network."""
        super().train(mode)
        if self.frozen_batch_norms:
            for layer in batch_norms(self.trunk):
                layer.eval()
        return self

    def forward(  # type: ignore[override]
        self, images: torch.Tensor, targets: Targets | None = None
    ) -> dict[str, torch.Tensor] | torch.Tensor:
        """Return the losses in training, and the label map int32 (B, 1, H, W) in evaluation."""
        if not are_images(images):
            raise ValueError(
                f"images of shape {tuple(images.shape)} and type {images.dtype}: expected floating-point (B, 3, H, W)."
            )
        images = _plain(images)
        if not self.training:
            return self.label_maps(images)
        if targets is None or len(targets) != len(images):
            raise ValueError(f"{len(images)} images to train with, and targets for {len(targets or ())}.")
        return self.losses(images, [_checked(target, number) for number, target in enumerate(targets)])

    def losses(self, images: torch.Tensor, targets: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Return the losses of a batch by name."""
        _refuse_boxes_without_area(targets)
        features, padded = self._features(images)
        boxes, losses = self.proposals(*self._maps_to_propose(features, images, padded), targets)
        size = size_of(images)
        box_losses, samples = self.heads.losses(features, boxes, targets, image_size=size, padded_size=size_of(padded))
        ramp = (self.steps / max(self.ramp_steps, 1)).clamp(max=1)
        self.steps += 1
        mask_losses = instance_losses(samples.logits, samples.boxes, samples.matches, targets, images, ramp=ramp)
        return losses | box_losses | mask_losses

    @torch.no_grad()
    def label_maps(self, images: torch.Tensor) -> torch.Tensor:
        """Return the label maps int32 (B, 1, H, W), and keep ``detections``."""
        size = size_of(images)
        self.detections = self.detect(images)
        maps = [label_map(one, size, score_threshold=self.label_score_threshold) for one in self.detections]
        return torch.stack(maps)[:, None].to(images.device)

    def __prepare_scriptable__(self) -> CascadeDetector:
        """Return what :func:`torch.jit.script` takes in place of this network: the part without learning."""
        return CascadeDetector(
            self.trunk,
            self.proposals,
            self.heads,
            double_first=self.double_first,
            mean=self.mean,
            std=self.std,
            chosen_threshold=self.chosen_threshold,
            label_score_threshold=self.fixed_threshold,
            min_size=self.min_size,
            max_size=self.max_size,
        ).train(self.training)


def cascade_mask_rcnn(
    backbone: str = "mobilenet_v2",
    *,
    fpn_channels: int = 64,
    anchor_sizes: Sequence[Sequence[int]] = ((8,), (16,), (32,), (64,), (128,)),
    aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0, 3.0, 4.0),
    n_stages: int = 3,
    box_units: int = 128,
    box_layers: int = 1,
    box_conv_layers: int = 0,
    mask_channels: int = 64,
    mask_layers: int = 4,
    rpn_anchors: int = 256,
    box_rois: int = 128,
    mask_rois: int = 32,
    pre_nms: Sequence[int] = (2000, 4000),
    post_nms: Sequence[int] = (1000, 3000),
    rpn_nms_threshold: float = 0.7,
    nms_threshold: float = 0.5,
    score_threshold: float = 0.05,
    label_score_threshold: float | None = None,
    detections: int = 3000,
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
    min_size: int | None = None,
    max_size: int = 1333,
    ramp_steps: int = 500,
    initial_weights: str | os.PathLike | None = None,
    freeze_batch_norms: bool | None = None,
) -> CascadeMaskRCNN:
    """Build a Cascade Mask R-CNN; the defaults are small enough for a CPU. With one stage it is Mask R-CNN.

    Args:
        backbone, fpn_channels: of :func:`.trunks.trunk_with_pyramid`.
        anchor_sizes: sides in px of the anchors of each of the five maps of the pyramid; six share the first two for
            the first map, as LIVECell's do.
        aspect_ratios: height by width of the anchors.
        n_stages, box_units, box_layers, box_conv_layers, mask_channels, mask_layers, box_rois, mask_rois,
            score_threshold, nms_threshold, detections: of :class:`.cascade.CascadeHeads`.
        rpn_anchors: anchors that an image trains the proposals with.
        pre_nms: candidates of each map, in training and in testing.
        post_nms: proposals of each image, in training and in testing.
        rpn_nms_threshold: IoU from which on the lower of two proposals is dropped.
        label_score_threshold, mean, std, min_size, max_size, ramp_steps: of :class:`CascadeMaskRCNN`.
        initial_weights: file of weights of this whole network, or of the trunk's classifier as
            :func:`.trunks.trunk_with_pyramid` takes them. None leaves random weights.
        freeze_batch_norms: keep those of the trunk as they are; None does so where ``initial_weights`` are given.

    Raises:
        ValueError: an option outside its range, or weights that do not fit.
        FileNotFoundError: there is no such file of weights.
    """
    if len(anchor_sizes) not in (len(MAPS) + 1, len(MAPS) + 2):
        raise ValueError(f"anchor_sizes has {len(anchor_sizes)} entries, expected 5, or 6 for two on the first map.")
    for name, pair in (("pre_nms", pre_nms), ("post_nms", post_nms)):
        if len(pair) != 2:
            raise ValueError(f"{name} is {list(pair)}, expected two numbers: in training and in testing.")
    content = None if initial_weights is None else read_weights(initial_weights, purpose="initial weights")
    is_whole = content is not None and any(name.startswith("trunk.") for name in content)
    trunk = trunk_with_pyramid(backbone, fpn_channels, weights=None if is_whole else initial_weights)
    sizes = tuple(tuple(size) for size in anchor_sizes)
    anchors = AnchorGenerator(sizes, (tuple(aspect_ratios),) * len(sizes))
    counts = set(anchors.num_anchors_per_location())
    if len(counts) != 1:
        raise ValueError("anchor_sizes: every map needs the same number of sizes.")
    proposals = RegionProposalNetwork(
        anchors,
        FloatRPNHead(fpn_channels, counts.pop()),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=rpn_anchors,
        positive_fraction=0.5,
        pre_nms_top_n=dict(zip(("training", "testing"), pre_nms, strict=True)),
        post_nms_top_n=dict(zip(("training", "testing"), post_nms, strict=True)),
        nms_thresh=rpn_nms_threshold,
    )
    heads = CascadeHeads(
        fpn_channels,
        MAPS,
        n_stages=n_stages,
        box_units=box_units,
        box_layers=box_layers,
        box_conv_layers=box_conv_layers,
        mask_channels=mask_channels,
        mask_layers=mask_layers,
        box_rois=box_rois,
        mask_rois=mask_rois,
        score_threshold=score_threshold,
        nms_threshold=nms_threshold,
        detections=detections,
    )
    network = CascadeMaskRCNN(
        trunk,
        proposals,
        heads,
        double_first=len(sizes) == len(MAPS) + 2,
        anchors=[*(side for size in sizes for side in size), *aspect_ratios],
        mean=mean,
        std=std,
        label_score_threshold=label_score_threshold,
        min_size=min_size,
        max_size=max_size,
        ramp_steps=ramp_steps,
        frozen_batch_norms=initial_weights is not None if freeze_batch_norms is None else freeze_batch_norms,
    )
    if content is not None and is_whole:
        fit_weights(network, content, source=str(initial_weights))
    return network


def _refuse_other_settings(network: nn.Module, weights: Mapping[str, torch.Tensor], prefix: str, *_: Any) -> None:
    """Refuse weights that were trained with another mean, deviation or anchors, which would find the wrong boxes."""
    for name in ("mean", "std", "anchors"):
        own, other = getattr(network, name), weights.get(prefix + name)
        if other is None or own.is_meta or other.is_meta or own.shape != other.shape:
            continue  # a missing or misshapen one is refused as any other weight is
        if not torch.allclose(own.cpu().float(), other.cpu().float(), rtol=1e-3, atol=0):  # half precision rounds
            raise ValueError(f"the weights were trained with {name} {_values(other)}, the network has {_values(own)}.")


def _values(tensor: torch.Tensor) -> list[float]:
    return [round(float(value), 3) for value in tensor.flatten()]


def _plain(values: torch.Tensor) -> torch.Tensor:
    return values.as_tensor() if isinstance(values, MetaTensor) else values


def _checked(target: Mapping[str, torch.Tensor], number: int) -> dict[str, torch.Tensor]:
    """Return the instances of an image as plain tensors, with no points where there are none."""
    missing = [key for key in ("boxes", "supervision") if key not in target]
    if missing:
        raise ValueError(f"image {number} of the batch: its targets lack {', '.join(missing)}.")
    tensors = {key: _plain(value) for key, value in target.items() if isinstance(value, torch.Tensor)}
    supervision = tensors["supervision"]
    for kind, key in ((POINTS, "points"), (MASK, "masks")):
        if key not in tensors and bool((supervision == kind).any()):
            raise ValueError(f"image {number} of the batch: some of its instances learn from {key}, and it has none.")
    count = len(supervision)
    tensors["boxes"] = tensors["boxes"].reshape(-1, 4).float()
    tensors.setdefault("points", tensors["boxes"].new_zeros((count, 0, 2)))
    tensors.setdefault("point_labels", supervision.new_zeros((count, 0)))
    for key in ("boxes", "points", "point_labels", "masks"):
        if key in tensors and len(tensors[key]) != count:
            raise ValueError(f"image {number} of the batch: {len(tensors[key])} {key} for {count} instances.")
    return tensors


def _refuse_boxes_without_area(targets: list[dict[str, torch.Tensor]]) -> None:
    boxes = torch.cat([target["boxes"] for target in targets])
    sound = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)  # a NaN is not
    if not bool(sound.all()):
        raise ValueError(f"the box {boxes[~sound][0].tolist()} (x1, y1, x2, y2) has no area.")
