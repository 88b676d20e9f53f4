import os
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from clinbundles.scripts.prepare.datalist import SPLITS, items_of
from clinbundles.scripts.prepare.folders import parse_ids


def test_label_maps_of_a_plain_folder_need_their_foreground_ids(plain, run):
    ids = np.kron(np.array([[0, 1], [2, 5]], np.uint8), np.ones((15, 20), np.uint8))
    for path in (plain / "masks").iterdir():
        Image.fromarray(ids).save(path)
    with pytest.raises(ValueError, match=r"masks/i0\.png: 300 pixels of value \d: .*--foreground"):
        run(plain)
    for foreground, share in ((1, 0.25), ((1, 2), 0.5), ("2-5", 0.5), (9, 0)):
        content = run(plain, foreground=foreground, label="organ")
        masks = [np.asarray(Image.open(os.path.join(plain, item["label"]))) for item in items_of(content)]
        assert all((mask > 0).mean() == share for mask in masks)
    assert content["labels"]["1"] == "organ"


@pytest.mark.parametrize(
    ("ids", "numbers"), [(1, {1}), ((1, 2), {1, 2}), ("26-28", {26, 27, 28}), ("3,26-27", {3, 26, 27}), ([4], {4})]
)
def test_ids_are_numbers_and_ranges(ids, numbers):
    assert parse_ids(ids) == numbers


def test_images_that_are_all_alike_can_be_kept_from_being_joined(plain, run):
    for k in range(1, 10):
        shutil.copy(plain / "images" / "i0.jpg", plain / "images" / f"i{k}.jpg")
    with pytest.raises(ValueError, match="10 images in 1 groups are too few"):
        run(plain)
    assert [len(run(plain, join_duplicates=False)[s]) for s in SPLITS] == [6, 2, 2]


def pairs_in(content):
    return sorted((item["image"], item["label"]) for item in items_of(content))


def test_masks_beside_their_images_are_told_by_their_ending(plain, run):
    for path in (plain / "masks").iterdir():
        path.rename(plain / "images" / f"{path.stem}_mask.png")
    (plain / "masks").rmdir()
    with pytest.raises(FileNotFoundError, match=r"masks: no such folder; --masks names another\."):
        run(plain)
    with pytest.raises(ValueError, match=r"images: images and masks in one folder need a --mask_ending, such as _mask"):
        run(plain, masks="images")
    content = run(plain, masks="images", mask_ending="_mask")
    assert pairs_in(content) == [(f"images/i{k}.jpg", f"images/i{k}_mask.png") for k in range(10)]


def test_folders_of_other_names_and_masks_of_longer_names_are_paired(plain, run):
    (plain / "images").rename(plain / "Original")
    (plain / "masks").rename(plain / "Ground Truth")
    for path in (plain / "Ground Truth").iterdir():
        path.rename(path.with_stem(f"{path.stem}_segmentation"))
    folders = {"images": "Original", "masks": "Ground Truth"}
    with pytest.raises(ValueError, match=r"first image is i0\.jpg, the first mask i0_segmentation\.png: --mask_ending"):
        run(plain, **folders, skip_bad=True)
    content = run(plain, **folders, mask_ending="_segmentation")
    assert pairs_in(content) == [(f"Original/i{k}.jpg", f"Ground Truth/i{k}_segmentation.png") for k in range(10)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"foreground": "polyp"}, "--foreground is 'polyp'"),
        ({"images": "../other"}, r"--images is '\.\./other': expected a folder in --dataset_dir"),
        ({"modality": " "}, "--modality is ' ': expected a word"),
    ],
)
def test_a_wrong_flag_of_a_plain_folder_is_named(plain, flags, message, run):
    with pytest.raises(ValueError, match=message):
        run(plain, **flags)
    assert not (plain.parent / "datalist.json").exists()


def groups(content, *splits):
    return {item["group"] for split in splits for item in content[split]}


def labels(content, split):
    return dict(Counter(item["label"] for item in content[split]))


@pytest.fixture
def classes(tmp_path, write_x_ray):
    """A folder of ten images for each of two classes, two images a patient, named alike in both."""
    for k in range(20):
        write_x_ray(tmp_path / "data" / ("healthy", "ill")[k % 2] / f"{k // 4}_{k % 4 // 2}.png", k)
    return tmp_path / "data"


def test_a_folder_a_class_becomes_a_datalist(classes, capsys, run):
    content = run(classes, "class_folder")
    assert content["labels"] == {"0": "healthy", "1": "ill"}
    assert [labels(content, split) for split in SPLITS] == [{0: 7, 1: 7}, {0: 1, 1: 1}, {0: 2, 1: 2}]
    assert all(item["image"].startswith(("healthy/", "ill/")[item["label"]]) for item in content["training"])
    assert len(groups(content, *SPLITS)) == 20  # every image is a patient of its own, whatever it is called
    assert """train with --class_names '["healthy", "ill"]'""" in capsys.readouterr().out


