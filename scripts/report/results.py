"""A bundle's docs/results.json: its runs, what they measured, and the tables that show it.

``runs`` say where numbers come from; ``results`` are rows, each of a run; ``tables`` and ``values`` say what a page
shows of them; ``constants`` are the decimals of a page that are no result, and what they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

# What one metric of a result can hold: over seeds, measured once, against the table's first column, as a part of that,
# and in the paper.
OWN = ("mean", "std", "low", "high", "value")
DIFFERENCE = ("difference", "difference_low", "difference_high", "p", "p_holm", "smallest_difference")
RATIO = ("ratio", "ratio_low", "ratio_high")
PUBLISHED = ("published", "published_low", "published_high")
NUMBERS = (*OWN, *DIFFERENCE, *RATIO, *PUBLISHED)
# What a table's cell can show: a number, or the two ends of an interval.
SHOWN = (*NUMBERS, "interval", "difference_interval", "ratio_interval", "published_interval")
KEYS = ("run", "row", "column")
NO_HASH = ("not recorded", "none")


class Kind(NamedTuple):
    """A kind of value: how to know it and what to call it."""

    holds: Callable[[Any], bool]
    words: str


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _one_of(*names: str) -> Kind:
    return Kind(lambda value: value in names, f"one of {', '.join(names)}")


TEXT = Kind(lambda value: isinstance(value, str) and bool(value.strip()), "a text")
FLAG = Kind(lambda value: isinstance(value, bool), "true or false")
OBJECT = Kind(lambda value: isinstance(value, dict), "an object")
ITEMS = Kind(lambda value: isinstance(value, list), "a list")
NUMBER = Kind(_is_number, "a number")
NAME = Kind(lambda value: isinstance(value, str) and re.fullmatch(r"[\w-]+", value) is not None, "a name in one word")
HASH = Kind(
    lambda value: value in NO_HASH or (isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None),
    f"64 hexadecimal digits, {' or '.join(repr(word) for word in NO_HASH)}",
)
SEEDS = Kind(
    lambda value: isinstance(value, list) and all(isinstance(s, int) and not isinstance(s, bool) for s in value),
    "a list of whole numbers",
)
FORMAT = Kind(
    lambda value: isinstance(value, str) and re.fullmatch(r"\+?,?(\.\d)?[fg]", value) is not None,
    "a format such as .3f or +.3f",
)

CONTENT = {"runs": OBJECT, "results": ITEMS}
CONTENT_OPTIONAL = {"headline": OBJECT, "tables": ITEMS, "values": OBJECT, "constants": OBJECT}
RUN = {
    "command": TEXT,
    "data": TEXT,
    "data_sha256": HASH,
    "split": TEXT,
    "split_sha256": HASH,
    "gaze": TEXT,
    "gaze_sha256": HASH,
    "seeds": SEEDS,
    "hardware": TEXT,
    "scale": TEXT,
}
RUN_OPTIONAL = {"note": TEXT, "weights_sha256": HASH}
RESULT = {**dict.fromkeys(KEYS, TEXT), "metrics": OBJECT}
RESULT_OPTIONAL = {"cost": OBJECT, "settings": OBJECT, "note": TEXT}
TABLE = {"id": NAME, "where": _one_of("readme", "results"), "title": TEXT, "lines": ITEMS, "columns": ITEMS}
LINE_OPTIONAL = {"label": TEXT, **dict.fromkeys(KEYS, TEXT)}
CELL_OPTIONAL = {
    "metric": TEXT,
    "cost": TEXT,
    "value": _one_of(*SHOWN),
    "format": FORMAT,
    **dict.fromkeys(KEYS, TEXT),
}
COLUMN_OPTIONAL = {**CELL_OPTIONAL, "text": _one_of("label", "seeds", *KEYS), "optional": FLAG}
# What the shipped weights reach on their test split and, where it was measured, on data of others.
STRANGERS = {**dict.fromkeys(KEYS, TEXT), "metric": TEXT}
HEADLINE = {**STRANGERS, "metric_title": TEXT, "images": TEXT, "picture": TEXT}
HEADLINE_OPTIONAL = {"format": FORMAT, "strangers": OBJECT}


def read_results(path: Path) -> dict[str, Any]:
    """Read a results.json and check it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, or not what the schema says; the message names file, field and value.
    """
    content = read_json(path)
    check_results(content, str(path))
    return content


def read_measurements(path: Path) -> dict[str, Any]:
    """Read what benches wrote: runs and results, as in a results.json, by bundle.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, or holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: its content is no object of bundles, as clinbundles bench writes it.")
    for bundle, part in content.items():
        check_results(part, f"{path}: {bundle}")
    return content


