"""Tests of the lock of a folder, with other processes."""

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clinbundles.engines import folder_lock
from clinbundles.engines.folder_lock import lock_folder, unlock_folder

TRY = "import sys; from clinbundles.engines.folder_lock import lock_folder; lock_folder(sys.argv[1], doing='training')"
HOLD = f"{TRY}; print('held', flush=True); sys.stdin.read()"


def in_another_process(folder: Path) -> str:
    """Last line of the errors of a process that locks the folder; nothing if it could."""
    done = subprocess.run([sys.executable, "-c", TRY, str(folder)], capture_output=True, text=True, check=False)
    return done.stderr.strip().rpartition("\n")[2]


def test_a_folder_is_locked_for_others_until_it_is_unlocked_and_no_file_stays(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    lock_folder(folder, doing="training")
    lock_folder(folder, doing="training")
    assert in_another_process(folder) == (
        f"ValueError: {folder}: another training is writing to this folder; wait until it has ended, or name another "
        "folder."
    )
    assert not list(folder.iterdir())
    unlock_folder(folder)
    unlock_folder(folder)
    assert in_another_process(folder) == ""


def test_the_lock_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="another training is writing to this folder"):
            lock_folder(tmp_path, doing="training")
        other.kill()
        other.wait()
    lock_folder(tmp_path, doing="training")
    unlock_folder(tmp_path)


def test_a_folder_that_can_never_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(OSError, match=str(tmp_path / "link")):
        lock_folder(tmp_path / "link" / "run", doing="training")


@pytest.mark.parametrize("step", ["open", "flock"])
def test_a_folder_that_its_holder_removes_in_between_is_made_again(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, place = tmp_path / "run", folder_lock.os if step == "open" else folder_lock.fcntl
    real, left = getattr(place, step), [1]

    def after_the_holder(*arguments: Any) -> Any:
        if left:
            left.pop()
            folder.rmdir()
        return real(*arguments)

    monkeypatch.setattr(place, step, after_the_holder)
    lock_folder(folder, doing="training")
    monkeypatch.undo()
    assert folder.is_dir()
    assert "another training is writing to this folder" in in_another_process(folder)
    unlock_folder(folder)
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        lock_folder(tmp_path / "file", doing="training")


def test_a_file_system_without_locks_is_said_and_no_reason_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folder_lock.fcntl, "flock", refuse)
    lock_folder(tmp_path, doing="training")
    assert "cannot be locked (No locks available), so that nothing keeps another training out" in caplog.text
