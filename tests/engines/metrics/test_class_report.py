import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from clinbundles.engines.metrics.calibration import apply_temperature
from clinbundles.engines.metrics.class_report import write_class_report
from clinbundles.engines.outputs.per_image import read_class_table

NAMES = ["normal", "bacterial", "COVID-19"]


def make_table(n: int = 90, *, seed: int = 0, temperature: float = 1.0) -> pd.DataFrame:
    """Two images a patient, labels drawn from the probabilities, which are then distorted by a temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(n, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (rng.random((n, 1)) > probabilities.cumsum(1)).sum(1).clip(max=2)
    distorted = apply_temperature(probabilities, temperature).round(6)
    table = pd.DataFrame({"image": [f"{i}.png" for i in range(n)], "label": np.array(NAMES)[labels]})
    table["prediction"] = np.array(NAMES)[probabilities.argmax(1)]
    for k, name in enumerate(NAMES):
        table[f"probability_{name}"] = distorted[:, k]
    table["correct"] = (table["label"] == table["prediction"]).astype(int)
    table["failure"] = ""
    table["source"] = np.where(labels == 2, "elsewhere.org", "kermany")
    table["patient"] = np.arange(n) // 2
    return table


def write(table: pd.DataFrame, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "per_image.csv", index=False)
    return folder


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_the_report_says_what_the_table_says(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    table = make_table()
    metrics = write_class_report(write(table, tmp_path), NAMES)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert (metrics["images"], metrics["groups"], metrics["failures"]) == (90, 45, 0)
    assert metrics["unit"] == "patients"
    accuracy = metrics["scores"]["val_accuracy"]
    assert accuracy["value"] == pytest.approx(table["correct"].mean(), abs=1e-4)
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    counts = np.array(metrics["confusion_matrix"]["counts"])
    assert counts.sum(1).tolist() == [sum(table["label"] == name) for name in NAMES]
    assert counts[0, 1] == sum((table["label"] == "normal") & (table["prediction"] == "bacterial"))
    assert set(metrics["classes"]["COVID-19"]) == {"images", "precision", "recall", "f1", "auc"}
    assert 0.5 < metrics["classes"]["COVID-19"]["auc"]["low"] < metrics["classes"]["COVID-19"]["auc"]["high"] <= 1
    covid = table[table["source"] == "elsewhere.org"]
    assert metrics["sources"]["elsewhere.org"] == {
        "images": len(covid),
        "labels": {"COVID-19": len(covid)},
        "scores": metrics["sources"]["elsewhere.org"]["scores"],
    }
    accuracy_there = metrics["sources"]["elsewhere.org"]["scores"]["val_accuracy"]
    assert accuracy_there["value"] == pytest.approx(covid["correct"].mean(), abs=1e-4)
    assert accuracy_there["low"] < accuracy_there["value"] < accuracy_there["high"]
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert f"accuracy {accuracy['value']}" in printed


def test_a_temperature_fitted_on_validation_calibrates_the_test_set(tmp_path: Path) -> None:
    overconfident = write(make_table(2000, seed=1, temperature=0.4), tmp_path / "validation") / "per_image.csv"
    test = write(make_table(2000, seed=2, temperature=0.4), tmp_path / "test")
    before = write_class_report(test, NAMES)["calibration"]
    assert before["temperature"] is None
    after = write_class_report(test, NAMES, validation_table=overconfident)["calibration"]
    assert after["temperature"] == pytest.approx(2.5, rel=0.1)
    assert after["expected_calibration_error"] == before["expected_calibration_error"] > 0.1
    assert after["expected_calibration_error_after_temperature"] < 0.04


def test_the_temperature_is_that_of_the_validation_set_and_not_of_the_test_set(tmp_path: Path) -> None:
    """Of two sets distorted in opposite ways, the test set ends up further from calibrated than it began."""
    validation = write(make_table(2000, seed=1, temperature=0.4), tmp_path / "validation") / "per_image.csv"
    test = write(make_table(2000, seed=2, temperature=2.0), tmp_path / "test")
    calibration = write_class_report(test, NAMES, validation_table=validation)["calibration"]
    assert calibration["temperature"] == pytest.approx(2.5, rel=0.1), "on the test set it would be 0.5"
    after = calibration["expected_calibration_error_after_temperature"]
    assert after > calibration["expected_calibration_error"] > 0.1


def test_a_temperature_at_the_bound_of_its_search_is_said_on_screen_and_in_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    table = make_table()
    certain = table.assign(label=table["prediction"])
    validation = write(certain, tmp_path / "validation") / "per_image.csv"
    test = write(table, tmp_path / "test")
    note = write_class_report(test, NAMES, validation_table=validation)["calibration"]["temperature_note"]
    assert note.startswith("Temperature 0.25 lies at the lower bound")
    assert note in capsys.readouterr().out.splitlines()
    assert json.loads((test / "metrics.json").read_text())["calibration"]["temperature_note"] == note
    within = write(make_table(2000, seed=1, temperature=0.4), tmp_path / "within") / "per_image.csv"
    assert write_class_report(test, NAMES, validation_table=within)["calibration"]["temperature_note"] == ""
    assert "bound" not in capsys.readouterr().out


def test_figures_are_drawn_and_nothing_unfinished_stays(tmp_path: Path) -> None:
    table = write(make_table(), tmp_path) / "per_image.csv"
    write_class_report(tmp_path, NAMES)
    alone = pixels_of(tmp_path / "reliability.png")
    write_class_report(tmp_path, NAMES, validation_table=table)
    assert pixels_of(tmp_path / "reliability.png").shape[1] == 2 * alone.shape[1]
    colors = np.unique(pixels_of(tmp_path / "confusion.png").reshape(-1, 3), axis=0)
    assert len(colors) > 20
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "confusion.png",
        "metrics.json",
        "per_image.csv",
        "reliability.png",
    ]


def test_failed_images_are_counted_and_left_out(tmp_path: Path) -> None:
    whole = make_table()
    failed = {"image": "broken.jpg", "label": "normal", "failure": "broken.jpg: cannot be read.", "patient": 99}
    with_failures = write_class_report(write(pd.concat([whole, pd.DataFrame([failed] * 3)]), tmp_path / "a"), NAMES)
    without = write_class_report(write(whole, tmp_path / "b"), NAMES)
    assert with_failures.pop("failures") == 3
    assert without.pop("failures") == 0
    assert with_failures == without


def test_without_patients_images_are_resampled_and_it_says_so(tmp_path: Path) -> None:
    metrics = write_class_report(write(make_table().drop(columns=["patient", "source"]), tmp_path), NAMES)
    assert (metrics["groups"], metrics["unit"]) == (90, "images, as patients are not known")
    assert metrics["sources"] is None
    assert metrics["notes"][0].startswith("Intervals: bootstrap interval over 90 images, as patients are not known")


def test_few_patients_have_a_t_interval_and_one_has_none_and_it_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    metrics = write_class_report(write(make_table(18), tmp_path / "nine"), NAMES)
    accuracy = metrics["scores"]["val_accuracy"]
    assert metrics["groups"] == 9
    assert 0 <= accuracy["low"] < accuracy["value"] < accuracy["high"] <= 1
    assert metrics["notes"][0].startswith("Intervals: t interval over 9 patients")
    metrics = write_class_report(write(make_table(2), tmp_path / "one"), NAMES)
    assert metrics["scores"]["val_accuracy"]["low"] is None
    assert metrics["notes"][0] == "Intervals: no interval of a single one of the patients."
    assert "None" not in capsys.readouterr().out


def test_a_class_without_images_or_predictions_is_pointed_out(tmp_path: Path) -> None:
    table = make_table()
    table = table[(table["label"] != "COVID-19") & (table["prediction"] != "COVID-19")]
    metrics = write_class_report(write(table, tmp_path), NAMES)
    assert metrics["classes"]["COVID-19"]["recall"]["value"] == 0
    assert metrics["classes"]["COVID-19"]["auc"] == {"value": None, "low": None, "high": None}
    assert any("COVID-19 has no image" in note for note in metrics["notes"])
    assert any("COVID-19 is never predicted" in note for note in metrics["notes"])


def test_names_that_look_like_numbers_or_like_nothing_are_names(tmp_path: Path) -> None:
    table = pd.DataFrame({"image": ["a", "b"], "label": ["1", "None"], "prediction": ["1", "None"]})
    table[["probability_1", "probability_None"]] = np.eye(2)
    metrics = write_class_report(write(table, tmp_path), ["1", "None"])
    assert metrics["scores"]["val_accuracy"]["value"] == 1


def test_what_is_wrong_with_a_table_is_said(tmp_path: Path) -> None:
    good = make_table(6)
    unlabelled = good.assign(label=["", *good["label"][1:]])
    cases = [
        (good.drop(columns="label"), r"per_image\.csv: has no column label, only image, prediction"),
        (good.drop(columns="probability_normal"), "has no column probability_normal"),
        (good.assign(label="viral"), r"0\.png has label 'viral', expected one of normal, bacterial, COVID-19"),
        (good.assign(prediction="viral"), r"0\.png has prediction 'viral'"),
        (unlabelled, r"0\.png has no label, expected one of"),
        (good.assign(probability_normal=""), r"0\.png has probability_normal nan, expected a number from 0 to 1"),
        (good.assign(failure="cannot be read"), "has no image to score, only 6 failures"),
        (good[:0], "has no image to score, only 0 failures"),
    ]
    for number, (table, message) in enumerate(cases):
        folder = write(table, tmp_path / str(number))
        with pytest.raises(ValueError, match=message):
            write_class_report(folder, NAMES)
        assert [path.name for path in folder.iterdir()] == ["per_image.csv"]
    with pytest.raises(FileNotFoundError, match=r"per_image\.csv: no such table"):
        read_class_table(tmp_path / "per_image.csv", NAMES)
