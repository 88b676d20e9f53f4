"""Tests of inference on many studies: each once, whatever is killed in between."""

import csv
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clinbundles.scripts.pack.run import pack
from clinbundles.scripts.predict.run import do_part, predict
from clinbundles.scripts.predict.studies import FAILED, Status, Study, read_status, write_status

BUNDLE = Path(__file__).parents[3] / "bundles" / "gaze_polyp_segmentation"
COMMAND = [sys.executable, "-m", "clinbundles.scripts.cli", "predict", "gaze_polyp_segmentation"]


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Four studies: a frame, a folder of two, another frame, and a file that is none."""
    frames = sorted((BUNDLE / "samples").rglob("*.jpg"))[:4]
    folder = tmp_path / "in"
    (folder / "two").mkdir(parents=True)
    for name, frame in zip(("a.jpg", "two/b.jpg", "two/c.jpg", "d.jpg"), frames, strict=True):
        shutil.copy(frame, folder / name)
    (folder / "broken.jpg").write_bytes(b"none")
    return folder


def table(out: Path) -> dict[str, dict[str, str]]:
    return {row["study"]: row for row in csv.DictReader((out / "status.csv").read_text().splitlines())}


def test_each_study_is_done_once_and_one_that_cannot_be_read_is_refused(
    studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    predict(str(BUNDLE), str(studies), str(out))
    assert "4 studies in: 3 done, 1 refused" in capsys.readouterr().out
    rows = table(out)
    assert {name: (row["status"], row["images"]) for name, row in rows.items()} == {
        "a": ("done", "1"),
        "broken": ("refused", "0"),
        "d": ("done", "1"),
        "two": ("done", "2"),
    }
    assert "broken.jpg" in rows["broken"]["sentence"]
    assert str(tmp_path) not in rows["broken"]["sentence"]
    masks = {name: sorted(path.name for path in (out / "studies" / name / "masks").iterdir()) for name in ("a", "two")}
    assert masks == {"a": ["a.png"], "two": ["b.png", "c.png"]}
    assert not list((out / "work").iterdir())
    before = {path: path.stat().st_mtime_ns for path in (out / "studies").rglob("*")}
    predict(str(BUNDLE), str(studies), str(out))
    assert {path: path.stat().st_mtime_ns for path in (out / "studies").rglob("*")} == before
    shutil.copy(studies / "a.jpg", studies / "broken.jpg")
    predict(str(BUNDLE), str(studies), str(out), retry_refused=True, shards=3)
    assert table(out)["broken"]["status"] == "done"


def test_a_study_that_fails_costs_the_others_nothing_and_is_tried_again(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, calls = tmp_path / "out", []

    def full(bundle: Path, names: list[str], *, dataset_dir: str, output_dir: str, **options: object) -> None:
        calls.append(Path(dataset_dir))
        # One that could not be read had its row by then: it was not the whole study.
        (Path(output_dir) / "per_image.csv").write_text("image,failure\nx.png,cannot be read.\n")
        raise OSError(28, "No space left on device", str(tmp_path / "out" / "x.png"))

    monkeypatch.setattr("clinbundles.scripts.predict.run.run_configs", full)
    with pytest.raises(SystemExit, match=r"status\.csv says why; the same command tries the failed ones again"):
        predict(str(BUNDLE), str(studies), str(out))
    assert len(calls) == 4
    assert {row["status"] for row in table(out).values()} == {"failed"}
    assert "No space left on device" in table(out)["a"]["sentence"]
    assert not list((out / "studies").iterdir())
    monkeypatch.undo()
    predict(str(BUNDLE), str(studies), str(out))
    assert [table(out)[name]["status"] for name in ("a", "broken", "d", "two")] == ["done", "refused", "done", "done"]


def test_nothing_is_lost_or_done_twice_when_one_of_two_processes_is_killed(studies: Path, tmp_path: Path) -> None:
    for number in range(6):
        shutil.copy(studies / "a.jpg", studies / f"e{number}.jpg")
    out = tmp_path / "out"
    command = [*COMMAND, str(studies), str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        deadline = time.monotonic() + 100
        while not list((out / "status").glob("*.json")) and time.monotonic() < deadline:
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
        first.wait()
    before = {path: path.stat().st_mtime_ns for path in (out / "studies").rglob("*")}
    assert before
    others = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in "12"]
    texts = [process.communicate()[0] for process in others]
    for text in texts:  # whoever ends first waits for what the other has
        assert "10 studies in: 9 done, 1 refused" in text
    for name in ("a", "d", "two", *(f"e{number}" for number in range(6))):
        assert read_status(out / "status", name).status == "done"
        assert (out / "studies" / name / "per_image.csv").is_file()
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_fails_in_one_process_is_not_tried_by_another_of_the_same_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, studies, tried = tmp_path / "status", [Study(name, tmp_path / name) for name in "abc"], []

    def fail(bundle: Path, config: str, study: Study, *_: object) -> Status:
        tried.append(study.name)
        if study.name == "a":  # meanwhile the other process tries c, which it had tried an hour before, too
            write_status(status, Status("c", FAILED))
        return Status(study.name, FAILED)

    monkeypatch.setattr("clinbundles.scripts.predict.run.do_study", fail)
    for name in "bc":
        write_status(status, Status(name, FAILED))
    do_part(BUNDLE, "inference", studies, tmp_path, {}, retry_refused=True)
    assert tried == ["a", "b"]


def test_without_a_table_images_are_not_counted_and_without_a_file_nothing_is_done(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pure(bundle: Path, names: list[str], *, dataset_dir: str, output_dir: str, **options: object) -> None:
        (Path(output_dir) / "masks").mkdir()
        if dataset_dir.endswith("two"):
            (Path(output_dir) / "masks" / "b.png").touch()

    monkeypatch.setattr("clinbundles.scripts.predict.run.run_configs", pure)
    with pytest.raises(SystemExit):
        predict(str(BUNDLE), str(studies), str(tmp_path / "out"))
    rows = table(tmp_path / "out")
    assert [rows["two"][name] for name in ("status", "images", "left_out")] == ["done", "", ""]
    assert rows["a"]["status"] == "failed"
    assert rows["a"]["sentence"] == "a: inference has written nothing to its output_dir."


def test_an_answer_is_given_for_no_other_bytes_bundle_or_option(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(bundle: Path, names: list[str], *, dataset_dir: str, output_dir: str, **options: object) -> None:
        if dataset_dir.endswith("two"):
            raise OSError(5, "Input/output error")
        (Path(output_dir) / "per_image.csv").write_text("image\na.jpg\n")

    monkeypatch.setattr("clinbundles.scripts.predict.run.run_configs", fake)
    out = tmp_path / "out"
    with pytest.raises(SystemExit):
        predict(str(BUNDLE), str(studies), str(out))
    shutil.copy(studies / "a.jpg", studies / "two" / "b.jpg")  # that failed: its status is of nothing that is given
    with pytest.raises(
        ValueError, match=r"settings\.json: the studies there are of another --batch_size \(its default"
    ):
        predict(str(BUNDLE), str(studies), str(out), batch_size=1)
    with pytest.raises(SystemExit):
        predict(str(BUNDLE), str(studies), str(out))
    shutil.copy(studies / "d.jpg", studies / "a.jpg")
    before = (out / "status.csv").read_bytes()
    with pytest.raises(
        ValueError, match=r"studies/a: is of another file or folder than .*a\.jpg: choose another output"
    ):
        predict(str(BUNDLE), str(studies), str(out))
    assert (out / "status.csv").read_bytes() == before


def test_a_zip_is_applied_by_its_own_code(studies: Path, tmp_path: Path) -> None:
    pack("gaze_polyp_segmentation", out=str(tmp_path / "dist"))
    (zipped,) = (tmp_path / "dist").glob("*.zip")
    for name in ("two", "broken.jpg", "d.jpg"):
        shutil.rmtree(studies / name) if (studies / name).is_dir() else (studies / name).unlink()
    done = subprocess.run(
        [*COMMAND[:-1], str(zipped), str(studies), str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert "1 studies in: 1 done" in done.stdout, done.stderr
    assert (tmp_path / "out" / "studies" / "a" / "masks" / "a.png").is_file()
    zipped.write_bytes(zipped.read_bytes()[:1000])
    with pytest.raises(ValueError, match="is no whole zip"):
        predict(str(zipped), str(studies), str(tmp_path / "out2"))
    assert not list((tmp_path / "out2" / "bundle").iterdir())


def test_mistakes_are_named_before_anything_runs(studies: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ({"shards": 0}, "shards is 0, expected 1 or more"),
        ({"output": str(tmp_path / "no" / "out")}, "expected a folder, or a new one in a folder that exists"),
        ({"image_sizes": 3}, r"--image_sizes is no value of inference\.json"),
    ):
        with pytest.raises(ValueError, match=message):
            predict(**{"bundle": str(BUNDLE), "inputs": str(studies), "output": str(tmp_path / "out"), **arguments})
    assert not (tmp_path / "out").exists()
