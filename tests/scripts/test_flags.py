from pathlib import Path
from typing import Any, Literal

import pytest

from clinbundles.scripts.flags import (
    REQUIRED,
    Option,
    as_parts,
    choose_names,
    code_in,
    nearest,
    options_of,
    outlines,
    parse_ids,
    parse_numbers,
    read_value,
    read_values,
    split_words,
    takes_more,
    value_of,
)


def verb(folder: str, *, seed: int = 0, resume: bool = False, mode: Literal["fast", "exact"] = "fast", **more: Any):
    """Do it.

    Args:
        folder: where: "here",
            or there.
        seed, resume: the same for both.

    Returns:
        Nothing.
    """


def test_a_function_says_its_options_by_signature_and_docstring() -> None:
    options = options_of(verb)
    assert list(options) == ["folder", "seed", "resume", "mode"]
    assert options["folder"] == Option("folder", str, REQUIRED, 'where: "here", or there.', positional=True)
    assert options["seed"].meaning == options["resume"].meaning == "the same for both."
    assert takes_more(verb)
    assert not takes_more(nearest)
    assert list(options_of(verb, without=["folder"])) == ["seed", "resume", "mode"]


def test_the_functions_of_a_file_are_known_without_importing_it(tmp_path: Path) -> None:
    (tmp_path / "heavy.py").write_text(
        '''import no_such_library

def draw(image: no_such_library.Image, *, size: int | None = 3) -> None:
    """Draw it."""
    no_such_library.draw(image)

def _hidden(): pass
'''
    )
    functions = outlines(tmp_path / "heavy.py")
    assert list(functions) == ["draw"]
    assert functions["draw"].__doc__ == "Draw it."
    assert functions["draw"].__annotations__["size"] == "int | None"
    assert list(options_of(outlines(Path(__file__))["verb"])) == list(options_of(verb))


def test_words_are_positions_or_options_with_or_without_a_value() -> None:
    words = ["here", "--seed", "-3", "--train#lr=1e-3", "--two-words", "a=b", "--resume", "--last"]
    positional, named = split_words(words)
    assert positional == ["here"]
    assert named == {"seed": "-3", "train#lr": "1e-3", "two_words": "a=b", "resume": None, "last": None}
    with pytest.raises(ValueError, match="--seed is given twice"):
        split_words(["--seed", "1", "--seed=2"])
    with pytest.raises(ValueError, match="-s: the name of an option begins with two dashes"):
        split_words(["-s", "1"])


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("true", bool, True),
        ("FALSE", bool, False),
        (None, bool, True),
        ("none", bool | None, None),
        ("none", str, "none"),
        ("2024", str, "2024"),
        ("2024", int, 2024),
        ("-1", int | None, -1),
        ("4", float, 4.0),
        ("4", Any, 4),
        ("exact", Literal["fast", "exact"], "exact"),
        (None, str | bool | None, True),
        ("9,1,0", list, [9, 1, 0]),
        ("body,left lung, right lung", list, ["body", "left lung", "right lung"]),
        ('["head"]', list, ["head"]),
        ("nucleus", list | None, ["nucleus"]),
        ("none", list | None, None),
    ],
)
def test_a_value_is_read_by_the_type_of_its_option(text: str | None, kind: Any, value: Any) -> None:
    result = read_value(text, Option("x", kind))
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("yes", bool, "--x is 'yes', expected true or false"),
        ("1", bool, "--x is '1', expected true or false"),
        ("two", int | None, "--x is 'two', expected a whole number"),
        ("1.5", int, "expected a whole number"),
        ("nan", float, "expected a number"),
        ("none", int, "expected a whole number"),
        ("exakt", Literal["fast", "exact"], "expected fast, exact; did you mean exact"),
        (None, str, "--x needs a value"),
    ],
)
def test_a_value_of_another_type_is_refused(text: str | None, kind: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_value(text, Option("x", kind))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("True", True),
        ("null", None),
        ("3", 3),
        ("1e-3", 0.001),
        ("1,2", (1, 2)),
        ("[true, 1]", [True, 1]),
        ("['a.json','b.json']", ["a.json", "b.json"]),
        ("{a: 1}", {"a": 1}),
        ("1-4", "1-4"),
        ("$None", "$None"),
        ("$@a + '/x'", "$@a + '/x'"),
        ("@train#lr", "@train#lr"),
        ("data/run#2", "data/run#2"),
        ("007", "007"),
        ("NaN", "NaN"),
    ],
)
def test_a_value_of_no_type_is_read_as_json_or_python_would(text: str, value: Any) -> None:
    assert value_of(text) == value


def test_values_are_all_checked_before_they_are_used() -> None:
    options = options_of(verb)
    assert read_values(["here"], {"seed": "3"}, options) == {"folder": "here", "seed": 3}
    assert read_values([], {"folder": "x", "lr": "1e-3"}, options, any_name=True) == {"folder": "x", "lr": 0.001}
    with pytest.raises(ValueError, match="there is no option --sed; did you mean --seed"):
        read_values(["here"], {"sed": "3"}, options)
    with pytest.raises(ValueError, match="there is no option --zzz\\."):
        read_values(["here"], {"zzz": "3"}, options)
    with pytest.raises(ValueError, match="'there' is one word too many"):
        read_values(["here", "there"], {}, options)
    with pytest.raises(ValueError, match="--folder is given twice"):
        read_values(["here"], {"folder": "there"}, options)
    with pytest.raises(ValueError, match=r"FOLDER .*is missing"):
        read_values([], {}, options)


def test_number_lists_are_read_as_people_write_them() -> None:
    assert parse_numbers("1-4") == ["1", "2", "3", "4"]
    assert parse_numbers((0, 2)) == ["0", "2"]
    assert parse_numbers(3) == ["3"]
    with pytest.raises(ValueError, match="'first'"):
        parse_numbers("first")


def test_ids_are_numbers_and_ranges() -> None:
    assert parse_ids("3,26-28") == {3, 26, 27, 28}
    assert parse_ids((1, "4-5")) == {1, 4, 5}
    with pytest.raises(ValueError, match="--label is 'car': expected ids"):
        parse_ids("car", name="label")


def test_names_are_chosen_in_their_own_order() -> None:
    assert as_parts("b, a") == ["b", "a"]
    assert choose_names("b, a", ["a", "b", "c"], "rows") == ["a", "b"]
    assert choose_names(None, ["a", "b"], "rows") == ["a", "b"]
    with pytest.raises(ValueError, match="rows: 'UNte' is not one of FPN, UNet; did you mean UNet"):
        choose_names("UNte", ["FPN", "UNet"], "rows")


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("$print('x')", "$print('x')"),
        (["a", "$__import__('os')"], "$__import__('os')"),
        ({"_target_": "os.system", "command": "ls"}, "os.system"),
        ({"a": {"b": "$1 + x"}}, "$1 + x"),
        ("%other.json::a", "%other.json::a"),
        ("%[1]", "%[1]"),
        ("$None", None),
        ("$[8, -1.5]", None),
        ("$'text'", None),
        ("@max_epochs", None),
        ("costs $5", None),
        ([1, {"a": None}], None),
    ],
)
def test_what_would_run_code_is_told_from_plain_values(value: object, code: str | None) -> None:
    assert code_in(value) == code
