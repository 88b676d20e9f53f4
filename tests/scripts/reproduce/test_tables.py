import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from clinbundles.scripts.reproduce.tables import Cell, as_markdown, figures_of, summarise

PLAN = {
    "rows": {"network_name": ["A", "B"]},
    "columns": {"arm": ["original", "positive"]},
    "tables": {"1": {"title": "Dice", "metric": "dice", "published": {"A": [0.5, 0.6], "B": [0.7, None]}}},
    "notes": ["a note"],
}
COSTED = {
    "rows": {"data_set": {"eyes": {}, "cells": {}}},
    "columns": {"method": {"whole": {}, "half": {}}},
    "tables": {"3a": {"title": "soft Dice", "metric": "dice"}},
    "costs": {"3b": {"title": "GMAC", "cost": "macs", "factor": 1e-9, "name": "gmacs"}},
}


SCORED = {
    "rows": {"data_set": {"real": {}}},
    "columns": {"network_name": {"small": {}, "large": {}}},
    "tables": {
        "6a": {"title": "accuracy", "metric": "val_accuracy", "published": {"real": [0.6, 0.8]}},
        "6d": {"title": "F1", "metric": "val_macro_f1"},
    },
}
LABELS = ["None"] * 8 + ["1"] * 12


def write_classified(
    folder: Path, column: str, seed: int, *, wrong: list[int], labels: list[str] = LABELS, patient_of: int | None = 2
) -> Cell:
    """Twenty images, by twos of one patient, some of them predicted wrong, and one more that could not be read."""
    (folder / "test").mkdir(parents=True)
    other = {"None": "1", "1": "None"}
    table = pd.DataFrame({"image": [f"{i}.png" for i in range(20)], "label": labels})
    table["prediction"] = [other[name] if i in wrong else name for i, name in enumerate(labels)]
    table = table.assign(failure="", **({"patient": [i // patient_of for i in range(20)]} if patient_of else {}))
    broken = {"image": "broken.png", "label": "1", "failure": "broken.png: cannot be read."}
    table = pd.concat([table, pd.DataFrame([broken])])
    table.to_csv(folder / "test" / "per_image.csv", index=False)
    return Cell("real", column, seed, folder)


def write_cell(folder: Path, row: str, column: str, seed: int, *, dice: list[float], macs: float | None) -> Cell:
    (folder / "test").mkdir(parents=True)
    pd.DataFrame({"image": list("wxyz"), "dice": dice}).to_csv(folder / "test" / "per_image.csv", index=False)
    (folder / "test" / "cost.json").write_text(json.dumps({"macs": macs}))
    return Cell(row, column, seed, folder)


@pytest.fixture
def cells(tmp_path: Path) -> list:
    """Network A, two arms, two seeds, four images: positive is better by 0.1, 0.2, 0.1 and 0.2."""
    found = []
    for seed in (0, 1):
        for arm, gains in (("original", [0, 0, 0, 0]), ("positive", [0.1, 0.2, 0.1, 0.2])):
            values = [0.4 + 0.02 * seed + gain for gain in gains]
            found.append(write_cell(tmp_path / f"A_{arm}_{seed}", "A", arm, seed, dice=values, macs=1))
    return found


@pytest.fixture
def costed(tmp_path: Path) -> list:
    """Eyes by both methods, cells by one, which leaves no cost; half the work costs a quarter and loses 0.1."""
    return [
        write_cell(tmp_path / "a", "eyes", "whole", 0, dice=[0.8, 0.7, 0.8, 0.7], macs=4e9),
        write_cell(tmp_path / "b", "cells", "whole", 0, dice=[0.6, 0.6, 0.6, 0.6], macs=None),
        write_cell(tmp_path / "c", "eyes", "half", 0, dice=[0.7, 0.6, 0.7, 0.6], macs=1e9),
    ]


@pytest.fixture
def classified(tmp_path: Path) -> list:
    """The small network gets 8 and 6 of 20 wrong, the large one 4 and 2, both always whole patients."""
    return [
        write_classified(tmp_path / "a", "small", 0, wrong=[0, 1, 2, 3, 8, 9, 10, 11]),
        write_classified(tmp_path / "b", "small", 1, wrong=[0, 1, 2, 3, 8, 9]),
        write_classified(tmp_path / "c", "large", 0, wrong=[0, 1, 10, 11]),
        write_classified(tmp_path / "d", "large", 1, wrong=[0, 1]),
    ]


def test_means_spreads_and_paired_differences_are_those_counted_by_hand(cells: list) -> None:
    summary = summarise(PLAN, ["1"], cells, "original").set_index("arm")
    assert summary.loc["original", "mean"] == pytest.approx(0.41)
    assert summary.loc["original", "std"] == pytest.approx(0.02 / 2**0.5)
    assert pd.isna(summary.loc["original", "difference"])
    positive = summary.loc["positive"]
    assert positive["difference"] == pytest.approx(0.15)
    half = 3.1824 * np.std([0.1, 0.2, 0.1, 0.2], ddof=1) / 2  # Student's t of four images
    assert [positive["difference_low"], positive["difference_high"]] == pytest.approx(
        [0.15 - half, 0.15 + half], abs=1e-5
    )
    assert positive["published"] == 0.6
    assert positive["images"] == 4


def test_differences_are_resampled_by_patient_where_the_tables_have_patients(tmp_path: Path) -> None:
    gains = np.random.default_rng(0).normal(0.1, 0.05, size=10)
    cells = []
    for name, patients in (("apart", None), ("together", np.arange(40) // 4)):
        for arm, dice in (("original", np.zeros(40)), ("positive", np.repeat(gains, 4))):
            folder = tmp_path / name / arm
            (folder / "test").mkdir(parents=True)
            table = pd.DataFrame({"image": np.arange(40).astype(str), "dice": dice})
            table = table if patients is None else table.assign(patient=patients)
            table.to_csv(folder / "test" / "per_image.csv", index=False)
            cells.append(Cell(name, arm, 0, folder))
    summary = summarise(PLAN, ["1"], cells, "original").set_index(["network_name", "arm"])
    apart, together = summary.loc["apart", "positive"], summary.loc["together", "positive"]
    assert (apart["groups"], together["groups"]) == (40, 10)
    assert apart["difference"] == pytest.approx(together["difference"])
    widths = (summary["difference_high"] - summary["difference_low"]).xs("positive", level="arm")
    assert widths["together"] == pytest.approx(2 * widths["apart"], rel=0.2)


def test_rows_of_few_groups_say_what_their_intervals_are(cells: list, tmp_path: Path) -> None:
    text = as_markdown(PLAN, summarise(PLAN, ["1"], cells, "original"), "heading")
    assert "- A: t interval over 4 groups." in text
    few = [write_classified(tmp_path / name, name, 0, wrong=[0, 5, 9], patient_of=4) for name in ("small", "large")]
    summary = summarise(SCORED, ["6a"], few, "small")
    assert ((summary["low"] < 0.85) & (summary["high"] > 0.85)).all()
    assert "- real: t interval over 5 groups." in as_markdown(SCORED, summary, "heading")


def test_eight_eyes_of_four_children_are_four_groups(tmp_path: Path) -> None:
    gains = [0.1, 0.12, 0.3, 0.32, 0.0, 0.02, 0.2, 0.22]
    cells = []
    for arm, dice in (("original", [0.5] * 8), ("positive", [0.5 + gain for gain in gains])):
        (tmp_path / arm / "test").mkdir(parents=True)
        table = pd.DataFrame({"image": list("abcdefgh"), "dice": dice, "patient": [0, 0, 1, 1, 2, 2, 3, 3]})
        table.to_csv(tmp_path / arm / "test" / "per_image.csv", index=False)
        cells.append(Cell("A", arm, 0, tmp_path / arm))
    summary = summarise(PLAN, ["1"], cells, "original")
    line = summary.set_index("arm").loc["positive"]
    expected = stats.ttest_1samp([0.11, 0.31, 0.01, 0.21], 0).confidence_interval()
    assert [line["difference_low"], line["difference_high"]] == pytest.approx([*expected])
    assert line["p"] == 2 / 2**4
    assert "- A: t interval over 4 groups." in as_markdown(PLAN, summary, "heading")


def test_seeds_that_differ_are_not_compared_as_if_paired(tmp_path: Path) -> None:
    """The arms are alike and seed 0 is worse than seed 1: one arm lacks its seed 1."""
    cells = [
        write_cell(tmp_path / f"{arm}{seed}", "A", arm, seed, dice=[0.4 + 0.2 * seed] * 4, macs=1)
        for arm, seeds in (("original", (0, 1)), ("positive", (0,)))
        for seed in seeds
    ]
    summary = summarise(PLAN, ["1"], cells, "original")
    assert "difference" not in summary
    assert summary["mean"].tolist() == pytest.approx([0.5, 0.4])
    text = as_markdown(PLAN, summary, "heading")
    assert "- A, positive: not compared, as seeds 0 are not 0, 1." in text
    assert "| 0.4000 | – |" in text


def test_rows_of_a_table_in_another_order_are_the_same_images(tmp_path: Path) -> None:
    cells = []
    for arm, order in (("original", [0, 1, 2, 3]), ("positive", [3, 1, 0, 2])):
        (tmp_path / arm / "test").mkdir(parents=True)
        dice = np.array([0.1, 0.3, 0.5, 0.9]) + (0.1 if arm == "positive" else 0)
        table = pd.DataFrame({"image": list("wxyz"), "dice": dice, "patient": [0, 0, 1, 2]}).iloc[order]
        table["patient"] = pd.factorize(table["patient"])[0]
        table.to_csv(tmp_path / arm / "test" / "per_image.csv", index=False)
        cells.append(Cell("A", arm, 0, tmp_path / arm))
    line = summarise(PLAN, ["1"], cells, "original").set_index("arm").loc["positive"]
    assert [line["difference_low"], line["difference_high"]] == pytest.approx([0.1, 0.1])


def test_p_values_are_adjusted_within_a_table_and_the_foot_says_what_could_be_seen(cells: list, tmp_path: Path) -> None:
    plan = {**PLAN, "columns": {"arm": ["original", "positive", "reverse"]}, "tables": {"1": {**PLAN["tables"]["1"]}}}
    del plan["tables"]["1"]["published"]
    for seed in (0, 1):
        dice = [0.4 + 0.02 * seed + gain for gain in (0.1, -0.1, 0.2, 0.0)]
        cells.append(write_cell(tmp_path / f"reverse{seed}", "A", "reverse", seed, dice=dice, macs=1))
    summary = summarise(plan, ["1"], cells, "original").set_index("arm")
    assert summary["p"].dropna().tolist() == [2 / 16, 12 / 16]
    assert summary["p_holm"].dropna().tolist() == [4 / 16, 12 / 16]
    smallest = 2.8 * stats.sem([0.1, -0.1, 0.2, 0.0])
    assert summary.loc["reverse", "smallest_difference"] == pytest.approx(smallest)
    text = as_markdown(plan, summary.reset_index(), "heading")
    assert "], 0.25 |" in text
    assert (
        "- A: the smallest difference that 2 seeds and 4 groups could show (2.8 times its standard error, the " in text
    )
    assert f"largest of the columns): Dice {smallest:.2g}." in text


def test_where_only_seeds_vary_the_foot_says_how_often_they_agree_by_chance(tmp_path: Path) -> None:
    cells = [
        write_classified(tmp_path / f"{name}{seed}", name, seed, wrong=list(range(seed, wrong)), patient_of=20)
        for name, wrong in (("small", 8), ("large", 5))
        for seed in (0, 1)
    ]
    summary = summarise(SCORED, ["6a"], cells, "small")
    assert summary["low"].isna().all()
    text = as_markdown(SCORED, summary, "heading")
    assert "- real: no interval of a single one of the groups." in text
    assert "- real: only seeds vary; 2 seeds: both beat both by chance in 1 of 6." in text


def test_tables_show_measured_beside_published(cells: list) -> None:
    summary = summarise(PLAN, ["1"], cells, "original")
    text = as_markdown(PLAN, summary, "heading")
    assert "| A | 0.5000 | 0.4100 ± 0.0141 | 0.6000 | 0.5600 ± 0.0141 | +0.1500 [" in text
    assert "- a note" in text


def test_a_cost_is_converted_and_compared_as_a_part_of_the_first_column(costed: list) -> None:
    summary = summarise(COSTED, ["3a", "3b"], costed, "whole").set_index(["table", "data_set", "method"])
    half = summary.loc["3b", "eyes", "half"]
    assert half["mean"] == pytest.approx(1)
    assert half["ratio"] == pytest.approx(0.25)
    assert pd.isna(half["difference"])
    assert summary.loc["3a", "eyes", "half"]["difference"] == pytest.approx(-0.1)


def test_tables_without_published_figures_share_one_and_show_what_was_left_out(costed: list) -> None:
    text = as_markdown(COSTED, summarise(COSTED, ["3a", "3b"], costed, "whole"), "heading")
    assert "| data_set | method | soft Dice | − whole [95 % CI], p | GMAC (part of whole) |" in text
    assert "| eyes | half | 0.6500 | -0.1000 [-0.1000, -0.1000], 0.12 | 1 (0.250) |" in text
    assert "| cells | whole | 0.6000 | – | – |" in text
    assert "| cells | half | – | – | – |" in text
    assert "paper" not in text


def test_a_figure_that_a_cell_did_not_measure_is_named(costed: list) -> None:
    with pytest.raises(ValueError, match=r"per_image\.csv: has no column iou, only image, dice"):
        figures_of({"metric": "iou"}, costed[0].folder)
    with pytest.raises(ValueError, match=r"cost\.json: has no seconds, only macs"):
        figures_of({"cost": "seconds"}, costed[0].folder)


def test_a_score_of_a_whole_set_is_that_of_scikit_learn_without_the_failures(classified: list) -> None:
    table = pd.read_csv(classified[0].folder / "test" / "per_image.csv", keep_default_na=False)[:20]
    expected = f1_score(table["label"], table["prediction"], average="macro")
    assert figures_of({"metric": "val_macro_f1"}, classified[0].folder).tolist() == pytest.approx([expected])
    assert figures_of({"metric": "val_accuracy"}, classified[0].folder).tolist() == pytest.approx([12 / 20])


def test_scores_of_whole_sets_are_compared_over_patients(classified: list) -> None:
    summary = summarise(SCORED, ["6a", "6d"], classified, "small").set_index(["table", "network_name"])
    small, large = summary.loc[("6a", "small")], summary.loc[("6a", "large")]
    assert small["mean"] == pytest.approx(0.65)
    assert small["std"] == pytest.approx(0.1 / 2**0.5)
    assert large["mean"] == pytest.approx(0.85)
    assert (large["images"], large["seeds"], large["published"]) == (20, 2, 0.8)
    assert large["low"] < 0.85 < large["high"]
    assert pd.isna(small["difference"])
    # Over both seeds the second and the fifth patient are the gain; the others stay as they were.
    gains = np.array([0, 1, 0, 0, 1, 0, 0, 0, 0, 0])
    drawn = np.random.default_rng(1).choice(gains, size=(20_000, 10)).mean(1)
    assert large["difference"] == pytest.approx(0.2)
    assert [large["difference_low"], large["difference_high"]] == pytest.approx(
        np.quantile(drawn, [0.025, 0.975]), abs=0.06
    )
    f1 = summary.loc[("6d", "large")]
    assert f1["difference_low"] < f1["difference"] < f1["difference_high"]
    assert f1["difference"] == pytest.approx(f1["mean"] - summary.loc[("6d", "small"), "mean"])


def test_the_same_predictions_differ_by_nothing(tmp_path: Path) -> None:
    cells = [write_classified(tmp_path / name, name, 0, wrong=[0, 5, 9]) for name in ("small", "large")]
    large = summarise(SCORED, ["6d"], cells, "small").set_index("network_name").loc["large"]
    assert (large["difference"], large["difference_low"], large["difference_high"]) == (0, 0, 0)
    assert large["low"] < large["mean"] < large["high"]


def test_patients_known_make_the_interval_wider(tmp_path: Path) -> None:
    wrong = [0, 1, 2, 3, 8, 9, 10, 11]
    known = write_classified(tmp_path / "a", "small", 0, wrong=wrong)
    unknown = write_classified(tmp_path / "b", "large", 0, wrong=wrong, patient_of=None)
    summary = summarise(SCORED, ["6a"], [known, unknown], "small").set_index("network_name")
    width = summary["high"] - summary["low"]
    assert width["small"] > 1.2 * width["large"]


def test_other_images_are_not_compared(tmp_path: Path) -> None:
    cells = [
        write_classified(tmp_path / "a", "small", 0, wrong=[0]),
        write_classified(tmp_path / "b", "large", 0, wrong=[0], labels=LABELS[::-1]),
    ]
    summary = summarise(SCORED, ["6a"], cells, "small").set_index("network_name")
    assert "difference" not in summary
    assert summary["mean"].tolist() == pytest.approx([0.95, 0.95])
    assert summary["low"].notna().all()


def test_scores_of_whole_sets_appear_in_tables(classified: list) -> None:
    summary = summarise(SCORED, ["6a", "6d"], classified, "small")
    text = as_markdown(SCORED, summary, "heading")
    assert "| real | 0.6000 | 0.6500 ± 0.0707 | 0.8000 | 0.8500 ± 0.0707 | +0.2000 [" in text
    assert "| real | large | " in text


def test_a_score_without_labels_and_predictions_is_a_column_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    table = pd.DataFrame({"image": ["a", "b", "c"], "val_accuracy": [1, 0, ""], "failure": ["", "", "c: broken."]})
    table.to_csv(tmp_path / "test" / "per_image.csv", index=False)
    assert figures_of({"metric": "val_accuracy"}, tmp_path).tolist() == [1, 0]
    with pytest.raises(ValueError, match="has no column val_macro_f1, only image, val_accuracy"):
        figures_of({"metric": "val_macro_f1"}, tmp_path)


def test_an_image_without_a_label_is_named(tmp_path: Path) -> None:
    cell = write_classified(tmp_path, "small", 0, wrong=[], labels=LABELS)
    path = cell.folder / "test" / "per_image.csv"
    path.write_text(path.read_text().replace("3.png,None", "3.png,", 1))
    with pytest.raises(ValueError, match=r"per_image\.csv: 3\.png has no label"):
        figures_of({"metric": "val_accuracy"}, cell.folder)


def test_overlap_is_pooled_over_images_and_resampled_by_patient(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    plan = {**PLAN, "tables": {"1": {"title": "mIoU", "metric": "val_miou"}}}
    cells, expected = [], {}
    for arm in ("original", "positive"):
        either = generator.integers(20, 60, (24, 2))
        both = (either * generator.uniform(0.5, 1, (24, 2))).astype(int)
        table = pd.DataFrame({"image": [f"{i}.png" for i in range(24)], "patient": [i // 2 for i in range(24)]})
        for k in range(2):
            table = table.assign(**{f"both_{k}": both[:, k], f"either_{k}": either[:, k]})
        folder = tmp_path / arm
        (folder / "test").mkdir(parents=True)
        table.to_csv(folder / "test" / "per_image.csv", index=False)
        cells.append(Cell("A", arm, 0, folder))
        expected[arm] = float((both.sum(0) / either.sum(0)).mean())
    summary = summarise(plan, ["1"], cells, "original").set_index(next(iter(plan["columns"])))
    for arm, value in expected.items():
        assert summary["mean"][arm] == pytest.approx(value)
        assert summary["low"][arm] < value < summary["high"][arm]
    assert summary["difference"]["positive"] == pytest.approx(expected["positive"] - expected["original"])
    assert (
        summary["difference_low"]["positive"]
        < summary["difference"]["positive"]
        < summary["difference_high"]["positive"]
    )
    assert list(summary["groups"]) == [12, 12]
