"""Which image to label next: the one that a bundle is least sure of."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path

MOST_IMAGES = 16  # that are looked at for one answer, since the person waits


def least_sure(
    images: Mapping[str, str],
    asked: Mapping[str, float],
    measure: Callable[[str], float],
    *,
    most: int = MOST_IMAGES,
) -> tuple[str, float] | None:
    """Choose the image with the greatest uncertainty, and give it with that.

    Of many images a few are looked at: those that nobody was asked about before the others, then those of longest ago,
    and among them some by lot, always the same.

    Args:
        images: their files by their ids.
        asked: when somebody was asked about an image, in seconds, by its id.
        measure: the uncertainty of a file.
        most: how many are looked at.

    Returns:
        id and uncertainty; None where there is no image, or none that can be read and measured.
    """

    def turn(image: str) -> tuple[float, str]:
        return asked.get(image, 0), hashlib.sha256(image.encode()).hexdigest()

    best: tuple[str, float] | None = None
    for image in sorted(images, key=turn)[:most]:
        if best is not None and image in asked and best[0] not in asked:
            break  # what is new comes first, however sure
        try:
            value = measure(images[image])
        except (OSError, ValueError, RuntimeError):
            continue  # what cannot be read is nothing to label
        if math.isnan(value):
            continue  # no value is greater than it
        if best is None or value > best[1]:
            best = image, value
    return best


class Measured:
    """A measure that remembers what it has measured, as long as file and weights stay the same.

    Args:
        measure: the uncertainty of a file.
        weights: gives the files of the weights that it depends on.
    """

    def __init__(self, measure: Callable[[str], float], weights: Callable[[], list[Path]]) -> None:
        self.measure = measure
        self.weights = weights
        self.known: dict[tuple, float] = {}

    def __call__(self, file: str) -> float:
        """Return the uncertainty of a file."""
        key = (file, *(path.stat().st_mtime_ns for path in (Path(file), *self.weights())))
        if key not in self.known:
            self.known = {other: value for other, value in self.known.items() if other[0] != file}
            self.known[key] = self.measure(file)
        return self.known[key]
