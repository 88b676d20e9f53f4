"""What of an evaluation's files goes to MLflow."""

import os

import pytest

from clinbundles.engines.tracking.artifacts import anonymous_table, overlays_in, reports_in


@pytest.fixture
def table(tmp_path):
    def write(text):
        (tmp_path / "per_image.csv").write_text(text)
        return tmp_path / "per_image.csv"

    return write


def test_a_table_goes_without_names_groups_sources_and_sentences(table):
    path = table(
        "image,label,prediction,probability_covid19,failure,source,patient,weights,val_loss\n"
        "DOE_JOHN.png,normal,covid19,0.75,,St Mary,7,by Doe,0.5\n"
        "DOE_JANE.png,,,,DOE_JANE.png is torn,St Mary,8,by Doe,\n"
    )
    assert anonymous_table(path) == (
        "number,label,prediction,probability_covid19,val_loss\n0,normal,covid19,0.75,0.5\n1,,,,\n"
    )


def test_a_label_that_is_no_class_stays_here_and_a_table_of_names_alone_is_nothing(table):
    assert (
        anonymous_table(table("image,label,val_mean_dice\na.png,DOE_mask.png,0.5\n")) == "number,val_mean_dice\n0,0.5\n"
    )
    assert (
        anonymous_table(table("image,share_lung,both_0,patient\na.png,0.25,7,1\n"))
        == "number,share_lung,both_0\n0,0.25,7\n"
    )
    assert anonymous_table(table("image,patient\na.png,3\n")) == ""
    assert anonymous_table(table("")) == ""


def test_reports_of_this_run_are_given_and_masks_and_older_files_are_not(tmp_path, table):
    table("image,val_mean_dice\nDOE.png,0.5\n")
    for name in (
        "confusion.png",
        "metrics.json",
        "summary.json",
        "DOE_JOHN.png",
        "detections.json",
        "predictions.json",
    ):
        (tmp_path / name).write_text("{}")
    os.utime(tmp_path / "summary.json", (1, 1))
    names = [artifact.name for artifact in reports_in(tmp_path, since=1000)]
    assert names == ["report/metrics.json", "report/confusion.png", "report/per_image.csv"]


def test_overlays_are_numbered_in_the_order_of_their_names(tmp_path):
    (tmp_path / "overlays").mkdir()
    for name in ("b.png", "a.png"):
        (tmp_path / "overlays" / name).write_bytes(b"")
    (tmp_path / "c.png").write_bytes(b"")
    found = [(artifact.name, artifact.file.name) for artifact in overlays_in(tmp_path, since=1000)]
    assert found == [("overlays/0000.png", "a.png"), ("overlays/0001.png", "b.png")]
