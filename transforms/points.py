"""Instances of an image, learned from a mask, from points or from a box alone, and how they follow its transforms.

Images are channel-first (C, H, W), rows before columns. Boxes and points are in continuous pixel coordinates, x before
y: pixel i covers [i, i + 1), so its middle is at i + 0.5, and an image reaches from 0 to W and from 0 to H.
Sources: Cheng et al., Pointly-Supervised Instance Segmentation, 2022, section 3; Chen et al., PACE: point annotation-
based cell segmentation for efficient microscopic image analysis, 2023.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from monai.transforms import MapTransform
from monai.utils import MetaKeys

from .readers.coco import as_run_lengths, pixels_of, read_coco

Supervision = Literal["as given", "mask", "points", "box"]
SUPERVISIONS = ("as given", "mask", "points", "box")
BOX, POINTS, MASK = 0, 1, 2
IGNORED = -1


def draw_points(box: Sequence[float], *, n: int, seed: int | Sequence[int], height: int, width: int) -> np.ndarray:
    """Draw points uniformly in a box: pixels (x, y), int64 (n, 2).

    The first m of n points are those that n = m gives.

    Args:
        box: x, y, width, height in px, within the image.
        n: number of points.
        seed: numbers that name the instance, such as (seed of the data set, id of the instance).
        height: of the image in px.
        width: of the image in px.

    Raises:
        ValueError: the box has no area, or leaves the image.

    Source: Cheng et al., section 3.1, and its published sampling, which rounds down to whole pixels.
    """
    x, y, box_width, box_height = (float(number) for number in box)
    check_box((x, y, x + box_width, y + box_height), height=height, width=width)
    generator = np.random.default_rng(np.random.SeedSequence(seed))
    positions = np.array([x, y]) + generator.random((n, 2)) * np.array([box_width, box_height])
    # Rounding may lift a position to the far edge itself.
    return np.clip(np.floor(positions).astype(np.int64), 0, [width - 1, height - 1])


def sample_points(
    mask: np.ndarray, box: Sequence[float], *, n: int, seed: int | Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Draw points in a box by :func:`draw_points`, and label them by the mask.

    Nothing balances cell and background: a single point may well be background.

    Args:
        mask: bool (H, W) of one instance.
        box, n, seed: of :func:`draw_points`.

    Returns:
        pixels (x, y), int64 (n, 2), and their labels, int64 (n,): 1 cell, 0 background.

    Raises:
        ValueError: the box has no area, or leaves the image.
    """
    pixels = draw_points(box, n=n, seed=seed, height=mask.shape[0], width=mask.shape[1])
    return pixels, mask[pixels[:, 1], pixels[:, 0]].astype(np.int64)


