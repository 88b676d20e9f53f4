"""Tests of inference on many studies: each once, whatever is killed in between."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from clinbundles.scripts.pack.run import pack
from clinbundles.scripts.predict.hashes import source_of
from clinbundles.scripts.predict.run import _unzipped as unzip_for_predict
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


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let runs write a mask an image of their folder, and count as tables do; gives their folders."""
    ran: list[str] = []

    def run(bundle: Path, names: list[str], *, dataset_dir: str, output_dir: str, **options: object) -> None:
        ran.append(dataset_dir)
        images = [path for path in sorted(Path(dataset_dir).iterdir()) if path.is_file()]
        (Path(output_dir) / "masks").mkdir()
        for image in images:
            (Path(output_dir) / "masks" / f"{image.stem}.png").write_bytes(image.read_bytes())
        rows = "".join(f'"{image.name}"\n' for image in images)
        (Path(output_dir) / "per_image.csv").write_text(f"image\n{rows}", errors="backslashreplace")

    monkeypatch.setattr("clinbundles.scripts.predict.run.run_configs", run)
    return ran


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
        while not list((out / "studies").glob("[!.]*")) and time.monotonic() < deadline:
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
    status, studies, tried = tmp_path / "status", [Study(name, tmp_path / f"{name}.png") for name in "abc"], []
    for study in studies:
        study.path.touch()

    def fail(bundle: Path, config: str, study: Study, *_: object) -> Status:
        tried.append(study.name)
        if study.name == "a":  # meanwhile the other process tries c, which it had tried an hour before, too
            write_status(status, Status("c", FAILED, source_sha256=source_of(study)))
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


