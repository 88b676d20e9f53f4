"""The command that follows a run, with the options that were given to the run."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

# Options of one run alone: where it writes, and how long it trains.
OF_ONE_RUN = ("output_dir", "ckpt_dir", "stage", "max_epochs", "initial_weights", "resume", "run_name")
# What of a config the command is made of, and how a zip has it, where this project is not installed.
PARTS = ("next_command", "next_config", "evaluate_with")
CALL = "python -m monai.bundle run --config_file "


def called_by_monai(text: str, files: Mapping[str, Sequence[str]]) -> str:
    """Rewrite the command that follows a run to MONAI's own, in a bundle's folder.

    Args:
        text: of a config.
        files: of each config of the bundle, with those that it extends, such as ``configs/train.json``.
    """
    name = "|".join(map(re.escape, files))
    names = re.compile(rf"((?<=')|(?<={CALL})|^)(?:{name})(?:,(?:{name}))*(?= |'(?!:)|$)")

    def files_of(match: re.Match[str]) -> str:
        found = list(dict.fromkeys(file for each in match[0].split(",") for file in files[each]))
        quote = r"\\'" if "'" in match.string else "'"  # within a text of Python, or not
        listed = ",".join(f"{quote}{file}{quote}" for file in found)
        return found[0] if len(found) == 1 else rf"\"[{listed}]\""

    def rewritten(match: re.Match[str]) -> str:
        return match[1] + names.sub(files_of, re.sub(r"clinbundles run [\w-]+ ", CALL, match[2]))

    return re.sub(rf'("(?:{"|".join(PARTS)})": "\$?)([^"]*)', rewritten, text)


def called_by_project(command: str) -> str:
    """Write MONAI's call, as a zip has it, as a command of this project."""
    match = re.match(rf"{CALL}(\S+)", command)
    if match is None:
        return command
    names = ",".join(re.findall(r"/([\w-]+)\.json", match[1]))
    return f"clinbundles run . {names}{command[match.end() :]}"


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
