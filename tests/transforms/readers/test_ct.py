from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose, EnsureChannelFirstd, Invertd, Orientationd, Resized, SaveImaged

from clinbundles.transforms.hu_labels import LEFT_LUNG, label_slice
from clinbundles.transforms.readers.ct import CTReader
from clinbundles.transforms.readers.loading import StrictLoadImaged

# As a file may have it: axes towards superior, anterior, left, no round numbers.
AFFINE = np.array([[0, 0, -1.7, 51.3], [0, 1.9, 0, -80.2], [4.1, 0, 0, -300.7], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def hu(chest_slice: Callable[..., np.ndarray]) -> np.ndarray:
    """A chest (slice, row, column) of three unlike slices."""
    return np.stack([chest_slice(64, shift=0.01 * k) for k in range(3)]).astype(np.int16)


def steps() -> Compose:
    return Compose(
        [
            StrictLoadImaged("image", reader=CTReader()),
            EnsureChannelFirstd("image"),
            Orientationd("image", axcodes="PLS", labels=None),
            Resized("image", spatial_size=(32, 32, -1), mode="area"),
        ]
    )


def label_and_write(source: str | list[str], folder: Path) -> nibabel.Nifti1Image:
    """Label a volume in the slices that a network would see, and write the labels as an inference config does."""
    before = steps()
    item = before({"image": source})
    pred = item["image"].clone()
    for k in range(pred.shape[-1]):
        pred[0, ..., k] = torch.as_tensor(label_slice(np.asarray(item["image"][0, ..., k])))
    item["pred"] = pred
    after = Compose(
        [
            Invertd("pred", transform=before, orig_keys="image", nearest_interp=True),
            SaveImaged("pred", output_dir=folder, output_postfix="seg", separate_folder=False, print_log=False,
                       resample=False, output_dtype=np.uint8),
        ]
    )  # fmt: skip
    after(item)
    (path,) = folder.glob("*.nii.gz")
    return nibabel.load(path)


def test_labels_of_a_nifti_file_are_written_in_its_own_geometry(tmp_path: Path, hu: np.ndarray) -> None:
    array = hu[:, ::-1]
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), tmp_path / "ct.nii.gz")
    written = label_and_write(str(tmp_path / "ct.nii.gz"), tmp_path / "out")
    assert written.shape == array.shape
    np.testing.assert_allclose(written.affine, AFFINE, atol=1e-4)
    labels = np.asanyarray(written.dataobj)[:, ::-1]
    left = np.argwhere(labels == LEFT_LUNG)
    assert len(left) > 300
    assert left[:, 2].min() > 32
    expected = np.stack([label_slice(one) for one in hu])
    assert (labels == expected).mean() > 0.96


def test_labels_of_a_dicom_series_lie_on_its_slices(
    tmp_path: Path, hu: np.ndarray, write_ct_series: Callable[..., Path]
) -> None:
    folder = write_ct_series(tmp_path / "ct", hu)
    written = label_and_write(str(folder), tmp_path / "out")
    assert written.shape == (64, 64, 3)
    np.testing.assert_allclose(
        written.affine, [[-2, 0, 0, 100], [0, -2, 0, 90], [0, 0, 5, -300], [0, 0, 0, 1]], atol=1e-4
    )
    labels = np.asanyarray(written.dataobj).transpose(2, 1, 0)
    assert (labels == np.stack([label_slice(one) for one in hu])).mean() > 0.96


def test_a_list_of_files_is_one_series_and_the_slices_are_pictures(
    tmp_path: Path, hu: np.ndarray, write_ct_series: Callable[..., Path]
) -> None:
    files = [str(path) for path in write_ct_series(tmp_path / "ct", hu).glob("*.dcm")]
    image = Compose(steps().transforms[:-1])({"image": files})["image"]
    assert image.shape == (1, 64, 64, 3)
    np.testing.assert_array_equal(np.asarray(image[0]).transpose(2, 0, 1), hu)


def test_the_refusal_of_a_volume_reaches_the_caller_and_no_other_reader_takes_it(
    tmp_path: Path, hu: np.ndarray
) -> None:
    nibabel.save(nibabel.Nifti1Image((hu > 0).astype(np.uint8), AFFINE), tmp_path / "mask.nii.gz")
    with pytest.raises(ValueError, match=r"mask\.nii\.gz: NIfTI of uint8 \(0 to 1\), which holds no HU"):
        StrictLoadImaged("image", reader=CTReader())({"image": str(tmp_path / "mask.nii.gz")})
