from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from clinbundles.transforms.hu_labels import BODY, LEFT_LUNG, RIGHT_LUNG, TRACHEA, find_body, label_slice, label_volume
from clinbundles.transforms.readers.ct_volume import to_grey, to_hu

WINDOW = (-1000, 600)
Chest = Callable[..., np.ndarray]


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * float((first & second).sum()) / float(first.sum() + second.sum())


@pytest.mark.parametrize("size", [64, 128, 256, 512])
def test_the_left_lung_is_in_the_right_half_of_the_picture_at_any_size(chest_slice: Chest, size: int) -> None:
    labels = label_slice(chest_slice(size))
    columns = np.arange(size)[None].repeat(size, axis=0)
    assert columns[labels == LEFT_LUNG].min() > size / 2 > columns[labels == RIGHT_LUNG].max()
    # The areas of the ellipses; the left lung is the smaller one.
    assert (labels == LEFT_LUNG).mean() == pytest.approx(np.pi * 0.11 * 0.17, rel=0.03)
    assert (labels == RIGHT_LUNG).mean() == pytest.approx(np.pi * 0.14 * 0.2, rel=0.03)
    assert (labels > 0).mean() == pytest.approx(np.pi * 0.42 * 0.3, rel=0.04)


def test_a_mirrored_slice_has_mirrored_lungs_with_their_names_exchanged(chest_slice: Chest) -> None:
    hu = chest_slice(128)
    labels, mirrored = label_slice(hu), label_slice(hu[:, ::-1])[:, ::-1]
    exchanged = np.array([0, BODY, RIGHT_LUNG, LEFT_LUNG, TRACHEA])[mirrored]
    assert (labels == exchanged).mean() > 0.998


@pytest.mark.parametrize("missing", ["left", "right"])
def test_one_lung_alone_keeps_its_name(chest_slice: Chest, missing: str) -> None:
    labels = label_slice(chest_slice(128, **{missing: False}))
    assert (labels == LEFT_LUNG).any() == (missing != "left")
    assert (labels == RIGHT_LUNG).any() == (missing != "right")


def test_vessels_within_a_lung_are_lung_and_the_table_is_background(chest_slice: Chest) -> None:
    labels = label_slice(chest_slice(256))
    assert labels[int(0.45 * 256), int(0.68 * 256)] == LEFT_LUNG
    assert not labels[int(0.78 * 256) :].any()


def test_the_trachea_is_a_class_where_asked_for_and_body_elsewhere(chest_slice: Chest) -> None:
    hu = chest_slice(128)
    plain, labels = label_slice(hu), label_slice(hu, trachea=True)
    assert labels[int(0.42 * 128), 64] == TRACHEA
    assert (labels == TRACHEA).mean() == pytest.approx(np.pi * 0.025**2, rel=0.2)
    np.testing.assert_array_equal(np.where(labels == TRACHEA, BODY, labels), plain)


def test_gas_of_the_bowel_is_body(chest_slice: Chest) -> None:
    hu = chest_slice(128, left=False, right=False)
    hu[40:50, 80:90] = -1000
    assert set(np.unique(label_slice(hu))) == {0, BODY}
    hu[40:50, 80:90] = -850
    assert (label_slice(hu) == LEFT_LUNG).sum() == 100


def test_lungs_that_touch_are_told_apart(chest_slice: Chest) -> None:
    hu = chest_slice(128)
    apart = label_slice(hu)
    hu[40:43, 44:84] = -850  # a bridge in front of the heart
    labels = label_slice(hu)
    for lung in (LEFT_LUNG, RIGHT_LUNG):
        assert dice(labels == lung, apart == lung) > 0.9
    assert ndimage.label(np.isin(labels, (LEFT_LUNG, RIGHT_LUNG)))[1] == 1


def test_a_chest_that_the_picture_cuts_open_keeps_its_lung(chest_slice: Chest) -> None:
    hu = chest_slice(128)
    lung = label_slice(hu) == RIGHT_LUNG
    outside = 27  # columns that the picture does not show: the wall, and the rim of the lung
    assert lung[:, outside].any()
    cut = np.concatenate([hu[:, outside:], np.full((128, outside), -1000, np.float32)], axis=1)
    shown = (label_slice(cut) == RIGHT_LUNG)[:, :-outside]
    assert dice(shown, lung[:, outside:]) > 0.97


def test_arms_beside_the_body_are_body_and_a_bed_below_is_not(chest_slice: Chest) -> None:
    hu = chest_slice(256)
    hu[100:130, 4:16] = 40
    hu[245:, 60:200] = 40
    labels = label_slice(hu)
    assert labels[115, 10] == BODY
    assert not labels[240:].any()


def test_an_empty_picture_is_background(chest_slice: Chest) -> None:
    assert not label_slice(np.full((64, 64), -1000, np.float32)).any()
    assert not find_body(np.full((64, 64), -1000, np.float32)).any()


def test_labels_from_the_grey_values_of_a_picture_are_those_of_the_hu(chest_slice: Chest) -> None:
    hu = chest_slice(128)
    picture = np.rint(to_grey(hu, WINDOW)).astype(np.uint8)
    np.testing.assert_array_equal(label_slice(to_hu(picture, WINDOW), trachea=True), label_slice(hu, trachea=True))


def test_a_volume_is_labelled_slice_by_slice(chest_slice: Chest) -> None:
    volume = np.stack([chest_slice(64), chest_slice(64, left=False)])
    np.testing.assert_array_equal(label_volume(volume), [label_slice(one) for one in volume])
    with pytest.raises(ValueError, match=r"shape \(2, 64, 64\), expected one slice"):
        label_slice(volume)


# Dice of both lungs with a volume's threshold mask, which others made, as measured less 0.01 or so. Of the two series
# of ACRIN it is the one whose mask has no bowel in it.
@pytest.mark.parametrize(
    ("series", "least"),
    [("*LungFCP*", 0.97), ("*A0001*", 0.95), ("*A0002*", 0.93), ("TCGA*", 0.95), ("ACRIN*729346", 0.90)],
)
def test_lungs_of_patients_are_those_of_another_threshold_mask(shared_data: Path, series: str, least: float) -> None:
    (folder,) = (shared_data / "tcia_ct").glob(series)
    images = [nibabel.load(folder / name) for name in ("ct.nii.gz", "lung_auto.nii.gz")]
    hu, mask = (np.asanyarray(image.dataobj).transpose(2, 1, 0)[::4] for image in images)
    assert dice(label_volume(hu) >= LEFT_LUNG, mask > 0) > least
