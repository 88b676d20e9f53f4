from typing import Any

import pytest

from clinbundles.scripts.report.tables import as_markdown, cell_text, markdown_table, result_of


def test_a_table_has_a_line_a_selection_and_one_value_a_cell(content: dict[str, Any]) -> None:
    assert markdown_table(content, content["tables"][0], "x").splitlines() == [
        "| method | Dice | paper | interval | operations |",
        "| --- | --- | --- | --- | --- |",
        "| whole | 0.800 | 0.9 |  | 1.00 |",
        "| one half | 0.750 |  | [-0.060, +0.041] | 0.25 |",
    ]
    assert markdown_table(content, content["tables"][1], "x").splitlines()[-1] == "| eyes | 1 | [0, 1] |"


def test_a_difference_keeps_its_sign_and_a_single_measurement_stands_for_the_mean(content: dict[str, Any]) -> None:
    assert cell_text(content, content["values"]["half"], "x") == "-0.050"
    assert cell_text(content, {"run": "levers", "metric": "dice", "format": ".2f"}, "x") == "0.70"
    content["results"][1]["metrics"]["dice"]["difference"] = 0.05
    assert cell_text(content, content["values"]["half"], "x") == "+0.050"


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"column": "half", "metric": "dice"}, "2 results have column 'half'; they are of grid, levers"),
        ({"column": "third", "metric": "dice"}, "no result has column 'third'"),
        ({"run": "levers", "metric": "iou"}, "no result has metric 'iou'"),
        ({"run": "levers", "cost": "watts"}, "no result has cost 'watts'"),
    ],
)
def test_a_cell_without_one_result_is_refused(content: dict[str, Any], cell: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"page: .*{message}|page.{message}"):
        cell_text(content, cell, "page")


def test_a_cell_may_be_optional_but_a_column_may_not_stay_empty(content: dict[str, Any]) -> None:
    assert cell_text(content, {"column": "third", "metric": "dice", "optional": True}, "x") == ""
    assert result_of(content, {"column": "third"}, "x") is None
    table = content["tables"][0]
    table["columns"][1] |= {"column": "third", "optional": True}
    with pytest.raises(ValueError, match="table methods: column 'Dice' is empty"):
        markdown_table(content, table, "x")
    table["columns"][0] = {"title": "data", "text": "row"}
    table["lines"][0] = {"column": "third"}
    with pytest.raises(ValueError, match="line \"column 'third'\", column 'data': no result has column 'third'"):
        markdown_table(content, table, "x")


def test_markdown_has_a_line_a_row() -> None:
    assert as_markdown(["a", "b"], [["1", ""]]) == "| a | b |\n| --- | --- |\n| 1 |  |\n"
