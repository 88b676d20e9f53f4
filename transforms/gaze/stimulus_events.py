"""What was shown when in a table of gaze samples: a column of names, or messages of onset and offset."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .samples import Presentation, RecordingSetup
from .tables import Column, GazeTable

STIMULUS_STEMS = (
    "stimulus",
    "stimulusname",
    "image",
    "imagename",
    "presentedstimulusname",
    "presentedmedianame",
    "medianame",
)
_MESSAGES = ("msg", "message")
_CLOCK = "system_time_stamp"
# Columns that count showings without naming an image.
_TRIALS = ("trial", "trialnumber", "trialindex", "trialid", "trial_number", "trial_index", "trial_id")
EVENT_STEMS = frozenset({*STIMULUS_STEMS, *_MESSAGES, *_TRIALS, _CLOCK})
_ONSET, _OFFSET = "onset_", "offset_"


def shown_images(table: GazeTable, setup: RecordingSetup) -> np.ndarray | None:
    """Name the image of each sample (n,), "" where there is none; None where the table tells of no images.

    A column of names tells, or messages as Titta writes them, ``onset_<stimulus>`` and ``offset_<stimulus>``, in rows
    of their own with a ``system_time_stamp``, wherever in the table. Rows of messages are dropped.

    Args:
        table: with the rows of the columns EVENT_STEMS, and of its gaze.
        setup: with the images whose gaze is wanted.

    Raises:
        ValueError: ``setup`` has an image_name as well; messages have no time; several trials are in the table, and it
            does not tell of which images.
    """
    column = table.find(*STIMULUS_STEMS)
    message = table.find(*_MESSAGES)
    if column is not None and any(table.names(column)):
        names = table.names(column)
    elif message is not None and any(text.startswith(_ONSET) for text in table.text(message)):
        column, names = message, _names_by_messages(table, message)
    else:
        _refuse_trials(table)
        return None
    if setup.image_name is not None:
        raise ValueError(f"{table.path}: --image_name is given, but column {column.name!r} names the images.")
    return setup.on_images(names)


def _names_by_messages(table: GazeTable, message: Column) -> np.ndarray:
    clock = table.need(_CLOCK)
    stamps, texts = table.numbers(clock), table.text(message)
    is_message = texts != ""
    if np.isnan(stamps).any():
        raise ValueError(f"{table.path}: column {clock.name!r} has an empty field, so that messages cannot be placed.")
    order = np.argsort(stamps[is_message], kind="stable")
    times, words = stamps[is_message][order], texts[is_message][order]
    shown, names = "", [""]
    for word in words:
        if word.startswith(_ONSET):
            shown = word.removeprefix(_ONSET)
        elif word.startswith(_OFFSET):
            shown = ""
        names.append(shown)
    table.keep(~is_message)
    return np.array(names, object)[np.searchsorted(times, stamps[~is_message], side="right")]


def _refuse_trials(table: GazeTable) -> None:
    for column in (column for column in table.columns if column.stem in _TRIALS):
        count = len(set(table.names(column)) - {""})
        if count > 1:
            raise ValueError(
                f"{table.path}: column {column.name!r} has {count} different values, but no column names the image of "
                "each: write a file for each image, or a column 'stimulus' with the names of their files."
            )


def split_by_image(
    setup: RecordingSetup,
    names: np.ndarray | None,
    *,
    time_ms: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    distance_mm: np.ndarray,
) -> list[Presentation]:
    """Make a presentation of each uninterrupted showing of an image from gaze in fractions of the display.

    Args:
        setup: what the caller knows of the recording.
        names: image of each sample (n,), "" where there is none; None makes one presentation of ``setup``'s image.
        time_ms, left, right, distance_mm: see :meth:`~.samples.RecordingSetup.from_display_fractions`.
    """
    gaze = {"time_ms": time_ms, "left": left, "right": right, "distance_mm": distance_mm}
    if names is None:
        return setup.from_display_fractions(**gaze)
    presentations = []
    for rows in np.split(np.arange(len(names)), np.flatnonzero(names[1:] != names[:-1]) + 1):
        if len(rows) and names[rows[0]]:
            own = replace(setup, image_name=names[rows[0]], images=None)
            presentations += own.from_display_fractions(**{field: values[rows] for field, values in gaze.items()})
    return presentations
