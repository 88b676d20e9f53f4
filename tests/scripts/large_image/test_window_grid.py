import numpy as np
import pytest

from clinbundles.scripts.large_image.window_grid import chunk_of, windows_of


@pytest.mark.parametrize("shape", [(1000, 700), (384, 384), (100, 1000), (385, 257)])
def test_every_pixel_is_kept_once_and_no_window_leaves_the_image(shape: tuple[int, int]) -> None:
    kept = np.zeros(shape, int)
    for each in windows_of(shape, window=320, overlap=32):
        kept[slice(*each.kept_y), slice(*each.kept_x)] += 1
        for at, size in zip((each.y, each.x), shape, strict=True):
            assert 0 <= at <= max(size - 320, 0)
    assert (kept == 1).all()


def test_a_margin_lies_on_every_side_that_is_not_the_images_border() -> None:
    for each in windows_of((1000, 700), window=320, overlap=32):
        for at, kept, size in ((each.y, each.kept_y, 1000), (each.x, each.kept_x, 700)):
            assert kept[0] - at >= 32 or at == 0
            assert at + 320 - kept[1] >= 32 or at + 320 == size


def test_the_kept_part_is_a_whole_number_of_chunks() -> None:
    assert chunk_of(window=2048, overlap=128) == 256
    assert chunk_of(window=1024, overlap=0) == 512
    for window, overlap in ((256, 128), (300, 0), (256, -64)):
        with pytest.raises(ValueError, match=f"window is {window} and overlap {overlap}.*multiple of 64"):
            chunk_of(window=window, overlap=overlap)
