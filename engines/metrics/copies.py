"""Distances by which a generated image is found to be a copy of a training image, over flips, rotations and shifts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from monai.networks.layers import gaussian_1d, separable_filtering
from torch.nn import functional as F

ORIENTATIONS = 8  # of a square: four rotations, each of the image and of its mirror image
LARGEST_SIDE = 64  # px at which pixels are compared
SHIFT = 2  # px of the image as it is, in each direction
SHIFTS = sorted(product(range(-SHIFT, SHIFT + 1), repeat=2), key=lambda shift: shift != (0, 0))  # none comes first
SIGMA = 1.5  # px, of the low-pass
LEAST_CONTRAST = 0.02  # of an image in -1 to 1: 2.5 grey levels
FEWEST_PAIRS = 20  # of neighbours, below which a quantile of 5 % says nothing
QUANTILE = 0.05
BLOCK = 64  # images at a time
PLANTED_NOISE = 0.05  # of the image's own standard deviation


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


class PixelDistance:
    """Distance of images to training images by pixels, in the best of 8 orientations and of shifts by up to 2 px.

    Both are averaged over areas to at most 64 x 64 px, the image after its shift, and smoothed by a Gaussian of 1.5 px.
    The distance is the root
    mean square difference inside a margin of 5 px, over the standard deviation of the training image there, so that it
    means the same in a faint image and in a strong one.

    Args:
        training: (M, C, H, H) in -1 to 1.
    """

    name = "pixels"

    def __init__(self, training: torch.Tensor) -> None:
        self.margin = SHIFT + round(2 * SIGMA)
        small = reduced(training)
        if small.shape[-1] <= 2 * self.margin + SHIFT:
            raise ValueError(f"images of {small.shape[-1]} px are too small to compare, expected 16 px or more.")
        self.windows = _inner(smoothed(small), self.margin).flatten(1)
        self.norms = (self.windows**2).sum(1)
        self.contrast = self.windows.std(1, correction=0).clamp_min(LEAST_CONTRAST)

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the distances (N, M) of images (N, C, H, H), and in which place each is reached."""
        best = torch.full((len(images), len(self.windows)), torch.inf)
        places = torch.zeros(best.shape, dtype=torch.long)
        for place in range(ORIENTATIONS * len(SHIFTS)):
            shift, orientation = divmod(place, ORIENTATIONS)
            if orientation == 0:
                smooth = smoothed(reduced(shifted(images, *SHIFTS[shift])))
            windows = _inner(orient(smooth, orientation), self.margin).flatten(1)
            squares = torch.addmm((windows**2).sum(1)[:, None] + self.norms, windows, self.windows.T, alpha=-2)
            better = squares < best
            best, places = torch.where(better, squares, best), places.masked_fill(better, place)
        return (best.clamp_min(0) / self.windows.shape[1]).sqrt() / self.contrast, places


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


def smoothed(images: torch.Tensor) -> torch.Tensor:
    """Smooth images (N, C, H, W) by a Gaussian of 1.5 px, their edges repeated."""
    return separable_filtering(images, [gaussian_1d(torch.tensor(SIGMA), truncated=4.0)] * 2, mode="replicate")


