"""The choice of the image to label next."""

import os
from pathlib import Path

import pytest

from clinbundles.scripts.label.choice import Measured, least_sure

FILES = {name: f"{name}.png" for name in "abcde"}
UNCERTAINTY = {"a.png": 0.1, "b.png": 0.5, "c.png": 0.9, "d.png": 0.3, "e.png": 0.2}


def test_the_least_sure_image_is_next() -> None:
    assert least_sure(FILES, {}, UNCERTAINTY.__getitem__) == ("c", 0.9)


def test_what_somebody_was_asked_about_comes_last_and_the_longest_ago_first() -> None:
    assert least_sure(FILES, {"c": 10.0}, UNCERTAINTY.__getitem__) == ("b", 0.5)
    asked = {name: 100.0 for name in FILES} | {"a": 1.0, "d": 2.0}
    assert least_sure(FILES, asked, UNCERTAINTY.__getitem__, most=2) == ("d", 0.3)


def test_few_are_looked_at_always_the_same_and_not_by_their_names() -> None:
    looked: list[str] = []

    def measure(file: str) -> float:
        looked.append(file)
        return UNCERTAINTY[file]

    files = {name: f"{name}.png" for name in "edcba"}
    assert least_sure(FILES, {}, measure, most=3) == least_sure(files, {}, measure, most=3)
    assert looked[:3] == looked[3:]
    assert looked[:3] != ["a.png", "b.png", "c.png"]


def test_what_cannot_be_read_is_passed_over() -> None:
    def measure(file: str) -> float:
        if file == "c.png":
            raise ValueError("c.png: is torn.")
        return UNCERTAINTY[file]

    assert least_sure(FILES, {}, measure) == ("b", 0.5)
    assert least_sure({"c": "c.png"}, {}, measure) is None
    assert least_sure({}, {}, measure) is None


def test_an_uncertainty_that_is_no_number_is_passed_over() -> None:
    for broken in FILES:
        values = UNCERTAINTY | {f"{broken}.png": float("nan")}
        assert least_sure(FILES, {}, values.__getitem__) == (("b", 0.5) if broken == "c" else ("c", 0.9))
    assert least_sure(FILES, {}, lambda _: float("nan")) is None


def test_an_image_is_measured_again_for_other_weights_alone(tmp_path: Path) -> None:
    image, weights = tmp_path / "image.png", tmp_path / "model.pt"
    image.touch()
    weights.touch()
    measured: list[str] = []

    def measure(file: str) -> float:
        measured.append(file)
        return float(len(measured))

    memory = Measured(measure, lambda: [weights])
    assert memory(str(image)) == memory(str(image)) == 1
    os.utime(weights, (1, 1))
    assert memory(str(image)) == pytest.approx(2)