def test_an_answer_is_given_for_no_other_bundle_or_option(
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
    assert not (tmp_path / "out2").exists()


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("[]", r"a\.zip/mine/configs/metadata\.json: is no JSON object"),
        ("{}", r"--image_sizes is no value of inference"),
    ],
)
def test_a_zip_that_is_refused_leaves_nothing(studies: Path, tmp_path: Path, metadata: str, message: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("mine/configs/inference.json", "{}")
        archive.writestr("mine/configs/metadata.json", metadata)
    options = {} if metadata == "[]" else {"image_sizes": 3}
    with pytest.raises(ValueError, match=message):
        predict(str(tmp_path / "a.zip"), str(studies), str(tmp_path / "out"), **options)
    assert not (tmp_path / "out").exists()


def test_of_two_processes_that_unzip_a_bundle_the_later_takes_that_of_the_other(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("mine/configs/inference.json", "{}")
    (tmp_path / "out").mkdir()
    others: list[Path] = []

    def check(bundle: Path) -> None:
        if not others:
            others.append(unzip_for_predict(tmp_path / "a.zip", tmp_path / "out", others.append))

    assert unzip_for_predict(tmp_path / "a.zip", tmp_path / "out", check) == others[-1]
    assert [path.name for path in (tmp_path / "out" / "bundle").iterdir()] == [others[-1].parent.name]


def test_mistakes_are_named_before_anything_runs(studies: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ({"shards": 0}, "shards is 0, expected 1 or more"),
        ({"output": str(tmp_path / "no" / "out")}, "expected a folder, or a new one in a folder that exists"),
        ({"image_sizes": 3}, r"--image_sizes is no value of inference\.json"),
        ({"image_size": "$print(1)"}, r"--image_size: '\$print\(1\)' would run code; .* --allow_expressions"),
        ({"dataset_dir": "x"}, "--dataset_dir is set for each study by predict itself: name INPUTS"),
        ({"output_dir": "x"}, "--output_dir is set for each study by predict itself: name OUTPUT"),
        ({"bundle_root": "x"}, "--bundle_root is set for each study by predict itself: name BUNDLE"),
        ({"output": str(tmp_path / "a::b")}, "a::b: MONAI takes :: for a # of its own: choose another output"),
        ({"output": str(studies)}, "in: is, or lies in, .*in, of which it would be made: choose another output"),
        ({"output": str(studies / "two" / "out")}, "out: is, or lies in, .*in, of which it would be made"),
        ({"inputs": str(studies / "a.jpg"), "output": str(studies)}, r"in/a\.jpg: lies in the output .*in: choose"),
    ):
        with pytest.raises(ValueError, match=message):
            predict(**{"bundle": str(BUNDLE), "inputs": str(studies), "output": str(tmp_path / "out"), **arguments})
    assert not (tmp_path / "out").exists()


def test_a_list_that_names_the_output_or_what_holds_it_removes_nothing(
    studies: Path, tmp_path: Path, fake: list[str]
) -> None:
    out = tmp_path / "out"
    predict(str(BUNDLE), str(studies), str(out))
    (out / "mine.txt").write_text("a user's own file")
    before = sorted(out.rglob("*"))
    for line in ("in/..", "in/two/..", ".", "..", "/", "//", "in/..", "in/.hidden"):
        (tmp_path / "list.txt").write_text(f"in/a.jpg\n{line}\n")
        with pytest.raises(ValueError, match=r"list\.txt, line 2: .* is no study: "):
            predict(str(BUNDLE), str(tmp_path / "list.txt"), str(out))
    assert sorted(out.rglob("*")) == before


def test_an_answer_that_is_no_more_there_is_made_again_and_that_is_said(
    studies: Path, tmp_path: Path, fake: list[str], capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    predict(str(BUNDLE), str(studies), str(out))
    shutil.rmtree(out / "studies" / "a")
    (out / "studies" / "two" / "per_image.csv").write_text("")
    (out / "studies" / "d" / "note.txt").write_text("a reader's own")
    fake.clear()
    capsys.readouterr()
    predict(str(BUNDLE), str(studies), str(out))
    text = capsys.readouterr().out
    assert [f"studies/{name}: has no more the files that were written there: made again." in text for name in "ad"] == [
        True,
        False,
    ]
    assert len(fake) == 2
    assert (out / "studies" / "a" / "masks" / "a.png").is_file()
    assert (out / "studies" / "two" / "per_image.csv").read_text()
    assert (out / "studies" / "d" / "note.txt").is_file()


def test_studies_of_other_inputs_keep_their_names_and_their_lines(
    studies: Path, tmp_path: Path, fake: list[str], capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    predict(str(BUNDLE), str(studies / "a.jpg"), str(out))
    (tmp_path / "more").mkdir()
    shutil.copy(studies / "d.jpg", tmp_path / "more" / "a.jpg")
    predict(str(BUNDLE), f"{studies / 'a.jpg'},{tmp_path / 'more'}", str(out))
    predict(str(BUNDLE), str(tmp_path / "more"), str(out))
    assert "1 studies in: 1 done (1 more are of other inputs)" in capsys.readouterr().out
    assert {name: row["path"] for name, row in table(out).items()} == {
        "a": str(studies / "a.jpg"),
        "more_a": str(tmp_path / "more" / "a.jpg"),
    }
    assert len(fake) == 2
    (out / "status.csv").unlink()
    shutil.copy(studies / "a.jpg", studies / "new.jpg")
    predict(str(BUNDLE), str(studies), str(out))
    assert len(fake) == 2 + 4
    assert sorted(table(out)) == ["a", "broken", "d", "more_a", "new", "two"]


def test_images_below_the_folder_of_a_study_are_read_or_counted_as_left_out(
    studies: Path, tmp_path: Path, fake: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (studies / "two" / "sub").mkdir()
    shutil.copy(studies / "a.jpg", studies / "two" / "sub" / "e.jpg")
    predict(str(BUNDLE), str(studies), str(tmp_path / "out"))
    row = table(tmp_path / "out")["two"]
    assert (row["status"], row["images"], row["left_out"]) == ("done", "2", "1")
    assert row["sentence"] == "1 images in folders below were left out, such as sub/e.jpg: make each a study."

    def all_below(bundle: Path, names: list[str], *, dataset_dir: str, output_dir: str, **_: object) -> None:
        rows = "".join(f"{path.name}\n" for path in Path(dataset_dir).rglob("*.jpg"))
        (Path(output_dir) / "per_image.csv").write_text(f"image\n{rows}")

    monkeypatch.setattr("clinbundles.scripts.predict.run.run_configs", all_below)
    predict(str(BUNDLE), str(studies), str(tmp_path / "out2"))
    row = table(tmp_path / "out2")["two"]
    assert (row["images"], row["left_out"], row["sentence"]) == ("3", "0", "")


def test_places_that_a_config_is_told_are_absolute_and_hold_no_name_that_it_would_take_for_code(
    tmp_path: Path, fake: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "$in").mkdir()
    for name in ("$print(1)", "fo::ld"):
        (tmp_path / "$in" / name).mkdir()
        (tmp_path / "$in" / name / "a.png").write_text("1")
    for path in (b"$in/a::b.png", b"$in/bad\xff.png"):
        Path(os.fsdecode(path)).write_text("1")
    predict(str(BUNDLE), "$in", "$out")
    assert len(fake) == 4
    assert all(place.startswith(str(tmp_path)) and "::" not in place for place in fake)
    assert sorted(table(tmp_path / "$out")) == ["$print(1)", "a::b", r"bad\udcff", "fo::ld"]


def test_a_name_that_is_no_text_can_be_printed_by_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(bundle: Path, names: list[str], *, dataset_dir: str, output_dir: str, **options: object) -> None:
        print(*os.listdir(dataset_dir))
        (Path(output_dir) / "per_image.csv").write_text("image\na\n")

    monkeypatch.setattr("clinbundles.scripts.predict.run.run_configs", run)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / os.fsdecode(b"bad\xff.png")).write_text("1")
    predict(str(BUNDLE), str(tmp_path / "in"), str(tmp_path / "out"))
    assert next(iter(table(tmp_path / "out").values()))["status"] == "done"


def test_a_name_longer_than_any_file_and_a_pipe_cost_the_other_studies_nothing(
    studies: Path, tmp_path: Path, fake: list[str]
) -> None:
    (studies / ("y" * 252)).mkdir()
    shutil.copy(studies / "a.jpg", studies / ("y" * 252))
    (studies / "piped").mkdir()
    os.mkfifo(studies / "piped" / "x.png")
    (studies / "linked").mkdir()
    (studies / "linked" / "x.png").symlink_to(tmp_path / "absent")
    with pytest.raises(SystemExit):
        predict(str(BUNDLE), str(studies), str(tmp_path / "out"))
    rows = table(tmp_path / "out")
    failed = {name: row["sentence"] for name, row in rows.items() if row["status"] != "done"}
    assert sorted(failed) == ["linked", "piped"]
    assert failed["piped"].endswith("piped/x.png: is a pipe, a socket or a device, and no file.")
    assert failed["linked"].endswith("linked/x.png: No such file or directory.")
    assert len(rows) == 4 + 3


def test_there_are_no_more_jobs_than_studies(
    studies: Path, tmp_path: Path, fake: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[int] = []

    def on_cluster(jobs: list[list[Study]], *rest: object) -> None:
        parts.extend(len(job) for job in jobs)

    monkeypatch.setattr("clinbundles.scripts.predict.run._on_cluster", on_cluster)
    with pytest.raises(SystemExit):
        predict(
            str(BUNDLE), f"{studies / 'a.jpg'},{studies / 'd.jpg'}", str(tmp_path / "out"), shards=4, cluster="local"
        )
    assert parts == [1, 1]
