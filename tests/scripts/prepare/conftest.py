"""Sample data sets in their layouts, written where a test wants them."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image


def smooth_picture(seed: int, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """Smooth random image (H, W, 3) of ``size`` (W, H), so that a small change of it stays small in the hash."""
    coarse = np.random.RandomState(seed).randint(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


@pytest.fixture(scope="session")
def picture() -> Callable[..., np.ndarray]:
    """A smooth random image by its seed."""
    return smooth_picture
