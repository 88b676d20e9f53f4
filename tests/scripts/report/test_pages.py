import pytest

from clinbundles.scripts.report.pages import fill, loose_decimals

TABLE = ("table", "methods")
VALUE = ("value", "half")
PAGE = "# Page\n\n<!-- table methods -->\nold\n<!-- end -->\n\nIt is <!-- value half -->0.1<!-- end --> less.\n"


def test_what_stands_between_markers_is_replaced_and_nothing_else() -> None:
    page = fill(PAGE, {TABLE: "| a |\n", VALUE: "0.2"}, "x")
    assert page == PAGE.replace("old", "| a |").replace("0.1", "0.2")
    assert fill(page, {TABLE: "| a |\n", VALUE: "0.2"}, "x") == page


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (PAGE.replace("methods", "other"), "page: there is no table other in results.json"),
        (PAGE + "<!-- table methods -->\n<!-- end -->\n", "page: table methods has two markers"),
        (PAGE.replace("old\n<!-- end -->\n", ""), "page:3: <!-- table methods --> has no <!-- end -->"),
        (PAGE + "<!-- table methods -->\n", "page:8: <!-- table methods --> has no <!-- end -->"),
        (PAGE + "<!-- end -->\n", "page:8: <!-- end --> ends nothing"),
        (PAGE.replace("It is <", "It is\n <"), "page:8: <!-- value half --> begins the line"),
        ("no marker\n", "page: table methods of results.json has no marker"),
    ],
)
def test_markers_and_blocks_that_do_not_match_are_refused(page: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fill(page, {TABLE: "| a |\n", VALUE: "0.2"}, "page")


def test_decimals_in_prose_are_found_and_those_of_tables_commands_and_links_are_not() -> None:
    page = PAGE + (
        "A result of 0.951 and\n-0.5, or 97.1.\n```bash\nrun --x 0.1\n```\n`0.3`, [a](b/1.5), doi:10.1101/2020, "
        "CC BY 4.0, CC BY-NC-SA 3.0, Apache-2.0, version 1.2.3, Python 3.11, 3 × 3, https://x.org/1.5\n"
    )
    assert loose_decimals(page) == [(8, "0.951"), (9, "0.5"), (9, "97.1")]
