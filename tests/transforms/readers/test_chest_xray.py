import gzip
import io
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from clinbundles.transforms.readers.chest_xray import ChestXRayReader, is_chest, is_frontal, mean_colour

DATA = Path(__file__).parents[3].parent / "shared" / "data"
RAMP = np.tile(np.linspace(0, 255, 64).round().astype(np.uint8), (48, 1))  # dark left, bright right: 48 x 64
DEEP = np.tile(np.linspace(0, 4095, 64).round().astype(np.uint16), (48, 1))  # the same in 12 bits


def need(folder: str) -> Path:
    if not (DATA / folder).is_dir():
        pytest.skip(f"no folder {DATA / folder}")
    return DATA / folder


def close_to(image: np.ndarray, expected: np.ndarray, tolerance: int = 1) -> bool:
    return image.dtype == np.uint8 and np.abs(image.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("mode", ["L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_pixel_mode_of_8_bits_reads_as_the_same_grey(tmp_path: Path, mode: str) -> None:
    suffix = {"CMYK": "tif", "YCbCr": "tif", "PA": "tif"}.get(mode, "png")
    image = Image.fromarray(RAMP).convert("P" if mode == "PA" else mode)
    image.save(tmp_path / f"a.{suffix}")
    assert close_to(ChestXRayReader().read(tmp_path / f"a.{suffix}"), RAMP, 2)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "GIF", "PPM"])
@pytest.mark.parametrize("packed", [False, True])
def test_every_file_kind_reads_whatever_its_name(tmp_path: Path, kind: str, packed: bool) -> None:
    stream = io.BytesIO()
    Image.fromarray(RAMP).save(stream, kind)
    (tmp_path / "image").write_bytes(gzip.compress(stream.getvalue()) if packed else stream.getvalue())
    assert close_to(ChestXRayReader().read(tmp_path / "image"), RAMP, 4)


def test_a_cmyk_jpeg_is_bright_where_it_has_no_ink(tmp_path: Path) -> None:
    Image.fromarray(RAMP).convert("RGB").convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert close_to(ChestXRayReader().read(tmp_path / "a.jpg"), RAMP, 6)


def test_a_bilevel_image_is_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(RAMP > 127).save(tmp_path / "a.png")
    np.testing.assert_array_equal(ChestXRayReader().read(tmp_path / "a.png"), np.where(RAMP > 127, 255, 0))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_the_lowest_and_highest_value_of_16_bits_become_black_and_white(tmp_path: Path, name: str) -> None:
    Image.fromarray(DEEP + 1000).save(tmp_path / name)
    assert close_to(ChestXRayReader().read(tmp_path / name), RAMP)


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
@pytest.mark.parametrize("size", [1, 5])
def test_a_burnt_in_marker_does_not_set_the_contrast(tmp_path: Path, kind: type, size: int) -> None:
    values = (DEEP + 1000).astype(kind)
    values[-size:, :size] = 65535
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    image = ChestXRayReader().read(tmp_path / "a.tif")
    assert (image[-size:, :size] == 255).all()
    assert close_to(image[:-size], RAMP[:-size])


def test_colours_of_16_bits_are_stretched_by_all_their_bits(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([DEEP] * 3, axis=-1), photometric="rgb")
    assert close_to(ChestXRayReader().read(tmp_path / "a.tif"), RAMP)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_whole_and_real_numbers_of_32_bits_are_stretched_too(tmp_path: Path, kind: type) -> None:
    Image.fromarray((DEEP.astype(np.int32) - 2000).astype(kind)).save(tmp_path / "a.tif")
    assert close_to(ChestXRayReader().read(tmp_path / "a.tif"), RAMP)


@pytest.mark.parametrize("values", [RAMP, DEEP])
def test_a_tiff_whose_zero_is_white_is_dark_where_it_should_be(tmp_path: Path, values: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values.max() - values, photometric="miniswhite")
    assert close_to(ChestXRayReader().read(tmp_path / "a.tif"), RAMP)


@pytest.mark.parametrize("shape", [(64, 48), (64, 48, 1), (64, 48, 1, 3)])
def test_one_slice_of_nifti_reads_like_a_picture(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = np.broadcast_to(DEEP.T.reshape(64, 48, *(1,) * (len(shape) - 2)), shape)
    nibabel.save(nibabel.Nifti1Image(values.astype(np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    assert close_to(ChestXRayReader().read(tmp_path / "a.nii.gz"), RAMP)


def test_a_jpeg_is_decoded_at_a_fraction_that_keeps_both_sides(tmp_path: Path) -> None:
    Image.fromarray(RAMP).resize((1000, 600)).save(tmp_path / "a.jpg")
    shapes = [ChestXRayReader(decode_size=n).read(tmp_path / "a.jpg").shape for n in (32, 75, 76, 150, 300, 301, 700)]
    assert shapes == [(75, 125), (75, 125), (150, 250), (150, 250), (300, 500), (600, 1000), (600, 1000)]
    small = ChestXRayReader(decode_size=75).read(tmp_path / "a.jpg")
    assert close_to(small, np.asarray(Image.fromarray(RAMP).resize((125, 75))), 6)


@pytest.mark.parametrize("size", [0, 31, 2.5])
def test_a_decode_size_that_is_no_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="decode_size is"):
        ChestXRayReader(decode_size=size)


def colour_photograph() -> np.ndarray:
    return np.stack([RAMP, RAMP[:, ::-1], np.full_like(RAMP, 90)], axis=-1)


def test_a_colour_photograph_is_refused_and_a_grey_image_with_a_coloured_arrow_is_not(tmp_path: Path) -> None:
    Image.fromarray(colour_photograph()).save(tmp_path / "photo.png")
    with pytest.raises(ValueError, match=r"photo\.png: a colour image, no X-ray: its channels differ by \d+ of 255"):
        ChestXRayReader().read(tmp_path / "photo.png")
    assert ChestXRayReader(force=True).read(tmp_path / "photo.png").shape == RAMP.shape
    marked = np.repeat(RAMP[..., None], 3, axis=-1)
    marked[4:8, 10:40] = (255, 0, 0)
    Image.fromarray(marked).save(tmp_path / "marked.png")
    assert 0 < mean_colour(Image.fromarray(marked)) < 15
    assert close_to(ChestXRayReader().read(tmp_path / "marked.png")[8:], RAMP[8:])


def test_pictures_that_cannot_be_an_x_ray_are_refused_even_by_force(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-200])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    Image.fromarray(RAMP[:1, :1]).save(tmp_path / "dot.png")
    Image.fromarray(RAMP[:31]).save(tmp_path / "low.png")
    Image.fromarray(np.full((40, 40), 7, dtype=np.uint8)).save(tmp_path / "flat.png")
    Image.fromarray(np.full((40, 40), 700, dtype=np.uint16)).save(tmp_path / "deep_flat.png")
    Image.fromarray(np.where(RAMP > 9, np.nan, 1).astype(np.float32)).save(tmp_path / "nan.tif")
    pages = [Image.fromarray(RAMP), Image.fromarray(RAMP[::-1])]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    nibabel.save(nibabel.Nifti1Image(np.zeros((40, 40, 5)), np.eye(4)), tmp_path / "volume.nii")
    faults = {
        "cut.jpg": "not a readable image",
        "text.png": "no known format",
        "empty.png": "no known format",
        "dot.png": "1x1 px, expected 32 px or more",
        "low.png": "64x31 px",
        "flat.png": "every pixel has the same value",
        "deep_flat.png": "every pixel has the same value",
        "nan.tif": "not finite",
        "pages.tif": "a TIFF of 2 planes",
        "volume.nii": "expected one slice",
    }
    for name, fault in faults.items():
        with pytest.raises(ValueError, match=fault) as caught:
            ChestXRayReader(force=True).read(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
    with pytest.raises(FileNotFoundError, match=r"absent\.png"):
        ChestXRayReader().read(tmp_path / "absent.png")


def test_views_and_body_parts_are_told_apart_by_words() -> None:
    assert all(
        map(is_frontal, ["PA", "AP", "AP SUPINE", "AP_PORTABLE", "POSTERO-ANTERIOR", "ANTEROPOSTERIOR", "FRONTAL"])
    )
    assert not any(
        map(is_frontal, ["LL", "RL", "LLAT", "LATERAL", "LLD", "AP LLD", "PA_LAT", "RAO", "PA OBLIQUE", "?"])
    )
    assert not is_frontal("ANTERO-POSTERIOR OBLIQUE")
    assert all(map(is_chest, ["CHEST", "PORT CHEST", "THORAX", "TORAX", "LUNG", "CHEST_ABDOMEN"]))
    assert not any(map(is_chest, ["ABDOMEN", "TSPINE", "THORAX SPINE", "RIB", "RIBS", "BREAST", "HEART"]))


@pytest.mark.parametrize("folder", ["kermany", "covid_chestxray"])
def test_the_published_x_rays_are_read(folder: str) -> None:
    paths = [p for p in sorted(need(folder).rglob("*")) if p.suffix.lower() in (".jpg", ".jpeg", ".png")]
    for path in paths[::25]:
        assert ChestXRayReader(decode_size=128).read(path).ndim == 2
