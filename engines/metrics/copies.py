"""Distances by which a generated image is found to be a copy of a training image, over flips, rotations and shifts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from monai.networks.layers import gaussian_1d, separable_filtering
from torch.nn import functional as F
from tqdm import tqdm

ORIENTATIONS = 8  # of a square: four rotations, each of the image and of its mirror image
SMALLEST_SIDE, LARGEST_SIDE = 16, 64  # px at which pixels are compared
SHIFT = 2  # px of the image as it is, in each direction
SHIFTS = sorted(product(range(-SHIFT, SHIFT + 1), repeat=2), key=lambda shift: shift != (0, 0))  # none comes first
SIGMA = 1.5  # px, of the low-pass
BLURS = (0.0, 1.0, 1.5)  # px, which an image may have lost in sharpness
GAIN = 1.1  # by how much its contrast may differ, up or down
OFFSET = 0.1  # by how much its mean may, of the training image's standard deviation
STRIDE = 2  # px: what the low-pass leaves needs no more
LEAST_CONTRAST = 0.02  # of an image in -1 to 1: 2.5 grey levels
APART_MM = 10.0  # between slices that are no copies of each other; a shift of 2 px is 10 to 15 mm at 64 px
FEWEST_PAIRS = 20  # of such slices, below which a quantile of 5 % says nothing
QUANTILE = 0.05
BLOCK = 64  # images at a time


def orient(images: torch.Tensor, orientation: int) -> torch.Tensor:
    """Turn square images (..., H, H) into one of the 8 orientations; 0 leaves them, 4 to 7 are mirrored first."""
    return torch.rot90(images.flip(-1) if orientation >= 4 else images, orientation % 4, (-2, -1))


@dataclass(frozen=True)
class Nearest:
    """The nearest training images of N images.

    Attributes:
        distances: (N, K), the nearest first.
        indices: (N, K) of the training images.
        places: (N, K) in which orientation and shift; 0 where the distance has none.
    """

    distances: torch.Tensor
    indices: torch.Tensor
    places: torch.Tensor


@dataclass(frozen=True)
class Windows:
    """The inside of N images: values (N, P) less their means (N,), and their variances (N,)."""

    values: torch.Tensor
    means: torch.Tensor
    variances: torch.Tensor


class PixelDistance:
    """Distance of images to training images by pixels, which blur, noise, flips and a small shift leave small.

    It is the least over 8 orientations, shifts by up to 2 px, and blurs of 0, 1 and 1.5 px of the training image. Both
    are averaged over areas to at most 64 x 64 px, the image after its shift, and smoothed by a Gaussian of 1.5 px; a
    gain of 1/1.1 to 1.1 is fitted to the image, and a mean that differs by up to a tenth of the contrast is forgiven.
    The distance is the root mean square difference, every second pixel inside a margin of 3 px, over the contrast: the
    standard deviation of the smoothed training image, so that it means the same in a faint image and in a strong one.

    Args:
        training: (M, C, H, H) in -1 to 1.
    """

    name = "pixels"

    def __init__(self, training: torch.Tensor) -> None:
        self.margin = SHIFT + 1
        small = reduced(training)
        if small.shape[-1] < SMALLEST_SIDE:
            raise ValueError(
                f"images of {small.shape[-1]} px are too small to compare, expected {SMALLEST_SIDE} px or more."
            )
        self.contrast = smoothed(small).flatten(1).std(1, correction=0).clamp_min(LEAST_CONTRAST)
        self.blurred = [self._windows(smoothed(small, math.hypot(SIGMA, blur))) for blur in BLURS]

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the distances (N, M) of images (N, C, H, H), and in which place each is reached."""
        best = torch.full((len(images), len(self.contrast)), torch.inf)
        places = torch.zeros(best.shape, dtype=torch.long)
        for place in range(ORIENTATIONS * len(SHIFTS)):
            shift, orientation = divmod(place, ORIENTATIONS)
            if orientation == 0:
                smooth = smoothed(reduced(shifted(images, *SHIFTS[shift])))
            ours = self._windows(orient(smooth, orientation))
            for theirs in self.blurred:
                squares = self._squares(ours, theirs)
                better = squares < best
                best, places = torch.where(better, squares, best), places.masked_fill(better, place)
        return best.clamp_min(0).sqrt() / self.contrast, places

    def _windows(self, images: torch.Tensor) -> Windows:
        values = _inner(images, self.margin)[..., ::STRIDE, ::STRIDE].flatten(1)
        means = values.mean(1)
        return Windows(values - means[:, None], means, values.var(1, correction=0))

    def _squares(self, ours: Windows, theirs: Windows) -> torch.Tensor:
        """Compute the mean square differences (N, M) that the best gain and offset leave."""
        covariances = ours.values @ theirs.values.T / ours.values.shape[1]
        gains = (covariances / ours.variances[:, None].clamp_min(1e-12)).clamp(1 / GAIN, GAIN)
        offsets = ((ours.means[:, None] - theirs.means).abs() - OFFSET * self.contrast).clamp_min(0)
        return gains**2 * ours.variances[:, None] - 2 * gains * covariances + theirs.variances + offsets**2


