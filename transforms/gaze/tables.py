"""Delimited text files of gaze data: headers with units, decimal points or commas, errors that name the field."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd

_MISSING = frozenset({"", ".", "nan", "na", "n/a", "null", "none", "-"})
# What files begin with that are no tables, and the way by one.
_NO_TABLES = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, such as Titta's recordings, is not read: write its tables as one CSV, in "
    "Python by pandas.concat([pandas.read_hdf(FILE, table) for table in ('gaze', 'msg')]).to_csv('gaze.csv')",
    b"SR_RESEARCH": "an EyeLink recording is not read: export a fixation report from Data Viewer",
    b"** CONVERTED FROM": "EyeLink's ASC is not read: export a fixation report from Data Viewer",
    b"PK\x03\x04": "a spreadsheet or zip is not read: save the table as CSV",
}
_THOUSANDS = r"[+-]?[1-9]\d{0,2}(,\d{3})+"
_DELIMITERS = ("\t", ";", ",")
LONGEST_LINE = 1_000_000  # characters


@dataclass(frozen=True)
class Column:
    """One column of a header: its name as written, its stem without spaces in lower case, and its unit likewise."""

    name: str
    stem: str
    unit: str

    @classmethod
    def parse(cls, name: str) -> Column:
        """Parse a header's text: ``"Gaze point X [MCS norm]"`` has stem ``gazepointx`` and unit ``mcsnorm``."""
        match = re.fullmatch(r"(.*?)\s*[\[(]([^\])]*)[\])]", name.strip(), re.DOTALL)
        stem, unit = match.groups() if match else (name, "")
        plain = [re.sub(r"\s+", "", text).lower() for text in (stem, unit)]
        # Two characters look like the micro sign; exports hold either.
        return cls(name.strip(), plain[0], plain[1].replace("\u03bc", "u").replace("\u00b5", "u"))


