"""Packages that are imported where something needs them, and named where they are missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needed_by(name: str) -> Iterator[None]:
    """Say in one sentence what needs a package that an import of this block does not find.

    Args:
        name: what needs it, such as a network.

    Raises:
        ModuleNotFoundError: with the sentence.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0].replace("_", "-")
        raise ModuleNotFoundError(
            f"{name} needs the package {package}, which is not installed: pip install {package}", name=error.name
        ) from error
