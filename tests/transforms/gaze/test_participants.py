import numpy as np
import pytest

from clinbundles.transforms.gaze.participants import PARTICIPANT_STEMS, choose_participant
from clinbundles.transforms.gaze.readers import read_fixations
from clinbundles.transforms.gaze.tables import open_table

HEADER = "IMAGE\tCURRENT_FIX_X\tCURRENT_FIX_Y\tCURRENT_FIX_DURATION"


def table_of(path, title, *names):
    rows = [f"a.png\t0.5\t0.{k}\t200\t{name}" for k, name in enumerate(names, 1)]
    path.write_text("\n".join([f"{HEADER}\t{title}", *rows]))
    table = open_table(path)
    table.load(PARTICIPANT_STEMS)
    return table


@pytest.mark.parametrize("title", ["RECORDING_SESSION_LABEL", "Participant name", "Recording name", "Subject ID"])
def test_the_column_of_participants_is_known_by_the_names_that_trackers_give(tmp_path, title):
    table = table_of(tmp_path / "g.txt", title, "Ann", "", "Bo", "Bo")
    with pytest.raises(ValueError, match=r"g\.txt: column .* has 2 different values") as refusal:
        choose_participant(table, None)
    assert title in str(refusal.value)
    assert "Ann" not in str(refusal.value)
    choose_participant(table, "Bo")
    assert len(table.rows) == 2
    choose_participant(table, None)


def test_a_participant_that_is_not_there_is_refused(tmp_path):
    table = table_of(tmp_path / "g.txt", "observer", "Ann", "Ann")
    with pytest.raises(ValueError, match=r"no column 'observer' has the --participant Cleo"):
        choose_participant(table, "Cleo")
    with pytest.raises(ValueError, match="no column of participants has the --participant Ann"):
        choose_participant(table, "Ann", [])


def test_rows_without_a_name_are_not_taken_for_the_only_one_that_is_named(tmp_path):
    table = table_of(tmp_path / "g.txt", "Participant name", "Ann", "", "Ann")
    with pytest.raises(ValueError, match=r"g\.txt: column 'Participant name' is empty in 1 of 3 rows") as refusal:
        choose_participant(table, None)
    assert "Ann" not in str(refusal.value)
    choose_participant(table, "Ann")
    assert len(table.rows) == 2
    table = table_of(tmp_path / "none.txt", "Participant name", "", "")
    choose_participant(table, None)
    assert len(table.rows) == 2


def test_a_row_that_another_column_names_is_of_the_same_recording(tmp_path):
    table = table_of(tmp_path / "g.txt", "Participant name\tRecording name", "Ann\tR", "\tR")
    choose_participant(table, None)
    assert len(table.rows) == 2


def test_of_an_eyelink_report_of_several_sessions_one_is_read(tmp_path):
    table_of(tmp_path / "g.txt", "RECORDING_SESSION_LABEL", "s1", "s2", "s2")
    with pytest.raises(ValueError, match="choose by --participant NAME"):
        read_fixations(tmp_path / "g.txt")
    fixations = read_fixations(tmp_path / "g.txt", participant="s2")
    np.testing.assert_allclose(fixations["a.png"], [[0.5, 0.2, 200], [0.5, 0.3, 200]])
