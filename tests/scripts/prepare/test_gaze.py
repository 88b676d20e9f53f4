import json

import pytest

from clinbundles.scripts.prepare.datalist import items_of
from clinbundles.scripts.prepare.gaze import add_gaze
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