@dataclass
class GazeTable:
    """The columns of one delimited text file, as text, and their conversion to numbers.

    Args:
        path: the file.
        encoding: its encoding.
        delimiter: what stands between two fields.
        columns: the header.
        preamble: lines before the header.
        commented: True if there are ``#`` lines before the header; then the table ends at the next one or a blank line.
        repeated: rows left out for being the same as an earlier one.
    """

    path: Path
    encoding: str
    delimiter: str
    columns: list[Column]
    preamble: int
    commented: bool
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)
    repeated: int = 0

    @property
    def stems(self) -> frozenset[str]:
        """The stems of all columns."""
        return frozenset(column.stem for column in self.columns)

    def find(self, *stems: str, units: tuple[str, ...] = ()) -> Column | None:
        """Return the first of ``stems`` that is there in the first of ``units`` (none: in any unit), or None."""
        for stem in stems:
            same_stem = [column for column in self.columns if column.stem == stem]
            for unit in units:
                for column in same_stem:
                    if column.unit == unit:
                        return column
            if same_stem and not units:
                return same_stem[0]
        return None

    def need(self, *stems: str, units: tuple[str, ...] = ()) -> Column:
        """Like :meth:`find`, but raise ``ValueError`` if there is no such column or only in another unit."""
        column = self.find(*stems, units=units)
        if column is not None:
            return column
        other = self.find(*stems)
        if other is None:
            raise ValueError(f"{self.path}: missing column {stems[0]!r}.")
        raise ValueError(
            f"{self.path}: column {other.name!r} has the unit {other.unit!r}, expected one of "
            f"{', '.join(repr(unit) for unit in units)}."
        )

    def load(self, stems: frozenset[str], *, distinct: bool = False) -> None:
        """Read the rows of the columns with one of these stems; all others never enter memory.

        Args:
            stems: of the columns.
            distinct: leave out, and count, rows that are the same as an earlier one in all columns of the file.

        Raises:
            ValueError: there are no rows, a row is longer than any or has more fields than the header, or the text
                cannot be decoded.
        """
        places = [at for at, column in enumerate(self.columns) if column.stem in stems and column.name]
        width = len(self.columns)
        rows: list[list[str]] = []
        before: set[tuple[str, ...]] = set()
        self.repeated = 0
        with _open_text(self.path, self.encoding) as stream:
            lines = itertools.islice(_lines(stream, self.path), self.preamble + 1, None)
            reader = csv.reader(itertools.takewhile(_is_row, lines) if self.commented else lines, **self._dialect())
            for number, fields in enumerate(_checked(reader, self.path), 1):
                # Tobii ends rows, but not always the header, with a delimiter: an empty field beyond the last is fine.
                if len(fields) > width and any(fields[width:]):
                    raise ValueError(
                        f"{self.path}: row {number} has more fields than the header; is {self.delimiter!r} both the "
                        "delimiter and the decimal sign?"
                    )
                if distinct and tuple(fields) in before:
                    self.repeated += 1
                elif any(fields):
                    if distinct:
                        before.add(tuple(fields))
                    fields += [""] * (width - len(fields))
                    rows.append([fields[at].strip().strip('"').strip() for at in places])
        if not rows:
            raise ValueError(f"{self.path}: the file has a header but no rows.")
        self.rows = pd.DataFrame(rows, columns=[self.columns[at].name for at in places], dtype=str)

    def text(self, column: Column) -> np.ndarray:
        """Return the text (n,) of a column, without surrounding blanks."""
        return self.rows[column.name].to_numpy(object)

    def names(self, column: Column) -> np.ndarray:
        """Return the text (n,) of a column, "" where it only stands for a missing name, as ``.`` or ``UNDEFINED``."""
        text = self.rows[column.name]
        return text.mask(text.str.lower().isin(_MISSING | {"undefined", "undefinednull"}), "").to_numpy(object)

    def numbers(self, column: Column) -> np.ndarray:
        """Return the numbers of a column, float64 (n,), NaN for empty fields; a decimal comma counts as a point.

        Raises:
            ValueError: a field is not a number, or the column has both decimal points and decimal commas, or commas
                that may part thousands.
        """
        text = self.rows[column.name]
        empty = text.str.lower().isin(_MISSING)
        comma = text.str.contains(",", regex=False) & ~empty
        if comma.any():
            if (text.str.contains(".", regex=False) & ~empty).any():
                raise ValueError(
                    f"{self.path}: column {column.name!r} has both decimal points and commas, such as "
                    f"{text[comma].iloc[0]!r}."
                )
            self._refuse_thousands(column, text[comma], text[~comma & ~empty])
            text = text.str.replace(",", ".", regex=False)
        values = pd.to_numeric(text.mask(empty), errors="coerce")
        wrong = values.isna() & ~empty
        if wrong.any():
            raise ValueError(
                f"{self.path}: column {column.name!r} has {self.rows[column.name][wrong].iloc[0]!r}, expected a number."
            )
        return values.to_numpy(float)

    def _refuse_thousands(self, column: Column, commas: pd.Series, whole: pd.Series) -> None:
        """Refuse commas that all stand before three digits, as in 1,210, where other numbers are whole, as is 980."""
        if len(whole) and commas.str.fullmatch(_THOUSANDS).all():
            raise ValueError(
                f"{self.path}: column {column.name!r} has {commas.iloc[0]!r} beside {whole.iloc[0]!r}, whose commas "
                "may part thousands or be decimal ones: write thousands without a comma and decimals with a point."
            )

    def keep(self, mask: np.ndarray) -> None:
        """Drop the rows where ``mask`` (n,) is False."""
        self.rows = self.rows[mask].reset_index(drop=True)

    def _dialect(self) -> dict:
        # Tab separated exports are not quoted: a lone quotation mark in a comment must not swallow lines.
        return {"delimiter": self.delimiter, "quoting": csv.QUOTE_NONE if self.delimiter == "\t" else csv.QUOTE_MINIMAL}


