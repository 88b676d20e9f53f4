from pathlib import Path

import numpy as np
import pytest
from ignite.engine import Engine

from clinbundles.engines.outputs.per_image import (
    name_weights,
    number_patients,
    patients_of,
    read_per_image,
    say_failures,
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Three images, one of which could not be read; names and classes that look like numbers or like nothing."""
    path = tmp_path / "per_image.csv"
    lines = ["image,label,dice,failure,patient", "01,None,0.5,,0", "02,1,,cannot be read.,0", "03,1,0.7,,"]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_rows_without_a_failure_are_given_and_the_others_counted(table: Path) -> None:
    rows, failures = read_per_image(table, columns=["dice"])
    assert failures == 1
    assert rows[["image", "label", "dice"]].to_numpy().tolist() == [["01", "None", 0.5], ["03", "1", 0.7]]
    assert rows.index.tolist() == [0, 1]


def test_a_torn_last_row_is_not_read_and_a_name_is_what_it_was_before_spreadsheets(table: Path) -> None:
    with table.open("a") as stream:
        stream.write("./=1+1.png,1,0.25,,1\n04,1,0.1")
    rows, failures = read_per_image(table)
    assert rows["image"].tolist() == ["01", "03", "=1+1.png"]
    assert rows["dice"].tolist() == [0.5, 0.7, 0.25]
    assert failures == 1


def test_a_file_may_be_called_as_what_is_missing(table: Path) -> None:
    with table.open("a") as stream:
        stream.write("nan,nan,nan,,1\n")
    rows, _ = read_per_image(table)
    assert rows[["image", "label"]].to_numpy().tolist()[-1] == ["nan", "nan"]
    assert np.isnan(rows["dice"].iloc[-1])


def test_patients_are_numbers_or_not_known(table: Path) -> None:
    rows, _ = read_per_image(table)
    assert np.array_equal(patients_of(rows), [0, np.nan], equal_nan=True)
    assert patients_of(rows.drop(columns="patient")) is None


def test_a_file_that_is_missing_or_no_such_table_is_named(table: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.csv: no such table"):
        read_per_image(tmp_path / "absent.csv")
    with pytest.raises(ValueError, match=r"per_image\.csv: has no column iou, only image, label, dice"):
        read_per_image(table, columns=["iou"])
    table.write_text("")
    with pytest.raises(ValueError, match=r"per_image\.csv: is no table"):
        read_per_image(table)


def test_patients_are_numbered_as_they_appear_and_stay_unknown_where_they_are() -> None:
    assert number_patients(["Smith", None, "Jones", "Smith"]) == [0, "", 1, 0]
    assert number_patients([]) == []


def test_what_came_in_was_used_and_failed_is_said_and_nothing_used_is_an_error(capsys: pytest.CaptureFixture) -> None:
    good, bad = {"image": "a.png", "failure": ""}, {"image": "b.png", "failure": "b.png: is empty."}
    say_failures([good, bad, good])
    say_failures([good])
    assert capsys.readouterr().out == "3 in, 2 used, 1 left out: per_image.csv says why.\n1 in, 1 used, 0 left out.\n"
    with pytest.raises(ValueError, match=r"0 of 2 images could be read: .* of the first: b\.png: is empty\."):
        say_failures([bad, bad])
    assert capsys.readouterr().out == "2 in, 0 used, 2 left out: per_image.csv says why.\n"
    engine = Engine(lambda engine, batch: None)
    engine.state.run_rest = "8 images in 2 subfolders are not looked at"
    say_failures([good, bad], engine)
    assert capsys.readouterr().out == (
        "2 in, 1 used, 1 left out: per_image.csv says why; 8 images in 2 subfolders are not looked at.\n"
    )


def test_every_row_names_its_weights_and_no_column_stands_where_none_were_loaded() -> None:
    engine, rows = Engine(lambda engine, batch: None), [{"image": "a.png"}, {"image": "b.png"}]
    name_weights(rows, engine)
    assert rows == [{"image": "a.png"}, {"image": "b.png"}]
    engine.state.weights = ("sha256 1: For research.", "sha256 2: Not for diagnosis.")
    name_weights(rows, engine)
    assert [row["weights"] for row in rows] == 2 * ["sha256 1: For research. sha256 2: Not for diagnosis."]
