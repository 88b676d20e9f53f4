"""A folder that one process at a time writes to: a lock of the operating system, which ends with its process."""

from __future__ import annotations

import logging
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)
_held: dict[str, int] = {}  # descriptors by folder
ATTEMPTS = 100  # to lock a folder that others remove


def lock_folder(folder: str | os.PathLike, *, doing: str) -> bool:
    """Lock a folder for this process until :func:`unlock_folder`, or until the process ends, killed or not.

    No file is left behind, and a holder may remove the folder before it lets go of it. A process may lock a folder
    again that it holds. Where the file system has no locks, that is logged, and the process goes on.

    Args:
        folder: made if it is not there.
        doing: what the folder is locked for, for the message, such as "training".

    Returns:
        whether this call has locked it: False where this process held it before, or where there are no locks.

    Raises:
        OSError: it cannot be made.
        ValueError: another process holds it.
    """
    path = Path(folder)
    place = str(path.resolve())
    for gone in [held for held, descriptor in _held.items() if not _is_there(Path(held), descriptor)]:
        os.close(_held.pop(gone))
    if place in _held or fcntl is None:
        path.mkdir(parents=True, exist_ok=True)
        return False
    attempts = ATTEMPTS
    while True:
        attempts -= 1
        if (descriptor := _opened(path, is_last=not attempts)) is None:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise ValueError(
                f"{path}: another {doing} is writing to this folder; wait until it has ended, or name another folder."
            ) from error
        except OSError as error:
            os.close(descriptor)
            text = "%s: cannot be locked (%s), so that nothing keeps another %s out."
            logger.warning(text, path, error.strerror, doing)
            return False
        if _is_there(path, descriptor):
            break
        os.close(descriptor)  # who held the folder had removed it
    _held[place] = descriptor
    return True


def unlock_folder(folder: str | os.PathLike) -> None:
    """Let other processes have a folder that this one has locked; nothing to do if it has not."""
    if (descriptor := _held.pop(str(Path(folder).resolve()), None)) is not None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a worker that was forked has the descriptor too
        os.close(descriptor)


def _opened(path: Path, *, is_last: bool) -> int | None:
    """Open a folder, made if it is not there; None where it is removed in between, unless it is the last attempt."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDONLY)
    except (FileNotFoundError, FileExistsError):
        if is_last or (os.path.lexists(path) and not path.is_dir()):
            raise
        return None


def _is_there(path: Path, descriptor: int) -> bool:
    """Tell whether a path still is the folder that was opened."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
