import gzip
import io

import numpy as np
import pytest
from PIL import Image

from clinbundles.scripts.prepare.datalist import SPLITS
from clinbundles.scripts.prepare.retina import chase_db1, drive, retina, stare

FUNDUS = np.zeros((4, 6, 3), np.uint8)
FIRST, SECOND = np.zeros((4, 6), np.uint8), np.zeros((4, 6), np.uint8)
FIRST[1], SECOND[2] = 255, 255


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        stream = io.BytesIO()
        Image.fromarray(values).save(stream, format="PPM")
        path.write_bytes(gzip.compress(stream.getvalue()))
    else:
        Image.fromarray(values).save(path)


@pytest.fixture
def chase_folder(tmp_path):
    for eye in ("01L", "01R", "02L"):
        save(tmp_path / "CHASE_DB1" / f"Image_{eye}.jpg", FUNDUS)
        save(tmp_path / "CHASE_DB1" / f"Image_{eye}_1stHO.png", FIRST > 0)
        save(tmp_path / "CHASE_DB1" / f"Image_{eye}_2ndHO.png", SECOND > 0)
    return tmp_path / "CHASE_DB1"


@pytest.fixture
def drive_folder(tmp_path):
    root = tmp_path / "DRIVE"
    for part, name in (("training", "21"), ("test", "01")):
        save(root / part / "images" / f"{name}_{part}.tif", FUNDUS)
        save(root / part / "mask" / f"{name}_{part}_mask.gif", FIRST)
    save(root / "training" / "1st_manual" / "21_manual1.gif", FIRST)
    return root


@pytest.fixture
def stare_folder(tmp_path):
    save(tmp_path / "STARE" / "stare-images" / "im0001.ppm.gz", FUNDUS)
    save(tmp_path / "STARE" / "labels-ah" / "im0001.ah.ppm.gz", FIRST)
    save(tmp_path / "STARE" / "labels-vk" / "im0001.vk.ppm.gz", SECOND)
    return tmp_path / "STARE"


def test_both_eyes_of_a_child_are_one_group_and_the_masks_stay_where_they_are(chase_folder):
    records = list(chase_db1(chase_folder).records)
    assert [(r.image.name, r.label.name, r.group) for r in records] == [
        ("Image_01L.jpg", "Image_01L_1stHO.png", "Image_01"),
        ("Image_01R.jpg", "Image_01R_1stHO.png", "Image_01"),
        ("Image_02L.jpg", "Image_02L_1stHO.png", "Image_02"),
    ]
    assert all(record.convert is None for record in records)
    assert next(iter(chase_db1(chase_folder, observer=2).records)).label.name == "Image_01L_2ndHO.png"


def test_drive_images_without_manual_masks_are_left_out_with_a_line(drive_folder, capsys):
    (record,) = drive(drive_folder).records
    assert record.image.name == "21_training.tif"
    np.testing.assert_array_equal(record.convert(), FIRST > 0)
    assert "DRIVE: test images are left out" in capsys.readouterr().out


def test_the_second_observer_of_drive_saw_the_test_images_alone(drive_folder):
    save(drive_folder / "test" / "1st_manual" / "01_manual1.gif", FIRST)
    save(drive_folder / "test" / "2nd_manual" / "01_manual2.gif", SECOND)
    assert len(list(drive(drive_folder.parent).records)) == 2
    (record,) = drive(drive_folder, observer=2).records
    np.testing.assert_array_equal(record.convert(), SECOND > 0)


def test_a_drive_mask_that_is_missing_beside_others_is_an_error(drive_folder):
    (drive_folder / "training" / "1st_manual" / "21_manual1.gif").unlink()
    (record,) = drive(drive_folder).records
    assert record.missing().endswith("21_training.tif: image without mask.")


def test_stare_labels_of_both_observers_are_read_through_the_compression(stare_folder):
    for observer, mask in ((1, FIRST), (2, SECOND)):
        (record,) = stare(stare_folder, observer=observer).records
        assert record.group == "im0001"
        np.testing.assert_array_equal(record.convert(), mask > 0)


def test_retina_is_the_three_sets_and_tells_which_is_missing(chase_folder, drive_folder, stare_folder, capsys):
    assert len(list(retina(chase_folder.parent).records)) == 5
    assert "STARE is left out" not in capsys.readouterr().out
    stare_folder.rename(stare_folder.with_name("other"))
    assert len(list(retina(chase_folder.parent).records)) == 4
    assert f"STARE is left out: no folder stare or stare_sample in {chase_folder.parent}" in capsys.readouterr().out


@pytest.mark.parametrize("observer", [0, 3, True, "both"])
@pytest.mark.parametrize("layout", [chase_db1, drive, stare, retina])
def test_an_observer_whom_nobody_knows_is_refused(tmp_path, layout, observer):
    with pytest.raises(ValueError, match="--observer is"):
        layout(tmp_path, observer=observer)


@pytest.mark.parametrize("layout", [chase_db1, drive, stare, retina])
def test_a_folder_of_something_else_is_named(tmp_path, layout):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}.*no .*folder"):
        list(layout(tmp_path).records)


def test_the_eyes_of_a_child_stay_together_in_chase(shared_data, tmp_path, capsys, run, drawn):
    folder = shared_data / "chase_db1"
    if not folder.is_dir():
        pytest.skip(f"no CHASE_DB1: {folder} is missing")
    content = run(folder, "chase_db1")
    assert [len(content[s]) for s in SPLITS] == [18, 2, 8]
    where = {(item["group"], split) for split in SPLITS for item in content[split]}
    assert len(where) == 14
    assert content["data_sha256"].startswith("e15bdfe4ffaa495d")
    assert drawn(content) == "fab80e4950b5695e"  # the split behind the published results
    assert not (tmp_path / "datalist_masks").exists()
    assert "vessel: 6.9% of an image" in capsys.readouterr().out  # 7.3 % in RETINA by the paper's Table 1
