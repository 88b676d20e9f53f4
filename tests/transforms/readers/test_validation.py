import json
from pathlib import Path

import pytest

from clinbundles.transforms.readers.validation import has_no_validation, validation_items

ITEMS = [{"image": "a.png", "label": "a_mask.png"}, {"image": "b.png", "label": "b_mask.png"}]


def write(folder: Path, **splits: list) -> Path:
    path = folder / "datalist.json"
    path.write_text(json.dumps({"training": ITEMS[:1], **splits}))
    return path


def test_items_have_whole_paths_and_labels_that_are_files_or_numbers(tmp_path: Path) -> None:
    items = validation_items(write(tmp_path, validation=ITEMS), "data", "validation")
    assert [(item["image"], item["label"]) for item in items] == [
        ("data/a.png", "data/a_mask.png"),
        ("data/b.png", "data/b_mask.png"),
    ]
    numbers = write(tmp_path, validation=[{"image": "a.png", "label": 2}])
    assert validation_items(numbers, "data", "validation", class_names=["a", "b", "c"])[0]["label"] == 2


@pytest.mark.parametrize(
    ("splits", "split"), [({}, "validation"), ({"validation": []}, "validation"), ({"validation": ITEMS}, None)]
)
def test_where_there_are_none_a_training_goes_without_or_says_why_it_cannot(
    tmp_path: Path, splits: dict, split: str | None
) -> None:
    path = write(tmp_path, **splits)
    assert split is None or has_no_validation(json.loads(path.read_text()), split)
    assert validation_items(path, "data", split) == []
    with pytest.raises(ValueError, match=rf"datalist\.json: there are no validation images \(split {split!r}\), and x"):
        validation_items(path, "data", split, needed_for="x")


def test_a_split_that_is_misspelt_is_not_taken_for_none(tmp_path: Path) -> None:
    path = write(tmp_path, validation=ITEMS)
    with pytest.raises(ValueError, match="no item in its split 'valid'; it has training, validation"):
        validation_items(path, "data", "valid")
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        validation_items(tmp_path / "none.json", "data", "validation")
