import gzip
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from clinbundles.engines.metrics.class_report import write_class_report
from clinbundles.scripts.audit.baselines import (
    aspect_ratio,
    aspect_ratio_probabilities,
    baseline_table,
    constant_probabilities,
    score_baselines,
    source_probabilities,
)

NAMES = ["normal", "bacterial", "covid19"]


def write_dicom(path: Path, **fields) -> None:
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.PatientName = "Nobody^At^All"
    for name, value in fields.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=False)


def test_the_ratio_is_width_over_height_for_every_kind_of_file(tmp_path: Path) -> None:
    grey = Image.new("L", (60, 40))
    for name in ("a.jpeg", "a.png", "a.tif"):
        grey.save(tmp_path / name)
    (tmp_path / "a.png.gz").write_bytes(gzip.compress((tmp_path / "a.png").read_bytes()))
    nibabel.save(nibabel.Nifti1Image(np.zeros((60, 40, 1), dtype=np.uint8), np.eye(4)), tmp_path / "a.nii.gz")
    write_dicom(tmp_path / "a.dcm", Rows=40, Columns=60)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 6
    assert [aspect_ratio(path) for path in files] == [1.5] * 6


def test_pixels_are_not_read(tmp_path: Path) -> None:
    Image.effect_noise((60, 40), 80).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[:100])
    assert aspect_ratio(tmp_path / "cut.png") == 1.5


def test_a_file_without_a_size_is_named_and_no_patient(tmp_path: Path) -> None:
    (tmp_path / "none.png").write_bytes(b"nothing at all" * 20)
    write_dicom(tmp_path / "a.dcm", Rows=40)
    for name in ("none.png", "a.dcm"):
        with pytest.raises(ValueError, match=f"{name}: its size is not to be had") as caught:
            aspect_ratio(tmp_path / name)
        assert "Nobody" not in str(caught.value)


def test_classes_of_different_shape_are_told_apart_and_equal_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 50)
    ratios = np.array([1.2, 1.5, 1.0])[labels] + rng.normal(scale=0.01, size=150)
    found = aspect_ratio_probabilities(ratios, labels, [1.0, 1.2, 1.5], num_classes=3)
    assert found.argmax(1).tolist() == [2, 0, 1]
    assert found.sum(1) == pytest.approx(1)
    same = aspect_ratio_probabilities(np.ones(150), labels, [1.0, 9.0], num_classes=3)
    assert same == pytest.approx(1 / 3)


def test_the_tree_cannot_learn_single_images_and_is_the_same_each_time() -> None:
    rng = np.random.default_rng(1)
    ratios, labels = rng.random(200), rng.integers(3, size=200)
    first, again = (aspect_ratio_probabilities(ratios, labels, ratios, num_classes=3, seed=4) for _ in range(2))
    assert np.array_equal(first, again)
    assert len(np.unique(first, axis=0)) <= 8
    assert first.max() < 1


def test_a_class_that_training_lacks_gets_no_probability() -> None:
    found = aspect_ratio_probabilities([1.0] * 10 + [2.0] * 10, [0] * 10 + [2] * 10, [1.0, 2.0], num_classes=3)
    assert found == pytest.approx(np.array([[1, 0, 0], [0, 0, 1]]))


def test_a_known_source_gets_its_commonest_class_and_a_new_one_that_of_most_sources() -> None:
    sources = ["hospital"] * 100 + ["a.org", "a.org", "a.org", "b.org", "c.org"]
    labels = [0] * 60 + [1] * 40 + [2, 2, 1, 2, 2]
    found = source_probabilities(sources, labels, ["hospital", "a.org", "b.org", "new.org"], num_classes=3)
    # By images a new source would be the hospital's.
    assert found.argmax(1).tolist() == [0, 2, 2, 2]
    assert found[0] == pytest.approx([0.6, 0.4, 0])
    assert found[3] == pytest.approx([0.25, 0, 0.75])


def test_chance_is_always_the_commonest_class() -> None:
    found = constant_probabilities([1, 1, 0, 2, 1], 4, num_classes=3)
    assert found == pytest.approx(np.tile([0.2, 0.6, 0.2], (4, 1)))


def test_the_table_is_one_that_the_report_reads(tmp_path: Path) -> None:
    items = [
        {"image": f"folder/{k}.png", "label": k % 3, "group": f"patient-{k // 2}", "source": "x"} for k in range(12)
    ]
    table = baseline_table(items, np.eye(3)[[k % 3 for k in range(11)] + [0]], NAMES)
    assert table["image"].iloc[0] == "0.png"
    assert table["patient"].tolist() == [k // 2 for k in range(12)]
    assert "patient-0" not in table.to_csv()
    table.to_csv(tmp_path / "per_image.csv", index=False)
    metrics = write_class_report(tmp_path, NAMES)
    assert metrics["scores"]["val_accuracy"]["value"] == pytest.approx(11 / 12, abs=1e-4)
    assert metrics["groups"] == 6


def test_items_without_a_group_are_patients_of_their_own() -> None:
    items = [{"image": "a.png", "label": 0}, {"image": "b.png", "label": 1}]
    assert baseline_table(items, np.eye(3)[:2], NAMES)["patient"].tolist() == [0, 1]


def make_items(tmp_path: Path, number: int) -> list[dict]:
    """Classes by the shape of the file; the first two of one source, the third of others."""
    items = []
    for k in range(number):
        path = tmp_path / f"{number}-{k}.png"
        Image.new("L", [(40, 36), (52, 36), (36, 36)][k % 3]).save(path)
        source = f"{k}.org" if k % 3 == 2 else "hospital"
        items.append({"image": str(path), "label": k % 3, "group": f"{number}-{k}", "source": source})
    return items


def test_all_baselines_are_scored_once(tmp_path: Path) -> None:
    training, test = make_items(tmp_path, 30), make_items(tmp_path, 12)
    found = score_baselines(training, test, NAMES, tmp_path / "out")
    values = {name: metrics["scores"]["val_accuracy"]["value"] for name, metrics in found.items()}
    assert values == {
        "aspect_ratio": 1,
        "source": pytest.approx(2 / 3, abs=1e-4),
        "chance": pytest.approx(1 / 3, abs=1e-4),
    }
    for item in test:
        Path(item["image"]).unlink()
    assert score_baselines(training, test, NAMES, tmp_path / "out") == found


def test_there_is_no_source_baseline_where_a_source_is_unknown(tmp_path: Path) -> None:
    training, test = make_items(tmp_path, 30), make_items(tmp_path, 12)
    del test[3]["source"]
    assert set(score_baselines(training, test, NAMES, tmp_path / "out")) == {"aspect_ratio", "chance"}