class FeatureDistance:
    """Euclidean distance of features of images to those of training images, in the best of 8 orientations.

    Args:
        training: (M, C, H, H) in -1 to 1.
        features: from images (N, C, H, H) to features (N, D).
        name: of the features.
    """

    def __init__(
        self, training: torch.Tensor, features: Callable[[torch.Tensor], torch.Tensor], *, name: str = "features"
    ) -> None:
        self.name, self.features = name, features
        self.oriented = [features(orient(training, orientation)) for orientation in range(ORIENTATIONS)]

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the distances (N, M) of images (N, C, H, H); places are all 0."""
        features = self.features(images)
        best = torch.stack([torch.cdist(features, each) for each in self.oriented]).amin(0)
        return best, torch.zeros(best.shape, dtype=torch.long)


Distance = PixelDistance | FeatureDistance


def nearest(distance: Distance, images: torch.Tensor, *, k: int = 1) -> Nearest:
    """Find the k nearest training images of images (N, C, H, H)."""
    values, places = distance(images)
    found, indices = values.topk(min(k, values.shape[1]), largest=False)
    return Nearest(found, indices, places.gather(1, indices))


def aligned(image: torch.Tensor, training: torch.Tensor, place: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay an image (C, H, H) over a training image as :class:`PixelDistance` compared them.

    Returns:
        both (C, S, S), reduced to at most 64 px and without a margin of 2 px.
    """
    shift, orientation = divmod(place, ORIENTATIONS)
    pair = orient(reduced(shifted(image[None], *SHIFTS[shift])), orientation), reduced(training[None])
    return _inner(pair[0], SHIFT)[0], _inner(pair[1], SHIFT)[0]


def shifted(images: torch.Tensor, dy: int, dx: int) -> torch.Tensor:
    """Shift images (N, C, H, W) by up to 2 px down and to the right, their edges repeated."""
    wide = F.pad(images, (SHIFT,) * 4, mode="replicate")
    return wide[..., SHIFT - dy : SHIFT - dy + images.shape[-2], SHIFT - dx : SHIFT - dx + images.shape[-1]]


def reduced(images: torch.Tensor) -> torch.Tensor:
    """Average images (N, C, H, H) over areas to a side of at most 64 px.

    Raises:
        ValueError: they are not square, so that a rotation does not fit.
    """
    if images.shape[-1] != images.shape[-2]:
        raise ValueError(f"images of {images.shape[-1]}x{images.shape[-2]} px, expected square ones.")
    return F.adaptive_avg_pool2d(images, LARGEST_SIDE) if images.shape[-1] > LARGEST_SIDE else images


def smoothed(images: torch.Tensor, sigma_px: float = SIGMA) -> torch.Tensor:
    """Smooth images (N, C, H, W) by a Gaussian, their edges repeated."""
    return separable_filtering(images, [gaussian_1d(torch.tensor(sigma_px), truncated=4.0)] * 2, mode="replicate")


