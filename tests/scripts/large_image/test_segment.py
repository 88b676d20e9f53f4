import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import zarr
from scipy import ndimage
from torch import nn

from clinbundles.scripts.large_image.image import LargeImage
from clinbundles.scripts.large_image.opening import open_large_image
from clinbundles.scripts.large_image.segment import segment_large_image

HEIGHT, WIDTH = 1300, 1100
Predict = Callable[[torch.Tensor], torch.Tensor]


def smooth_noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(0).random((height, width, channels)), (2, 2, 0), mode="wrap")
    return np.uint8(255 * (noise - noise.min()) / (noise.max() - noise.min()))


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return smooth_noise(HEIGHT, WIDTH)


@pytest.fixture
def image(pixels: np.ndarray, tmp_path: Path) -> Iterator[LargeImage]:
    tifffile.imwrite(tmp_path / "image.tif", pixels, tile=(256, 256), compression="deflate", photometric="rgb")
    with open_large_image(tmp_path / "image.tif") as opened:
        yield opened


def network(channels: int = 3) -> Predict:
    """Four 5 × 5 convolutions with zero padding: a pixel sees 8 pixels around it."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs in (channels, 4, 4, 4):
        layers += [nn.Conv2d(inputs, 4, 5, padding=2), nn.Tanh()]
    body = nn.Sequential(*layers, nn.Conv2d(4, 1, 1)).eval()
    with torch.no_grad():
        logits = body(torch.from_numpy(smooth_noise(300, 300, channels)).permute(2, 0, 1)[None] / 255)[..., 9:-9, 9:-9]
    return lambda window: (body(window) - logits.median()) / logits.std()


def mask_of(folder: Path, level: str = "0") -> np.ndarray:
    return np.asarray(zarr.open_array(folder / level, mode="r")[:])


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def whole(pixels: np.ndarray, predict: Predict) -> np.ndarray:
    with torch.inference_mode():
        return np.asarray(torch.sigmoid(predict(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255))[0, 0])


def test_windows_give_the_same_mask_as_the_whole_image(image: LargeImage, pixels: np.ndarray, tmp_path: Path) -> None:
    predict = network()
    segment_large_image(image, tmp_path / "m.zarr", predict, window=272, overlap=8, keep_probability=True)
    expected = whole(pixels, predict)
    assert expected.std() > 0.1
    probability = mask_of(tmp_path / "m.zarr" / "probability") / 255
    np.testing.assert_allclose(probability, expected, atol=0.5 / 255 + 1e-4, err_msg="interior and border alike")
    mask, clear = mask_of(tmp_path / "m.zarr"), np.abs(expected - 0.5) > 1e-4
    np.testing.assert_array_equal(mask[clear], (expected >= 0.5)[clear])
    assert clear.mean() > 0.99
    assert 0.2 < mask.mean() < 0.8


def test_a_margin_smaller_than_what_the_network_sees_leaves_seams(
    image: LargeImage, pixels: np.ndarray, tmp_path: Path
) -> None:
    predict = network()
    segment_large_image(image, tmp_path / "m.zarr", predict, window=256, overlap=0, keep_probability=True)
    error = np.abs(mask_of(tmp_path / "m.zarr" / "probability") / 255 - whole(pixels, predict))
    assert error[248:264].max() > 0.05 > error[100:150, 100:150].max()


def test_an_image_smaller_than_a_window_is_continued_by_reflection(tmp_path: Path) -> None:
    seen = []
    small = np.arange(40 * 70, dtype=np.float32).reshape(40, 70) / 2800
    zarr.create_array(tmp_path / "i.zarr", data=small)

    def predict(window: torch.Tensor) -> torch.Tensor:
        seen.append(window.clone())
        return window - 0.5

    with open_large_image(tmp_path / "i.zarr") as opened:
        segment_large_image(opened, tmp_path / "m.zarr", predict, window=128, overlap=0, intensity_range=(0, 1))
    assert all(window.shape == (1, 1, 128, 128) for window in seen[-1:])
    np.testing.assert_array_equal(seen[-1][0, 0].numpy(), np.pad(small, ((0, 88), (0, 58)), mode="reflect"))
    np.testing.assert_array_equal(mask_of(tmp_path / "m.zarr"), small >= 0.5)


def test_an_image_that_fits_into_a_window_is_one_window_without_a_margin_and_goes_on_so(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "image.tif", smooth_noise(500, 300), photometric="rgb")
    predict, sides = network(), []

    def counted(window: torch.Tensor) -> torch.Tensor:
        sides.append(window.shape[-1])
        return predict(window)

    def killed(window: torch.Tensor) -> torch.Tensor:
        counted(window)
        if sides.count(512) == 2:  # the first one is measured
            raise KeyboardInterrupt
        return predict(window)

    with open_large_image(tmp_path / "image.tif") as image:
        with pytest.raises(KeyboardInterrupt):
            segment_large_image(image, tmp_path / "m", killed)
        assert max(sides) == 512 < 500 + 2 * 128
        segment_large_image(image, tmp_path / "m", counted)
    assert sides.count(512) == 4  # begun anew, the window is measured again
    expected = whole(smooth_noise(500, 300), predict) >= 0.5
    np.testing.assert_array_equal(mask_of(tmp_path / "m")[:-16, :-16], expected[:-16, :-16])


def test_no_more_than_one_window_is_read_at_a_time(
    image: LargeImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    read = LargeImage.read

    def counted(self: LargeImage, y: int, x: int, *, height: int, width: int) -> np.ndarray:
        sizes.append((height, width))
        return read(self, y, x, height=height, width=width)

    monkeypatch.setattr(LargeImage, "read", counted)
    segment_large_image(image, tmp_path / "m.zarr", lambda w: w[:, :1] - 0.5, window=320, overlap=32)
    assert set(sizes) == {(320, 320)}
    assert len(sizes) == 6 * 5


class Killed(Exception):
    pass


def killed_at(k: int, predict: Predict, calls: list[int]) -> Predict:
    def dying(window: torch.Tensor) -> torch.Tensor:
        if window.shape[-1] == 272:
            calls.append(1)
            if len(calls) == k + 1:  # the first one is random numbers, to measure the memory
                raise Killed
        return predict(window)

    return dying


def test_a_killed_run_goes_on_and_ends_like_an_unbroken_one(image: LargeImage, tmp_path: Path) -> None:
    options: dict[str, Any] = {"window": 272, "overlap": 8, "keep_probability": True}
    predict, first, second = network(), [], []
    with pytest.raises(Killed):
        segment_large_image(image, tmp_path / "a.zarr", killed_at(11, predict, first), **options)
    segment_large_image(
        image, tmp_path / "a.zarr", killed_at(99, predict, second), **{**options, "window": None}
    )  # the unfinished run knows its window
    segment_large_image(image, tmp_path / "b.zarr", predict, **options)
    assert len(first) - 1 == 11, "ten windows are done, one was begun"
    assert len(second) - 1 == 6 * 5 - 10, "every other window is predicted once"
    assert files_of(tmp_path / "a.zarr") == files_of(tmp_path / "b.zarr")


def test_a_finished_run_is_not_done_again(image: LargeImage, tmp_path: Path) -> None:
    calls: list[int] = []
    for _ in range(2):
        segment_large_image(image, tmp_path / "m.zarr", killed_at(99, network(), calls), window=272, overlap=8)
    assert len(calls) == 1 + 30


def test_another_image_under_the_same_name_does_not_continue_a_run(
    image: LargeImage, pixels: np.ndarray, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"window": 272, "overlap": 8, "settings": {"weights_sha256": "abc"}}
    with pytest.raises(Killed):
        segment_large_image(image, tmp_path / "m.zarr", killed_at(2, network(), []), **options)
    tifffile.imwrite(tmp_path / "image.tif", 255 - pixels, tile=(256, 256), compression="deflate", photometric="rgb")
    with (
        open_large_image(tmp_path / "image.tif") as other,
        pytest.raises(ValueError, match=r"m.zarr was begun with other settings \(image "),
    ):
        segment_large_image(other, tmp_path / "m.zarr", network(), **options)
    with pytest.raises(ValueError, match=r"weights_sha256 'abc' then, 'def' now"):
        segment_large_image(image, tmp_path / "m.zarr", network(), **{**options, "settings": {"weights_sha256": "def"}})


def test_blank_windows_are_skipped_only_when_asked(tmp_path: Path) -> None:
    slide = np.full((512, 512, 3), 240, np.uint8)
    slide[:256, :256] = smooth_noise(256, 256)
    tifffile.imwrite(tmp_path / "s.tif", slide, tile=(256, 256), photometric="rgb")
    for skip_blank, expected in ((False, 4), (True, 1)):
        calls = []

        def predict(window: torch.Tensor, calls: list[int] = calls) -> torch.Tensor:
            calls.append(window.shape[-1])
            return torch.ones_like(window[:, :1])

        folder = tmp_path / f"{skip_blank}.zarr"
        with open_large_image(tmp_path / "s.tif") as opened:
            segment_large_image(opened, folder, predict, window=256, overlap=0, skip_blank=skip_blank)
        assert calls.count(256) == 1 + expected
        assert mask_of(folder)[300, 300] == (not skip_blank)
        assert mask_of(folder)[100, 100] == 1


def test_deeper_pixels_need_a_range(tmp_path: Path) -> None:
    deep = np.linspace(0, 4000, 256 * 256).reshape(256, 256).astype(np.uint16)
    tifffile.imwrite(tmp_path / "d.tif", deep, tile=(64, 64))
    with open_large_image(tmp_path / "d.tif") as opened:
        with pytest.raises(ValueError, match=r"d.tif: pixels are uint16: pass --intensity_range low,high"):
            segment_large_image(opened, tmp_path / "m.zarr", lambda w: w, window=256, overlap=0)
        segment_large_image(
            opened, tmp_path / "m.zarr", lambda w: w - 0.5, window=256, overlap=0, intensity_range=(1000, 3000)
        )
    np.testing.assert_array_equal(mask_of(tmp_path / "m.zarr"), deep >= 2000)


def test_16_bit_colours_give_the_mask_of_the_same_colours_in_8_bits(
    image: LargeImage, pixels: np.ndarray, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "d.tif", pixels.astype(np.uint16) * 257, tile=(256, 256), photometric="rgb")
    options: dict[str, Any] = {"window": 528, "overlap": 8}
    segment_large_image(image, tmp_path / "a.zarr", network(), **options)
    with open_large_image(tmp_path / "d.tif") as deep:
        segment_large_image(deep, tmp_path / "b.zarr", network(), intensity_range=(0, 65535), **options)
    assert (mask_of(tmp_path / "a.zarr") == mask_of(tmp_path / "b.zarr")).mean() > 0.999


def test_pixels_without_a_value_are_named_by_their_place(tmp_path: Path) -> None:
    for value in (np.nan, np.inf):
        values = np.zeros((300, 400, 3), np.float32)
        values[250:280, 310:350, 1] = value
        tifffile.imwrite(tmp_path / "a.tif", values, tile=(64, 64), photometric="rgb")
        with (
            open_large_image(tmp_path / "a.tif") as opened,
            pytest.raises(
                ValueError, match=r"a.tif: pixels are NaN or infinite in rows 250 to 280, columns 310 to 350"
            ),
        ):
            segment_large_image(
                opened, tmp_path / f"{value}.zarr", lambda w: w[:, :1], window=448, overlap=0, intensity_range=(0, 1)
            )


def test_bad_input_is_refused_in_one_sentence(image: LargeImage, tmp_path: Path) -> None:
    def run(predict: Predict = lambda w: w[:, :1], **options: Any) -> None:
        segment_large_image(image, tmp_path / "m.zarr", predict, **{"window": 256, "overlap": 0, **options})

    with pytest.raises(ValueError, match=r"threshold is 1.5, expected a probability between 0 and 1"):
        run(threshold=1.5)
    with pytest.raises(ValueError, match=r"intensity_range is \(3, 2\), expected two numbers, the lower one first"):
        run(intensity_range=(3, 2))
    with pytest.raises(ValueError, match=r"the network gives .* expected one channel"):
        run(lambda w: w)
    with pytest.raises(ValueError, match="logits are NaN or infinite in rows 0 to 256, columns 0 to 256"):
        run(lambda w: w[:, :1] * np.nan, restart=True)


LARGE_RUN = """
import sys
from clinbundles.scripts.large_image.opening import open_large_image
from clinbundles.scripts.large_image.segment import segment_large_image
from clinbundles.scripts.large_image.memory import resident_bytes
import torch
torch.set_num_threads(1)
network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 1, 3, padding=1))
held = resident_bytes()
with open_large_image(sys.argv[1]) as image:
    segment_large_image(image, sys.argv[2], network.eval(), overlap=32, intensity_range=(0, 1),
                        max_memory_gb=held / 1e9 + 0.2)
print(resident_bytes(peak=True) - held)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").is_file(), reason="needs a system that tells peak memory")
def test_a_process_stays_below_its_bound_and_below_the_image(tmp_path: Path) -> None:
    tile = smooth_noise(256, 256).astype(np.float64) / 255
    tifffile.imwrite(
        tmp_path / "s.tif",
        (tile for _ in range(12 * 12)),
        shape=(3000, 3000, 3),
        dtype=tile.dtype,
        tile=(256, 256),
        compression="deflate",
        photometric="rgb",
    )
    command = [sys.executable, "-c", LARGE_RUN, str(tmp_path / "s.tif"), str(tmp_path / "m.zarr")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 0.2e9 < 3000 * 3000 * 24
