import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from clinbundles.scripts.cli import main
from clinbundles.scripts.prepare.command import prepare
from clinbundles.scripts.prepare.ct_volumes import ct_nifti
from clinbundles.scripts.prepare.datalist import items_of
from clinbundles.scripts.prepare.series import splits_by_pattern
from clinbundles.transforms.hu_labels import LEFT_LUNG, label_slice
from clinbundles.transforms.readers.ct_volume import to_hu

AFFINE = np.diag([-2.0, -2, 5, 1])
Chest = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def hu(chest_slice: Chest) -> np.ndarray:
    """A chest (slice, row, column) of three slices, the first of which has no lung."""
    slices = [chest_slice(64, left=False, right=False), chest_slice(64), chest_slice(64, shift=0.02)]
    return np.stack(slices).astype(np.int16)


def save(path: Path, volume: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(volume.transpose(2, 1, 0), AFFINE), path)


@pytest.fixture
def root(tmp_path: Path, hu: np.ndarray) -> Path:
    """Four volumes of three patients, each with a mask of 8 bits beside it."""
    folder = tmp_path / "data"
    for k, name in enumerate(("Ada_1", "Ada_2", "Bob_1", "Cy_1")):
        save(folder / name / "ct.nii.gz", hu + np.int16(k))
        save(folder / name / "mask.nii.gz", (hu < -500).astype(np.uint8))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def run(root: Path, data_set: str = "ct_nifti", **flags: Any) -> dict[str, Any]:
        (tmp_path / "out").mkdir()
        prepare(data_set, str(root), str(tmp_path / "out" / "datalist.json"), image_size=32, **flags)
        return json.loads((tmp_path / "out" / "datalist.json").read_text())

    return run


def picture(tmp_path: Path, item: dict[str, Any], key: str) -> np.ndarray:
    return np.asarray(Image.open(tmp_path / "out" / item[key]))


def test_the_command_writes_slices_with_automatic_labels_split_by_patients(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "out").mkdir()
    flags = [*("--test", "*Bob*", "--leave_out", "Cy*", "--window", "-1000,600"), *("--patients", "^([A-Za-z]+)_")]
    output = tmp_path / "out" / "datalist.json"
    main(["prepare", "ct_nifti", str(root), str(output), "--image_size", "32", *flags])
    content = json.loads(output.read_text())
    assert content["labels"] == {"0": "background", "1": "body", "2": "left lung", "3": "right lung"}
    assert content["labeller"] == "automatic (HU threshold)"
    assert content["window_hu"] == [-1000, 600]
    assert {item["group"] for item in content["training"]} == {"p01"}
    assert {item["group"] for item in content["test"]} == {"p02"}
    assert [item["image"] for item in content["training"]][::3] == ["images/p01_s1_001.png", "images/p01_s2_001.png"]
    assert [item["position"] for item in content["test"]] == [0, 5, 10]
    assert content["left_out"] == {"files of 8 bits, which hold no HU": 4, "series by --leave_out Cy*": 1}
    assert not any(name in output.read_text() for name in ("Ada", "Bob", "nii"))
    assert "3 series with 9 slices came in, 3 with 9 are used" in capsys.readouterr().out


