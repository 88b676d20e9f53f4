from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clinbundles.transforms.readers.masks import read_mask

MASK = np.tile(np.arange(6) < 2, (4, 1))


def save(path, values):
    Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize("white", [1, 255])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_a_mask_is_the_same_whatever_its_white_and_its_mode(tmp_path: Path, white: int, mode: str) -> None:
    image = Image.fromarray(MASK) if mode == "1" else Image.fromarray(MASK * np.uint8(white)).convert(mode)
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), MASK)


def test_a_mask_in_grey_counts_from_half_of_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 127, 128, 255]], np.uint8)).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), [[False, False, True, True]])


def layer(path: Path, *, colour: int, alpha: np.ndarray) -> Path:
    """An image of one grey under an alpha channel, as drawing programs save a layer."""
    grey = np.full((*alpha.shape, 3), colour, np.uint8)
    return save(path, np.dstack([grey, alpha.astype(np.uint8)]))


@pytest.mark.parametrize("white", [1, 255])
def test_what_is_transparent_is_background(tmp_path: Path, white: int) -> None:
    path = layer(tmp_path / "white.png", colour=white, alpha=MASK * 255)
    np.testing.assert_array_equal(read_mask(path), MASK)
    assert not read_mask(layer(tmp_path / "empty.png", colour=white, alpha=0 * MASK)).any()


def test_a_transparent_palette_entry_is_background(tmp_path: Path) -> None:
    image = Image.fromarray(MASK * np.uint8(1), mode="P")
    image.putpalette([255, 255, 255, 254, 254, 254])
    image.save(tmp_path / "palette.png", transparency=0)
    np.testing.assert_array_equal(read_mask(tmp_path / "palette.png"), MASK)


def test_a_black_brush_on_a_transparent_layer_is_refused_and_an_opaque_alpha_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"black\.png: its alpha channel marks 33\.3% .* black and white without"):
        read_mask(layer(tmp_path / "black.png", colour=0, alpha=MASK * 255))
    assert not read_mask(layer(tmp_path / "opaque.png", colour=0, alpha=0 * MASK + 255)).any()


def disc(size=64):
    """A disc of white on black with a soft edge, uint8."""
    y, x = np.mgrid[:size, :size] - size / 2
    return np.clip((size / 3 - np.hypot(x, y)) * 128 + 128, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "values", [np.zeros((8, 8)), np.eye(8), np.eye(8) * 255, np.full((8, 8), 255), np.clip(disc(), 3, 252), disc()]
)
def test_masks_of_black_and_white_pass_with_soft_edges_and_noise(tmp_path, values):
    read_mask(save(tmp_path / "mask.png", values.astype(np.uint8)))


def test_a_jpeg_mask_passes(tmp_path):
    Image.fromarray(disc()).save(tmp_path / "mask.jpg", quality=30)
    read_mask(tmp_path / "mask.jpg")


@pytest.mark.parametrize("ids", [(0, 1, 2, 3), (0, 2), (0, 38, 75), (0, 4, 18, 255), (7, 26, 100, 200), (0, 150)])
def test_label_maps_are_refused_with_their_file_and_a_value(tmp_path, ids):
    coarse = np.random.RandomState(0).randint(0, len(ids), (8, 8))
    path = save(tmp_path / "ids.png", np.kron(np.array(ids, dtype=np.uint8)[coarse], np.ones((8, 8), np.uint8)))
    with pytest.raises(ValueError, match=r"ids\.png: \d+ pixels of value \d+: .* label map .*--foreground") as caught:
        read_mask(path)
    value = int(str(caught.value).split("value ")[1].split(":")[0])
    assert value in set(ids) - {0, 255}


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 0, 255), (255, 255, 0)])
def test_a_mask_of_any_one_colour_is_the_mask_of_white(tmp_path: Path, colour: tuple[int, ...], suffix: str) -> None:
    mask = disc() >= 128
    Image.fromarray(mask[..., None] * np.array(colour, np.uint8)).save(tmp_path / f"mask.{suffix}", quality=90)
    assert (read_mask(tmp_path / f"mask.{suffix}") != mask).mean() < (0.03 if suffix == "jpg" else 1e-9)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_mask_of_two_colours_is_refused(tmp_path: Path, suffix: str) -> None:
    colours = np.zeros((64, 64, 3), np.uint8)
    colours[:20, :20], colours[40:, 40:] = (255, 0, 0), (0, 255, 0)
    Image.fromarray(colours).save(tmp_path / f"mask.{suffix}", quality=95)
    with pytest.raises(ValueError, match=rf"mask\.{suffix}: a mask in 2 colours: .* label map"):
        read_mask(tmp_path / f"mask.{suffix}")