def test_the_classes_of_a_folder_are_numbered_in_the_order_that_is_asked_for(classes, capsys, run):
    content = run(classes, "class_folder", class_names=["ill", "healthy"], balance=(10, 9))
    assert content["labels"] == {"0": "ill", "1": "healthy"}
    assert all(item["image"].startswith(("ill/", "healthy/")[item["label"]]) for item in items_of(content))
    assert Counter(item["label"] for item in items_of(content)) == {0: 10, 1: 9}
    assert """train with --class_names '["ill", "healthy"]'""" in capsys.readouterr().out


def test_files_that_are_no_images_beside_those_of_a_class_are_passed_over_and_counted(classes, capsys, run):
    (classes / "ill" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    run(classes, "class_folder")
    said = capsys.readouterr().out
    assert "data: 1 files in the folders of the classes are no images and were passed over" in said
    assert "20 images came in, 20 are used, 0 are left out as bad, 0 are" in said.splitlines()[-1]


def test_a_pattern_finds_the_patients_of_a_folder(classes, run):
    content = run(classes, "class_folder", patient_pattern=r"(\d+)_")
    assert groups(content, *SPLITS) == set("01234")
    assert not groups(content, "training") & groups(content, "validation", "test")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            r"p(\d+)_",
            r"healthy/0_0\.png: --patient_pattern 'p\(\\d\+\)_' finds no patient .*; it may be left out",
        ),
        (r"(x)?\d", "finds no patient in this name"),
        (r"\d+_", "--patient_pattern .*: expected a group in it"),
        (r"(\d+", r"--patient_pattern '\(\\d\+': no regular expression .*; it may be left out"),
        (12, "--patient_pattern '12': expected a group in it"),
    ],
)
def test_a_pattern_that_finds_no_patient_is_refused(classes, pattern, message, run):
    with pytest.raises(ValueError, match=message):
        run(classes, "class_folder", patient_pattern=pattern)


def test_a_folder_of_one_class_is_refused_and_hidden_ones_are_none(classes, run, write_x_ray):
    write_x_ray(classes / ".thumbnails" / "1_0.png", 99)
    content = run(classes, "class_folder", balance=(9, 10))
    assert content["labels"] == {"0": "healthy", "1": "ill"}
    shutil.rmtree(classes / "ill")
    with pytest.raises(ValueError, match=r"--dataset_dir .*: expected a folder of images for each of two or more"):
        run(classes, "class_folder")


def test_a_colour_photograph_needs_force(classes, run):
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (40, 40, 3), dtype=np.uint8)).save(
        classes / "ill" / "x.png"
    )
    with pytest.raises(ValueError, match=r"x\.png: a colour image"):
        run(classes, "class_folder")
    content = run(classes, "class_folder", force=True)
    assert sum(len(content[split]) for split in SPLITS) == 21


def test_too_few_patients_of_a_class_are_named(tmp_path, run, write_x_ray):
    for k in range(9):
        write_x_ray(tmp_path / "data" / ("a", "b", "b")[k % 3] / f"{k}.png", k)
    with pytest.raises(ValueError, match="class a has too few images or patients: validation gets none of it"):
        run(tmp_path / "data", "class_folder")


def test_a_class_folder_can_be_for_the_test_alone(classes, run):
    content = run(classes, "class_folder", ratios=(0, 0, 1))
    assert labels(content, "test") == {0: 10, 1: 10}
    assert "training" not in content
    assert "validation" not in content
    assert content["ratios"] == [0, 0, 1]


def test_ratios_split_a_class_folder_by_patient(classes, run):
    content = run(classes, "class_folder", ratios=(0.6, 0.2, 0.2), patient_pattern=r"(\d+)_", balance="none")
    assert [labels(content, split) for split in SPLITS] == [{0: 6, 1: 6}, {0: 2, 1: 2}, {0: 2, 1: 2}]
    assert not groups(content, "training") & groups(content, "validation", "test")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"ratios": (1, 2)}, "--ratios is"),
        ({"ratios": (6, 2, 3)}, "sum to 11"),
        ({"balance": (3, 4, 5)}, "--balance is .* for healthy, ill"),
        ({"seed": -1}, "--seed is -1"),
        (
            {"class_names": ["ill", "well"]},
            r'--class_names is \["ill", "well"\]: expected the folders .*, each once: \["healthy", "ill"\]\.$',
        ),
        ({"class_names": ["ill", "healthy", "ill"]}, "--class_names is .*, each once"),
    ],
)
def test_a_wrong_flag_of_a_class_folder_is_named(classes, flags, message, run, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(classes, "class_folder", **flags)
    assert not (tmp_path / "datalist.json").exists()
