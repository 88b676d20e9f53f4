import json
from pathlib import Path

import pytest

from clinbundles.engines.outputs.summary import summarize_classes, summarize_metrics, write_summary


def test_what_images_are_called_is_counted_without_those_that_could_not_be_read(tmp_path: Path) -> None:
    rows = [
        {"prediction": "sick", "probability_well": 0.2, "probability_sick": 0.8, "failure": ""},
        {"prediction": "sick", "probability_well": 0.4, "probability_sick": 0.6, "failure": ""},
        {"prediction": "well", "probability_well": 0.9, "probability_sick": 0.1, "failure": ""},
        {"prediction": "", "probability_well": "", "probability_sick": "", "failure": "cannot be read."},
    ]
    summary = summarize_classes(rows, ["well", "sick"])
    assert (summary["images"], summary["failures"]) == (3, 1)
    assert summary["classes"]["sick"] == {"called": 2, "share": 0.6667, "mean_probability": 0.5}
    assert summary["classes"]["well"] == {"called": 1, "share": 0.3333, "mean_probability": 0.5}
    write_summary(tmp_path, summarize_classes(rows[3:], ["well", "sick"]))
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["classes"]["well"] == {"called": 0, "share": None, "mean_probability": None}


def test_an_interval_is_as_wide_as_there_are_few_groups() -> None:
    values = [0.1] * 30 + [0.9] * 30
    alone = summarize_metrics({"dice": values}, [""] * 60)
    grouped = summarize_metrics({"dice": values}, [0] * 30 + [1] * 10 + [2] * 10 + [3] * 10)
    assert (alone["groups"], grouped["groups"]) == (60, 4)
    widths = [s["scores"]["dice"]["high"] - s["scores"]["dice"]["low"] for s in (alone, grouped)]
    assert widths[0] < 0.3 < widths[1]
    assert alone["scores"]["dice"]["value"] == grouped["scores"]["dice"]["value"] == pytest.approx(0.5)
    assert alone["notes"] == ["Intervals: bootstrap interval over 60 images, as patients are not known."]
    assert grouped["notes"][0] == "Intervals: t interval over 4 groups, such as patients."


def test_an_interval_does_not_leave_the_bounds_of_its_score_and_a_note_says_so() -> None:
    names = ("val_dice", "dice_difference", "hd95")
    summary = summarize_metrics({name: [0.2, 0.9] for name in names}, [0, 1])
    dice, *others = (summary["scores"][name] for name in names)
    assert (dice["low"], dice["high"]) == (0, 1)
    assert all(other["low"] < 0 and other["high"] > 1 for other in others)
    assert summary["notes"][1:] == ["Intervals of val_dice are cut to 0 to 1, where the score lies."]


def test_a_score_is_told_by_source_too_and_an_image_of_unknown_source_only_counts_in_the_whole() -> None:
    values, sources = [0.2] * 20 + [0.8] * 20 + [1.0], ["C1"] * 20 + ["C2"] * 20 + [None]
    summary = summarize_metrics({"dice": values}, [""] * 41, sources)
    assert {name: part["scores"]["dice"]["value"] for name, part in summary["sources"].items()} == {
        "C1": 0.2,
        "C2": 0.8,
    }
    assert [part["images"] for part in summary["sources"].values()] == [20, 20]
    assert summary["images"] == 41
    assert "sources" not in summarize_metrics({"dice": values}, [""] * 41, [None] * 41)


def test_a_value_that_is_not_finite_is_left_out_and_one_group_has_no_interval() -> None:
    score = summarize_metrics({"dice": [0.5, float("nan"), 0.7]}, [0, 0, 0])["scores"]["dice"]
    assert score == {"images": 2, "value": 0.6, "low": None, "high": None}
