"""The studies of a large inference, and what became of each: a file beside its outputs, written whole."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from clinbundles.engines.outputs.files import distinct_stems, write_atomically
from clinbundles.scripts.flags import as_parts

DONE, REFUSED, FAILED, WAITING = "done", "refused", "failed", "waiting"
LISTS = (".txt", ".csv")

Stamp = tuple[int, ...]


@dataclass(frozen=True)
class Study:
    """One study: its name, of which its outputs are called, and its file or folder."""

    name: str
    path: Path


@dataclass(frozen=True)
class Status:
    """What became of a study.

    Attributes:
        study: its name.
        status: done; refused, none of its images can be read; failed, for another reason; waiting.
        images: that were used; None, in status.csv blank, where the bundle writes no per_image.csv, as a pure zip.
        left_out: images that could not be read; None likewise.
        seconds: that it took.
        sentence: why it was refused or failed.
        source_sha256: of the study's bytes, see :func:`.settings.hash_files`.
        settings_sha256: of bundle, config and options, see :class:`.settings.Settings`.
    """

    study: str
    status: str = WAITING
    images: int | None = 0
    left_out: int | None = 0
    seconds: float = 0.0
    sentence: str = ""
    source_sha256: str = ""
    settings_sha256: str = ""


def find_studies(inputs: str) -> list[Study]:
    """List studies: what lies in a folder, each file and each folder one, and the lines of a text file.

    Args:
        inputs: folders, and .txt or .csv files with a path in the first column of each line, comma separated. Paths of
            a list start from its folder. Hidden files are left out.
            What is there under the whole text, commas and all, is one path.

    Raises:
        FileNotFoundError: one is not there.
        ValueError: there is none at all.
    """
    paths: list[Path] = []
    for part in [inputs] if os.path.exists(inputs) else as_parts(inputs):
        place = Path(part)
        if place.is_dir():
            paths += sorted(path for path in place.iterdir() if not path.name.startswith("."))
        elif place.is_file() and place.suffix.lower() in LISTS:
            paths += _listed(place)
        elif place.is_file():
            paths.append(place)
        else:
            raise FileNotFoundError(f"{place}: no such folder, image or list of paths.")
    paths = list(dict.fromkeys(paths))
    if not paths:
        raise ValueError(f"{inputs}: holds no study.")
    names = distinct_stems(paths)
    return [Study(names[path], path) for path in paths]


def _listed(file: Path) -> list[Path]:
    """Paths of a list: a whole line where that is one, commas and all, else its first column."""
    lines = [line for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    names = [
        [line.strip()] if os.path.exists(file.parent / line.strip()) else next(csv.reader([line])) for line in lines
    ]
    return [file.parent / fields[0].strip() for fields in names if fields[0].strip()]


def read_status(folder: Path, name: str) -> Status:
    """Read what became of a study; one whose file is torn or missing is waiting."""
    try:
        return Status(**json.loads((folder / f"{name}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Status(name)


def stamps(folder: Path, studies: Sequence[Study]) -> dict[str, Stamp]:
    """Give by study what changes whenever its status is written, even with the same text; () where there is none."""

    def stamp(path: Path) -> Stamp:
        try:
            facts = path.stat()
        except FileNotFoundError:
            return ()
        return facts.st_mtime_ns, facts.st_ino

    return {study.name: stamp(folder / f"{study.name}.json") for study in studies}


def write_status(folder: Path, status: Status) -> None:
    """Write what became of a study, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{status.study}.json", json.dumps(asdict(status)) + "\n")


def write_table(path: Path, every: Sequence[Status]) -> Counter[str]:
    """Write a line a study to a CSV file, and count them by status."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(asdict(Status("")).keys()))
    writer.writeheader()
    writer.writerows(asdict(status) for status in every)
    write_atomically(path, text.getvalue())
    return Counter(status.status for status in every)


@contextmanager
def as_folder(study: Study, scratch: Path) -> Iterator[Path]:
    """Give the folder of a study; of a single file, a folder with a link to it, or a copy where there are no links."""
    if study.path.is_dir():
        yield study.path
        return
    if not study.path.is_file():
        raise FileNotFoundError(f"{study.path}: no such file.")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        try:
            (scratch / study.path.name).symlink_to(study.path.resolve())
        except OSError:
            shutil.copy(study.path, scratch / study.path.name)
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
