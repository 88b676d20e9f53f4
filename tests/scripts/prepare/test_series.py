from pathlib import Path

import pytest

from clinbundles.scripts.prepare.series import Series, number, splits_by_pattern


def series(*names: str) -> list[Series]:
    """Series of the patient whose name stands before the first underscore."""
    return [Series(name, name.partition("_")[0], lambda: iter(()), [Path(name)]) for name in names]


def test_patients_and_their_series_are_numbered_in_order_and_not_named() -> None:
    stems = number(series("zoe_2", "adam_1", "zoe_1"))
    assert {stem: one.name for stem, one in stems.items()} == {"p01_s1": "adam_1", "p02_s1": "zoe_1", "p02_s2": "zoe_2"}
    many = number(series(*(f"a{k:03d}_1" for k in range(120)), *(f"b_{k}" for k in range(11))))
    assert next(iter(many)) == "p001_s1"
    assert list(many)[-1] == "p121_s11"
    assert list(many)[-11] == "p121_s01"


def test_patterns_choose_the_series_of_a_split_and_the_rest_is_for_training() -> None:
    splits = splits_by_pattern(
        series("a_1", "a_2", "b_1", "c_1"), {"test": "a_*", "validation": "c_1, b_9*,b_1"} | {"validation": "c_1"}
    )
    assert splits == {"a_1": "test", "a_2": "test", "b_1": "training", "c_1": "validation"}
    assert splits_by_pattern(series("a_1"), {"test": None, "validation": None}) == {}


@pytest.mark.parametrize(
    ("test", "validation", "message"),
    [
        ("*_2", None, r"a_1 would be in training and a_2 in test, but they are of one patient"),
        ("x*", None, r"--test x\*: no series goes by this name"),
        ("b*", "b_1", r"--validation b_1: b_1 is in test too"),
        (None, "a_1", r"a_1 would be in validation and a_2 in training"),
    ],
)
def test_patterns_that_divide_a_patient_or_fit_nothing_are_refused(
    test: str | None, validation: str | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        splits_by_pattern(series("a_1", "a_2", "b_1"), {"test": test, "validation": validation})
