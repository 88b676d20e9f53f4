"""The one sentence that a user needs of an error, at the end of a command and of ``python -m monai.bundle run``."""

from __future__ import annotations

import dis
import os
import re
import sys
from types import TracebackType

# Libraries whose errors of these kinds are sentences for the user; those of others are faults of the program. The
# first is this one; the code of a packed bundle lies in a package of its name and eight digits.
SPOKEN_BY = (__name__.partition(".")[0], "monai", "json", "ignite", "torch")
PACKED = re.compile(r"\w+_[0-9a-f]{8}")
SPOKEN = (ValueError, KeyError, MemoryError, ModuleNotFoundError)
TOO_LARGE = re.compile(r"(?:can't allocate memory: you|out of memory\.) tried to allocate ([\d.]+ \w+)", re.IGNORECASE)
UNREAD = re.compile(r"cannot find a suitable reader for file: (.+)\.$", re.MULTILINE)  # of MONAI, for a pure zip
NO_PICTURE = "JPEG and PNG of 8 bits a channel alone are read"  # says a pure zip
BUNDLE_COMMAND = "monai.bundle.__main__"


def speak() -> None:
    """Let a run of ``python -m monai.bundle`` end in one sentence, where that is what the process does.

    In a notebook, a server or another program, whose own errors would be hidden, nothing is changed; nor where the
    variable CLINBUNDLES_TRACEBACK is set.
    """
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if getattr(spec, "name", None) != BUNDLE_COMMAND or os.environ.get("CLINBUNDLES_TRACEBACK"):
        return
    usual = sys.excepthook

    def say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sentence = sentence_of(error)
        if sentence is None:
            usual(kind, error, trace)
        else:
            print(f"monai.bundle: {sentence}", file=sys.stderr, flush=True)

    sys.excepthook = say


def sentence_of(error: BaseException) -> str | None:
    """Find the sentence for the user in an exception or in what it was raised from; None for a fault of the program."""
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, OSError):
            plain = current.filename is not None and current.strerror
            return f"{current.filename}: {current.strerror}." if plain else _one_line(current)
        if isinstance(current, SPOKEN) and _is_spoken(_origin(current)):
            return _one_line(current.args[0] if isinstance(current, KeyError) else current)
        if unread := UNREAD.search(str(current)):
            return f"{unread[1]}: no reader of MONAI can read it."
        if sentence := _sentence_of_worker(current) or _sentence_of_memory(current):
            return sentence
        current = current.__cause__
    return None


def innermost(error: BaseException) -> str:
    """Give in one line what an exception goes back to: a library that raises another from it says only where it was.

    A pure bundle, which has no code that could raise one, puts a sentence in the place of a picture that it refuses.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, AttributeError) and isinstance(error.obj, str) and NO_PICTURE in error.obj:
        return _one_line(error.obj)
    return f"{type(error).__name__}: {_one_line(error)}"


def _sentence_of_worker(error: BaseException) -> str | None:
    """The first mistake in what a data loader's process raised: torch hands it on as the text of its traceback."""
    if "DataLoader worker process" not in str(error):
        return None
    found = re.search(r"^(?:ValueError|\w*(?:OS|NotFound)Error): (.+)$", str(error), re.MULTILINE)
    return found[1] if found else None


def _sentence_of_memory(error: BaseException) -> str | None:
    """Say that memory was asked for that is not there: torch says so among lines of its own source."""
    found = TOO_LARGE.search(str(error)) if isinstance(error, RuntimeError) else None
    if found is None and not isinstance(error, MemoryError):
        return None
    asked = f", {found[1]} at once" if found else ""
    return f"there is not enough memory{asked}: give a smaller image_size or batch_size, or smaller images."


def _is_spoken(origin: str) -> bool:
    return origin in SPOKEN_BY or PACKED.fullmatch(origin) is not None


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


def _origin(error: BaseException) -> str:
    """Name the library that raised an exception by a statement of its own; "" where the interpreter raised it."""
    step = error.__traceback__
    if step is None:
        return ""
    while step.tb_next is not None:
        step = step.tb_next
    raised = step.tb_frame.f_code.co_code[step.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return str(step.tb_frame.f_globals.get("__name__", "")).partition(".")[0] if raised else ""
