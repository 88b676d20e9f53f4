"""Studies whose bytes change, or vanish, after they were done: their results are of what they were."""

import csv
import shutil
from pathlib import Path

import pytest

from clinbundles.scripts.predict.run import predict

BUNDLE = Path(__file__).parents[3] / "bundles" / "gaze_polyp_segmentation"


@pytest.fixture
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three studies, and runs that copy them."""

    def run(bundle: Path, names: list[str], *, dataset_dir: str, output_dir: str, **options: object) -> None:
        images = sorted(Path(dataset_dir).iterdir())
        for image in images:
            (Path(output_dir) / image.name).write_bytes(image.read_bytes())
        (Path(output_dir) / "per_image.csv").write_text("".join(f"{name}\n" for name in ["image", *images]))

    monkeypatch.setattr("clinbundles.scripts.predict.run.run_configs", run)
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.png").write_text(name)
    return folder


def rows_of(out: Path) -> dict[str, dict[str, str]]:
    return {row["study"]: row for row in csv.DictReader((out / "status.csv").read_text().splitlines())}


def test_a_study_that_has_changed_is_told_and_the_others_go_on(
    studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    predict(str(BUNDLE), str(studies), str(out))
    (studies / "a.png").write_text("A")
    (studies / "new.png").write_text("new")
    for _ in "12":
        with pytest.raises(SystemExit, match="1 keep results of what they were before"):
            predict(str(BUNDLE), str(studies), str(out))
        assert "4 studies in: 1 changed, 3 done; " in capsys.readouterr().out
        row = rows_of(out)["a"]
        assert row["status"] == "changed"
        assert row["sentence"] == (
            "Changed since it was done: its results are of the earlier content; choose another output, or remove its "
            "folder in studies to have it done again."
        )
        assert (out / "studies" / "a" / "a.png").read_text() == "a"
    (studies / "a.png").write_text("a")  # as it was
    predict(str(BUNDLE), str(studies), str(out))
    assert (rows_of(out)["a"]["status"], rows_of(out)["a"]["sentence"]) == ("done", "")
    (studies / "a.png").write_text("A")
    with pytest.raises(SystemExit):
        predict(str(BUNDLE), str(studies), str(out))
    shutil.rmtree(out / "studies" / "a")
    predict(str(BUNDLE), str(studies), str(out))
    assert (rows_of(out)["a"]["status"], rows_of(out)["a"]["sentence"]) == ("done", "")
    assert (out / "studies" / "a" / "a.png").read_text() == "A"


def test_a_study_that_is_gone_keeps_its_results_its_name_and_costs_the_others_nothing(
    studies: Path, tmp_path: Path
) -> None:
    out, paths = tmp_path / "out", tmp_path / "list.txt"
    paths.write_text("in/a.png\nin/b.png\n")
    predict(str(BUNDLE), str(paths), str(out))
    (tmp_path / "moved").mkdir()
    (studies / "a.png").rename(tmp_path / "moved" / "a.png")
    paths.write_text("in/a.png\nin/b.png\nin/c.png\n")
    with pytest.raises(SystemExit):
        predict(str(BUNDLE), str(paths), str(out))
    rows = rows_of(out)
    assert [rows[name]["status"] for name in "abc"] == ["changed", "done", "done"]
    assert rows["a"]["sentence"].startswith("Cannot be read since it was done: its results are of what was there then;")
    assert (out / "studies" / "a" / "a.png").read_text() == "a"
    predict(str(BUNDLE), str(tmp_path / "moved"), str(out))
    assert (rows_of(out)["a"]["status"], rows_of(out)["a"]["path"]) == ("done", str(tmp_path / "moved" / "a.png"))
