"""The options of a run that are true or false or name a place, and text that is not what it looks like."""

from __future__ import annotations

from collections.abc import Sequence


def check_switches(*, places: Sequence[object] = (), **switches: object) -> None:
    """Refuse text where true or false is meant, and places in whose name MONAI has changed a character.

    Python takes any text for true, and so ``--resume false`` too, which ``python -m monai.bundle run`` hands over as
    text; and it makes ``::`` of each ``#``, so that a run would write to another folder. ``clinbundles run`` reads such
    words and keeps such names.

    Args:
        places: files and folders of the run; what is no text is let pass.
        switches: values by the names of their options.

    Raises:
        ValueError: a switch is text, the message names the option; or a place has ``::`` in its name.
    """
    for place in places:
        if isinstance(place, str) and "::" in place:
            raise ValueError(
                f"{place.replace('::', '#')}: MONAI takes # in a path for ::, and would look for {place}; "
                "run it by `clinbundles run`, or name the folder without #."
            )
    for name, value in switches.items():
        if isinstance(value, str):
            raise ValueError(f"--{name} is the text {value!r}, expected True or False, with a capital letter.")
