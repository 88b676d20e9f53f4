import nibabel
import numpy as np
import pytest
from PIL import Image

from clinbundles.scripts.prepare.label_maps import foreground_of, read_label_map

IDS = np.array([[0, 1, 2], [26, 31, 255]], dtype=np.uint8)


def save(path, values):
    Image.fromarray(values).save(path)
    return path


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
