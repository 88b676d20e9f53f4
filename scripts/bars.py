"""A bar on a terminal, and a line a minute elsewhere: a file of thousands of bars is no log."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterator
from typing import TypeVar

from tqdm import tqdm

SECONDS = 60.0  # between two lines

Item = TypeVar("Item")


def say(phase: str) -> None:
    """Print on stderr which phase of a command begins, before one that may take longer than a few seconds."""
    tqdm.write(phase, file=sys.stderr)  # above a bar, where there is one


def watch(items: Collection[Item], *, desc: str, unit: str, done: int = 0) -> Iterator[Item]:
    """Give items one by one, with a bar on a terminal and a line a minute elsewhere.

    Args:
        items: any, whose number is known.
        desc: what is done with them, such as "reading".
        unit: what one of them is, such as "image".
        done: how many more were done before.
    """
    lines = MinuteLines(desc, plural(unit), len(items), done)
    for item in tqdm(items, desc=desc, unit=unit, initial=done, total=done + len(items), disable=None):
        yield item
        lines.count()


def plural(word: str) -> str:
    """Write a noun for several: studies, series, images."""
    if word.endswith("s"):
        return word
    return f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"


class MinuteLines:
    """Print once a minute how far something is, unless a terminal shows its bar.

    The first waits for what is loaded once, so that it is left out of the rate as soon as there are more.

    Args:
        desc: what is done, such as "reading".
        units: what is counted, such as "images".
        left: how many are to do.
        done: how many more were done before.
    """

    def __init__(self, desc: str, units: str, left: int, done: int = 0) -> None:
        self.desc, self.units, self.left, self.before, self.done = desc, units, left, done, 0
        self.began = self.said = time.monotonic()
        self.of_rate = 0  # how many have been done since it began

    def count(self) -> None:
        """Count one more."""
        self.done += 1
        self.of_rate += 1
        now = time.monotonic()
        if now - self.said >= SECONDS and self.done < self.left and not sys.stderr.isatty():
            left = in_words((now - self.began) / self.of_rate * (self.left - self.done))
            so_far = f"{self.before + self.done} of {self.before + self.left}"
            print(f"{self.desc}: {so_far} {self.units}, {left} left", flush=True)
            self.said = now
        if self.done == 1:
            self.began, self.of_rate = now, 0


def in_words(seconds: float) -> str:
    """Write a time as a person would: seconds, minutes, or hours and minutes."""
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