def test_the_labels_lie_on_the_lungs_and_the_grey_values_give_the_hu_back(
    tmp_path: Path, root: Path, hu: np.ndarray, run: Callable[..., dict[str, Any]]
) -> None:
    item = run(root, test="Bob*,Cy*", patients="(.*)_")["training"][1]
    labels, image = picture(tmp_path, item, "label"), picture(tmp_path, item, "image")
    whole = label_slice(hu[1])
    assert (labels == whole[1::2, 1::2]).mean() > 0.95
    assert np.nonzero(labels == LEFT_LUNG)[1].min() > 16
    means = hu[1].reshape(32, 2, 32, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(to_hu(image, (-1000, 600)), means, atol=0.5 * 1600 / 255 + 0.01)


def test_without_patients_named_a_series_of_a_patient_in_each_split_goes_unseen_and_with_them_is_refused(
    root: Path, run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"Ada_1/ct\.nii\.gz would be in test and Ada_2/ct\.nii\.gz in training"):
        run(root, test="Ada_1*", patients="^([A-Za-z]+)_")
    (tmp_path / "out").rmdir()
    assert len({item["group"] for item in items_of(run(root, test="Ada_1*"))}) == 4


def test_trachea_lung_only_and_no_labels_are_options(
    tmp_path: Path, root: Path, run: Callable[..., dict[str, Any]]
) -> None:
    content = run(root, trachea=True, lung_only=True)
    assert content["labels"]["4"] == "trachea"
    assert content["left_out"]["slices of which less than 0.1 % are lung"] == 4
    assert len(items_of(content)) == 8


def test_without_labels_there_are_images_alone(tmp_path: Path, root: Path, run: Callable[..., dict[str, Any]]) -> None:
    content = run(root, labels="none")
    assert content["labels"] == {}
    assert content["labeller"] is None
    assert not any("label" in item for item in items_of(content))
    assert not (tmp_path / "out" / "labels").exists()


def test_label_maps_of_peoples_own_are_read_beside_the_volumes(
    tmp_path: Path, root: Path, hu: np.ndarray, run: Callable[..., dict[str, Any]]
) -> None:
    for folder in root.iterdir():
        save(folder / "seg.nii.gz", np.where(hu < -500, 2, 0).astype(np.uint8))
    content = run(root, labels="seg.nii.gz", test="Bob*")
    assert content["labeller"] == "people"
    assert np.unique(picture(tmp_path, content["test"][1], "label")).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"labels": "seg.nii.gz"}, r"seg\.nii\.gz: no such file"),
        ({"patients": "^([0-9]+)"}, r"--patients \^\(\[0-9\]\+\): its first group finds nothing in Ada_1/ct"),
        ({"patients": "Ada"}, r"its first group finds nothing"),
        ({"patients": "("}, r"--patients \(: no regular expression"),
        ({"leave_out": "Dan*"}, r"--leave_out Dan\*: no series goes by this name"),
        ({"window": (600, -1000)}, r"--window is \(600, -1000\): expected two HU, low and high"),
        ({"window": "lung"}, r"--window is 'lung'"),
        ({"labels": "none", "lung_only": True}, r"--lung_only true needs labels"),
        ({"labels": "none", "trachea": True}, r"--trachea true is of --labels automatic"),
    ],
)
def test_flags_that_cannot_be_followed_are_refused_and_nothing_is_written(
    tmp_path: Path, root: Path, run: Callable[..., dict[str, Any]], flags: dict[str, Any], message: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(root, **flags)
    assert not list((tmp_path / "out").iterdir())


def test_a_volume_that_is_no_ct_is_named_and_may_be_left_out(
    tmp_path: Path, root: Path, hu: np.ndarray, run: Callable[..., dict[str, Any]]
) -> None:
    save(root / "Cy_1" / "ct.nii.gz", hu + np.int16(1024))
    with pytest.raises(ValueError, match=r"Cy_1/ct\.nii\.gz: values from 24 to .*below -500.*--skip_bad"):
        run(root)
    (tmp_path / "out").rmdir()
    content = run(root, skip_bad=True)
    assert content["skipped"][0]["reason"].startswith("p04_s1: values from 24")
    assert len(items_of(content)) == 9


def test_dicom_series_go_by_the_patient_in_their_files_who_is_not_written(
    tmp_path: Path, hu: np.ndarray, write_ct_series: Callable[..., Path], run: Callable[..., dict[str, Any]]
) -> None:
    for k, patient in enumerate(("P1", "P2", "P1")):
        write_ct_series(tmp_path / "dicom" / f"study{k}" / "series", hu + k, PatientID=patient)
    with pytest.raises(ValueError, match=r"study0/series would be in test and study2/series in training"):
        run(tmp_path / "dicom", "ct_dicom", test="study0*")
    (tmp_path / "out").rmdir()
    content = run(tmp_path / "dicom", "ct_dicom", test="study0*,study2*")
    assert [len(content[split]) for split in ("training", "test")] == [3, 6]
    assert content["test"][0]["position"] == -300
    assert len({item["source_sha256"] for item in items_of(content)}) == 3
    assert not any(word in json.dumps(content) for word in ("P1", "Doe", "study"))


def test_a_missing_slice_stops_a_dicom_folder(
    tmp_path: Path, hu: np.ndarray, write_ct_series: Callable[..., Path], run: Callable[..., dict[str, Any]]
) -> None:
    write_ct_series(tmp_path / "dicom" / "a", np.concatenate([hu, hu]), without=[2])
    with pytest.raises(ValueError, match=r"dicom/a: 10\.00 mm from the slice at -295\.00 mm.*is a slice missing"):
        run(tmp_path / "dicom", "ct_dicom", ratios=[1, 0, 0])


@pytest.fixture
def segthor(tmp_path: Path, hu: np.ndarray) -> Path:
    """SegTHOR in its layout: GT of oesophagus 1, heart 2, trachea 3, aorta 4."""
    truth = np.zeros(hu.shape, np.uint8)
    for organ, rows in ((1, slice(36, 38)), (2, slice(20, 24)), (3, slice(26, 28)), (4, slice(30, 34))):
        truth[:, rows, 30:34] = organ
    for name in ("Patient_01", "Patient_02", "Patient_03"):
        save(tmp_path / "SegTHOR" / name / f"{name}.nii.gz", hu + np.int16(int(name[-1])))
        save(tmp_path / "SegTHOR" / name / "GT.nii.gz", truth)
        save(tmp_path / "SegTHOR" / name / "lungs.nii.gz", np.where(hu < -500, 1, 0).astype(np.uint8))
    return tmp_path / "SegTHOR"


def test_segthor_has_the_organs_of_people_and_lungs_by_threshold(
    tmp_path: Path, segthor: Path, run: Callable[..., dict[str, Any]]
) -> None:
    content = run(segthor, "segthor", test="Patient_03*")
    names = ["background", "heart", "aorta", "trachea", "left lung", "right lung"]
    assert list(content["labels"].values()) == names
    assert content["labeller"] == "people; lungs automatic (HU threshold)"
    labels = picture(tmp_path, content["test"][1], "label")
    organs = {row: names[labels[row, 16]] for row in (11, 13, 16, 18)}
    assert organs == {11: "heart", 13: "trachea", 16: "aorta", 18: "background"}
    assert names[labels[14, 22]] == "left lung"
    assert names[labels[14, 9]] == "right lung"


def test_segthor_may_keep_the_oesophagus_and_take_lungs_of_a_mask(
    tmp_path: Path, segthor: Path, run: Callable[..., dict[str, Any]]
) -> None:
    content = run(segthor, "segthor", test="Patient_03*", oesophagus=True, lungs="lungs.nii.gz")
    names = list(content["labels"].values())
    assert names == ["background", "heart", "aorta", "trachea", "oesophagus", "left lung", "right lung"]
    labels = picture(tmp_path, content["test"][1], "label")
    assert names[labels[18, 16]] == "oesophagus"
    assert names[labels[14, 22]] == "right lung"  # as the mask has it


def test_segthor_without_its_labels_is_refused(segthor: Path, run: Callable[..., dict[str, Any]]) -> None:
    (segthor / "Patient_02" / "GT.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"GT\.nii\.gz: no such file beside Patient_02\.nii\.gz"):
        run(segthor, "segthor")


def test_the_slices_of_the_shared_data_are_split_by_patients_as_planned(shared_data: Path) -> None:
    flags = {"leave_out": "MIDRC*", "patients": "^(ACRIN-FLT-Breast_ACRIN-FLT-Breast_001|[^/]+)"}
    series = ct_nifti(shared_data / "tcia_ct", **flags).series
    splits = splits_by_pattern(series, {"test": "*A0001*,*A0002*"})
    slices = {"training": 0, "test": 0}
    for one in series:
        slices[splits[one.name]] += nibabel.load(one.files[0]).shape[2]
    assert slices == {"training": 315, "test": 83}
    patients = {split: {one.patient for one in series if splits[one.name] == split} for split in slices}
    assert [len(patients[split]) for split in slices] == [4, 2]
