"""The options of a run that are true or false, and text that only looks like one of the two."""

from __future__ import annotations


def check_switches(**switches: object) -> None:
    """Refuse text where true or false is meant: Python takes any text for true, and so ``--resume false`` too.

    ``clinbundles run`` reads such words; ``python -m monai.bundle run`` hands over as text what is not
    ``True`` or ``False``.

    Args:
        switches: values by the names of their options.

    Raises:
        ValueError: a value is text; the message names the option.
    """
    for name, value in switches.items():
        if isinstance(value, str):
            raise ValueError(f"--{name} is the text {value!r}, expected True or False, with a capital letter.")
