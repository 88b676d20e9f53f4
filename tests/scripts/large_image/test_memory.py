import ctypes
import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from clinbundles.scripts.large_image.image import LargeImage
from clinbundles.scripts.large_image.memory import MemoryBound, forget_peak, resident_bytes
from clinbundles.scripts.large_image.opening import open_large_image

pytestmark = pytest.mark.skipif(not forget_peak(), reason="this system does not tell the peak memory of a process")
CPU = torch.device("cpu")


def holding(bytes_per_pixel: int) -> object:
    """A network that holds so much memory for each pixel while it runs."""

    def predict(window: torch.Tensor) -> torch.Tensor:
        held = torch.ones(bytes_per_pixel // 4, *window.shape[-2:])
        return held[None, :1]

    return predict


@pytest.fixture(autouse=True)
def no_free_heap() -> None:
    """Give back what earlier tests freed: memory that is held already would be used again, and no peak would show."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture
def image(tmp_path: Path) -> Iterator[LargeImage]:
    zarr.create_array(tmp_path / "i.zarr", shape=(20000, 20000, 3), chunks=(256, 256, 3), dtype="uint8")
    with open_large_image(tmp_path / "i.zarr") as opened:
        yield opened


MEASURE = """
import torch
from clinbundles.scripts.large_image.memory import MemoryBound, resident_bytes

bound = MemoryBound(100.0, device=torch.device("cpu"))
bound.measure(lambda window: torch.ones(100, *window.shape[-2:])[None, :1], channels=3, sides=(512, 1024))
print(bound.needs(2048) - resident_bytes())
"""


def test_what_a_network_needs_is_found_within_a_quarter() -> None:
    # In a process of its own: what other tests left behind would be used again, and the first window look small.
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(2048**2 * (400 + 12) * 1.15, rel=0.25)


def test_a_peak_is_seen_after_the_memory_is_given_back() -> None:
    forget_peak()
    before = resident_bytes() or 0
    del_me = np.ones(100_000_000, np.uint8)
    del del_me
    assert (resident_bytes(peak=True) or 0) - before >= 0.9e8
    forget_peak()
    assert (resident_bytes(peak=True) or 0) - (resident_bytes() or 0) < 0.5e8


def test_more_memory_allows_larger_windows_and_hungrier_networks_smaller_ones(image: LargeImage) -> None:
    held = (resident_bytes() or 0) / 1e9
    sides = {
        (room, needed): MemoryBound(held + room, device=CPU).window_for(image, holding(needed), window=None, overlap=64)  # type: ignore[arg-type]
        for room, needed in ((0.5, 100), (1.5, 100), (1.5, 400))
    }
    assert sides[0.5, 100] < sides[1.5, 100] > sides[1.5, 400] > 384
    assert all((side - 128) % 256 == 0 for side in sides.values())


def test_a_window_is_never_larger_than_the_image_needs(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "i.zarr", data=np.zeros((600, 300), np.uint8))
    with open_large_image(tmp_path / "i.zarr") as small:
        assert MemoryBound(100.0, device=CPU).window_for(small, holding(4), window=None, overlap=64) == 1024 + 128  # type: ignore[arg-type]


def test_a_window_that_does_not_fit_is_refused(image: LargeImage) -> None:
    limit = (resident_bytes() or 0) / 1e9 + 0.6
    with pytest.raises(ValueError, match=r"window is 4096 px and would need \d+\.\d\d GB, more than max_memory_gb="):
        MemoryBound(limit, device=CPU).window_for(image, holding(100), window=4096, overlap=128)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="alone hold"):
        MemoryBound(0.01, device=CPU)
    with pytest.raises(ValueError, match="max_memory_gb is -1, expected more than 0"):
        MemoryBound(-1, device=CPU)


def test_an_image_stored_in_one_piece_is_refused(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "i.zarr", shape=(20000, 20000, 3), chunks=(20000, 20000, 3), dtype="uint8")
    with (
        open_large_image(tmp_path / "i.zarr") as coarse,
        pytest.raises(ValueError, match=r"pieces \(tiles or strips\) of 1.20 GB, which max_memory_gb=4 leaves no room"),
    ):
        MemoryBound(4.0, device=CPU).window_for(coarse, holding(4), window=512, overlap=0)  # type: ignore[arg-type]


def test_a_run_stops_when_the_bound_was_passed_all_the_same() -> None:
    bound = MemoryBound((resident_bytes() or 0) / 1e9 + 0.05, device=CPU)
    bound.check()
    np.ones(200_000_000, np.uint8)
    with pytest.raises(MemoryError, match="were held, more than max_memory_gb="):
        bound.check()


def test_sides_that_the_network_does_not_take_are_passed_over(image: LargeImage) -> None:
    def picky(window: torch.Tensor) -> torch.Tensor:
        if window.shape[-1] % 768:
            raise ValueError("sides are multiples of 768")
        return window[:, :1]

    limit = (resident_bytes() or 0) / 1e9 + 1.5
    assert MemoryBound(limit, device=CPU).window_for(image, picky, window=None, overlap=0) % 768 == 0
    assert MemoryBound(limit, device=CPU).window_for(image, picky, window=768, overlap=128) == 768
    with pytest.raises(ValueError, match="does not take a window of 1024 px: sides are multiples of 768"):
        MemoryBound(limit, device=CPU).window_for(image, picky, window=1024, overlap=0)
