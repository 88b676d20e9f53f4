from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from clinbundles.transforms.hu_labels import LEFT_LUNG, label_volume
from clinbundles.transforms.readers.ct_volume import read_ct, read_labels, to_grey, to_hu

LPS = np.array([[-2.0, 0, 0, 100], [0, -2, 0, 90], [0, 0, 5, -300], [0, 0, 0, 1]])
Chest = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def hu(chest_slice: Chest) -> np.ndarray:
    """A chest (slice, row, column) of four unlike slices."""
    slices = [chest_slice(64, right=False), chest_slice(64), chest_slice(64, shift=0.03), chest_slice(64, left=False)]
    return np.stack(slices).astype(np.int16)


def save(path: Path, array: np.ndarray, affine: np.ndarray = LPS) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def turned(hu: np.ndarray, axes: str) -> tuple[np.ndarray, np.ndarray]:
    """The array and affine of a NIfTI file whose axes go towards ``axes``, of the same patient."""
    orientation = ornt_transform(axcodes2ornt("LPS"), axcodes2ornt(axes))
    array = hu.transpose(2, 1, 0)
    return apply_orientation(array, orientation), LPS @ inv_ornt_aff(orientation, array.shape)


@pytest.mark.parametrize("axes", ["LPS", "RAS", "LAS", "PSR", "SAL", "IPR"])
def test_a_volume_has_one_order_whatever_the_order_of_the_file(tmp_path: Path, hu: np.ndarray, axes: str) -> None:
    array, affine = turned(hu, axes)
    volume = read_ct(save(tmp_path / "ct.nii.gz", array, affine))
    np.testing.assert_array_equal(volume.values, hu)
    assert volume.values.dtype == np.int16
    np.testing.assert_allclose(volume.affine, LPS)
    assert volume.spacing_mm == pytest.approx((5, 2, 2))
    np.testing.assert_array_equal(volume.as_in_file(volume.values), array)
    np.testing.assert_allclose(volume.file_affine, affine)


def test_labels_of_a_turned_file_lie_on_its_lungs(tmp_path: Path, hu: np.ndarray) -> None:
    array, affine = turned(hu, "SAL")
    path = save(tmp_path / "ct.nii", array, affine)
    volume = read_ct(path)
    labels = label_volume(volume.values)
    save(tmp_path / "labels.nii.gz", volume.as_in_file(labels), volume.file_affine)
    written = nibabel.load(tmp_path / "labels.nii.gz")
    places = np.argwhere(np.asanyarray(written.dataobj) == LEFT_LUNG)
    assert (array[tuple(places.T)] < 100).all()
    # Towards the patient's right is positive in NIfTI's millimetres: the left lung is left of the middle, at 36 mm.
    assert ((written.affine @ np.c_[places, np.ones(len(places))].T)[0] < 36).all()
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.nii.gz", volume, ids=range(5)), labels)


def test_the_padding_of_the_field_of_view_becomes_air_and_fractions_of_hu_stay(tmp_path: Path, hu: np.ndarray) -> None:
    array = hu.transpose(2, 1, 0) + np.float32(0.25)
    array[:3] = -3024
    volume = read_ct(save(tmp_path / "ct.nii.gz", array))
    assert volume.values.dtype == np.float32
    assert (volume.values[..., :3] == -1024).all()
    np.testing.assert_allclose(volume.values[..., 3:], hu[..., 3:] + 0.25)


def test_a_window_and_back_gives_the_hu_within_it() -> None:
    hu = np.array([-2000, -1000, -200, 600, 900], np.float32)
    np.testing.assert_allclose(to_grey(hu, (-1000, 600)), [0, 0, 127.5, 255, 255])
    np.testing.assert_allclose(to_hu(to_grey(hu, (-1000, 600)), (-1000, 600)), [-1000, -1000, -200, 600, 600])