def open_table(path: str | Path) -> GazeTable:
    """Open a table with its header and without rows; the delimiter (tab, ``;`` or ``,``) is found by itself.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty or not text, or its header is longer than any.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    encoding = find_encoding(path)
    preamble, commented = 0, False
    with _open_text(path, encoding) as stream:
        for line in _lines(stream, path):
            if line.strip() and not line.startswith("#"):
                break
            preamble, commented = preamble + 1, commented or line.startswith("#")
        else:
            raise ValueError(f"{path}: the file is empty.")
    delimiter = max(_DELIMITERS, key=line.count)
    table = GazeTable(path, encoding, delimiter, [], preamble, commented)
    names = next(csv.reader([line.rstrip("\r\n")], **table._dialect()))
    table.columns = [Column.parse(name.strip().strip('"')) for name in names]
    titles = [column.name for column in table.columns if column.name]
    if len(set(titles)) < len(titles):
        twice = next(title for title in titles if titles.count(title) > 1)
        raise ValueError(f"{path}: the header has the column {twice!r} more than once.")
    return table


def find_encoding(path: Path) -> str:
    """Find the encoding of a text file: UTF-8 or UTF-16, with or without a mark at its start, or else cp1252.

    Raises:
        ValueError: the file is no table, such as HDF5, or has bytes that no text has.
    """
    with path.open("rb") as stream:
        start = stream.read(4096)
    if sentence := next((text for beginning, text in _NO_TABLES.items() if start.startswith(beginning)), ""):
        raise ValueError(f"{path}: {sentence}.")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    # A header in UTF-16 is mostly ASCII, whose high byte is zero.
    zeros = [start[first::2].count(0) / max(1, len(start) // 2) for first in (0, 1)]
    if max(zeros) > 0.5 and min(zeros) < 0.1:
        return "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"
    if re.search(rb"[\x00-\x08\x0e-\x1f]", start):
        raise ValueError(f"{path}: not a text file in UTF-8 or UTF-16.")
    try:
        with path.open(encoding="utf-8-sig") as text:
            while text.read(1 << 20):
                pass
    except UnicodeError:
        return "cp1252"
    return "utf-8-sig"


def read_time_ms(table: GazeTable, column: Column, *, unit: str = "") -> np.ndarray:
    """Read times (n,) in milliseconds from a column of time stamps.

    Args:
        table: the file.
        column: its time stamps.
        unit: ``s``, ``ms`` or ``us``; if empty, the unit in the header; if there is none, the step decides. Trackers
            step by 0.8 to 100 ms, so a step of 8.33 means milliseconds, of 8333 microseconds, of 0.00833 seconds.

    Raises:
        ValueError: a stamp is missing, the unit is unknown, or the step fits no tracker.
    """
    stamps = table.numbers(column)
    if np.isnan(stamps).any():
        raise ValueError(f"{table.path}: column {column.name!r} has an empty field, expected a time in every row.")
    unit = unit or column.unit
    step = float(np.median(np.diff(stamps))) if len(stamps) > 1 else 1.0
    if not unit:
        unit = "us" if step >= 200 else "ms" if step >= 0.2 else "s"
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3}.get(unit)
    if scale is None:
        raise ValueError(f"{table.path}: column {column.name!r} has the unit {unit!r}, expected 's', 'ms' or 'us'.")
    if not 0.2 <= step * scale <= 1000:
        raise ValueError(
            f"{table.path}: column {column.name!r} steps by {step:g} {unit} in the median, which fits no eye tracker."
        )
    return stamps * scale


def read_validity(table: GazeTable, column: Column | None, *, codes: bool) -> np.ndarray:
    """Read which samples are valid, bool (n,); without a column all are, and a sample with an empty field is not.

    Args:
        table: the file.
        column: ``Valid``/``Invalid``, or numbers.
        codes: True for Tobii's codes 0 to 4, of which 0 and 1 are valid; False for flags, 1 or ``True`` is valid.

    Raises:
        ValueError: a field is none of these.
    """
    if column is None:
        return np.ones(len(table.rows), bool)
    text = np.array([value.lower().removesuffix(".0") for value in table.text(column)], dtype=str)
    yes: tuple[str, ...] = ("valid", "0", "1") if codes else ("valid", "1", "true")
    no: tuple[str, ...] = ("invalid", "2", "3", "4") if codes else ("invalid", "0", "false")
    legible = np.isin(text, (*yes, *no, "", "nan", "-1"))
    if not legible.all():
        wrong, expected = str(text[~legible][0]), ", ".join((*yes, *no))
        raise ValueError(f"{table.path}: column {column.name!r} has {wrong!r}, expected one of {expected}.")
    return np.isin(text, yes)


def read_points(table: GazeTable, x: Column, y: Column, *, valid: np.ndarray) -> np.ndarray:
    """Read points (n, 2) from two columns, NaN where a field is empty or ``valid`` (n,) is False."""
    return np.where(valid[:, None], np.column_stack([table.numbers(x), table.numbers(y)]), np.nan)


def _lines(stream: TextIO, path: Path) -> Iterator[str]:
    """Give the lines of a table, and refuse one that is longer than any before it is read to its end."""
    for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE), ""), 1):
        if len(line) == LONGEST_LINE:
            raise ValueError(f"{path}: line {number} has {LONGEST_LINE:,} characters or more, which no table has.")
        yield line


def _is_row(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("#")


def _checked(reader: Iterator[list[str]], path: Path) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise ValueError(f"{path}: not a table of text ({error}).") from error


@contextmanager
def _open_text(path: Path, encoding: str) -> Iterator[TextIO]:
    try:
        with path.open(encoding=encoding, newline="") as stream:
            yield stream
    except UnicodeError as error:
        raise ValueError(f"{path}: not a text file in {encoding}.") from error
