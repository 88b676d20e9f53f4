"""Tests of the items of a datalist: what each must have, and images that stand in two splits."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from clinbundles.scripts.bundle import read_configs
from clinbundles.transforms.readers.datalist import datalist_items, read_content

ROOT = Path(__file__).parents[3]
BUNDLES = sorted(path.parents[1] for path in ROOT.glob("bundles/*/configs/train.json"))


def item(name: str, **more: Any) -> dict[str, Any]:
    return {"image": f"{name}.png", "label": f"{name}_mask.png", **more}


def write(folder: Path, **splits: Any) -> Path:
    path = folder / "list.json"
    path.write_text(json.dumps({"training": [item("a"), item("b")], "test": [item("c")], **splits}))
    return path


def test_items_have_whole_paths_and_labels_that_are_files_or_numbers(tmp_path: Path) -> None:
    items = datalist_items(write(tmp_path), "data", "training", apart_from=["validation", None, "test"])
    assert [(each["image"], each["label"]) for each in items] == [
        ("data/a.png", "data/a_mask.png"),
        ("data/b.png", "data/b_mask.png"),
    ]
    numbers = write(tmp_path, training=[item("a", label=0)])
    assert datalist_items(numbers, "data", "training", class_names=["normal"])[0]["label"] == 0


@pytest.mark.parametrize(
    ("training", "sentence"),
    [
        (5, "its split 'training' is 5, expected a list of items."),
        ([], "there is no item in its split 'training'; it has test."),
        (None, "there is no item in its split 'training'; it has test."),
        (["a.png"], "item 0 of its split 'training' is \"a.png\", expected an item such as"),
        ([item("a"), {"label": "b.png"}], "item 1 of its split 'training' has no image: expected a path."),
        ([item("a"), item("b", image=None)], "item 1 of its split 'training' has no image: expected a path."),
        ([item("a", image=["b.png"])], "item 0 of its split 'training' has the image [\"b.png\"]: expected a path."),
        ([item("a"), {"image": "b.png"}], "item 1 of its split 'training' has no label: expected a path."),
        ([item("a", label=7)], "item 0 of its split 'training' has the label 7: expected a path."),
    ],
)
def test_what_an_item_lacks_is_named_with_file_split_item_and_field(
    tmp_path: Path, training: Any, sentence: str
) -> None:
    path = write(tmp_path, training=training)
    with pytest.raises(ValueError, match=re.escape(f"{path}: {sentence}")):
        datalist_items(path, tmp_path, "training", apart_from=["test"])


@pytest.mark.parametrize("label", ["normal", True, 1.5, 2, -1])
def test_the_label_of_an_image_of_a_class_is_a_number(tmp_path: Path, label: Any) -> None:
    path = write(tmp_path, training=[item("a", label=label)])
    with pytest.raises(ValueError, match=r"has the label .*: expected 0 to 1, for normal, ill\.$"):
        datalist_items(path, tmp_path, "training", class_names=["normal", "ill"])


@pytest.mark.parametrize(
    ("other", "splits"),
    [
        (item("b"), ("training", 1, "validation")),
        (item("folder/../b"), ("training", 1, "validation")),
        (item("x", source_sha256="12ab"), ("training", 0, "validation")),
        (item("c"), ("validation", 0, "test")),
    ],
)
def test_a_training_is_refused_whose_splits_share_an_image(
    tmp_path: Path, other: dict[str, Any], splits: tuple[str, int, str]
) -> None:
    path = write(tmp_path, training=[item("a", source_sha256="12ab"), item("b")], validation=[other])
    first, number, second = splits
    with pytest.raises(ValueError, match=rf"item {number} of its split '{first}' and item 0 of '{second}' are one ima"):
        datalist_items(path, tmp_path, "training", apart_from=["validation", "test"])
    assert len(datalist_items(path, tmp_path, "training", apart_from=["training"])) == 2


def test_an_evaluation_says_how_many_images_stand_in_the_training_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, test=[item("c"), item("b"), item("a")])
    assert len(datalist_items(path, tmp_path, "test", compared_with=["test", "validation"])) == 3
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        datalist_items(path, tmp_path, "test", compared_with=["training"])
    assert "2 of the 3 images of its split 'test' stand in 'training' too" in caplog.text


def test_a_file_that_is_no_datalist_is_named(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    with pytest.raises(FileNotFoundError, match=f"{path}: no such file"):
        read_content(path)
    for text, sentence in (("{", "is not JSON"), ("[]", "is no datalist")):
        path.write_text(text)
        with pytest.raises(ValueError, match=f"{path}: {sentence}"):
            read_content(path)


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda p: p.name)
def test_every_bundle_reads_its_lists_so(bundle: Path) -> None:
    training, evaluation = read_configs(bundle, ["train"]), read_configs(bundle, ["evaluate"])
    trained = training["train"]["dataset"]["data"]
    evaluated = evaluation.get("evaluation", evaluation["validate"])["dataset"]["data"]
    slices = "clinbundles.transforms.readers.slice_lists."  # which refuse what two splits of any list share
    assert trained["_target_"].startswith(slices) or trained["apart_from"] == ["@validation_split", "test"]
    splits = ["@training_split", "@validation_split"]
    assert evaluated["_target_"].startswith(slices) or evaluated["compared_with"] == splits
    assert "load_decathlon_datalist" not in json.dumps([training, evaluation])
