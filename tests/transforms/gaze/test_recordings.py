from pathlib import Path

import numpy as np
import pytest

from clinbundles.transforms.gaze.recordings import RecordingSetup, read_time_ms, read_validity
from clinbundles.transforms.gaze.tables import open_table


def column(tmp_path, name, values):
    path = tmp_path / "gaze.tsv"
    path.write_text("\n".join([f"{name}\tother", *(f"{value}\t0" for value in values)]), encoding="utf-8")
    table = open_table(path)
    table.load(table.stems)
    return table, table.columns[0]


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("Recording timestamp", 8.333),
        ("Recording timestamp", 8333),
        ("Recording timestamp", 0.008333),
        ("Recording timestamp [ms]", 8.333),
        ("Recording timestamp [\u03bcs]", 8333),
    ],
)
def test_times_are_milliseconds_whatever_their_unit(tmp_path, name, step):
    table, stamps = column(tmp_path, name, 7 * step + step * np.arange(5))
    np.testing.assert_allclose(np.diff(read_time_ms(table, stamps)), 8.333)


def test_microseconds_that_are_called_milliseconds_are_refused(tmp_path):
    table, stamps = column(tmp_path, "Recording timestamp [ms]", [0, 8333, 16667])
    with pytest.raises(ValueError, match=r"gaze.tsv: column 'Recording timestamp \[ms\]' steps by 8333"):
        read_time_ms(table, stamps)


def test_a_sample_without_a_time_is_refused(tmp_path):
    table, stamps = column(tmp_path, "time", [0, "", 20])
    with pytest.raises(ValueError, match="column 'time' has an empty field"):
        read_time_ms(table, stamps)


@pytest.mark.parametrize(
    ("codes", "values", "valid"),
    [
        (True, [0, 1, 2, 3, 4, ""], [1, 1, 0, 0, 0, 0]),
        (True, ["Valid", "Invalid"], [1, 0]),
        (False, [1, 0, "True", "False", "1.0"], [1, 0, 1, 0, 1]),
    ],
)
def test_codes_and_flags_of_validity_mean_the_opposite(tmp_path, codes, values, valid):
    table, flags = column(tmp_path, "validity", values)
    np.testing.assert_array_equal(read_validity(table, flags, codes=codes), np.array(valid, bool))


def test_an_unknown_validity_is_named(tmp_path):
    table, flags = column(tmp_path, "validity", [0, 7])
    with pytest.raises(ValueError, match="column 'validity' has '7'"):
        read_validity(table, flags, codes=True)


def test_a_gap_in_the_measured_distance_is_filled_and_the_callers_distance_goes_before_it():
    measured = np.array([600.0, np.nan, 620.0, 0.0])
    np.testing.assert_array_equal(RecordingSetup(path=Path("a")).distances_mm(measured), [600, 610, 620, 610])
    np.testing.assert_array_equal(RecordingSetup(path=Path("a"), viewing_distance_mm=500).distances_mm(measured), 500)


@pytest.mark.parametrize(
    "wrong",
    [
        {"screen_size_px": (1920,)},
        {"screen_size_mm": (0, 300)},
        {"viewing_distance_mm": -600},
        {"image_rect_px": (0, 0, 100)},
        {"image_rect_px": (0, 0, 100, 0)},
    ],
)
def test_a_senseless_setup_is_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RecordingSetup(path=Path("a"), **wrong)
