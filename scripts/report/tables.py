"""Markdown tables of results: a line a selection of results, a cell a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .results import KEYS

# Numbers that say by how much carry their sign.
SIGNED = ("difference", "difference_interval")


def result_of(content: Mapping[str, Any], keys: Mapping[str, str], place: str) -> dict[str, Any] | None:
    """The one result with these keys, or None.

    Args:
        content: a bundle's results.json.
        keys: run, row and column, or some of them.
        place: where they stand, for the message.

    Raises:
        ValueError: several results have them.
    """
    results = [r for r in content["results"] if all(r[name] == value for name, value in keys.items())]
    if len(results) > 1:
        runs = ", ".join(dict.fromkeys(result["run"] for result in results))
        raise ValueError(f"{place}: {len(results)} results have {_words(keys)}; they are of {runs}.")
    return results[0] if results else None


def cell_text(content: Mapping[str, Any], cell: Mapping[str, Any], place: str) -> str:
    """The text of one cell: a number or an interval, or nothing where the result lacks it.

    Args:
        content: a bundle's results.json.
        cell: run, row, column; ``metric`` with ``value``, or ``cost``; ``format``; ``optional``.
        place: where the cell stands, for the message.

    Raises:
        ValueError: there is no such result, or no result has this metric.
    """
    keys = {name: cell[name] for name in KEYS if name in cell}
    result = result_of(content, keys, place)
    if result is None:
        if cell.get("optional"):
            return ""
        raise ValueError(f"{place}: no result has {_words(keys)}.")
    kind = "cost" if "cost" in cell else "metric"
    name, value = cell[kind], cell.get("value", "mean")
    if not any(name in _measured(r, kind) for r in content["results"]):
        raise ValueError(f"{place}: no result has {kind} {name!r}.")
    numbers = _measured(result, kind).get(name, {})
    # Papers print four digits, and what they print is shown.
    spec = cell.get("format", ".4f" if value.startswith("published") else ".3f")
    spec = f"+{spec}" if value in SIGNED and not spec.startswith("+") else spec
    if value.endswith("interval"):
        ends = [numbers.get(value.removesuffix("interval") + end) for end in ("low", "high")]
        return "" if None in ends else f"[{ends[0]:{spec}}, {ends[1]:{spec}}]"
    # A quantity measured once has no mean over seeds.
    number = numbers.get(value, numbers.get("value") if value == "mean" else None)
    return "" if number is None else f"{number:{spec}}"


def _measured(result: Mapping[str, Any], kind: str) -> Mapping[str, Mapping[str, float]]:
    """The numbers of a result by name of the metric, or of the cost."""
    if kind == "metric":
        return result["metrics"]
    return {name: {"value": number} for name, number in result.get("cost", {}).items()}


def markdown_table(content: Mapping[str, Any], table: Mapping[str, Any], place: str) -> str:
    """A table of results.json in Markdown.

    Args:
        content: a bundle's results.json.
        table: one of its tables: each line's keys join those of each column.
        place: the file, for the message.

    Raises:
        ValueError: a cell has no result, or a column stays empty.
    """
    place = f"{place}: table {table['id']}"
    rows = [[_text(content, line, column, place) for column in table["columns"]] for line in table["lines"]]
    for number, column in enumerate(table["columns"]):
        if not any(row[number] for row in rows):
            raise ValueError(f"{place}: column {column['title']!r} is empty.")
    return as_markdown([column["title"] for column in table["columns"]], rows)


def _text(content: Mapping[str, Any], line: Mapping[str, Any], column: Mapping[str, Any], place: str) -> str:
    place = f"{place}, line {line.get('label', _words(line))!r}, column {column['title']!r}"
    keys = {name: value for name, value in {**line, **column}.items() if name in KEYS}
    if "text" not in column:
        return cell_text(content, {**column, **keys}, place)
    if column["text"] == "label":
        return line.get("label", line.get("column", line.get("row", "")))
    result = result_of(content, keys, place)
    if result is None:
        raise ValueError(f"{place}: no result has {_words(keys)}.")
    if column["text"] == "seeds":
        return str(len(content["runs"][result["run"]]["seeds"]))
    return result[column["text"]]


def measurement_table(content: Mapping[str, Any], run: str) -> str:
    """All that one run of a bench measured: a line a contender, a column a metric, and the rounds of the second.

    The second metric of a bench is its ratio to what one would use instead.
    """
    results = [result for result in content["results"] if result["run"] == run]
    names = list(dict.fromkeys(name for result in results for name in result["metrics"]))
    rows = []
    for result in results:
        metrics = result["metrics"]
        values = [f"{metrics[name]['value']:.4g}" if name in metrics else "" for name in names]
        spread = metrics.get(names[1], {}) if len(names) > 1 else {}
        rounds = f"[{spread['low']:.4g}, {spread['high']:.4g}]" if "low" in spread else ""
        rows.append([result["column"], *values, rounds])
    return as_markdown(["", *(name.replace("_", " ") for name in names), "rounds"], rows)


def _words(keys: Mapping[str, str]) -> str:
    return " and ".join(f"{name} {value!r}" for name, value in keys.items() if name in KEYS)


def as_markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Titles and rows as a table in Markdown, with a line end after each line."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
