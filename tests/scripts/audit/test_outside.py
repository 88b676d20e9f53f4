from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clinbundles.scripts.audit.outside import keep_images, outside_lines, parse_sets, say_outside, summarise

TABLE = """image,prediction,probability_normal,probability_covid19,failure,warning
a.png,covid19,0.1,0.9,,
b.png,covid19,0.3,0.7,,
c.png,normal,0.8,0.2,,
secret.dcm,,,,"secret.dcm: its modality is CT, no X-ray.",
d.dcm,,,,"d.dcm: its modality is CT, no X-ray.",
"""
NAMES = ["normal", "covid19"]
SEEN: dict[str, Any] = {"known": True, "audited": {"outside web": {"trained_on": 2}}}


@pytest.fixture
def found(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "per_image.csv").write_text(TABLE)
    return summarise(tmp_path / "per_image.csv", NAMES) | {"temperature": 1.5}


def test_the_images_of_a_set_are_counted_by_what_they_are_called(found: dict[str, Any]) -> None:
    assert (found["in"], found["used"], found["left_out"]) == (5, 3, 2)
    assert found["mean_confidence"] == pytest.approx(0.8)
    covid, normal = found["classes"]["covid19"], found["classes"]["normal"]
    assert (covid["called"], normal["called"]) == (2, 1)
    assert (covid["mean_confidence"], normal["mean_confidence"]) == (0.8, 0.8)
    assert covid["share"] == {"value": 0.6667, "low": 0.2077, "high": 0.9385}


def test_why_images_are_left_out_is_counted_without_their_names(found: dict[str, Any]) -> None:
    assert found["reasons"] == {"its modality is CT, no X-ray": 2}
    (sentence,) = say_outside({"web": found}, SEEN)
    assert sentence == (
        "web: 5 images in, 3 used, 2 left out (2 its modality is CT, no X-ray); called 1 normal, 2 covid19; mean "
        "confidence 0.800; 2 of them the weights were trained on."
    )
    text = "\n".join(outside_lines({"web": found}, SEEN))
    assert "secret" not in text
    assert "| web | covid19 | 2 | 0.667 [0.208, 0.939] | 0.800 |" in text
    assert "at a temperature of 1.5" in text


def test_a_set_of_which_nothing_could_be_read_has_no_share(tmp_path: Path) -> None:
    (tmp_path / "per_image.csv").write_text("".join(line + "\n" for line in TABLE.splitlines() if "0." not in line))
    found = summarise(tmp_path / "per_image.csv", NAMES) | {"temperature": 1.0}
    assert (found["used"], found["mean_confidence"]) == (0, None)
    assert found["classes"]["covid19"]["share"] == {"value": None, "low": None, "high": None}
    assert "| web | covid19 | 0 | none | none |" in outside_lines({"web": found}, {"known": False})


def test_sets_are_given_by_name_and_folder(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / "a.png")
    (tmp_path / "empty").mkdir()
    one, two = tmp_path / "one", tmp_path / "two"
    assert parse_sets(f"a={one},b={two}") == {"a": one, "b": two}
    assert parse_sets(None) == {}
    for outside, message in (
        (str(one), "is not NAME=FOLDER"),
        (f"../a={one}", "is not NAME=FOLDER"),
        (f"a={one},a={two}", "a is given twice"),
        ("a=absent", "--outside a=absent: no such folder"),
        (f"a={tmp_path / 'empty'}", "holds no image"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            parse_sets(outside)


def test_results_of_other_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "one" / "a.png")
    keep_images(tmp_path / "one", tmp_path / "out")
    keep_images(tmp_path / "one", tmp_path / "out")
    Image.new("L", (4, 4)).save(tmp_path / "one" / "b.png")
    with pytest.raises(ValueError, match="was made of other images than"):
        keep_images(tmp_path / "one", tmp_path / "out")
