import csv
import json
import typing
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from clinbundles.scripts import cli
from clinbundles.scripts.simulate_gaze import simulate_gaze
from clinbundles.transforms.gaze.simulator import PROFILES


def polyp(column):
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, column : column + 15] = 255
    return mask


def save_label(folder, name, mask, mode="L"):
    (folder / "masks").mkdir(exist_ok=True)
    Image.fromarray(mask).convert(mode).save(folder / "masks" / name)
    return {"image": f"images/{Path(name).stem}.jpg", "label": f"masks/{name}", "group": name}


@pytest.fixture
def datalist(tmp_path):
    content = {
        "name": "polyps",
        "labels": {"0": "background", "1": "polyp"},
        "training": [
            save_label(tmp_path, "a.png", polyp(5)),
            save_label(tmp_path, "b.png", polyp(40), mode="1"),
            save_label(tmp_path, "c.png", polyp(25), mode="RGB"),
        ],
        "validation": [save_label(tmp_path, "d.png", polyp(10))],
        "test": [save_label(tmp_path, "e.png", polyp(30))],
    }
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def edit(path, change):
    content = read(path)
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def mean_x(item):
    rows = np.array(item["fixations"][0])
    return np.average(rows[:, 0], weights=rows[:, 2])


def test_training_items_get_gaze_on_their_polyp_and_the_others_none(datalist):
    before = read(datalist)
    simulate_gaze(str(datalist), seed=7)
    after = read(datalist)
    for item, centre in zip(after["training"], (12.5 / 60, 47.5 / 60, 32.5 / 60), strict=True):
        assert item["gaze_source"] == "simulated:expert:seed=7"
        assert len(item["fixations"]) == 1
        assert mean_x(item) == pytest.approx(centre, abs=0.15)
    assert after["gaze"] == {"source": "simulated", "profile": "expert", "seed": 7, "sections": ["training"]}
    assert "oracle" not in after
    for name in ("name", "labels", "validation", "test"):
        assert after[name] == before[name]
    assert [item["label"] for item in after["training"]] == [item["label"] for item in before["training"]]
    assert [path.name for path in datalist.parent.iterdir() if path.is_file()] == ["datalist.json"]


def test_the_gaze_of_an_image_does_not_depend_on_its_place_in_the_list(datalist):
    simulate_gaze(str(datalist))
    first = {item["image"]: item["fixations"] for item in read(datalist)["training"]}
    edit(datalist, lambda content: content["training"].reverse())
    edit(datalist, lambda content: content["training"].pop())
    simulate_gaze(str(datalist))
    again = {item["image"]: item["fixations"] for item in read(datalist)["training"]}
    assert len(again) == 2
    assert all(again[image] == first[image] for image in again)
    simulate_gaze(str(datalist), seed=1)
    assert all(item["fixations"] != first[item["image"]] for item in read(datalist)["training"])


def test_observers_look_each_in_their_own_way(datalist):
    simulate_gaze(str(datalist))
    alone = read(datalist)["training"][0]["fixations"]
    simulate_gaze(str(datalist), observers=3)
    three = read(datalist)["training"][0]["fixations"]
    assert len(three) == 3
    assert three[0] == alone[0]
    assert three[1] != three[0]
    assert three[2] not in three[:2]


def test_an_oracle_is_marked_everywhere_and_does_not_outlive_its_flag(datalist):
    before = read(datalist)
    simulate_gaze(str(datalist), oracle=True, profile="webcam")
    marked = read(datalist)
    assert marked["oracle"] is True
    assert marked["gaze"]["sections"] == ["training", "validation", "test"]
    assert marked["training"][0]["gaze_source"] == "simulated:webcam:seed=0"
    for split in ("validation", "test"):
        assert marked[split][0]["gaze_source"] == "simulated-oracle:webcam:seed=0"
        assert marked[split][0]["fixations"][0]
    simulate_gaze(str(datalist))
    after = read(datalist)
    assert "oracle" not in after
    assert after["validation"] == before["validation"]
    assert after["test"] == before["test"]


