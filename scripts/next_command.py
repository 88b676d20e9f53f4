"""The command that follows a run, with the options that were given to the run."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

# Options of one run alone: where it writes, and how long it trains.
OF_ONE_RUN = ("output_dir", "ckpt_dir", "stage", "max_epochs", "initial_weights", "resume", "run_name")


def configs_of(command: str) -> list[str]:
    """List the configs that a command ``clinbundles run BUNDLE CONFIGS --NAME VALUE`` runs."""
    return command.split()[3].split(",")


def with_options(command: str, options: Mapping[str, Any], *, bundle: str) -> str:
    """Complete a command, so that it runs as it stands.

    Args:
        command: as a config makes it, with blanks in the values of its options.
        options: to add, but for those of OF_ONE_RUN and those that the command has.
        bundle: to name in it.
    """
    start, *pairs = re.split(r" --(\w+) ", command)
    own = dict(zip(pairs[::2], pairs[1::2], strict=True))
    # A list of images is of the folder that was given with it.
    left_out = {*OF_ONE_RUN, *own, *(["datalist"] if "dataset_dir" in own else [])}
    texts = own | {name: _typed(value) for name, value in options.items() if name not in left_out}
    words = start.split()
    return shlex.join(
        [*words[:2], bundle, *words[3:], *(word for name in texts for word in (f"--{name}", texts[name]))]
    )


def _typed(value: Any) -> str:
    """Write a value of an option as it is typed."""
    return value if isinstance(value, str) else json.dumps(value)
