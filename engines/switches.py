"""The options of a run that are true or false, one of some words, or a place, and text that is none of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def check_switches(
    *, places: Sequence[object] = (), words: Mapping[str, Sequence[object]] | None = None, **switches: object
) -> None:
    """Refuse text where true or false is meant, unknown words, and places in whose name MONAI changed a character.

    Python takes any text for true, and so ``--resume false`` too, which ``python -m monai.bundle run`` hands over as
    text; and it makes ``::`` of each ``#``, so that a run would write to another folder. ``clinbundles run`` reads such
    words and keeps such names.

    Args:
        places: files and folders of the run; what is no text is let pass.
        words: by the names of their options the value, and behind it the words that it may be.
        switches: values by the names of their options.

    Raises:
        ValueError: a switch is text or a word is none of its option's, and the message names the option; or a place has
            ``::`` in its name.
    """
    for place in places:
        if isinstance(place, str) and "::" in place:
            raise ValueError(
                f"{place.replace('::', '#')}: MONAI takes # in a path for ::, and would look for {place}; "
                "run it by `clinbundles run`, or name the folder without #."
            )
    for name, (value, *others) in (words or {}).items():
        if value not in others:
            raise ValueError(f"--{name} is {value!r}, expected one of {', '.join(map(str, others))}.")
    for name, value in switches.items():
        if isinstance(value, str):
            raise ValueError(f"--{name} is the text {value!r}, expected True or False, with a capital letter.")