def read_json(path: Path) -> Any:
    """Read a file of numbers.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; a bundle's numbers were expected there.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}).") from error


def check_results(content: Any, file: str) -> None:
    """Refuse what is no table of results.

    Args:
        content: what the file holds.
        file: its name, for the message.

    Raises:
        ValueError: a field is missing, unknown or of another kind, or names a run that is not there.
    """
    _check(content, f"{file}: content", CONTENT, CONTENT_OPTIONAL)
    for name, run in content["runs"].items():
        _check(run, f"{file}: runs[{name!r}]", RUN, RUN_OPTIONAL)
    _check_each_result(content, file)
    unused = content["runs"].keys() - {result["run"] for result in content["results"]}
    if unused:
        raise ValueError(f"{file}: runs[{min(unused)!r}] has no result.")
    _check_tables(content.get("tables", []), f"{file}: tables")
    for name, cell in content.get("values", {}).items():
        _check(cell, f"{file}: values[{name!r}]", {}, CELL_OPTIONAL)
        _check_cell(cell, f"{file}: values[{name!r}]", ("metric", "cost"))
    if "headline" in content:
        head, place = content["headline"], f"{file}: headline"
        _check(head, place, HEADLINE, HEADLINE_OPTIONAL)
        if "strangers" in head:
            _check(head["strangers"], f"{place}.strangers", STRANGERS, {})
    for name, meaning in content.get("constants", {}).items():
        if not TEXT.holds(meaning):
            raise ValueError(f"{file}: constants[{name!r}] is {meaning!r}, expected what it is.")


def _check_each_result(content: Mapping[str, Any], file: str) -> None:
    places: dict[tuple[str, ...], str] = {}
    for place, result in _numbered(content["results"], f"{file}: results"):
        _check(result, place, RESULT, RESULT_OPTIONAL)
        if result["run"] not in content["runs"]:
            raise ValueError(f"{place}.run is {result['run']!r}, which is not one of the runs.")
        key = tuple(result[name] for name in KEYS)
        if key in places:
            raise ValueError(f"{place} has the run, row and column of {places[key].partition(': ')[2]}: {key}.")
        places[key] = place
        for name, numbers in result["metrics"].items():
            _check(numbers, f"{place}.metrics[{name!r}]", {}, dict.fromkeys(NUMBERS, NUMBER))
            _check_intervals(numbers, f"{place}.metrics[{name!r}]")
        for name, value in result.get("cost", {}).items():
            if not NUMBER.holds(value):
                raise ValueError(f"{place}.cost[{name!r}] is {value!r}, expected a number.")


def _check_intervals(numbers: Mapping[str, float], place: str) -> None:
    for prefix in ("", "difference_", "published_"):
        ends = [f"{prefix}{end}" for end in ("low", "high") if f"{prefix}{end}" in numbers]
        if len(ends) == 1:
            raise ValueError(f"{place}.{ends[0]} is {numbers[ends[0]]}, and the interval has no other end.")
        if ends and numbers[ends[0]] > numbers[ends[1]]:
            raise ValueError(f"{place}.{ends[0]} is {numbers[ends[0]]}, above {ends[1]}, {numbers[ends[1]]}.")


def _check_tables(tables: list[Any], place: str) -> None:
    names = set()
    for table_place, table in _numbered(tables, place):
        _check(table, table_place, TABLE, {"note": TEXT})
        if table["id"] in names:
            raise ValueError(f"{table_place}.id is {table['id']!r}, which another table has.")
        names.add(table["id"])
        for line_place, line in _numbered(table["lines"], f"{table_place}.lines"):
            _check(line, line_place, {}, LINE_OPTIONAL)
        for column_place, column in _numbered(table["columns"], f"{table_place}.columns"):
            _check(column, column_place, {"title": TEXT}, COLUMN_OPTIONAL)
            _check_cell(column, column_place, ("text", "metric", "cost"))


def _check(value: Any, place: str, required: Mapping[str, Kind], optional: Mapping[str, Kind]) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{place} is {value!r}, expected an object.")
    if missing := [name for name in required if name not in value]:
        raise ValueError(f"{place}: {missing[0]} is missing.")
    kinds = {**required, **optional}
    for name, content in value.items():
        if name not in kinds:
            raise ValueError(f"{place}: {name!r} (here {content!r}) is no field of it, only {', '.join(kinds)}.")
        if not kinds[name].holds(content):
            raise ValueError(f"{place}.{name} is {content!r}, expected {kinds[name].words}.")


def _check_cell(cell: Mapping[str, Any], place: str, sources: tuple[str, ...]) -> None:
    if len(cell.keys() & set(sources)) != 1:
        raise ValueError(f"{place} is {dict(cell)!r}, expected one of {', '.join(sources)} in it.")


def _numbered(items: list[Any], place: str) -> Iterator[tuple[str, Any]]:
    return ((f"{place}[{number}]", item) for number, item in enumerate(items))


def merge_results(content: Mapping[str, Any], more: Mapping[str, Any], *, file: str) -> dict[str, Any]:
    """Add runs and results to a bundle's; a result of the same run, row and column takes the place of the old one.

    Args:
        content: what the bundle's results.json holds.
        more: the same of a grid that ``clinbundles reproduce`` ran.
        file: where ``more`` comes from, for the message.

    Raises:
        ValueError: a run of that name is there already, made in another way, with results that ``more`` lacks.
    """

    def key(result: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(result[name] for name in KEYS)

    results = {key(result): result for result in content["results"]}
    update = {key(result): result for result in more["results"]}
    for name, run in more["runs"].items():
        others = [old for old in results if old[0] == name and old not in update]
        if others and content["runs"][name] != run:
            raise ValueError(f"{file}: runs[{name!r}] differs from the bundle's, whose {others[0][1:]} is not in here.")
    return {
        **content,
        "runs": {**content["runs"], **more["runs"]},
        "results": list({**results, **update}.values()),
    }


def as_json(value: Any, *, width: int = 150, indent: str = "") -> str:
    """Write JSON with whatever fits into a line on one line."""
    text = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(text) <= width or not isinstance(value, dict | list) or not value:
        return text
    inner = indent + "  "
    names = [f"{json.dumps(name, ensure_ascii=False)}: " for name in value] if isinstance(value, dict) else []
    items = list(value.values() if isinstance(value, dict) else value)
    parts = [as_json(item, width=width, indent=inner) for item in items]
    parts = [name + part for name, part in zip(names or [""] * len(parts), parts, strict=True)]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n{inner}" + f",\n{inner}".join(parts) + f"\n{indent}{closing}"
