"""One run of a bundle, in a folder that it has for itself: with a number where another has that of the config.

``clinbundles run`` is :func:`run`. Importing this file imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from clinbundles.scripts.bundle import (
    check_run,
    config_files,
    find_bundle,
    open_configs,
    options_for,
    read_configs,
    run_configs,
    tracking_file,
)
from clinbundles.scripts.flags import as_parts, refuse_code

OF_WEIGHTS = ("evaluate", "inference")  # configs that apply weights, and so do whatever extends them
RESUMED = "resume.ckpt"
WEIGHTS = ("model.pt", RESUMED)
EXECUTED = re.compile(r"config_\d{8}_\d{6}\.json")  # what a tracked run writes before anything else


def run(
    bundle: str,
    config: str,
    *,
    tracking: str | bool | None = None,
    replace: bool = False,
    allow_expressions: bool = False,
    **options: Any,
) -> None:
    """Train, evaluate or apply a bundle: run one of its configs, with what that extends.

    Any top-level value of the config is an option, and so is what lies below one, such as --train#dataloader#shuffle.
    A path is taken from the current folder. A training without --ckpt_dir and an evaluation or inference without
    --output_dir have a folder of their own: that of the config or, where another run has that, the same with a number,
    such as train_2. With --resume true a training goes on with the last of these that has a checkpoint, or with that in
    --ckpt_dir.
    --ckpt_path FILE evaluates or applies weights of your own, such as runs/BUNDLE/train/model.pt; type the options that
    they were trained with, too: they are not taken from the card of the weights, and one that differs is refused.

    Args:
        bundle: name of a bundle, in ./bundles or in the checkout of this project, or a folder.
        config: train, evaluate, inference, or the name of another config; several with commas between them.
        tracking: settings for MLflow; without a value, the project's mlflow/tracking.json.
        replace: train into the folder of --ckpt_dir, or of the config, though another training has it.
        allow_expressions: take values that run code, such as "$print(1)" or {"_target_": "Adam"}.
        options: values of the config.
    """
    folder = find_bundle(bundle)
    if not allow_expressions:
        refuse_code(options)
    if tracking:
        options["tracking"] = str(tracking_file(tracking))
    names = as_parts(config)
    opening: list[str] = []
    own = own_folder(folder, names, options, replace=replace, say=opening.append)
    text = next(iter(own.values()), options.get("ckpt_dir"))
    place = Path(text) if isinstance(text, str) else None
    is_new = place is not None and (not place.exists() or bool(own and not options.get("resume")))
    before = _files(place)
    try:
        run_configs(folder, names, "\n".join(opening), **options | own)
    except BaseException:
        if place is not None:
            _remove_configs(place, before)
        raise
    finally:
        if place is not None and is_new:  # a run that was refused leaves no empty folder
            with contextlib.suppress(OSError):
                place.rmdir()


def own_folder(
    folder: Path,
    names: Sequence[str],
    options: Mapping[str, Any],
    *,
    replace: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, str]:
    """Find, and make where it is new, the folder of a run: see :func:`own_training` and :func:`own_output`.

    Returns:
        the option that names it; nothing for a run that names its folder, or writes to none.

    Raises:
        ValueError: the run's options are none that it takes, or its folder has another training; nothing is made.
    """
    content = read_configs(folder, names)
    applies = {file.stem for file in config_files(folder, names)} & set(OF_WEIGHTS)
    trains = not applies and {"ckpt_dir", "resume"} <= content.keys()
    if replace and not trains:
        raise ValueError("--replace: a training alone has weights to replace.")
    if not trains and (not applies or "output_dir" not in content or "output_dir" in options):
        return {}
    check_run(folder, names, options)
    if trains:
        return own_training(folder, names, options, replace=replace, say=say)
    return own_output(folder, names, options)


def own_output(folder: Path, names: Sequence[str], options: Mapping[str, Any]) -> dict[str, str]:
    """Make a folder for an evaluation or an inference that names none, which no other run has or is about to have.

    Returns:
        the option "output_dir": that of the config or, where a folder is there, the same with a number, such as
        evaluation_2; one whose run has ended without a result counts as none.
    """
    first = Path(_value("output_dir", folder, names, options))
    return {"output_dir": str(next(path for path in _numbered(first) if _is_made(path)))}


def own_training(
    folder: Path,
    names: Sequence[str],
    options: Mapping[str, Any],
    *,
    replace: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, str]:
    """Find the folder of a training, so that it takes the place of no other.

    Args:
        folder: of the bundle.
        names: of the configs.
        options: of the run. One that resumes goes on in the folder that it names or else in the last of those with
            numbers that has a ``resume.ckpt``.
        replace: train into the folder that is named, or that of the config, whatever it holds.
        say: takes the line that tells of a new folder beside another.

    Returns:
        the option "ckpt_dir": that of the config or, where such folders are there, the same with the next number, such
        as train_2. Nothing for a training that names its folder, or replaces another.

    Raises:
        ValueError: the folder that is named has the weights of another training; two options contradict each other.
    """
    resumes = _value("resume", folder, names, options)
    if replace and resumes:
        raise ValueError("--replace and --resume: a training goes on with another or replaces it, not both.")
    if replace:
        return {}
    first = Path(_value("ckpt_dir", folder, names, options))
    if "ckpt_dir" in options:
        weights = [name for name in WEIGHTS if (first / name).is_file()]
        if weights and not resumes:
            raise ValueError(
                f"--ckpt_dir {first}: has {' and '.join(weights)} of another training, which this one would replace: "
                "go on with it by --resume true, name another --ckpt_dir, or replace it by --replace true."
            )
        return {}
    numbers = sorted(number for path in first.parent.glob("*") if (number := _number(path, first)))
    last = numbers[-1] if numbers else 0
    begun = [path for number in numbers if ((path := _with_number(first, number)) / RESUMED).is_file()]
    if resumes and begun:
        path = begun[-1]
        print(f"{path}: the training that this one goes on with", flush=True)
    elif resumes:  # one that has no checkpoint yet begins
        has_weights = last and (_with_number(first, last) / WEIGHTS[0]).is_file()
        path = _with_number(first, last + 1 if has_weights else last)
    else:
        path = next(path for path in _numbered(first, last + 1) if _is_made(path))
        if last:
            goes_on = f"; --resume true goes on with {begun[-1]}" if begun else ""
            say(f"{path}: a new training, as {_with_number(first, last)} is there{goes_on}")
    return {"ckpt_dir": str(path)}


def _value(name: str, folder: Path, names: Sequence[str], options: Mapping[str, Any]) -> Any:
    """Work out a value of the configs; one that is plain needs no MONAI."""
    value = options.get(name, read_configs(folder, names)[name])
    if isinstance(value, str) and value[:1] in ("$", "@", "%"):
        return open_configs(folder, names, **options_for(folder, names, options)).get_parsed_content(name)
    return value


def _numbered(first: Path, start: int = 1) -> Any:
    """Give a folder, and the same with the numbers from 2 on."""
    return (_with_number(first, number) for number in count(start))


def _with_number(first: Path, number: int) -> Path:
    return first.with_name(f"{first.name}_{number}") if number > 1 else first


def _number(path: Path, first: Path) -> int:
    """Give the number of a folder that is there, 1 for the one without, 0 for another."""
    match = re.fullmatch(rf"{re.escape(first.name)}(?:_([1-9]\d*))?", path.name)
    return int(match[1] or 1) if match and path.is_dir() else 0


def _files(folder: Path | None) -> set[Path]:
    return set(folder.iterdir()) if folder is not None and folder.is_dir() else set()


def _remove_configs(folder: Path, before: Collection[Path]) -> None:
    """Remove the executed configs of a run that was refused, where it has written nothing else to its folder."""
    written = _files(folder) - set(before)
    if all(EXECUTED.fullmatch(path.name) for path in written):
        for path in written:
            path.unlink(missing_ok=True)


def _is_made(path: Path) -> bool:
    """Make a folder, and tell whether it is new, of two processes to one alone, or free again."""
    from clinbundles.engines.outputs.claim import is_free

    with contextlib.suppress(FileExistsError):
        path.mkdir(parents=True)
        return True
    return is_free(path)
