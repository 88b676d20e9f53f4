"""A pure zip on several images: MONAI's own run of it ends at the first that it cannot read or write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clinbundles.engines.outputs.per_image import NothingUsedError
from clinbundles.engines.sentences import innermost, sentence_of
from clinbundles.scripts.bundle import open_configs

DATA = "dataset#data"  # of a pure inference.json, the items of its images
LOADER = "LoadImaged"  # which MONAI names in the error of a file that cannot be read

Item = Mapping[str, Any]


def run_each(run: Callable[[Sequence[Item]], None], items: Sequence[Item], error: Exception) -> dict[str, str]:
    """Run a pure zip on those images of a study on which it runs, found by a run on each alone.

    Args:
        run: runs the zip on some items, whose outputs take the place of those before.
        items: of all images, ``{"image": path}``.
        error: that ended a run on them all.

    Returns:
        a sentence by the name of each image that was left out.

    Raises:
        NothingUsedError: none of the images can be read; the message names the first.
        ValueError: there is none on which it runs, for another reason, of which the message names the first.
        Exception: ``error``, if there is no item, or it runs on each alone.
    """
    sentences: dict[str, str] = {}  # not the errors, which hold their files open
    others = []
    for item in items:
        name = Path(item["image"]).name
        try:
            if len(items) == 1:
                raise error
            run([item])
        except Exception as fault:
            sentences[name] = sentence_about(name, fault)
            others += [] if _is_of_reading(fault) else [sentences[name]]
    if not sentences:
        raise error
    if len(sentences) < len(items):
        run([item for item in items if Path(item["image"]).name not in sentences])
        return sentences
    if others:
        raise ValueError(others[0]) from error
    raise NothingUsedError(f"0 of {len(items)} images could be read; of the first: {next(iter(sentences.values()))}")


def items_of(bundle: Path, config: str, images: Path, options: Mapping[str, Any]) -> list[Item]:
    """List the images of a folder that a pure zip reads."""
    return list(open_configs(bundle, [config], dataset_dir=str(images), **options).get_parsed_content(DATA))


def sentence_about(name: str, fault: Exception) -> str:
    """Say in a sentence that begins with the name of an image why a run on it has ended."""
    sentence = sentence_of(fault) or innermost(fault)
    reason = sentence.partition(f"{name}: ")[2] or sentence
    return f"{name}: {reason.rstrip('.')}."


def _is_of_reading(error: BaseException | None) -> bool:
    while error is not None:
        if LOADER in str(error):
            return True
        error = error.__cause__
    return False
