"""Pages with generated parts: what stands between their markers, and the decimals that stand outside."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

START = re.compile(r"<!-- (table|value) ([\w-]+) -->")
MARKER = re.compile(rf"{START.pattern}|<!-- (end) -->")
# Commands, links and names hold no result, nor do versions.
NO_PROSE = re.compile(
    r"```.*?```|`[^`\n]*`|\]\([^)\s]*\)|(?:https?:|doi:|arXiv:)\S+"
    r"|\bPython \d\.\d+|\bCC BY[\w-]* \d\.\d|\bApache-\d\.\d|\d+(?:\.\d+){2,}",
    re.DOTALL,
)
DECIMAL = re.compile(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)")


def fill(page: str, blocks: Mapping[tuple[str, str], str], place: str) -> str:
    """Put generated text between a page's markers.

    ``<!-- table ID -->`` … ``<!-- end -->`` holds a table, ``<!-- value ID -->`` … ``<!-- end -->`` a number in a line
    of text, which it must not begin.

    Args:
        page: text of the page.
        blocks: text by ("table" or "value", ID); all of them must be on the page, and a table once.
        place: the page's name, for the message.

    Raises:
        ValueError: a marker has no end or no block, a block has no marker, or a table has two.
    """
    parts, position, names = [], 0, []
    for start, end, name in _spans(page, place):
        if name not in blocks:
            raise ValueError(f"{place}: there is no {' '.join(name)} in results.json for the marker.")
        parts += [page[position:start], f"\n{blocks[name]}" if name[0] == "table" else blocks[name]]
        position = end
        names.append(name)
    if missing := [name for name in blocks if name not in names]:
        raise ValueError(f"{place}: {' '.join(missing[0])} of results.json has no marker.")
    if twice := [name for name in names if name[0] == "table" and names.count(name) > 1]:
        raise ValueError(f"{place}: {' '.join(twice[0])} has two markers.")
    return "".join([*parts, page[position:]])


def _spans(page: str, place: str) -> Iterator[tuple[int, int, tuple[str, str]]]:
    """Start, end and name of what stands between each pair of markers."""
    markers = list(MARKER.finditer(page))
    for marker, after in zip(markers[::2], [*markers[1::2], None], strict=False):
        line = page.count("\n", 0, marker.start()) + 1
        if marker[3]:
            raise ValueError(f"{place}:{line}: {marker[0]} ends nothing.")
        if after is None or not after[3]:
            raise ValueError(f"{place}:{line}: {marker[0]} has no <!-- end -->.")
        if marker[1] == "value" and not page[: marker.start()].rpartition("\n")[2].strip():
            raise ValueError(f"{place}:{line}: {marker[0]} begins the line, which Markdown takes for a new paragraph.")
        yield marker.end(), after.start(), (marker[1], marker[2])


def loose_decimals(page: str) -> list[tuple[int, str]]:
    """Decimals of a page that nothing generated: line and number of each outside markers, code and links."""

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    prose = re.sub(rf"{START.pattern}.*?<!-- end -->", blank, page, flags=re.DOTALL)
    prose = NO_PROSE.sub(blank, prose)
    return [(prose.count("\n", 0, match.start()) + 1, match[0]) for match in DECIMAL.finditer(prose)]
