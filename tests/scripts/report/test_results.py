import copy
import json
from pathlib import Path
from typing import Any

import pytest

from clinbundles.scripts.report.results import as_json, check_results, merge_results, read_results


def test_a_table_of_results_is_read_as_it_was_written(content: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(as_json(content))
    assert read_results(tmp_path / "results.json") == content
    with pytest.raises(FileNotFoundError, match=r"none\.json: no such file"):
        read_results(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match=r"bad\.json: not JSON"):
        read_results(tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["author"], "me", r"'author' \(here 'me'\) is no field"),
        (["runs", "grid", "seed"], 3, r"runs\['grid'\]: 'seed' \(here 3\)"),
        (["runs", "grid", "data_sha256"], "0551ddf5abec", r"data_sha256 is '0551ddf5abec', expected 64 hexadecimal"),
        (["runs", "grid", "seeds"], "0,1", "seeds is '0,1', expected a list of whole numbers"),
        (["runs", "spare"], None, r"runs\['spare'\] is None, expected an object"),
        (["results", 1, "run"], "gird", r"results\[1\].run is 'gird', which is not one of the runs"),
        (["results", 1, "column"], "whole", r"results\[1\] has the run, row and column of results\[0\]"),
        (["results", 0, "metrics", "dice", "maen"], 0.8, r"metrics\['dice'\]: 'maen' \(here 0.8\)"),
        (["results", 0, "metrics", "dice", "mean"], "0.8", "mean is '0.8', expected a number"),
        (["results", 0, "metrics", "dice", "low"], 0.7, "low is 0.7, and the interval has no other end"),
        (
            ["results", 1, "metrics", "dice", "difference_low"],
            0.06,
            "difference_low is 0.06, above difference_high, 0.0",
        ),
        (["results", 0, "cost", "gmacs"], None, r"cost\['gmacs'\] is None, expected a number"),
        (["tables", 1, "id"], "methods", "id is 'methods', which another table has"),
        (["tables", 0, "where"], "root", "where is 'root', expected one of readme, results"),
        (["tables", 0, "columns", 1, "cost"], "gmacs", "expected one of text, metric, cost in it"),
        (["tables", 0, "columns", 1, "format"], "%", "format is '%', expected a format such as"),
        (["values", "half", "text"], "row", "'text'"),
        (["headline", "metric"], 1, "headline.metric is 1, expected a text"),
        (["headline", "strangers"], "eyes", "headline.strangers is 'eyes', expected an object"),
        (["headline", "strangers"], {"run": "grid"}, "headline.strangers: row is missing"),
        (["runs", "grid", "weights_sha256"], "d4713", "weights_sha256 is 'd4713', expected 64 hexadecimal"),
        (["constants", "0.5"], "", r"constants\['0.5'\] is ''"),
    ],
)
def test_what_the_schema_does_not_know_is_refused_by_file_field_and_value(
    content: dict[str, Any], path: list[Any], value: Any, message: str
) -> None:
    check_results(content, "docs/results.json")
    place: Any = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=f"docs/results.json: .*{message}"):
        check_results(content, "docs/results.json")


def test_a_run_without_a_field_or_a_result_is_refused(content: dict[str, Any]) -> None:
    spare = copy.deepcopy(content)
    spare["runs"]["spare"] = spare["runs"]["grid"]
    with pytest.raises(ValueError, match=r"runs\['spare'\] has no result"):
        check_results(spare, "x")
    del content["runs"]["grid"]["split"]
    with pytest.raises(ValueError, match=r"runs\['grid'\]: split is missing"):
        check_results(content, "x")


def test_a_grid_joins_the_results_and_takes_the_place_of_its_old_rows(content: dict[str, Any]) -> None:
    run = content["runs"]["grid"]
    half = {"run": "grid", "row": "eyes", "column": "half", "metrics": {"dice": {"mean": 0.6}}}
    third = {"run": "more", "row": "cells", "column": "third", "metrics": {"dice": {"mean": 0.5}}}
    more = {"runs": {"grid": run, "more": run}, "results": [half, third]}
    merged = merge_results(content, more, file="x")
    check_results(merged, "x")
    assert [r["metrics"]["dice"].get("mean") for r in merged["results"]] == [0.8, 0.6, None, 0.5]
    assert merged["tables"] == content["tables"]
    assert content["results"][1]["metrics"]["dice"]["mean"] == 0.75


def test_a_run_made_in_another_way_does_not_take_over_rows_that_it_lacks(content: dict[str, Any]) -> None:
    half = content["results"][1]
    more = {"runs": {"grid": {**content["runs"]["grid"], "seeds": [3]}}, "results": [half]}
    with pytest.raises(ValueError, match=r"new.json: runs\['grid'\] differs .* \('eyes', 'whole'\) is not in here"):
        merge_results(content, more, file="new.json")


def test_json_breaks_only_the_lines_that_are_too_long() -> None:
    value = {"short": [1, 2], "long": [{"a": "x" * 50}, {"b": ["y" * 50, 1.5, None, True]}], "empty": {}}
    text = as_json(value, width=60)
    assert json.loads(text) == value
    assert '  "short": [1, 2],\n' in text
    assert max(map(len, text.splitlines())) <= 66
    assert as_json({"ä": 1}) == '{"ä": 1}'