class LoadInstancesd(MapTransform):
    """Add the instances of an image to a sample, from the COCO list that its label names.

    Added to the sample, for K instances:

    - ``boxes`` float32 (K, 4), corners x1, y1, x2, y2.
    - ``points`` float32 (K, P, 2), x and y of the middle of each pixel, and ``point_labels`` int64 (K, P): 1 cell, 0
      background, -1 no point, as in all of an instance that is not supervised by points.
    - ``supervision`` int64 (K,): 0 by the box alone, 1 by points, 2 by the mask.
    - ``masks`` int32 (L, H, W), a MetaTensor with identity affine: label maps of the instances supervised by a mask, in
      which k + 1 stands for instance k. Instances that overlap are on different maps, and there is always one. So the
      spatial transforms of the image can carry thousands of instances.

    Give the spatial transforms ``masks`` beside the image, with mode "nearest-exact" and padding by 0 (the default
    padding of MONAI's zoom repeats the edge), and let :class:`InstancesFollowd` end them.

    Args:
        keys: key of the list's path.
        supervise_by: "mask" or "points" for all instances, "box" for none of both, or "as given": each by the strongest
            that it has.
        n_points: the first so many of an instance's points; None takes all. With 0, boxes take the place of points.
        image_key: key of the image. Where that is loaded already, (C, H, W), its size is compared with the list's.
        image_id_key: key of the image's id in the list.
        allow_missing_keys: pass over keys that are absent.

    Raises:
        ValueError: the list lacks the supervision or the number of points asked for, has a box without area or outside
            the image, or tells another size than the image has.
    """

    def __init__(
        self,
        keys: KeysCollection = "label",
        *,
        supervise_by: Supervision = "as given",
        n_points: int | None = None,
        image_key: str = "image",
        image_id_key: str = "image_id",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if supervise_by not in SUPERVISIONS:
            raise ValueError(f"supervise_by is {supervise_by!r}, expected one of {', '.join(SUPERVISIONS)}.")
        if n_points is not None and (type(n_points) is not int or n_points < 0):
            raise ValueError(f"n_points is {n_points!r}, expected a whole number from 0 on, or None for all.")
        self.supervise_by = supervise_by
        self.n_points = n_points
        self.image_key = image_key
        self.image_id_key = image_id_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with the instances added."""
        result = dict(data)
        for key in self.key_iterator(result):
            result |= self._load(result, key)
        return result

    def _load(self, data: Mapping[Hashable, Any], key: Hashable) -> dict[Hashable, Any]:
        coco = read_coco(data[key])
        entry = coco.image(data[self.image_id_key])
        height, width = entry["height"], entry["width"]
        image = data.get(self.image_key)
        if isinstance(image, torch.Tensor) and tuple(image.shape[-2:]) != (height, width):
            raise ValueError(
                f"{coco.path}: image {data[self.image_id_key]} has {width}x{height} px there, and "
                f"{image.shape[-1]}x{image.shape[-2]} as loaded."
            )
        n_points = coco.most_points if self.n_points is None else self.n_points
        if n_points > coco.most_points and self.supervise_by in ("as given", "points"):
            raise ValueError(f"{coco.path}: n_points is {n_points}, an instance has {coco.most_points} at most.")
        annotations = coco.annotations[data[self.image_id_key]]
        boxes = np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        points = np.zeros((len(annotations), n_points, 2), dtype=np.float32)
        labels = np.full((len(annotations), n_points), IGNORED, dtype=np.int64)
        supervision = np.full(len(annotations), BOX, dtype=np.int64)
        pixels: list[tuple[np.ndarray, np.ndarray] | None] = []
        for k, annotation in enumerate(annotations):
            try:
                check_box(boxes[k], height=height, width=width)
                supervision[k] = kind = self._kind(annotation)
                shape = as_run_lengths(annotation["segmentation"], height=height, width=width) if kind == MASK else None
            except ValueError as error:
                name = f"{coco.path}: annotation {annotation['id']}"
                raise ValueError(f"{name}: {error}. clinbundles prepare coco leaves bad ones out.") from error
            pixels.append(None if shape is None else pixels_of(shape))
            if kind == POINTS:
                stored = np.asarray(annotation["point_coords"], dtype=np.float64)[:n_points]
                points[k, : len(stored)] = np.floor(stored) + 0.5
                labels[k, : len(stored)] = annotation["point_labels"][:n_points]
        layers = draw_layers(pixels, height=height, width=width)
        return {
            "boxes": torch.from_numpy(boxes.astype(np.float32)),
            "points": torch.from_numpy(points),
            "point_labels": torch.from_numpy(labels),
            "supervision": torch.from_numpy(supervision),
            "masks": MetaTensor(torch.from_numpy(layers), affine=torch.eye(4, dtype=torch.float64)),
        }

    def _kind(self, annotation: Mapping[str, Any]) -> int:
        """Choose by what an annotation is supervised."""
        has_mask, has_points = bool(annotation.get("segmentation")), bool(annotation.get("point_coords"))
        if (self.supervise_by == "mask" and not has_mask) or (self.supervise_by == "points" and not has_points):
            raise ValueError(f'it has no {self.supervise_by}; supervise_by="as given" takes what each has')
        if has_mask and self.supervise_by in ("mask", "as given"):
            return MASK
        by_points = has_points and self.supervise_by in ("points", "as given") and self.n_points != 0
        return POINTS if by_points else BOX


def check_box(corners: Sequence[float], *, height: int, width: int) -> None:
    """Refuse a box x1, y1, x2, y2 without area, or outside the image by more than rounding.

    Raises:
        ValueError: it is such a box.
    """
    x1, y1, x2, y2 = corners
    # Sums of decimals, such as 12.3 + 4.7, may pass the edge by a little.
    if not (x1 >= -1e-3 and y1 >= -1e-3 and x2 > x1 and y2 > y1 and x2 <= width + 1e-3 and y2 <= height + 1e-3):
        raise ValueError(
            f"box [{x1:g}, {y1:g}, {x2 - x1:g}, {y2 - y1:g}] has no area, or leaves the image of {width}x{height} px"
        )


def draw_layers(pixels: Sequence[tuple[np.ndarray, np.ndarray] | None], *, height: int, width: int) -> np.ndarray:
    """Draw instances onto as few label maps as come out when each takes the first one that is free.

    Args:
        pixels: rows and columns of each instance, int (A,); None for one that is not drawn.
        height: of the maps in px.
        width: of the maps in px.

    Returns:
        int32 (L, H, W), L at least 1: k + 1 where instance k is, else 0.
    """
    layers = [np.zeros((height, width), dtype=np.int32)]
    for k, place in enumerate(pixels):
        if place is None:
            continue
        layer = next((layer for layer in layers if not layer[place].any()), None)
        if layer is None:
            layer = np.zeros((height, width), dtype=np.int32)
            layers.append(layer)
        layer[place] = k + 1
    return np.stack(layers)


class InstancesFollowd(MapTransform):
    """Move the boxes, points and masks of :class:`LoadInstancesd` to where the spatial transforms moved the image.

    The image's affine says where it went, counted from the affine that it was loaded with (the identity, with the
    readers of this project). Boxes stay parallel to the axes: after a turn by another angle than 90 degrees they are
    those around the turned ones. The given box is cut where the image ends, and never drawn anew around the mask, so
    that all kinds of supervision see the same boxes. Points outside the image get the label -1. Instances of which less
    than ``min_size`` is left are dropped from all entries. ``masks`` become uint8 (K, H, W) of 0 and 1, all of them 0
    for an instance without a mask. What comes out are plain tensors; the image is left as it is.

    Pad before you crop: an affine does not tell what was cut off where a later transform puts padding.

    Args:
        keys: key of the image, a MetaTensor (C, H, W).
        min_size: the least width and height, in px of the transformed image, that a box may have.
        allow_missing_keys: pass over keys that are absent.

    Raises:
        ValueError: the image is no MetaTensor, or the masks did not go through its transforms, or were interpolated.
    """

    def __init__(
        self, keys: KeysCollection = "image", *, min_size: float = 1.0, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if not min_size >= 0:
            raise ValueError(f"min_size is {min_size}, expected a number of px from 0 on.")
        self.min_size = min_size

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with the instances moved."""
        result = dict(data)
        for key in self.key_iterator(result):
            result |= self._follow(result, result[key])
        return result

    def _follow(self, data: Mapping[Hashable, Any], image: Any) -> dict[Hashable, Any]:
        matrix = pixel_matrix(image)
        height, width = image.shape[-2:]
        far_corner = torch.tensor([width, height], dtype=torch.float64)
        boxes = move_boxes(data["boxes"], matrix).reshape(-1, 2, 2)
        boxes = torch.minimum(boxes.clamp(min=0), far_corner)
        sides = boxes[:, 1] - boxes[:, 0]
        # Turns and scales leave a rounding error behind.
        kept = ((sides >= self.min_size - 1e-6) & (sides > 1e-6)).all(dim=1)
        points = move_points(data["points"], matrix)
        inside = ((points >= 0) & (points < far_corner)).all(dim=-1)
        labels = torch.where(inside, data["point_labels"], IGNORED)
        return {
            "boxes": boxes.reshape(-1, 4)[kept].float(),
            "points": points[kept].float(),
            "point_labels": labels[kept],
            "supervision": data["supervision"][kept],
            "masks": self._masks(data["masks"], image, kept),
        }

    @staticmethod
    def _masks(layers: Any, image: MetaTensor, kept: torch.Tensor) -> torch.Tensor:
        """Give each kept instance its mask, by a pass over the pixels of all."""
        if layers.shape[1:] != image.shape[1:] or not torch.allclose(pixel_matrix(layers), pixel_matrix(image)):
            raise ValueError(
                'the masks are not where the image is: give both to the same transforms ("image", "masks").'
            )
        values = layers.as_tensor()
        layer, rows, columns = torch.nonzero(values, as_tuple=True)
        numbers = values[layer, rows, columns]
        if numbers.is_floating_point() and not torch.equal(numbers, numbers.round()):
            raise ValueError('the masks were interpolated: give their transforms mode "nearest-exact".')
        places = torch.full((len(kept) + 1,), -1, dtype=torch.int64)
        places[1:][kept] = torch.arange(int(kept.sum()))
        instances = places[numbers.long()]
        seen = instances >= 0
        masks = torch.zeros((int(kept.sum()), *values.shape[1:]), dtype=torch.uint8)
        masks[instances[seen], rows[seen], columns[seen]] = 1
        return masks