def test_recorded_gaze_is_kept_unless_replaced(datalist):
    recorded = {"fixations": [[[0.5, 0.5, 200.0]]], "gaze_source": "gazemedseg"}
    edit(datalist, lambda content: content["training"][1].update(recorded))
    edit(datalist, lambda content: content["test"][0].update(recorded))
    before = datalist.read_bytes()
    with pytest.raises(ValueError, match=r"1 items carry recorded gaze, .*images/b.jpg .*--replace"):
        simulate_gaze(str(datalist))
    assert datalist.read_bytes() == before
    simulate_gaze(str(datalist), replace=True)
    after = read(datalist)
    assert after["training"][1]["gaze_source"] == "simulated:expert:seed=0"
    assert after["test"][0]["fixations"] == recorded["fixations"]
    with pytest.raises(ValueError, match=r"images/e\.jpg"):
        simulate_gaze(str(datalist), oracle=True)


def test_output_and_dataset_dir_leave_the_first_datalist_alone(datalist, tmp_path):
    elsewhere = tmp_path / "lists"
    elsewhere.mkdir()
    moved = datalist.rename(elsewhere / "polyps.json")
    before = moved.read_bytes()
    with pytest.raises(FileNotFoundError, match=r"a\.png"):
        simulate_gaze(str(moved))
    simulate_gaze(str(moved), dataset_dir=str(tmp_path), output=str(elsewhere / "gaze.json"))
    assert moved.read_bytes() == before
    assert read(elsewhere / "gaze.json")["training"][0]["fixations"]


def test_the_table_has_the_columns_of_gazemedseg_and_the_fixations_of_the_datalist(datalist, tmp_path):
    simulate_gaze(str(datalist), csv=str(tmp_path / "gaze.csv"))
    with (tmp_path / "gaze.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:9] == [
        "IMAGE",
        "CURRENT_FIX_INDEX",
        "CURRENT_FIX_X",
        "CURRENT_FIX_Y",
        "CURRENT_FIX_DURATION",
        "CURRENT_FIX_PUPIL",
        "CURRENT_FIX_START",
        "IMAGE_HEIGHT",
        "IMAGE_WIDTH",
    ]
    for item in read(datalist)["training"]:
        own = [row for row in rows if row["IMAGE"] == Path(item["image"]).name]
        assert [int(row["CURRENT_FIX_INDEX"]) for row in own] == list(range(1, len(own) + 1))
        columns = ("CURRENT_FIX_X", "CURRENT_FIX_Y", "CURRENT_FIX_DURATION")
        assert [[float(row[name]) for name in columns] for row in own] == item["fixations"][0]
        starts = np.array([float(row["CURRENT_FIX_START"]) for row in own])
        ends = starts + [float(row["CURRENT_FIX_DURATION"]) for row in own]
        assert (starts[1:] > ends[:-1]).all()
        assert {(row["IMAGE_HEIGHT"], row["IMAGE_WIDTH"]) for row in own} == {("40", "60")}
        assert {row["GAZE_SOURCE"] for row in own} == {"simulated:expert:seed=0"}


def test_each_observer_has_a_table_and_images_of_one_name_are_refused(datalist, tmp_path):
    simulate_gaze(str(datalist), observers=2, csv=str(tmp_path / "gaze.csv"))
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["gaze_observer1.csv", "gaze_observer2.csv"]
    edit(datalist, lambda content: content["training"][1].update(image="other/a.jpg"))
    with pytest.raises(ValueError, match=r"a\.jpg occurs more than once"):
        simulate_gaze(str(datalist), csv=str(tmp_path / "twice.csv"))


def test_an_image_without_polyp_is_searched(datalist):
    save_label(datalist.parent, "a.png", np.zeros((40, 60), np.uint8))
    simulate_gaze(str(datalist))
    assert np.array(read(datalist)["training"][0]["fixations"][0])[:, :2].std() > 0.1


