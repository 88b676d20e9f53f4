from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from clinbundles.transforms.readers.ct_series import patient_key
from clinbundles.transforms.readers.ct_volume import read_ct

Writer = Callable[..., Path]


@pytest.fixture(scope="module")
def hu(chest_slice: Callable[..., np.ndarray]) -> np.ndarray:
    """A chest (slice, row, column) of six unlike slices."""
    return np.stack([chest_slice(48, shift=0.01 * k) for k in range(6)]).astype(np.int16)


def test_a_series_reads_by_positions_whatever_its_files_are_called(
    tmp_path: Path, hu: np.ndarray, write_ct_series: Writer
) -> None:
    folder = write_ct_series(tmp_path / "ct", hu)
    (folder / "LICENSE.txt").write_text("not a slice")
    for source in (folder, sorted(folder.glob("*.dcm")), sorted(folder.glob("*.dcm"), reverse=True)):
        volume = read_ct(source)
        np.testing.assert_array_equal(volume.values, hu)
        assert volume.spacing_mm == pytest.approx((5, 2, 2))
        np.testing.assert_allclose(volume.affine, [[-2, 0, 0, 100], [0, -2, 0, 90], [0, 0, 5, -300], [0, 0, 0, 1]])


def test_a_patient_who_lies_prone_is_turned_to_the_same_view(
    tmp_path: Path, hu: np.ndarray, write_ct_series: Writer
) -> None:
    # Rows towards the patient's right, columns towards anterior: the picture is turned by half a circle.
    prone = hu[:, ::-1, ::-1]
    fields = {"ImageOrientationPatient": [-1, 0, 0, 0, -1, 0]}
    changes = {k: {"ImagePositionPatient": [-100 + 47 * 2, -90 + 47 * 2, -300 + 5 * k]} for k in range(6)}
    volume = read_ct(write_ct_series(tmp_path / "ct", prone, changes=changes, **fields))
    np.testing.assert_array_equal(volume.values, hu)
    np.testing.assert_allclose(volume.affine[:3, 3], [100, 90, -300])
    np.testing.assert_array_equal(volume.as_in_file(volume.values), prone.transpose(2, 1, 0))


def test_slope_and_intercept_of_each_slice_give_hu(tmp_path: Path, hu: np.ndarray, write_ct_series: Writer) -> None:
    halved = write_ct_series(tmp_path / "half", hu, RescaleSlope="0.5", RescaleIntercept="-512")
    np.testing.assert_allclose(read_ct(write_ct_series(tmp_path / "one", hu)).values, hu)
    with pytest.raises(ValueError, match=r"half: values from -500 to \d+, only 0\.00% below -500"):
        read_ct(halved)


