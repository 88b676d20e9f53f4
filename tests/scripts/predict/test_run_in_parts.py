"""Inference that is stopped and goes on, and in shards: what is said of it."""

from pathlib import Path

import pytest

from clinbundles.scripts.predict.run import predict

BUNDLE = Path(__file__).parents[3] / "bundles" / "gaze_polyp_segmentation"


@pytest.fixture
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three studies, and runs that a person stops at the one that is called stop."""

    def run(bundle: Path, names: list[str], *, dataset_dir: str, output_dir: str, **options: object) -> None:
        (image,) = Path(dataset_dir).iterdir()
        if image.read_text() == "stop":
            raise KeyboardInterrupt
        (Path(output_dir) / "per_image.csv").write_text(f"image\n{image.name}\n")

    monkeypatch.setattr("clinbundles.scripts.predict.run.run_configs", run)
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.png").write_text(name)
    return folder


def test_who_stops_it_reads_how_far_it_is_and_who_goes_on_too(
    studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (studies / "b.png").write_text("stop")
    with pytest.raises(KeyboardInterrupt):
        predict(str(BUNDLE), str(studies), str(tmp_path / "out"))
    out, err = capsys.readouterr()
    assert "done already" not in out
    assert err.splitlines()[-1] == "stopped: 1 of 3 are done; the same command goes on with the others"
    (studies / "b.png").write_text("b")
    predict(str(BUNDLE), str(studies), str(tmp_path / "out"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1 of 3 are done already, unless they have changed since"
    assert lines[-1].startswith("3 studies in: 3 done;")


def test_lines_of_shards_have_their_number(studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    predict(str(BUNDLE), str(studies), str(tmp_path / "out"), shards=2)
    loading = "loading the network for the first study; once there are more, a bar or a line a minute"
    assert capsys.readouterr().err.splitlines() == [f"shard {number} of 2: {loading}" for number in (1, 2)]


def test_who_hands_out_jobs_reads_where_their_logs_are(
    studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    predict(str(BUNDLE), str(studies), str(out), shards=2, cluster="debug")  # submitit's own, in this process
    assert f"2 jobs handed to debug; their logs: {out / 'jobs'}" in capsys.readouterr().err.splitlines()