def neighbours(items: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """Pair neighbouring slices of one patient.

    Args:
        items: of a datalist; "group" is the patient, "source_sha256" (if there) tells the patient's series apart, and
            "position" is a slice's number or its place in mm. Others, such as crops with two coordinates, have no
            neighbours.

    Returns:
        places of two items that follow each other in a series, with no more than 1.5 times its usual gap between them.
    """
    series: dict[tuple[Any, Any], list[tuple[float, int]]] = {}
    for index, item in enumerate(items):
        position = item.get("position")
        if item.get("group") is not None and isinstance(position, int | float):
            series.setdefault((item["group"], item.get("source_sha256")), []).append((position, index))
    pairs = []
    for slices in map(sorted, series.values()):
        gaps = np.diff([position for position, _ in slices])
        usual = np.median(gaps) if len(gaps) else 0
        pairs += [(slices[k][1], slices[k + 1][1]) for k in np.flatnonzero((gaps > 0) & (gaps <= 1.5 * usual))]
    return pairs


@dataclass(frozen=True)
class Reference:
    """What distances between training images say about which distance makes a copy.

    Attributes:
        distances: (P,) of the pairs of neighbours, or (M,) of each training image to its nearest other one.
        threshold: a generated image that is nearer to some training image is a copy.
        meaning: the threshold in words.
    """

    distances: np.ndarray
    threshold: float
    meaning: str


def reference(distance: Distance, training: torch.Tensor, pairs: Sequence[tuple[int, int]]) -> Reference:
    """Find the distance that makes a copy.

    It is the 5 % quantile of the distances between neighbouring slices of one patient. Where there are fewer than 20
    such pairs, as with crops of microscopy, it is half the 5 % quantile of each training image's distance to its
    nearest other one: of independent images one in twenty is below that quantile itself, by its definition.

    Args:
        distance: to the training images.
        training: these images (M, C, H, H).
        pairs: places of neighbours among them.
    """
    of_pairs, of_nearest = [], []
    partners: dict[int, list[int]] = {}
    for first, second in pairs:
        partners.setdefault(first, []).append(second)
        partners.setdefault(second, []).append(first)
    for start in range(0, len(training), BLOCK):
        values, _ = distance(training[start : start + BLOCK])
        for row, index in enumerate(range(start, min(start + BLOCK, len(training)))):
            of_pairs += [float(values[row, other]) for other in partners.get(index, [])]
            values[row, index] = torch.inf
        of_nearest += values.amin(1).tolist()
    if len(pairs) >= FEWEST_PAIRS:
        meaning = f"the 5 % quantile of the distances of {len(pairs)} pairs of neighbouring slices of one patient"
        return Reference(np.array(of_pairs), float(np.quantile(of_pairs, QUANTILE)), meaning)
    meaning = f"half the 5 % quantile of the distances of {len(training)} training images to their nearest other one"
    return Reference(np.array(of_nearest), float(np.quantile(of_nearest, QUANTILE)) / 2, meaning)


def plant(
    training: torch.Tensor,
    *,
    count: int = 10,
    noise: float = PLANTED_NOISE,
    blurred: bool = False,
    seed: int = 0,
) -> tuple[torch.Tensor, list[int]]:
    """Make copies of training images that an audit has to find: each shifted, noised, and flipped or turned.

    The shift is 1 or 2 px in both directions, the edge repeated; the noise is Gaussian and leaves pixels at the ends of
    the range, as it leaves clipped ones; the orientation is any but the original.

    Args:
        training: (M, C, H, H) in -1 to 1.
        count: number of copies, at most M.
        noise: standard deviation, over that of the image.
        blurred: average 3 x 3 px too.
        seed: of the choice, which does not depend on ``noise``.

    Returns:
        the copies (count, C, H, H), and the places of their originals.
    """
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    originals = rng.permutation(len(training))[:count].tolist()
    copies = []
    for index in originals:
        dy, dx = rng.choice([-2, -1, 1, 2], 2).tolist()
        image = shifted(training[index][None], dy, dx)[0]
        added = noise * image.std() * torch.randn(image.shape, generator=generator)
        image = torch.where(image.abs() < 1, image + added, image).clamp(-1, 1)
        if blurred:
            image = F.avg_pool2d(F.pad(image[None], (1, 1, 1, 1), mode="replicate"), 3, stride=1)[0]
        copies.append(orient(image, int(rng.integers(1, ORIENTATIONS))))
    return torch.stack(copies), originals


def _inner(images: torch.Tensor, margin: int) -> torch.Tensor:
    return images[..., margin:-margin, margin:-margin]
