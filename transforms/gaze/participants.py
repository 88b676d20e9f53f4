"""Whose gaze a table holds: the rows of one participant or recording of several."""

from __future__ import annotations

from collections.abc import Sequence

from .tables import Column, GazeTable

_WHO = ("participant", "subject", "observer")
PARTICIPANT_STEMS = frozenset(
    {"participantname", "recordingname", "recording_session_label", *_WHO}
    | {f"{who}{ending}" for who in _WHO for ending in ("id", "_id")}
)


def choose_participant(table: GazeTable, participant: str | None, columns: Sequence[Column] | None = None) -> None:
    """Keep the rows of one participant or recording, and refuse those of several.

    Args:
        table: with the rows of the columns PARTICIPANT_STEMS, or of ``columns``.
        participant: whose gaze is meant, or which recording; None where there is only one.
        columns: that tell whose a row is; None takes those of the names that eye trackers give.

    Raises:
        ValueError: there is no such participant, or none is chosen and there are several, or rows of nobody.
    """
    if columns is None:
        columns = [column for column in table.columns if column.stem in PARTICIPANT_STEMS]
    if participant is not None:
        column = next((column for column in columns if participant in table.text(column)), None)
        if column is None:
            titles = " or ".join(repr(column.name) for column in columns) or "of participants"
            raise ValueError(f"{table.path}: no column {titles} has the --participant {participant}.")
        table.keep(table.text(column) == participant)
    for column in columns:
        # The names themselves can tell who was recorded, and stay out of the message.
        several = len(set(table.text(column)) - {""})
        if several > 1:
            raise ValueError(
                f"{table.path}: column {column.name!r} has {several} different values, expected a single recording: "
                "choose by --participant NAME."
            )
    named = [column for column in columns if any(table.text(column))]
    nobody = sum(not any(names) for names in zip(*(table.text(column) for column in named), strict=True))
    if nobody:
        raise ValueError(
            f"{table.path}: column {named[0].name!r} is empty in {nobody} of {len(table.rows)} rows, whose gaze may be "
            "another's: fill the names in, or leave these rows out by --participant NAME."
        )
