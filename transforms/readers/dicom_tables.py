"""Look-up tables of DICOM: modality LUT, VOI LUT and palettes, whose descriptors are often wrong in known ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


class FieldError(ValueError):
    """A field that cannot be applied to the pixels; the message begins with its name and has no path."""


@dataclass(frozen=True)
class LookUpTable:
    """A look-up table (PS3.3 C.11.1.1, C.11.2.1.1 and C.7.6.3.1.5).

    Args:
        entries: int64 (n,), 0 to 65535.
        first: the number that the first entry is for, as the descriptor has it.
        bits: of an entry, as the descriptor has it.
    """

    entries: np.ndarray
    first: int
    bits: int

    def look_up(self, values: np.ndarray) -> np.ndarray:
        """Return the entries for numbers of any shape; what is beyond the table has its first or last entry.

        Not pydicom's ``apply_voi``: it keeps the index in the type of the entries, and so wraps around in a table of 8
        bits with more than 256 entries.
        """
        index = np.rint(values).astype(np.int64)
        if not index.size:
            return index
        first = self._first_by(int(index.min()), int(index.max()))
        return self.entries[np.clip(index - first, 0, len(self.entries) - 1)]

    def _first_by(self, low: int, high: int) -> int:
        """Choose signed or unsigned for the first number mapped, the one by which more of ``low`` to ``high`` is."""
        firsts = (self.first, self.first - 2**16 if self.first >= 0 else self.first + 2**16)
        last = len(self.entries) - 1
        return max(firsts, key=lambda first: min(high, first + last) - max(low, first))

    @property
    def white(self) -> int:
        """The entry that is white: by the bits of the descriptor, or by the largest entry where that is elsewhere.

        Elsewhere is above all that the bits can tell, or at half of it or less; white is then the next 2^n - 1.
        """
        largest = int(self.entries.max())
        bits = self.bits if 2 ** (self.bits - 1) <= largest < 2**self.bits else (largest - 1).bit_length()
        return max(1, 2**bits - 1)


def look_up_table(descriptor: Any, data: Any, name: str, *, little_endian: bool) -> LookUpTable:
    """Read a table from the values of its descriptor and data.

    Args:
        descriptor: number of entries (0 for 65536), first number mapped, bits of an entry.
        data: entries as bytes or numbers; two entries of 8 bits may share a word, whatever the descriptor says.
        name: of the table, for messages.
        little_endian: order of the bytes in the file.

    Raises:
        FieldError: one is missing, or they do not belong together.
    """
    if not isinstance(descriptor, Sequence) or len(descriptor) != 3 or data is None:
        raise FieldError(f"{name} is incomplete: a descriptor of three numbers and data were expected")
    count, first, bits = (int(number) for number in descriptor)
    count, bits = count % 2**16 or 2**16, bits % 2**16
    words = _words(data, little_endian=little_endian)
    if len(words) < count:
        pairs = words.astype("<u2").view(np.uint8)
        if len(pairs) not in (count, count + 1):
            raise FieldError(f"{name} has {len(words)} entries, its descriptor says {count}")
        words = pairs
    return LookUpTable(words[:count].astype(np.int64), first, bits)


def _words(data: Any, *, little_endian: bool) -> np.ndarray:
    if isinstance(data, bytes):
        return np.frombuffer(data + bytes(len(data) % 2), dtype="<u2" if little_endian else ">u2")
    return (np.atleast_1d(np.asarray(data)).astype(np.int64) % 2**16).astype(np.uint16)