def pixel_matrix(image: Any) -> torch.Tensor:
    """Give the matrix, float64 (3, 3), from (x, y, 1) in an image as it was loaded to the same place in it now.

    Its inverse takes what a network found back to the image file.

    Args:
        image: MetaTensor (C, H, W) after any of MONAI's spatial transforms.

    Raises:
        ValueError: it is no MetaTensor, and so does not know where it came from.
    """
    if not isinstance(image, MetaTensor):
        raise ValueError(
            f"the image is a {type(image).__name__}, expected a MetaTensor, whose affine says where it is."
        )
    loaded = image.meta.get(MetaKeys.ORIGINAL_AFFINE)
    start, now = (
        torch.as_tensor(to_affine_nd(2, affine), dtype=torch.float64)
        for affine in (torch.eye(3) if loaded is None else loaded, image.affine)
    )
    # MONAI counts rows before columns, and the middle of the first pixel as 0.
    to_index = torch.tensor([[0, 1, -0.5], [1, 0, -0.5], [0, 0, 1]], dtype=torch.float64)
    return torch.linalg.inv(to_index) @ torch.linalg.inv(now) @ start @ to_index


def move_points(points: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Move points (..., 2), x before y, by a matrix (3, 3): float64 (..., 2)."""
    return points.double() @ matrix[:2, :2].T + matrix[:2, 2]


def move_boxes(boxes: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Move boxes (K, 4), corners x1, y1, x2, y2, by a matrix (3, 3), to the boxes around them: float64 (K, 4)."""
    corners = move_points(boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]], matrix)
    return torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)
