"""Tests of the datalists of a cross-validation: by groups, each item tested once."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from clinbundles.scripts.prepare.folds import write_folds
from clinbundles.transforms.readers.slices import read_datalist

SPLITS = ["training", "validation", "test"]


def write_list(folder: Path, n_groups: int = 6) -> Path:
    items = [{"image": f"images/{k}.png", "label": f"labels/{k}.png", "group": f"p{k % n_groups}"} for k in range(20)]
    facts = {
        "labels": {"0": "background", "1": "body"},
        "window_hu": [-1000, 600],
        "numTraining": 12,
        "ratios": [3, 1, 1],
    }
    splits = {"training": items[:12], "validation": items[12:15], "test": items[15:]}
    (folder / "list.json").write_text(json.dumps({**facts, **splits}))
    return folder / "list.json"


@pytest.mark.parametrize("validation", [True, False])
def test_every_item_is_tested_once_and_no_group_is_in_two_splits_of_a_file(tmp_path: Path, validation: bool) -> None:
    write_folds(str(write_list(tmp_path)), str(tmp_path / "folds"), validation=validation)
    files = sorted((tmp_path / "folds").iterdir())
    assert [file.name for file in files] == [f"fold_{k}.json" for k in range(5)]
    counts: dict[str, Counter] = {name: Counter() for name in SPLITS}
    for file in files:
        content = read_datalist(file)  # which refuses a group in two splits
        assert ("validation" in content) == validation
        assert content["numValidation"] == len(content.get("validation", []))
        assert sum(len(content.get(name, [])) for name in SPLITS) == 20
        assert {item["group"] for item in content["test"]}
        for name in SPLITS:
            counts[name].update(item["image"] for item in content.get(name, []))
    assert set(counts["test"].values()) == {1}
    assert len(counts["test"]) == 20
    assert set(counts["training"].values()) == {3 if validation else 4}


def test_the_facts_stay_and_those_of_the_split_are_new(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_folds(str(write_list(tmp_path)), str(tmp_path / "folds"), folds=3, seed=7)
    content: dict[str, Any] = json.loads((tmp_path / "folds" / "fold_2.json").read_text())
    assert content["labels"] == {"0": "background", "1": "body"}
    assert content["window_hu"] == [-1000, 600]
    assert (content["split"], content["seed"], content["ratios"]) == ("fold 2 of 3 by group", 7, None)
    assert [content[f"num{name.capitalize()}"] for name in SPLITS] == [len(content[name]) for name in SPLITS]
    assert "of 2 groups" in capsys.readouterr().out


def test_the_test_split_is_left_out_where_folds_are_to_choose_settings(tmp_path: Path) -> None:
    source = write_list(tmp_path, n_groups=20)
    write_folds(str(source), str(tmp_path / "folds"), splits="training,validation")
    held_out = {item["image"] for item in json.loads(source.read_text())["test"]}
    tested: list[str] = []
    for file in sorted((tmp_path / "folds").iterdir()):
        content = json.loads(file.read_text())
        assert content["split"].endswith("of 5 by group within training and validation")
        assert not held_out & {item["image"] for name in SPLITS for item in content[name]}
        tested += [item["image"] for item in content["test"]]
    assert sorted(tested) == sorted({f"images/{k}.png" for k in range(15)})
    with pytest.raises(ValueError, match="splits: 'train' is not one of training, validation, test"):
        write_folds(str(source), str(tmp_path / "other"), splits="train")


def test_a_list_that_cannot_be_folded_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    source, target = str(write_list(tmp_path, n_groups=4)), str(tmp_path / "folds")
    with pytest.raises(ValueError, match=r"list.json: folds is 5, more than there are groups, such as patients \(4\)"):
        write_folds(source, target)
    with pytest.raises(ValueError, match="add --validation false"):
        write_folds(source, target, folds=2)
    for wrong in (source, str(tmp_path / "none" / "folds")):
        with pytest.raises(ValueError, match="expected a folder"):
            write_folds(source, wrong, folds=3)
    for name, content, sentence in (
        ("nameless", {"training": [{"image": "images/7.png"}]}, "images/7.png has no group"),
        ("empty", {"labels": {}}, "there is no item in its splits training, validation, test"),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=sentence):
            write_folds(str(tmp_path / f"{name}.json"), target)
    assert not Path(target).exists()
