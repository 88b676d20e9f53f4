"""A CSV file that grows row by row, so that a run that is killed loses none that it had finished."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .files import write_csv_atomically

logger = logging.getLogger(__name__)


class GrowingTable:
    """Write the rows of a CSV file one by one, each in the file as soon as it is added.

    The first row takes the place of an older file. A row with a column that the header lacks writes the file anew. A
    row that does not fit on the disk leaves the file as it was before.

    Args:
        path: the file, in a folder that is made with the first row.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self.columns: list[str] = []
        self.rows: list[dict[str, Any]] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row.

        Raises:
            OSError: it cannot be written; the message names the file.
        """
        self.rows.append(dict(row))
        if self.columns and row.keys() <= set(self.columns):
            self._append(row)
            return
        self.columns += [name for name in row if name not in self.columns]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_csv_atomically(self.path, self.rows, columns=self.columns)

    def _append(self, row: Mapping[str, Any]) -> None:
        text = io.StringIO(newline="")
        csv.DictWriter(text, self.columns).writerow(row)
        size = self.path.stat().st_size
        try:
            with self.path.open("ab") as stream:
                stream.write(text.getvalue().encode(errors="backslashreplace"))
        except OSError as error:
            os.truncate(self.path, size)
            error.filename = str(self.path)
            raise


def read_whole_rows(path: Path) -> str:
    """Read the text of a CSV file up to the end of its last whole row.

    What follows was torn by a kill or a full disk: that is logged, and left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no text in UTF-8.
    """
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]  # before it is decoded: a letter of several bytes may be torn
    while whole.count(b'"') % 2:  # the line ends inside a cell
        whole = whole[: whole.rfind(b"\n", 0, -1) + 1]
    if torn := content[len(whole) :]:
        text = torn.decode(errors="replace")[:40]
        logger.warning("%s: its last row is torn (%r…) and is left out.", path, text)
    return whole.decode()