WRONG: dict[str, dict] = {
    r"10\.00 mm from the slice at -295\.00 mm to the next, 5\.00 mm between most of the 5: is a slice missing": {
        "without": [2]
    },
    r"two slices at -290\.00 mm, expected one at each": {"changes": {3: {"ImagePositionPatient": [-100, -90, -290]}}},
    r"ImageOrientationPatient is 1, 0, 0, 0, 0, -1, in 001\.dcm of the same series it is 1, 0, 0, 0, 1, 0": {
        "changes": {2: {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}}
    },
    r"24x96 px, 001\.dcm of the same series has 48x48": {"changes": {1: {"Rows": 96, "Columns": 24}}},
    r"PixelSpacing is 1, 1, in 001\.dcm": {"changes": {1: {"PixelSpacing": [1, 1]}}},
    r"2 series \(SeriesInstanceUID\) in 6 files, expected one": {"changes": {0: {"SeriesInstanceUID": "1.2.4"}}},
    r"003\.dcm: RescaleSlope is missing, so the stored values cannot be turned into HU": {
        "changes": {3: {"RescaleSlope": None}}
    },
    r"RescaleIntercept is missing": {"RescaleIntercept": None},
    r"001\.dcm: Modality is 'MR', expected 'CT'": {"Modality": "MR"},
    r"ImagePositionPatient is missing or not 3 numbers": {"ImagePositionPatient": None},
    r"PixelSpacing is \[0\.0, 2\.0\], expected mm": {"PixelSpacing": [0, 2]},
    r"no pair of directions at right angles": {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
    r"PhotometricInterpretation is 'MONOCHROME1', not HU": {"PhotometricInterpretation": "MONOCHROME1"},
    r"slices 5\.00 mm apart, SpacingBetweenSlices says 2\.50": {"SpacingBetweenSlices": 2.5},
    r"oblique, 10\.0 degrees off the patient's axes": {
        "changes": {k: {"ImagePositionPatient": [-100, -90 + k * 0.8816, -300 + 5 * k]} for k in range(6)}
    },
    r"001\.dcm: PixelData is truncated, 100 of 4608 bytes": {"changes": {5: {"PixelData": b"0" * 100}}},
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_files_that_are_no_series_of_ct_are_refused_in_one_sentence_without_the_patient(
    tmp_path: Path, hu: np.ndarray, write_ct_series: Writer, message: str
) -> None:
    folder = write_ct_series(tmp_path / "ct", hu, **WRONG[message])
    with pytest.raises(ValueError, match=message) as caught:
        read_ct(folder)
    assert str(caught.value).startswith(str(folder))
    assert "Doe" not in str(caught.value)
    assert "4711" not in str(caught.value)


def test_a_slice_alone_has_its_thickness_or_no_extent(tmp_path: Path, hu: np.ndarray, write_ct_series: Writer) -> None:
    folder = write_ct_series(tmp_path / "thick", hu[:1], SliceThickness=3)
    assert read_ct(folder / "001.dcm").spacing_mm == pytest.approx((3, 2, 2))
    with pytest.raises(ValueError, match=r"one slice without SliceThickness, so it has no extent"):
        read_ct(write_ct_series(tmp_path / "ct", hu[:1]))


def test_what_is_neither_nifti_nor_dicom_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    with pytest.raises(ValueError, match=r"a\.txt: neither a NIfTI nor a DICOM file"):
        read_ct(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="no DICOM file in this folder"):
        read_ct(tmp_path)


def test_the_key_of_a_patient_tells_patients_apart_and_does_not_name_them(
    tmp_path: Path, hu: np.ndarray, write_ct_series: Writer
) -> None:
    first, second = write_ct_series(tmp_path / "a", hu[:1]), write_ct_series(tmp_path / "b", hu[:1], PatientID="7")
    keys = [patient_key(folder / "001.dcm") for folder in (first, second)]
    assert keys[0] != keys[1]
    assert "4711" not in keys[0]
    assert patient_key(write_ct_series(tmp_path / "c", hu[:1], PatientID=None) / "001.dcm") == ""


def test_the_series_of_a_patient_lies_where_the_nifti_file_of_the_same_series_does(shared_data: Path) -> None:
    volume = read_ct(shared_data / "dicom" / "ct_series" / "Lung_Dx-A0002_B40f_8mm")
    (path,) = (shared_data / "tcia_ct").glob("*A0002*/ct.nii.gz")
    image = nibabel.load(path)
    whole = read_ct(path)
    first = round((volume.affine[2, 3] - whole.affine[2, 3]) / 8)
    part, small = whole.values[first : first + len(volume.values)], volume.values.reshape(14, 256, 2, 256, 2)
    correlation = np.corrcoef(part.ravel(), small.mean(axis=(2, 4)).ravel())[0, 1]
    assert correlation > 0.98
    assert np.corrcoef(part[..., ::-1].ravel(), small.mean(axis=(2, 4)).ravel())[0, 1] < correlation - 0.05
    assert image.shape[2] > len(volume.values)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("orientation", r"3 series \(SeriesInstanceUID\) in 3 files"),
        ("ct_series/rtutils", r"two slices at -170\.85 mm"),
        ("edge/dicomdirtests/98892001/CT2N", r"ImageOrientationPatient is 1, 0, 0, 0, 0, -1, in 6293"),
        ("edge/eCT_Supplemental.dcm", r"NumberOfFrames is 2, expected one frame"),
        ("edge/MR_small_RLE.dcm", r"Modality is 'MR'"),
        ("seg/dcmqi_liver.dcm", r"Modality is 'SEG'"),
        ("cxr/RG1_J2KI.dcm", r"Modality is 'CR'"),
    ],
)
def test_real_files_that_are_no_ct_volume_are_refused(shared_data: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_ct(shared_data / "dicom" / name)
