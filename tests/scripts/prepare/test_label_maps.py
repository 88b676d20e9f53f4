import nibabel
import numpy as np
import pytest
from PIL import Image

from clinbundles.scripts.prepare.label_maps import check_binary, foreground_of, read_label_map
from clinbundles.transforms.readers.decoding import read_mask_values

IDS = np.array([[0, 1, 2], [26, 31, 255]], dtype=np.uint8)


def save(path, values):
    Image.fromarray(values).save(path)
    return path


def check(path):
    check_binary(read_mask_values(path), path)


def test_ids_are_read_as_they_are_from_grey_palette_deep_and_equal_colour_images(tmp_path):
    palette = Image.new("P", (3, 2))
    palette.putdata(IDS.ravel().tolist())
    palette.putpalette(np.random.RandomState(0).randint(0, 256, 768).tolist())
    palette.save(tmp_path / "palette.png")
    save(tmp_path / "grey.png", IDS)
    save(tmp_path / "deep.png", IDS.astype(np.uint16))
    save(tmp_path / "colour.png", np.repeat(IDS[..., None], 3, axis=-1))
    nibabel.save(nibabel.Nifti1Image(IDS.T, np.eye(4)), tmp_path / "map.nii.gz")
    for name in ("palette.png", "grey.png", "deep.png", "colour.png", "map.nii.gz"):
        np.testing.assert_array_equal(read_label_map(tmp_path / name), IDS)


def test_a_picture_is_no_label_map(tmp_path):
    path = save(tmp_path / "a.png", np.random.RandomState(0).randint(0, 256, (4, 4, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"a\.png: pixel mode 'RGB' is no label map"):
        read_label_map(path)


def test_the_chosen_ids_are_foreground_and_no_other(tmp_path):
    path = save(tmp_path / "a.png", IDS)
    np.testing.assert_array_equal(foreground_of(path, foreground={2, 26}), [[0, 0, 1], [1, 0, 0]])


def test_an_id_outside_the_label_map_is_named_with_its_file(tmp_path):
    path = save(tmp_path / "a.png", IDS)
    assert foreground_of(path, foreground={1}, known={0, 1, 2, 26, 31, 255}).sum() == 1
    with pytest.raises(ValueError, match=r"a\.png: label id 31 is not in the label map"):
        foreground_of(path, foreground={1}, known={0, 1, 2, 26, 255})


def disc(size=64):
    """A disc of white on black with a soft edge, uint8."""
    y, x = np.mgrid[:size, :size] - size / 2
    return np.clip((size / 3 - np.hypot(x, y)) * 128 + 128, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "values", [np.zeros((8, 8)), np.eye(8), np.eye(8) * 255, np.full((8, 8), 255), np.clip(disc(), 3, 252), disc()]
)
def test_masks_of_black_and_white_pass_with_soft_edges_and_noise(tmp_path, values):
    check(save(tmp_path / "mask.png", values.astype(np.uint8)))


def test_a_jpeg_mask_passes(tmp_path):
    Image.fromarray(disc()).save(tmp_path / "mask.jpg", quality=30)
    check(tmp_path / "mask.jpg")


@pytest.mark.parametrize("ids", [(0, 1, 2, 3), (0, 2), (0, 38, 75), (0, 4, 18, 255), (7, 26, 100, 200), (0, 150)])
def test_label_maps_are_refused_with_their_file_and_a_value(tmp_path, ids):
    coarse = np.random.RandomState(0).randint(0, len(ids), (8, 8))
    path = save(tmp_path / "ids.png", np.kron(np.array(ids, dtype=np.uint8)[coarse], np.ones((8, 8), np.uint8)))
    with pytest.raises(ValueError, match=r"ids\.png: \d+ pixels of value \d+: .* label map .*--foreground") as caught:
        check(path)
    named = int(str(caught.value).split("value ")[1].split(":")[0])
    assert named in set(ids) - {0, 255}
