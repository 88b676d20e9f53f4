"""Files that are written whole or not at all, under names that never collide."""

from __future__ import annotations

import csv
import glob
import io
import json
import logging
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...transforms.readers.folder import image_stem

if TYPE_CHECKING:  # so that a command that writes a file does not wait for torch
    from ignite.engine import Engine

logger = logging.getLogger(__name__)

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Give a neighbour of ``path`` to write to, which takes its place at the end and is removed after a failure.

    A reader sees the old file or the whole new one, never a part. An existing file keeps its permissions, a new one has
    those of any new file; a link stays a link. The neighbour is hidden and does not end in the suffix of ``path``, so a
    writer that looks at the suffix must be told the format. It may be made a folder, where ``path`` is none.

    Raises:
        FileNotFoundError: the folder does not exist.
        OSError: as writing raised it, such as on a full disk, with the name of the file where it had none.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(f"folder {target.parent} does not exist, so {target.name} cannot be written there")
    partial = target.with_name(f".{target.stem[:40]}.{secrets.token_hex(4)}.part")
    try:
        yield partial
        if target.is_file():
            shutil.copymode(target, partial)
        if partial.is_file():
            with partial.open("rb") as written:
                os.fsync(written.fileno())  # or a power cut could leave the new name with nothing in it
        os.replace(partial, target)
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(target)
        raise
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        partial.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Write text, as UTF-8, or bytes to ``path``, whole or not at all.

    Bytes of a file name that are no UTF-8 are written as Python escapes them: ``\\udce9`` for E9.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    with replacing(path) as partial:
        partial.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


def set_aside(path: Path, why: str) -> None:
    """Rename a file that is of no use to ``<name>.torn``, in place of an older one of that name, and say so."""
    torn = path.with_name(f"{path.name}.torn")
    os.replace(path, torn)
    logger.warning("%s: %s, so that it is kept as %s and made again.", path, why, torn.name)


def read_json_or_set_aside(path: Path) -> Any:
    """Read a JSON file; None where there is none, or where a kill or a full disk has torn it: it is then set aside."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        set_aside(path, "is torn, as by a kill or a full disk")
        return None


def partials(path: str | os.PathLike) -> list[Path]:
    """List the neighbours that killed writers of a file or folder left half written."""
    target = Path(path)
    return sorted(target.parent.glob(f".{glob.escape(target.stem[:40])}.{'[0-9a-f]' * 8}.part"))


def remove_partials(*paths: str | os.PathLike) -> None:
    """Remove what killed writers of these files or folders left half written: no other process may be writing them."""
    for partial in (partial for path in paths for partial in partials(path)):
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def check_replaceable(datalist: str | os.PathLike, name: str) -> None:
    """Refuse to write a datalist where that of another data set lies.

    Args:
        datalist: the file.
        name: of the data set that is to be written.

    Raises:
        ValueError: it is so.
    """
    path = Path(datalist)
    if not path.is_file():
        return
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    present = content.get("name") if isinstance(content, Mapping) else None
    if present != name:
        raise ValueError(f"{path}: is of another data set ({present}) and would be lost: take another output_dir.")


def write_csv_atomically(
    path: str | os.PathLike, rows: Sequence[Mapping[str, Any]], *, columns: Sequence[str] | None = None
) -> None:
    """Write rows with the same keys as a CSV file, whole or not at all.

    Args:
        path: the file.
        rows: at least one, where no columns are given.
        columns: the keys.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0] if columns is None else columns))
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def input_file(item: Mapping[str, Any]) -> Path:
    """Find the file of an item's ``image``, which may be a path or a MetaTensor that was read from one."""
    image = item["image"]
    return Path(image.meta["filename_or_obj"] if hasattr(image, "meta") else image)


def input_files(engine: Engine) -> list[Path]:
    """List the image files of the data set that an evaluator goes through, known before the first is read."""
    loader: Any = engine.state.dataloader
    return [input_file(item) for item in loader.dataset.data]


def distinct_names(files: Iterable[Path]) -> dict[Path, str]:
    """Name files as a table shows them: each with its suffix and as many folders as tell it from the others.

    Args:
        files: paths; one that appears twice has one name.

    Returns:
        the name of each path, with "/" between the folders. It does not depend on the order of ``files``. One that a
        spreadsheet would take for a formula has "./" in front.
    """

    def name(file: Path, attempt: int) -> str | None:
        text = Path(*file.parts[-attempt - 1 :]).as_posix() if attempt < len(file.parts) else None
        return text if text is None else no_formula(text)

    return _tell_apart(files, name)


def no_formula(text: str) -> str:
    """Put "./" in front of a text that a spreadsheet would take for a formula."""
    return f"./{text}" if text.startswith(FORMULA_STARTS) else text


def distinct_stems(files: Iterable[Path], *, taken: Iterable[str] = ()) -> dict[Path, str]:
    """Name the outputs of files, to which the output's own suffix is added.

    A file's outputs are called by its stem. Where another file has the same one they get the file's suffix too, or as
    many folders as it takes: ``p1/a.png`` and ``p2/a.png`` become ``p1_a`` and ``p2_a``. Names that differ only in case
    count as the same, because on some disks they are one file; two such files in one folder are numbered.

    Args:
        files: paths; one that appears twice has one name.
        taken: names that none of them may have.

    Returns:
        the stem of each path. It does not depend on the order of ``files``.
    """

    def stem(file: Path, attempt: int) -> str | None:
        folders = [part for part in file.parent.parts if part not in (file.anchor, "..")]
        n_folders, with_suffix = divmod(attempt, 2)
        if n_folders > len(folders):
            return None
        return "_".join((*folders[len(folders) - n_folders :], file.name if with_suffix else image_stem(file)))

    return _tell_apart(files, stem, same=str.casefold, taken=taken)


def _tell_apart(
    files: Iterable[Path],
    name: Callable[[Path, int], str | None],
    *,
    same: Callable[[str], str] = str,
    taken: Iterable[str] = (),
) -> dict[Path, str]:
    """Give each file the first of its possible names that no other file has or could have at the same attempt.

    Args:
        files: paths.
        name: a file's name by the number of the attempt; None when it has no more.
        same: what is equal for names that count as the same.
        taken: names that no file gets.
    """
    names: dict[Path, str] = {}
    used = {same(text) for text in taken}
    waiting = sorted(set(files))
    for attempt in count():
        attempts = {file: text for file in waiting if (text := name(file, attempt)) is not None}
        if not attempts:
            break
        frequency = Counter(same(text) for text in attempts.values())
        unique = {f: text for f, text in attempts.items() if frequency[same(text)] == 1 and same(text) not in used}
        names |= unique
        used |= {same(text) for text in unique.values()}
        waiting = [file for file in waiting if file not in unique]
    for file in waiting:
        first = name(file, 0)
        numbered = (f"{first}_{number}" if number > 1 else f"{first}" for number in count(1))
        names[file] = next(text for text in numbered if same(text) not in used)
        used.add(same(names[file]))
    return names
