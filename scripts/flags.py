"""What a person types after ``clinbundles VERB``: words, read by the signatures of the functions that take them."""

from __future__ import annotations

import ast
import difflib
import inspect
import json
import math
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fire.parser import DefaultParseValue

REQUIRED = inspect.Parameter.empty
WORDS = {"true": True, "false": False, "none": None, "null": None}
NAMES_IN_SIGNATURES = {"Any": Any, "Literal": Literal, "Mapping": Mapping, "Path": Path, "Sequence": Sequence}
KINDS = {bool: "true or false", int: "a whole number", float: "a number"}


class Expression:
    """The kind of an option's value that a config works out: text that begins with $, @ or %."""


class Bracketed:
    """The kind of an option's value that is text or, typed in brackets, a list."""


@dataclass(frozen=True)
class Option:
    """One thing that a verb can be told: its name, the type of its value, its default, what it means.

    One that is not ``listed`` is left out of the help.
    """

    name: str
    kind: Any = Any
    default: Any = REQUIRED
    meaning: str = ""
    positional: bool = False
    listed: bool = True

    @property
    def flag(self) -> str:
        """How it is written on the command line."""
        return f"--{self.name}"

    @property
    def title(self) -> str:
        """How the help names it."""
        return self.name.upper() if self.positional else self.flag

    def check(self, value: Any) -> None:
        """Refuse a value, read already, that is not of the option's type.

        Raises:
            ValueError: it is text or a truth value where another was expected.
        """
        kinds = _alternatives(self.kind)
        if isinstance(value, str | bool | int | float) and not {Any, str} & set(kinds):
            text = str(value).lower() if isinstance(value, bool) else str(value)
            read_value(text, self)


def outlines(path: Path) -> dict[str, Callable[..., Any]]:
    """Give the public functions of a file by name, with signature and docstring but no body: nothing is imported.

    Defaults have to be literals, and annotations names of Python or of NAMES_IN_SIGNATURES.
    """
    module = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    for function in functions:
        function.decorator_list, function.body = [], function.body[:1] if ast.get_docstring(function) else [ast.Pass()]
    module.body = list(functions)
    namespace: dict[str, Any] = dict(NAMES_IN_SIGNATURES)
    code = compile(ast.fix_missing_locations(module), path, "exec", flags=annotations.compiler_flag)
    exec(code, namespace)
    return {function.name: namespace[function.name] for function in functions}


def options_of(function: Callable[..., Any], *, without: Collection[str] = ()) -> dict[str, Option]:
    """Describe the named arguments of a function, less some, by its signature and the Args of its docstring."""
    meanings = _meanings(inspect.getdoc(function) or "")
    return {
        name: Option(
            name,
            _kind(parameter.annotation, function),
            parameter.default,
            meanings.get(name, ""),
            parameter.kind is parameter.POSITIONAL_OR_KEYWORD,
        )
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and name not in without
    }


def takes_more(function: Callable[..., Any]) -> bool:
    """Tell whether a function takes arguments of any name, and so has to check the names by itself."""
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def split_words(words: Iterable[str]) -> tuple[list[str], dict[str, str | None]]:
    """Tell values by position from options, whose value is None where nothing follows the name.

    Raises:
        ValueError: an option stands twice, or begins with a single dash.
    """
    positional: list[str] = []
    options: dict[str, str | None] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if re.match(r"-[A-Za-z]", word):
            raise ValueError(f"{word}: the name of an option begins with two dashes.")
        if not word.startswith("--"):
            positional.append(word)
            continue
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_").replace("::", "#")
        if name in options:
            raise ValueError(f"--{name} is given twice.")
        follows = bool(rest) and not rest[0].startswith("--")
        options[name] = value if equals else rest.pop(0) if follows else None
    return positional, options


def read_values(
    positional: Sequence[str],
    named: Mapping[str, str | None],
    options: Mapping[str, Option],
    *,
    any_name: bool = False,
) -> dict[str, Any]:
    """Read words as the values of options.

    Args:
        positional: values that fill the positional options in their order.
        named: values by the name of their option.
        options: all that there are.
        any_name: keep names that are not among ``options`` too, for whoever knows them.

    Raises:
        ValueError: a name or a value that is not to be had, one too many, or one that is missing.
    """
    places = [option for option in options.values() if option.positional]
    if len(positional) > len(places):
        raise ValueError(f"{positional[len(places)]!r} is one word too many.")
    texts: dict[str, str | None] = {option.name: text for option, text in zip(places, positional, strict=False)}
    missing = [o for o in options.values() if o.default is REQUIRED and o.name not in {**texts, **named}]
    if missing:
        meanings = [f"{option.title} ({option.meaning.rstrip('.')})" for option in missing]
        raise ValueError(f"{' and '.join(meanings)} {'is' if len(missing) == 1 else 'are'} missing.")
    for name, text in named.items():
        if name in texts:
            raise ValueError(f"{options[name].flag} is given twice.")
        if name not in options and not any_name:
            raise ValueError(f"there is no option --{name}{nearest(name, options, prefix='--')}")
        texts[name] = text
    return {name: read_value(text, options.get(name, Option(name))) for name, text in texts.items()}


