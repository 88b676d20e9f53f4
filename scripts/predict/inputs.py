"""The files and folders that a large inference is given, one a study: what lies in a folder, or what a list names."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from clinbundles.scripts.flags import as_parts

LISTS = (".txt", ".csv")
# What the column of paths may be called.
COLUMNS = ("image", "path", "study")


def places_of(inputs: str) -> list[Path]:
    """List the folders, images and lists that stand between commas; what is there under the whole text is one path."""
    return [Path(part) for part in ([inputs] if os.path.exists(inputs) else as_parts(inputs))]


def find_paths(inputs: str) -> list[Path]:
    """Find the studies of folders, lists and images: absolute paths, each once, however it is spelt.

    Args:
        inputs: comma separated; of a folder each file and each folder is a study, without hidden ones. A .txt list has
            a path a line, a .csv list has them in the column image, path or study, or in the first; from the list's
            folder. Paths of a list at which nothing is are kept, and told by their lines.

    Raises:
        FileNotFoundError: a place is not there.
        ValueError: there is no study; a list cannot be read, or names a study that is hidden or holds the list.
    """
    paths: list[Path] = []
    for place in places_of(inputs):
        if place.is_dir():
            names = sorted(path for path in place.iterdir() if not path.name.startswith("."))
            paths += [_resolved(path, place.resolve(), str(place)) for path in names]
        elif place.is_file() and place.suffix.lower() in LISTS:
            paths += _listed(place)
        elif place.is_file():
            paths.append(_resolved(place, None, str(place)))
        else:
            raise FileNotFoundError(f"{place}: no such folder, image or list of paths.")
    if not paths:
        raise ValueError(f"{inputs}: holds no study.")
    studies = list(dict.fromkeys(paths))
    if len(studies) < len(paths):
        print(f"{inputs}: {len(paths)} paths of {len(studies)} studies, since some are named more than once.")
    return studies


def check_apart(output: Path, inputs: str, paths: Sequence[Path]) -> None:
    """Refuse an output that lies in what it is made of, or the other way round: answers would be taken for studies.

    Raises:
        ValueError: it is so.
    """
    made, studies = output.resolve(), [path.resolve() for path in paths]
    for path in (*(place.resolve() for place in places_of(inputs) if place.is_dir()), *studies):
        if path == made or path in made.parents:
            raise ValueError(f"{output}: is, or lies in, {path}, of which it would be made: choose another output.")
    for path in studies:
        if made in path.parents:
            raise ValueError(f"{path}: lies in the output {output}: choose another output.")


def _listed(file: Path) -> list[Path]:
    text = _text_of(file)
    rows = list(_rows(file, text) if file.suffix.lower() == ".csv" else _lines(text))
    home = file.parent.resolve()
    paths = [_resolved(home / name, home, f"{file}, line {line}") for line, name in rows]
    missing = [str(line) for (line, _), path in zip(rows, paths, strict=True) if not os.path.exists(path)]
    if missing:
        lines = f"{', '.join(missing[:10])}{' and others' if len(missing) > 10 else ''}"
        print(f"{file}: {len(paths)} paths, {len(missing)} with nothing there: see line {lines}.")
    return paths


def _text_of(file: Path) -> str:
    """Read a list in UTF-8, or in UTF-16 by its mark."""
    content = file.read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeError as error:
        raise ValueError(f"{file}: is no text in UTF-8 or UTF-16 ({error}): save it as UTF-8.") from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(f"{file}, line {line}: has a zero byte, which no path has: save the list as UTF-8.")
    return text


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Give the lines by their numbers: a name may hold what Python takes for the end of a line, such as U+2028."""
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if line.strip():
            yield number, line


def _rows(file: Path, text: str) -> Iterator[tuple[int, str]]:
    """Give the paths of a CSV file by the lines that they end in."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    column, width = 0, 0
    try:
        for row in reader:
            fields = [field.strip() for field in row]
            if not any(fields):
                continue
            fault, is_first, width = "", not width, width or len(fields)
            titles = [field.casefold() for field in fields]
            if is_first and (names := [name for name in COLUMNS if name in titles]):
                column = titles.index(names[0])
                if not os.path.exists(file.parent / fields[column]):
                    continue
                others = " or ".join(name for name in COLUMNS if name not in titles)
                fault = f"{fields[column]!r} may be a header or a study: call the column {others}"
            elif len(fields) != width:
                fault = f"{len(fields)} columns, not {width}: a path with commas stands in double quotes"
            elif width > 1 and os.path.exists(file.parent / (line := ",".join(row))):
                fault = f"{line!r} is a path with commas: put it in double quotes"
            elif not fields[column]:
                fault = f"no path in column {column + 1}"
            if fault:
                raise ValueError(f"{file}, line {reader.line_num}: {fault}.")
            yield reader.line_num, fields[column]
    except csv.Error as error:
        raise ValueError(f"{file}, line {reader.line_num}: is no CSV ({error}).") from error


def _resolved(path: Path, home: Path | None, where: str) -> Path:
    """Spell a path in one way, with its own name last: two links to one file are two studies.

    Args:
        path: of a file or folder.
        home: folder that the study must not hold.
        where: the path stands, for the message.
    """
    place = Path(os.path.realpath(path.parent)) / path.name
    if path.name in ("", "..") or path.name.startswith("."):
        raise ValueError(f"{where}: {str(path)!r} is no study: its name is empty or begins with a dot.")
    real = Path(os.path.realpath(place))
    if home is not None and (real == home or real in home.parents):
        raise ValueError(f"{where}: {str(path)!r} is no study: it is {real}, which holds {home} itself.")
    return place
