"""The studies of a large inference, and what became of each: a file beside its outputs, written whole."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from clinbundles.engines.outputs.files import no_formula, write_atomically
from clinbundles.transforms.readers.folder import files_below

DONE, REFUSED, FAILED, WAITING, CHANGED = "done", "refused", "failed", "waiting", "changed"
# So begin the sentences of studies that are done, and are no more what they were then.
WAY_OUT = "choose another output, or remove its folder in studies to have it done again."
SINCE = (
    f"Changed since it was done: its results are of the earlier content; {WAY_OUT}",
    f"Cannot be read since it was done: its results are of what was there then; {WAY_OUT}",
)

Stamp = tuple[int, ...]


@dataclass(frozen=True)
class Study:
    """One study: its name, of which its outputs are called, and its file or folder.

    Raises:
        ValueError: the name is empty or hidden, or leads to another folder: what has it is written, and removed.
    """

    name: str
    path: Path

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith(".") or {"/", os.sep, "\0"} & set(self.name):
            raise ValueError(f"{self.path}: its outputs would be called {self.name!r}, which is no name of a folder.")


@dataclass(frozen=True)
class Status:
    """What became of a study.

    Attributes:
        study: its name.
        status: done; refused, none of its images can be read; failed, for another reason; waiting; changed, which is
            done, but of bytes that are no more there.
        images: that were used; None, in status.csv blank, where the bundle writes no per_image.csv, as a pure zip.
        left_out: images that could not be read; None likewise.
        warned: images that were used, but that the bundle's own check warns of; None also where that is not known.
        seconds: that it took.
        sentence: why it was refused, failed or counts as changed; what was left out; the first warning.
        source_sha256: of the study's bytes, see :func:`.settings.hash_files`.
        settings_sha256: of bundle, config and options, see :class:`.settings.Settings`.
        path: of the study, absolute.
        files: sizes of its outputs by their paths in its folder, bytes; status.csv is without them.
    """

    study: str
    status: str = WAITING
    images: int | None = 0
    left_out: int | None = 0
    warned: int | None = None
    seconds: float = 0.0
    sentence: str = ""
    source_sha256: str = ""
    settings_sha256: str = ""
    path: str = ""
    files: Mapping[str, int] = field(default_factory=dict)


def read_status(folder: Path, name: str) -> Status:
    """Read what became of a study; one whose file is torn or missing is waiting."""
    try:
        return replace(Status(**json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))), study=name)
    except (OSError, ValueError, TypeError):
        return Status(name)


def read_statuses(folder: Path) -> list[Status]:
    """Read what became of all studies that have a status in a folder, by name."""
    return [read_status(folder, name) for name in sorted(path.stem for path in folder.glob("*.json"))]


def stamps(folder: Path, studies: Sequence[Study]) -> dict[str, Stamp]:
    """Give by study what changes whenever its status is written, even with the same text; () where there is none."""

    def stamp(path: Path) -> Stamp:
        try:
            facts = path.stat()
        except FileNotFoundError:
            return ()
        return facts.st_mtime_ns, facts.st_ino

    return {study.name: stamp(folder / f"{study.name}.json") for study in studies}


def compare_source(status: Status, source: str) -> Status:
    """Tell a study that was done of other bytes, and one whose bytes are again those that it was done of.

    Args:
        status: that is there.
        source: hash of the study as it is now, empty where it cannot be read.
    """
    if status.status not in (DONE, CHANGED):
        return status
    sentence = status.sentence
    for since in SINCE:
        sentence = sentence.removeprefix(since).strip()
    if status.source_sha256 == source:
        return replace(status, status=DONE, sentence=sentence)
    return replace(status, status=CHANGED, sentence=f"{SINCE[not source]} {sentence}".strip())


def write_status(folder: Path, status: Status) -> None:
    """Write what became of a study, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{status.study}.json", json.dumps(asdict(status)) + "\n")


def write_table(path: Path, every: Sequence[Status]) -> None:
    """Write a line a study to a CSV file, no sentence on two; no text is one that a spreadsheet takes for a formula."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    names = [each.name for each in fields(Status) if each.name != "files"]
    writer.writerow(names)
    for status in every:
        status = replace(status, sentence=" ".join(status.sentence.split()))
        values = [getattr(status, name) for name in names]
        writer.writerow([no_formula(value) if isinstance(value, str) else value for value in values])
    write_atomically(path, text.getvalue())


def sizes_of(folder: Path) -> dict[str, int]:
    """Give the sizes of the files of a folder and those below, in bytes, by their paths in it; empty without one."""
    files = (path for path in files_below(folder) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


@contextmanager
def as_folder(study: Study, scratch: Path) -> Iterator[Path]:
    """Give the folder of a study; of a single file, a folder with a link to it, or a copy where there are no links.

    A folder with ``::`` in its path, which MONAI makes of a ``#``, is given as a link, too.
    """
    if study.path.is_dir() and "::" not in str(study.path.absolute()):
        yield study.path.absolute()
        return
    if not study.path.exists():
        raise FileNotFoundError(f"{study.path}: no such file.")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    link = scratch / ("study" if study.path.is_dir() else study.path.name)
    try:
        try:
            link.symlink_to(study.path.resolve())
        except OSError:
            shutil.copy(study.path, link)
        yield link if study.path.is_dir() else scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