def read_value(text: str | None, option: Option) -> Any:
    """Read one word as the value of an option; None, for no word at all, is true where that can be meant.

    Raises:
        ValueError: the text is not of the option's type.
    """
    kinds = _alternatives(option.kind)
    if text is None:
        if bool in kinds or Any in kinds:
            return True
        raise ValueError(f"{option.flag} needs a value.")
    if text.lower() in WORDS and type(WORDS[text.lower()]) in kinds:
        return WORDS[text.lower()]
    if Expression in kinds and text[:1] in ("$", "@", "%"):
        return text
    choices = [choice for kind in kinds for choice in typing.get_args(kind) if typing.get_origin(kind) is Literal]
    if text in choices:
        return text
    if choices and Any not in kinds:
        raise ValueError(f"{option.flag} is {text!r}, expected {', '.join(choices)}{nearest(text, choices)}")
    if int in kinds and re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    if float in kinds and (number := _number(text)) is not None:
        return number
    if Bracketed in kinds and text[:1] == "[" and isinstance(value := value_of(text), list):
        return value
    if list in kinds:
        value = value_of(text)
        parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
        return list(parts) if isinstance(parts, list | tuple) else [parts]
    if str in kinds:
        return text
    if expected := [words for kind, words in KINDS.items() if kind in kinds]:
        raise ValueError(f"{option.flag} is {text!r}, expected {expected[-1]}.")
    return value_of(text)


def value_of(text: str) -> Any:
    """Read a word as JSON or Python would: a number, a list, a mapping, true, false or none; else it is text."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    if text in ("NaN", "Infinity", "-Infinity"):
        return text
    try:
        return json.loads(text)
    except ValueError:
        # Python takes what follows a # for a comment: it is the mark of a nested name in a config.
        return text if "#" in text else DefaultParseValue(text)


def refuse_code(options: Mapping[str, Any]) -> None:
    """Refuse options that would run code, see :func:`code_in`, or that name what a config makes an object of.

    Raises:
        ValueError: the message names the option.
    """
    for name, value in options.items():
        path = name.replace("::", "#")
        if (code := value if path.rpartition("#")[2].startswith("_") else code_in(value)) is not None:
            raise ValueError(
                f"--{path}: {code!r} would run code; give a plain value, or --allow_expressions if you trust it."
            )


def code_in(value: Any) -> str | None:
    """Find the part of an option's value that MONAI would run: an expression, a macro or a class; None without one.

    An expression that is a literal of Python, such as "$None" or "$[8, 16]", is none.
    """
    if isinstance(value, Mapping):
        return str(value["_target_"]) if "_target_" in value else code_in(list(value.values()))
    if isinstance(value, list | tuple):
        return next((code for part in value if (code := code_in(part)) is not None), None)
    if not isinstance(value, str) or value[:1] not in ("$", "%"):
        return None
    try:
        ast.literal_eval(value[1:].strip())
    except (ValueError, SyntaxError):
        return value
    return value if value[:1] == "%" else None


def nearest(name: str, names: Iterable[str], *, prefix: str = "") -> str:
    """End a sentence about an unknown name: with the name that may have been meant, or with a full stop."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {prefix}{close[0]}?" if close else "."


def parse_ids(ids: Any, *, name: str = "foreground") -> frozenset[int]:
    """Read numbers and ranges of them, such as ``1``, ``1,2`` or ``3,26-31``, as a set; ``name`` is for the error."""
    numbers: set[int] = set()
    for word in ",".join(map(str, ids if isinstance(ids, tuple | list) else [ids])).split(","):
        bounds = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", word)
        if not bounds:
            raise ValueError(f"--{name} is {ids!r}: expected ids such as 1,2 or 26-31")
        numbers.update(range(int(bounds[1]), int(bounds[2] or bounds[1]) + 1))
    return frozenset(numbers)


def parse_numbers(text: Any) -> list[str]:
    """List the numbers that "1-4", "1,3", (1, 3) or 2 stand for, each as text."""
    numbers: list[str] = []
    for part in as_parts(text):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if not match:
            raise ValueError(f"{text!r}: expected numbers such as 0,1 or 1-4.")
        first, last = int(match[1]), int(match[2] or match[1])
        numbers += [str(n) for n in range(first, last + 1)]
    return numbers


def as_parts(parts: Any) -> list[str]:
    """List what stands between the commas of "a, b", or in (a, b), each as text."""
    return [str(part).strip() for part in (parts if isinstance(parts, list | tuple) else str(parts).split(","))]


def choose_names(parts: Any, names: Sequence[str], option: str) -> list[str]:
    """Choose names, in their own order.

    Args:
        parts: the names to keep, "a,b" or (a, b); None keeps all.
        names: all that there are.
        option: what is being chosen, for the error.

    Raises:
        ValueError: one is not among the names.
    """
    if parts is None:
        return list(names)
    chosen = [parts] if parts in names else as_parts(parts)  # a name may have a comma of its own
    if unknown := [part for part in chosen if part not in names]:
        raise ValueError(f"{option}: {unknown[0]!r} is not one of {', '.join(names)}{nearest(unknown[0], names)}")
    return [name for name in names if name in chosen]


def _kind(annotation: Any, function: Callable[..., Any]) -> Any:
    if annotation is REQUIRED:
        return Any
    return eval(annotation, function.__globals__) if isinstance(annotation, str) else annotation


def _alternatives(kind: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return typing.get_args(kind) if is_union else (kind,)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _meanings(docstring: str) -> dict[str, str]:
    """Args of a docstring by name; "one, other: text" describes both."""
    section = re.search(r"^Args:\n((?: .*\n?|\n)+)", docstring, re.MULTILINE)
    if section is None:
        return {}
    entries = re.split(r"^ {4}(?=\S)", section[1], flags=re.MULTILINE)[1:]
    pairs = [entry.partition(":") for entry in entries]
    texts = [(names, " ".join(text.split())) for names, _, text in pairs]
    return {name.strip(): text for names, text in texts for name in names.split(",")}