def neighbours(items: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """Pair slices of one series that are neighbours, and yet too far apart to be copies of each other.

    Slices of 1 mm are so alike that a copy with noise differs more from its original than they do from each other.

    Args:
        items: of a datalist; "group" is the patient, "source_sha256" (if there) tells the patient's series apart, and
            "position" is a slice's place in mm. Others, such as crops with two coordinates, have no neighbours.

    Returns:
        places of two items: a slice, and the first one of its series that is at least 10 mm further on; left out where
        that one is more than 20 mm further on.
    """
    series: dict[tuple[Any, Any], list[tuple[float, int]]] = {}
    for index, item in enumerate(items):
        position = item.get("position")
        if item.get("group") is not None and isinstance(position, int | float):
            series.setdefault((item["group"], item.get("source_sha256")), []).append((position, index))
    pairs = []
    for slices in map(sorted, series.values()):
        positions = np.array([position for position, _ in slices])
        for (position, index), after in zip(slices, np.searchsorted(positions, positions + APART_MM), strict=True):
            if after < len(slices) and slices[after][0] - position <= 2 * APART_MM:
                pairs.append((index, slices[after][1]))
    return pairs


def number_patients(items: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Number the groups of the items of a datalist (M,); an item without one is a group of its own."""
    names = [item.get("group") if item.get("group") is not None else index for index, item in enumerate(items)]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names])


@dataclass(frozen=True)
class Reference:
    """What distances between training images say about which distance makes a copy.

    Attributes:
        distances: (P,) of the pairs of slices in both directions, or (M,) of each training image to its nearest other.
        threshold: a generated image that is nearer to some training image is a copy.
        meaning: the threshold in words.
    """

    distances: np.ndarray
    threshold: float
    meaning: str


def reference(
    distance: Distance, training: torch.Tensor, pairs: Sequence[tuple[int, int]], patients: np.ndarray
) -> Reference:
    """Find the distance that makes a copy.

    It is the 5 % quantile of the distances between slices of one patient that are neighbours 10 to 20 mm apart, and no
    more than half the 5 % quantile of the distances of each training image to the nearest one of another patient. Where
    there are fewer than 20 such pairs, as with crops of microscopy, the second alone is the bar. Half, since one in
    twenty images of other patients is below that quantile itself, by its definition.

    Args:
        distance: to the training images.
        training: these images (M, C, H, H).
        pairs: places of neighbours among them.
        patients: number of each image's patient (M,), or of the image that it is a crop of; where all have one number,
            each image counts as a patient.
    """
    several = len(np.unique(patients)) > 1
    numbers = torch.from_numpy(patients) if several else torch.arange(len(training))
    partners: dict[int, list[int]] = {}
    for first, second in pairs:
        partners.setdefault(first, []).append(second)
        partners.setdefault(second, []).append(first)
    of_pairs, of_nearest = [], []
    for start in tqdm(range(0, len(training), BLOCK), desc=f"training, {distance.name}", unit="block", disable=None):
        values, _ = distance(training[start : start + BLOCK])
        rows = numbers[start : start + BLOCK]
        for row, index in enumerate(range(start, start + len(rows))):
            of_pairs += values[row, partners.get(index, [])].tolist()
        of_nearest += values.masked_fill(rows[:, None] == numbers, torch.inf).amin(1).tolist()
    bars = []
    if len(pairs) >= FEWEST_PAIRS:
        words = f"the 5 % quantile of the distances of {len(pairs)} pairs of slices of one patient 10 to 20 mm apart"
        bars.append(Reference(np.array(of_pairs), float(np.quantile(of_pairs, QUANTILE)), words))
    if several or not bars:
        words = f"half the 5 % quantile of the distances of {len(training)} training images to the nearest one"
        words += " of another group" if several else ""
        bars.append(Reference(np.array(of_nearest), float(np.quantile(of_nearest, QUANTILE)) / 2, words))
    return min(bars, key=lambda bar: bar.threshold)


def _inner(images: torch.Tensor, margin: int) -> torch.Tensor:
    return images[..., margin:-margin, margin:-margin]
