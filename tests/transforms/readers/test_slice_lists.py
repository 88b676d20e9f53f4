import json
from pathlib import Path
from typing import Any

import pytest

from clinbundles.transforms.readers.slice_lists import choose_items, join_items

LABELS = {"0": "background", "1": "nucleus"}


def write(folder: Path, n: int, **facts: Any) -> Path:
    folder.mkdir()
    items = [{"image": f"images/{k}.png", "label": f"labels/{k}.png"} for k in range(n)]
    path = folder / "datalist.json"
    path.write_text(json.dumps({"labels": LABELS, **facts, "training": items}))
    return path


def names(items: list[dict[str, Any]]) -> list[str]:
    return [Path(item["image"]).stem for item in items]


def test_a_larger_draw_holds_the_smaller_one_and_a_seed_draws_anew(tmp_path: Path) -> None:
    path = write(tmp_path / "real", 40)
    few, more, other = (
        names(choose_items(path, path.parent, "training", n_labelled=n, seed=seed))
        for n, seed in ((5, 0), (12, 0), (5, 1))
    )
    assert set(few) < set(more)
    assert len(few) == 5
    assert few != other
    assert few == sorted(few, key=int)


def test_the_rest_is_what_was_not_drawn(tmp_path: Path) -> None:
    path = write(tmp_path / "real", 9)
    drawn, rest = (
        names(choose_items(path, path.parent, "training", n_labelled=4, seed=3, rest=rest)) for rest in (False, True)
    )
    assert sorted(drawn + rest) == [str(k) for k in range(9)]
    assert names(choose_items(path, path.parent, "training")) == [str(k) for k in range(9)]
    for n in (None, 9):
        with pytest.raises(ValueError, match=f"none of the 9 items of its split 'training' is left, {n} labelled"):
            choose_items(path, path.parent, "training", n_labelled=n, rest=True)


def test_a_validation_may_be_left_out_and_a_misspelt_one_is_not(tmp_path: Path) -> None:
    path = write(tmp_path / "real", 3)
    assert choose_items(path, path.parent, "validation", optional=True) == []
    assert len(choose_items(path, path.parent, "training", optional=True)) == 3
    with pytest.raises(ValueError, match="no item in its split 'valid'; it has training"):
        choose_items(path, path.parent, "valid", optional=True)


def test_paths_begin_at_the_folder_of_the_data(tmp_path: Path) -> None:
    path = write(tmp_path / "real", 1)
    (item,) = choose_items(path, tmp_path / "elsewhere", "training")
    assert item["label"] == str(tmp_path / "elsewhere" / "labels" / "0.png")


def test_joined_lists_hold_both_and_either_may_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path, other = write(tmp_path / "real", 6), write(tmp_path / "made", 4)
    content = json.loads(path.read_text())
    for item in content["training"]:
        item["group"] = "p1"  # a batch is of items with the same keys
    path.write_text(json.dumps(content))
    both = join_items(path, path.parent, "training", n_labelled=2, added_dir=other.parent)
    assert {tuple(item) for item in both} == {("image", "label")}
    assert [Path(item["image"]).parents[1].name for item in both] == ["real"] * 2 + ["made"] * 4
    assert capsys.readouterr().out == f"2 slices of {path} and 4 added ones are trained on\n"
    assert len(join_items(path, path.parent, "training", n_labelled=0, added_dir=other.parent)) == 4
    assert len(join_items(path, path.parent, "training")) == 6


def test_what_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "real", 6, window_hu=[-1000, 600])
    with pytest.raises(ValueError, match=r"n_labelled is 7, and .* has 6 items in its split 'training'"):
        choose_items(path, path.parent, "training", n_labelled=7)
    with pytest.raises(ValueError, match="no item in its split 'test'"):
        choose_items(path, path.parent, "test")
    with pytest.raises(FileNotFoundError, match="a datalist was expected there"):
        choose_items(tmp_path / "none.json", tmp_path, "test")
    with pytest.raises(ValueError, match="nothing is left to train on"):
        join_items(path, path.parent, "training", n_labelled=0)
    other = write(tmp_path / "made", 4, window_hu=[-160, 240])
    with pytest.raises(ValueError, match=r"made.datalist.json: its slices have the window \[-160, 240\] HU"):
        join_items(path, path.parent, "training", added_dir=other.parent)
    other.write_text(
        json.dumps({"labels": {"0": "background", "1": "cell"}, "training": [{"image": "a", "label": "b"}]})
    )
    with pytest.raises(ValueError, match="its classes are background, cell, those of the network background, nucleus"):
        join_items(path, path.parent, "training", added_dir=other.parent)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_slices_that_are_held_out_are_not_trained_on_by_way_of_another_list(tmp_path: Path, split: str) -> None:
    path, other = write(tmp_path / "real", 6), write(tmp_path / "labelled", 4)
    content, added = json.loads(path.read_text()), json.loads(other.read_text())
    content[split] = [{"image": f"images/h{k}.png", "label": f"labels/h{k}.png"} for k in range(3)]
    added["training"][2]["image"] = "../real/images/h1.png"
    path.write_text(json.dumps(content))
    other.write_text(json.dumps(added))
    with pytest.raises(ValueError, match=rf"1 of its slices are of the {split} split of .*images/h1"):
        join_items(path, path.parent, "training", added_dir=other.parent)
    added["training"][2]["image"] = "../real/images/0.png"
    other.write_text(json.dumps(added))
    assert len(join_items(path, path.parent, "training", added_dir=other.parent)) == 10


def test_a_generator_learns_from_slices_without_labels_and_a_segmenter_does_not(tmp_path: Path) -> None:
    path = write(tmp_path / "real", 6)
    content = json.loads(path.read_text())
    for item in content["training"]:
        del item["label"]
    path.write_text(json.dumps(content))
    assert {tuple(item) for item in join_items(path, path.parent, "training", keys=["image"])} == {("image",)}
    with pytest.raises(ValueError, match=r"datalist.json: item 0 of its split 'training' has no label"):
        join_items(path, path.parent, "training")


def test_fewer_slices_than_a_batch_needs_and_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "real", 6)
    assert len(join_items(path, path.parent, "training", at_least=6)) == 6
    with pytest.raises(ValueError, match=r"datalist.json: 6 slices of its split 'training' are fewer than the 7 of a"):
        join_items(path, path.parent, "training", at_least=7)
    for n in (-1, 2.5):
        with pytest.raises(ValueError, match=f"n_labelled is {n}, and .* has 6 items"):
            choose_items(path, path.parent, "training", n_labelled=n)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there is no item in its split 'validation'; it has training"):
        choose_items(path, path.parent, "validation")
