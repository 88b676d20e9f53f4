"""The command ``clinbundles VERB``: the way from typed words to one of the verbs.

The words are checked against the signature of the verb's function, which is read from its file: the module is imported
only to run it. A mistake of the user ends in one sentence and exit status 1; a fault of the program in a traceback.
"""

from __future__ import annotations

import inspect
import io
import logging
import os
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fire

from clinbundles.engines.sentences import sentence_of
from clinbundles.scripts.bundle import find_bundle
from clinbundles.scripts.flags import (
    REQUIRED,
    Option,
    nearest,
    options_of,
    outlines,
    read_values,
    split_words,
    takes_more,
)
from clinbundles.scripts.verbs import RENAMED, VERBS, Verb

STACK = 32 << 20  # bytes
EXAMPLES = [f"{name} {VERBS[name].examples[0]}" for name in ("run", "prepare")]
PURPOSE = "Train, compare and apply the bundles, and prepare data for them. clinbundles VERB --help says more of one."


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb; exit with one sentence and status 1 on a mistake of the user.

    With the variable CLINBUNDLES_TRACEBACK set, a mistake keeps its traceback too.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name may hold bytes that no text has
    # A progress bar in a file is thousands of lines; in a terminal without a size, as of some servers, an empty one.
    if not sys.stderr.isatty() or not os.get_terminal_size(sys.stderr.fileno()).lines:
        os.environ.setdefault("TQDM_DISABLE", "1")
    # MONAI tells of a decoder that nobody asked for.
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
    if find_spec("holoscan") is not None:
        raise_stack_limit()
    name = ""
    try:
        wants_help = not words or "--help" in words or "-h" in words
        words = [word for word in words if word not in ("--help", "-h")]
        name = find_verb(words, or_group=wants_help)
        words = words[len(name.split()) :]
        if wants_help:
            print(help_of(name, words))
            return
        values = values_of(VERBS[name], words)
        if not VERBS[name].is_quick:
            start(name, words, values.get("bundle"))
        # Fire reads a Python literal as just that.
        literals = [f"--{option}={value!r}" for option, value in values.items()]
        fire.Fire(load(VERBS[name].target), command=literals, name=f"clinbundles {name}")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None or os.environ.get("CLINBUNDLES_TRACEBACK"):
            raise
        sys.exit(f"{' '.join(['clinbundles', *name.split()])}: {sentence}")


def start(name: str, words: Sequence[str], bundle: Any) -> None:
    """Say that a verb starts, where its imports take seconds, and refuse before them a bundle that is not there.

    Args:
        name: verb.
        words: what was typed after it.
        bundle: the name, folder or zip among them; what is no text is let pass.

    Raises:
        FileNotFoundError: there is no such bundle.
    """
    if isinstance(bundle, str) and not Path(bundle).is_file():
        if bundle.endswith(".zip"):
            raise FileNotFoundError(f"{bundle}: no such file.")
        find_bundle(bundle)
    if "torch" not in sys.modules:
        typed = " ".join(["clinbundles", name, *split_words(words)[0]])
        print(f"{typed}: starting: torch and MONAI take some 10 s to load", file=sys.stderr, flush=True)


def raise_stack_limit() -> None:
    """Allow the stack that holoscan asks for, which MONAI imports where MONAI Deploy is installed."""
    import resource  # only on Unix, as holoscan is

    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if soft != resource.RLIM_INFINITY and soft < STACK and (hard == resource.RLIM_INFINITY or hard >= STACK):
        resource.setrlimit(resource.RLIMIT_STACK, (STACK, hard))


def find_verb(words: Sequence[str], *, or_group: bool = False) -> str:
    """Find the verb that words begin with, of one word or two.

    Args:
        words: what was typed.
        or_group: take the first word of verbs of two, and no word, for an answer too.

    Raises:
        ValueError: there is no such verb.
    """
    if not words and or_group:
        return ""
    for name in (" ".join(words[:2]), words[0]):
        if name in VERBS:
            return name
    seconds = [name.split()[1] for name in VERBS if name.startswith(f"{words[0]} ")]
    if not seconds:
        firsts = list(dict.fromkeys(name.split()[0] for name in VERBS))
        raise ValueError(f"there is no verb {words[0]!r}{nearest(words[0], firsts)} clinbundles --help lists them.")
    if or_group and len(words) == 1:
        return words[0]
    typed = f", not by {words[1]!r}{nearest(words[1], seconds)}" if len(words) > 1 else "."
    renamed = f" What it was alone is called {RENAMED[words[0]]} now." if words[0] in RENAMED else ""
    raise ValueError(f"{words[0]} is followed by {' or '.join(seconds)}{typed}{renamed}")


def load(target: str) -> Callable[..., Any]:
    """Import the function of a "module:function"."""
    module, _, function = target.partition(":")
    return getattr(import_module(f"clinbundles.scripts.{module}"), function)


def outline(target: str) -> Callable[..., Any]:
    """Read the signature and the docstring of a "module:function", without importing it."""
    module, _, function = target.partition(":")
    return outlines(Path(__file__).parent.joinpath(*module.split(".")).with_suffix(".py"))[function]


def values_of(verb: Verb, words: Sequence[str]) -> dict[str, Any]:
    """Read the words after a verb as the arguments of its function, all checked."""
    function = outline(verb.target)
    positional, named = split_words(words)
    options = options_of(function)
    if verb.more is None:
        return read_values(positional, named, options, any_name=takes_more(function))
    first = read_values(positional, {k: v for k, v in named.items() if k in options}, options)
    return read_values(positional, named, options | load(verb.more)(**first))


def help_of(name: str, words: Sequence[str] = ()) -> str:
    """Compose the help of a verb, of the verbs that begin with a word, or for "" of the whole command.

    Args:
        name: verb, first word of some, or "".
        words: what follows it, which may bring more options.
    """
    if name not in VERBS:
        rows = {verb: row for verb, row in VERBS.items() if not name or verb.startswith(f"{name} ")}
        examples = [f"{verb} {row.examples[0]}" for verb, row in rows.items()] if name else EXAMPLES
        width = max(map(len, rows))
        listed = [f"  {verb:{width}}  {row.purpose}" for verb, row in rows.items()]
        return "\n".join([*_examples(examples), PURPOSE, "", *listed])
    verb = VERBS[name]
    function = outline(verb.target)
    options = options_of(function)
    if verb.more is not None:
        places = [option.name for option in options.values() if option.positional]
        options |= load(verb.more)(**dict(zip(places, split_words(words)[0], strict=False)))
    about = inspect.cleandoc((function.__doc__ or "").partition("Args:")[0]).strip()
    more = [f"  {other:{24}}  {row.purpose}" for other, row in VERBS.items() if other.startswith(f"{name} ")]
    more = ["", *more] if more else []
    return "\n".join([*_examples([f"{name} {each}" for each in verb.examples]), about, "", *_listed(options), *more])


def _examples(lines: Iterable[str]) -> list[str]:
    return ["Examples:", *(f"  clinbundles {line}".rstrip() for line in lines), ""]


def _listed(options: Mapping[str, Option]) -> Iterator[str]:
    for option in (option for option in options.values() if option.listed):
        yield f"  {option.title}" + ("" if option.default in (REQUIRED, None) else f" (default {option.default})")
        if option.meaning:
            yield textwrap.fill(option.meaning, 110, initial_indent=" " * 6, subsequent_indent=" " * 6)


if __name__ == "__main__":
    main()
