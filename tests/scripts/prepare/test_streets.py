import numpy as np
import pytest
from PIL import Image

from clinbundles.scripts.prepare.streets import bdd100k, kitti


def write_scene(image, label, ids):
    for path in (image, label):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (3, 12, 3), dtype=np.uint8)).save(image)
    Image.fromarray(np.tile(np.array(ids, np.uint8), (3, 1))).save(label)


def write_kitti(root, ids):
    write_scene(root / "training/image_2/000000_10.png", root / "training/semantic/000000_10.png", ids)
    return root


def write_bdd(root, ids, part="train"):
    write_scene(root / f"images/10k/{part}/{part}-1.jpg", root / f"labels/sem_seg/masks/{part}/{part}-1.png", ids)
    return root


def test_kitti_vehicles_are_ids_26_to_31_and_a_licence_plate_is_none(tmp_path):
    for root in (tmp_path, tmp_path / "semantics"):
        write_kitti(tmp_path / "semantics", [0, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 255])
        (record,) = kitti(root).records
        np.testing.assert_array_equal(record.convert()[0], [0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0])


def test_bdd_vehicles_are_ids_13_to_16_and_ignored_pixels_are_background(tmp_path):
    write_bdd(tmp_path, [0, 1, 2, 12, 13, 14, 15, 16, 17, 18, 255, 255])
    write_bdd(tmp_path, [0] * 12, part="val")
    train, val = bdd100k(tmp_path).records
    assert (train.group, val.group) == ("train-1", "val-1")
    np.testing.assert_array_equal(train.convert()[0], [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0])
    assert not val.convert().any()


def test_an_id_outside_the_label_map_is_named(tmp_path):
    (record,) = kitti(write_kitti(tmp_path / "kitti", [34] * 12)).records
    with pytest.raises(ValueError, match=r"semantic/000000_10\.png: label id 34 is not in the label map"):
        record.convert()
    (record,) = bdd100k(write_bdd(tmp_path / "bdd", [19] * 12)).records
    with pytest.raises(ValueError, match=r"train-1\.png: label id 19 is not in the label map"):
        record.convert()


def test_a_part_of_bdd_that_is_absent_is_told(tmp_path, capsys):
    list(bdd100k(write_bdd(tmp_path, [0] * 12)).records)
    assert "BDD100K: val is left out" in capsys.readouterr().out


def test_a_folder_of_something_else_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="image_2: no such folder"):
        list(kitti(tmp_path).records)
    with pytest.raises(FileNotFoundError, match=r"no folder images/10k/train or images/10k/val"):
        list(bdd100k(tmp_path).records)


def test_the_cars_of_the_kitti_samples_are_found(shared_data):
    folder = shared_data / "kitti_sample"
    if not folder.is_dir():
        pytest.skip(f"no KITTI samples: {folder} is missing")
    shares = [float(record.convert().mean()) for record in kitti(folder).records]
    assert len(shares) == 2
    assert all(0.02 < share < 0.3 for share in shares)  # 6.6 % in the paper's Table 1