def test_a_mask_gives_the_same_gaze_whatever_its_white_and_its_file_kind(datalist):
    simulate_gaze(str(datalist))
    expected = [item["fixations"] for item in read(datalist)["training"]]
    masks = datalist.parent / "masks"
    save_label(datalist.parent, "a.png", polyp(5) // 255)
    nibabel.save(nibabel.Nifti1Image(polyp(40).T // 255, np.eye(4)), masks / "b.nii.gz")
    edit(datalist, lambda content: content["training"][1].update(label="masks/b.nii.gz"))
    simulate_gaze(str(datalist))
    assert [item["fixations"] for item in read(datalist)["training"]] == expected


def truncated(path):
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), r"a\.png of images/a\.jpg does not exist"),
        (lambda path: path.write_text("not an image"), r"a\.png: not a readable image file"),
        (truncated, r"a\.png: not a readable image file"),
        (
            lambda path: Image.fromarray(polyp(5) // 255 * 38).save(path),
            r"a\.png: 300 pixels of value 38",
        ),
        (
            lambda path: Image.fromarray(polyp(5).astype(np.uint16)).save(path),
            r"a\.png: pixel mode 'I;16'",
        ),
    ],
    ids=["missing", "text", "truncated", "label map", "16 bit"],
)
def test_a_bad_label_is_named_and_the_datalist_kept(datalist, spoil, message):
    before = datalist.read_bytes()
    spoil(datalist.parent / "masks" / "a.png")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        simulate_gaze(str(datalist))
    assert datalist.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--profile novice", "--profile is 'novice', expected expert, webcam."),
        ("--observers 0", "--observers is 0"),
        ("--observers true", "--observers is 'true', expected a whole number."),
        ("--seed one", "--seed is 'one', expected a whole number."),
        ("--oracle yes", "--oracle is 'yes', expected true or false."),
        ("--csv", "--csv needs a value."),
        ("--csv nowhere/gaze.csv", "--csv nowhere/gaze.csv: expected a file in a folder that exists"),
        ("--output nowhere/list.json", "--output nowhere/list.json: expected a file in a folder that exists"),
        ("--oracel", "there is no option --oracel; did you mean --oracle?"),
    ],
)
def test_a_wrong_flag_is_named_and_the_datalist_kept(datalist, words, message):
    before = datalist.read_bytes()
    with pytest.raises(SystemExit) as raised:
        cli.main(["simulate-gaze", str(datalist), *words.split()])
    assert str(raised.value.code).startswith(f"clinbundles simulate-gaze: {message}")
    assert datalist.read_bytes() == before


def test_every_profile_can_be_asked_for():
    assert typing.get_args(typing.get_type_hints(simulate_gaze)["profile"]) == tuple(PROFILES)


def test_a_list_of_test_images_alone_gets_gaze_as_an_oracle_only(datalist):
    edit(datalist, lambda content: [content.pop(name) for name in ("training", "validation")])
    with pytest.raises(ValueError, match="no items under 'training': --oracle"):
        simulate_gaze(str(datalist))
    simulate_gaze(str(datalist), oracle=True)
    assert read(datalist)["test"][0]["gaze_source"] == "simulated-oracle:expert:seed=0"


def test_the_shipped_gaze_is_what_the_command_writes(polyp_samples, tmp_path):
    again = tmp_path / "again.json"
    simulate_gaze(str(polyp_samples / "datalist.json"), output=str(again))
    assert read(again) == read(polyp_samples / "datalist.json")


def test_a_bad_datalist_is_named(datalist, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json does not exist"):
        simulate_gaze(str(tmp_path / "nowhere.json"))
    edit(datalist, lambda content: content["training"][2].pop("label"))
    with pytest.raises(ValueError, match=r"images/c\.jpg has no label"):
        simulate_gaze(str(datalist))
    edit(datalist, lambda content: content["training"][2].pop("image"))
    with pytest.raises(ValueError, match="item 2 of 'training' has no 'image'"):
        simulate_gaze(str(datalist))
    edit(datalist, lambda content: content.pop("training"))
    with pytest.raises(ValueError, match="no items under 'training'"):
        simulate_gaze(str(datalist))
    datalist.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="is not JSON"):
        simulate_gaze(str(datalist))


def test_the_command_says_what_it_did(datalist, capsys):
    cli.main(["simulate-gaze", "--datalist", str(datalist), "--profile", "webcam", "--seed", "3"])
    said = capsys.readouterr().out
    assert "simulated webcam gaze (seed 3) on 3 images of training" in said
    assert "2 images of other splits get none" in said
    assert read(datalist)["gaze"]["profile"] == "webcam"