def rotated(degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ LPS


WRONG = {
    r"shape \(64, 64, 4, 2\), expected a volume of three axes": lambda a: (np.stack([a, a], axis=-1), LPS),
    r"oblique, 3\.0 degrees off": lambda a: (a, rotated(3)),
    r"NIfTI of uint8 \(0 to 169\), which holds no HU": lambda a: (np.rint(to_grey(a, (-1000, 600))).astype("u1"), LPS),
    r"from 0 to 168.938, only 0\.00% below -500: a CT in HU has air": lambda a: (to_grey(a, (-1000, 600)), LPS),
    r"from 24 to 1084, only 0\.00% below -500": lambda a: ((a + 1024).astype(np.int16), LPS),
    r"from -2024 to -964, only 0\.00% from -200 to 200": lambda a: ((a - 1024).astype(np.int16), LPS),
    r"from -1e\+06 to 60000, which no CT in HU has": lambda a: (a.astype(np.float32) * 1000, LPS),
    r"values from nan to nan, expected finite HU": lambda a: (np.where(a == 40, np.nan, a.astype(np.float32)), LPS),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_nifti_file_that_is_no_ct_volume_is_refused_in_one_sentence(
    tmp_path: Path, hu: np.ndarray, message: str
) -> None:
    array, affine = WRONG[message](hu.transpose(2, 1, 0))
    path = save(tmp_path / "ct.nii.gz", array, affine)
    with pytest.raises(ValueError, match=message) as caught:
        read_ct(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_an_affine_less_than_a_degree_off_is_taken(tmp_path: Path, hu: np.ndarray) -> None:
    np.testing.assert_array_equal(read_ct(save(tmp_path / "a.nii", hu.transpose(2, 1, 0), rotated(0.5))).values, hu)


def test_a_header_that_tells_no_geometry_or_two_is_refused(tmp_path: Path, hu: np.ndarray) -> None:
    image = nibabel.Nifti1Image(hu.transpose(2, 1, 0), LPS)
    image.header.set_qform(np.diag([-1, 1, 1, 1]) @ LPS, code=1)
    image.to_filename(tmp_path / "two.nii.gz")
    with pytest.raises(ValueError, match=r"axes go towards LPS by the sform, towards RPS by the qform"):
        read_ct(tmp_path / "two.nii.gz")
    none = nibabel.Nifti1Image(hu.transpose(2, 1, 0), None)
    none.to_filename(tmp_path / "none.nii.gz")
    with pytest.raises(ValueError, match="left and right of the patient are not known"):
        read_ct(tmp_path / "none.nii.gz")
    image = nibabel.Nifti1Image(hu.transpose(2, 1, 0), LPS)
    image.header.set_zooms((1, 1, 1))
    image.header["qform_code"] = 0
    image.to_filename(tmp_path / "size.nii.gz")
    with pytest.raises(ValueError, match=r"voxels of 2 x 2 x 5 mm, pixdim of 1 x 1 x 1 mm"):
        read_ct(tmp_path / "size.nii.gz")


def test_a_file_that_is_cut_short_or_missing_is_named(tmp_path: Path, hu: np.ndarray) -> None:
    path = save(tmp_path / "ct.nii", hu.transpose(2, 1, 0))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"ct\.nii: not a readable NIfTI file"):
        read_ct(path)
    with pytest.raises(FileNotFoundError, match=r"none\.nii: no such file"):
        read_ct(tmp_path / "none.nii")
    with pytest.raises(ValueError, match="an empty list"):
        read_ct([])


def test_a_label_map_of_another_place_size_or_id_is_refused(tmp_path: Path, hu: np.ndarray) -> None:
    volume = read_ct(save(tmp_path / "ct.nii.gz", hu.transpose(2, 1, 0)))
    labels = np.zeros(hu.T.shape, np.uint8)
    elsewhere = LPS.copy()
    elsewhere[2, 3] += 5
    for array, affine, message in (
        (labels, elsewhere, r"not that of the CT, they differ by 5\.00 mm"),
        (labels[..., 1:], LPS, r"label map of \(3, 64, 64\) \(slice, row, column\), the CT has \(4, 64, 64\)"),
        (labels + np.uint8(7), LPS, r"id 7, expected 0, 1, 2"),
    ):
        with pytest.raises(ValueError, match=message):
            read_labels(save(tmp_path / "labels.nii.gz", array, affine), volume, ids=range(3))
    with pytest.raises(FileNotFoundError, match=r"nothing\.nii: no such file"):
        read_labels(tmp_path / "nothing.nii", volume, ids=range(3))


@pytest.mark.parametrize(("slope", "intercept", "kind"), [(1, -1024, np.int16), (0.5, -1024.5, np.float32)])
def test_scaled_values_are_those_of_nibabel_in_half_of_its_memory_or_less(
    tmp_path: Path, hu: np.ndarray, slope: float, intercept: float, kind: type
) -> None:
    image = nibabel.Nifti1Image(np.rint((hu.transpose(2, 1, 0) - intercept) / slope).astype(np.uint16), LPS)
    image.header.set_slope_inter(slope, intercept)
    nibabel.save(image, tmp_path / "ct.nii.gz")
    volume = read_ct(tmp_path / "ct.nii.gz")
    assert volume.values.dtype == kind
    stored = nibabel.load(tmp_path / "ct.nii.gz")
    assert float(stored.dataobj.inter) == intercept
    expected = np.maximum(np.asanyarray(stored.dataobj).astype(np.float32), -1024)
    np.testing.assert_array_equal(volume.as_in_file(volume.values), expected)
