"""Names of what was shown in a recording, matched with the images of a data set."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable
from pathlib import PurePath


def match_stimuli(names: Iterable[str], images: Collection[str]) -> dict[str, str]:
    r"""Match the names of what was shown with the file names of images; names that fit no image are left out.

    A name is that of an image in any case, with or without its suffix, and may follow a path: ``F0``, ``f0.PNG`` and
    ``C:\stimuli\f0.png`` are ``f0.png``.

    Args:
        names: of what was shown.
        images: file names, all different.

    Returns:
        File names of the images by the names of what was shown.

    Raises:
        ValueError: a name fits two images, or two names fit one.
    """
    by_key: dict[str, list[str]] = {}
    for image in images:
        for key in {_key(image), _key(PurePath(image).stem)}:
            by_key.setdefault(key, []).append(image)
    matches: dict[str, str] = {}
    for name in dict.fromkeys(names):
        if name in images:
            matches[name] = name
            continue
        fitting = by_key.get(_key(name), [])
        if len(fitting) > 1:
            raise ValueError(f"the name {name!r} fits both {fitting[0]} and {fitting[1]}")
        if fitting:
            matches[name] = fitting[0]
    names_of = {image: [name for name in matches if matches[name] == image] for image in set(matches.values())}
    twice = next((name for name in matches if len(names_of[matches[name]]) > 1), None)
    if twice is not None:
        first, second = names_of[matches[twice]][:2]
        raise ValueError(f"the names {first!r} and {second!r} both fit the image {matches[twice]}")
    return matches


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", re.split(r"[\\/]", name)[-1]).casefold()
