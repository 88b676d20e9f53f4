import pytest

from clinbundles.scripts.reproduce.plan import choose_tables, entries

PLAN = {
    "configs": {},
    "columns": {"method": {}},
    "tables": {"3a": {"title": "Dice", "metric": "dice"}, "30": {"title": "again", "metric": "dice"}},
    "costs": {"3b": {"title": "MAC", "cost": "macs", "name": "macs"}},
}


def test_a_number_stands_for_all_tables_that_begin_with_it() -> None:
    assert choose_tables(PLAN, 3) == ["3a", "3b"]
    assert choose_tables(PLAN, "30,3b") == ["30", "3b"]
    assert choose_tables(PLAN, None) == ["3a", "30", "3b"]
    with pytest.raises(ValueError, match="table 4 is not in"):
        choose_tables(PLAN, "3-4")


def test_a_column_that_needs_an_unknown_one_is_refused() -> None:
    plan = {**PLAN, "columns": {"method": {"fine": {"after": {"coarse_weights": "coarsest"}}}}}
    with pytest.raises(ValueError, match="'fine' needs 'coarsest', which is not one of the columns"):
        entries(plan, "columns", "tiny")
