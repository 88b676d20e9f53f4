import json
from pathlib import Path

import pytest

from clinbundles.scripts.prepare.datalist import items_of
from clinbundles.scripts.prepare.gaze import add_gaze
from clinbundles.scripts.prepare.recordings import Recording, gaze_facts, gaze_files
from clinbundles.scripts.simulate_gaze import simulate_gaze


@pytest.fixture
def gaze(tmp_path, write_gaze):
    """Glob of the recordings of two observers."""
    write_gaze(tmp_path / "gaze_1.csv", [("i0.jpg", 0.25, 0.5, 200), ("i0.jpg", 0.75, 0.5, 100)])
    write_gaze(tmp_path / "gaze_2.csv", [("i0.jpg", 0.1, 0.2, 300), ("i1.jpg", 0.3, 0.4, 400)])
    return str(tmp_path / "gaze_*.csv")


def test_the_table_of_simulated_gaze_is_not_taken_for_recorded(plain, run, tmp_path):
    datalist, table = tmp_path / "datalist.json", tmp_path / "gaze.csv"
    run(plain)
    simulate_gaze(str(datalist), dataset_dir=str(plain), csv=str(table))
    with pytest.raises(ValueError, match=r"gaze\.csv: simulated gaze \(column GAZE_SOURCE\), not recorded"):
        add_gaze(str(datalist), str(table))
    table.write_text(table.read_text().replace(",", ";"), encoding="utf-16")  # as a spreadsheet may save it
    with pytest.raises(ValueError, match=r"gaze\.csv: simulated gaze \(column GAZE_SOURCE\), not recorded"):
        add_gaze(str(datalist), str(table))


def test_gaze_added_later_gives_the_datalist_that_prepare_gives_with_gaze(plain, run, gaze, tmp_path):
    datalist = tmp_path / "datalist.json"
    run(plain, gaze=gaze)
    at_once = datalist.read_bytes()
    run(plain)
    before = datalist.read_bytes()
    add_gaze(str(datalist), gaze, output=str(tmp_path / "later.json"))
    assert (tmp_path / "later.json").read_bytes() == at_once
    assert datalist.read_bytes() == before
    add_gaze(str(datalist), gaze)
    assert datalist.read_bytes() == at_once


def test_recorded_gaze_is_replaced_only_where_that_is_asked_for(plain, run, gaze, tmp_path, write_gaze):
    datalist = tmp_path / "datalist.json"
    run(plain, gaze=gaze)
    before = datalist.read_bytes()
    other = str(write_gaze(tmp_path / "other.csv", [("i5.jpg", 0.5, 0.5, 200)]))
    with pytest.raises(ValueError, match=r"2 items carry recorded gaze, the first is images/i\d\.jpg: --replace"):
        add_gaze(str(datalist), other)
    assert datalist.read_bytes() == before
    add_gaze(str(datalist), other, replace=True)
    content = json.loads(datalist.read_text())
    assert [item["image"] for item in items_of(content) if "fixations" in item] == ["images/i5.jpg"]
    assert list(content["gaze"]["files"]) == ["other.csv"]


@pytest.fixture
def add(plain, run, tmp_path, capsys):
    """Add fixations in pixels, read by flags, to one datalist; gives what is printed, and what it says of the gaze."""
    run(plain)
    table = tmp_path / "own.csv"
    table.write_text("Who,X,Y,D,I\nann,30,15,200,i0\n")
    common = {"gaze_columns": "x=X,y=Y,duration=D,image=I", "replace": True}

    def add(**flags):
        capsys.readouterr()
        add_gaze(str(tmp_path / "datalist.json"), str(table), **{**common, **flags})
        return capsys.readouterr().out, json.loads((tmp_path / "datalist.json").read_text())["gaze"]

    return add


def test_how_gaze_was_read_stands_in_the_datalist_and_other_settings_are_said(add, tmp_path):
    out, facts = add(image_rect_px=[0, 0, 40, 30])
    columns = {"x": "X", "y": "Y", "duration": "D", "image": "I"}
    assert facts["reading"] == {"gaze_format": "csv", "columns": columns, "image_rect_px": [0, 0, 40, 30]}
    assert "before" not in out
    assert "before" not in add(image_rect_px=[0, 0, 40, 30])[0]
    out, facts = add(image_rect_px=[10, 5, 40, 30], time_unit="ms")
    assert "image_rect_px [10, 5, 40, 30] (before: [0, 0, 40, 30])" in out
    assert "time_unit ms (before: not given)" in out
    assert "columns" not in out
    content = json.loads((tmp_path / "datalist.json").read_text())
    content["gaze"].pop("reading")  # as in a datalist of earlier versions
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    assert "how the recorded gaze before was read is not in the datalist" in add(image_rect_px=[0, 0, 40, 30])[0]


def test_a_participant_is_told_apart_but_not_named(gaze):
    recordings = [Recording(Path(__file__), {}, {}, "tobii_export")]

    def facts(name):
        return gaze_facts(gaze_files(gaze, participant=name), recordings)

    assert len(facts("Ann Lee,Bo")["reading"]["participant_sha256"]) == 2
    assert facts("Ann Lee") != facts("Bo")
    assert "Ann" not in json.dumps(facts("Ann Lee"))


def test_simulated_gaze_does_not_stay_beside_recorded_gaze(plain, run, gaze, tmp_path, capsys):
    datalist = tmp_path / "datalist.json"
    run(plain, gaze=gaze)
    expected = datalist.read_bytes()
    content = run(plain)
    for item in items_of(content):
        item |= {"fixations": [[[0.5, 0.5, 100.0]]], "gaze_source": "simulated:expert:seed=0"}
    datalist.write_text(json.dumps({**content, "oracle": True, "gaze": {"source": "simulated"}}))
    add_gaze(str(datalist), gaze)
    assert datalist.read_bytes() == expected
    assert "simulated gaze of 10 images dropped" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"list\.json does not exist"),
        ("{", "is not JSON"),
        ("[]", "has no items under 'training', 'validation', 'test'"),
        ('{"test": []}', "has no items under"),
        ('{"test": [{"label": 1}]}', "item 0 of 'test' has no 'image'"),
    ],
)
def test_a_datalist_that_is_none_is_named(tmp_path, gaze, text, message):
    path = tmp_path / "list.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        add_gaze(str(path), gaze)


def test_an_output_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match=r"--output .*: expected a file in a folder that exists"):
        add_gaze("nowhere.json", "none.csv", output=str(tmp_path / "no" / "list.json"))
