"""Files of recorded gaze, one for each observer: how a person says to read them, and what they hold on each image."""

from __future__ import annotations

import glob
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clinbundles.scripts.flags import as_parts


@dataclass(frozen=True)
class Recording:
    """The gaze of one observer.

    Args:
        path: file that it is read from.
        fixations: x, y and duration (n, 3) by the file name of the image; n is 0 where it was shown, but not looked at.
        original_sizes: height and width in px of the original images, by file name, where the file tells them.
        gaze_format: format that the file has.
    """

    path: Path
    fixations: Mapping[str, np.ndarray]
    original_sizes: Mapping[str, tuple[int, int]]
    gaze_format: str


@dataclass(frozen=True)
class GazeFiles:
    """Files of recorded gaze, and how they are to be read.

    Args:
        paths: the files.
        settings: arguments of :func:`clinbundles.transforms.gaze.readers.read_fixations`.
        participants: whose gaze is read from each file, an observer each; None where a file has only one.
    """

    paths: tuple[Path, ...]
    settings: Mapping[str, Any]
    participants: tuple[str | None, ...] = (None,)

    def read(self, images: Sequence[str]) -> tuple[Recording, ...]:
        """Read the gaze on images, by their file names, and print what is left out.

        Raises:
            ValueError: a file cannot be read or has gaze on no image, or two images have one name.
        """
        repeated = [name for name, count in Counter(images).items() if count > 1]
        if repeated:
            raise ValueError(f"--gaze names images by file name, and {repeated[0]} occurs more than once")
        return tuple(self._read(path, who, images) for path in self.paths for who in self.participants)

    def _read(self, path: Path, participant: str | None, images: Sequence[str]) -> Recording:
        # Only where there is gaze: they bring pandas.
        from clinbundles.transforms.gaze.original_sizes import naming_of, read_original_sizes
        from clinbundles.transforms.gaze.readers import detect_format, read_fixations
        from clinbundles.transforms.gaze.tables import open_table

        def report(sentence: str) -> None:
            print(f"{path}: {sentence}")

        settings = dict(self.settings)
        if "image_name" in settings:
            settings["image_name"] = settings["image_name"].replace("{stem}", path.stem)
        fixations = read_fixations(path, **settings, participant=participant, images=set(images), report=report)
        sizes = read_original_sizes(path, images=set(images), **naming_of(settings))
        gaze_format = settings["gaze_format"]
        if gaze_format == "auto":
            gaze_format = detect_format(open_table(path), settings.get("columns"))
        return Recording(path, fixations, sizes, gaze_format)


def gaze_files(
    pattern: str | None,
    *,
    gaze_format: str = "auto",
    screen_size_px: list | None = None,
    screen_size_mm: list | None = None,
    viewing_distance_mm: float | None = None,
    image_rect_px: list | None = None,
    image_name: str | None = None,
    participant: str | None = None,
    position_unit: Literal["px", "fraction", "percent"] | None = None,
    time_unit: Literal["s", "ms", "us"] | None = None,
    use_exported_fixations: bool = False,
    allow_off_image: bool = False,
    gaze_columns: str | None = None,
) -> GazeFiles | None:
    """Find the file, or the files of a glob, one for each observer; None where ``pattern`` is None.

    Args:
        pattern: a file or a glob.
        gaze_format: format of the recordings (gazemedseg, tobii_export, tobii_sdk, tobii_tx300, pytrack, csv); auto
            takes it from their header.
        screen_size_px: width and height of the screen in pixels, such as 1920,1080, for files that do not tell.
        screen_size_mm: width and height of the screen in millimetres, such as 531,299, likewise.
        viewing_distance_mm: distance from the eyes to the screen in millimetres, likewise.
        image_rect_px: x, y, width and height of the image on the screen in pixels, such as 460,165,1000,750, likewise;
            0,0,width,height where positions count from the image's corner.
        image_name: file name of the image, for files that do not name it; {stem} in it is the gaze file's own name.
        participant: participant, or recording, of a file of several; several with commas are an observer each.
        position_unit: of csv and gazemedseg, px, fraction or percent; px for csv, fraction for gazemedseg by default.
        time_unit: of csv and gazemedseg, s, ms or us; by default the step of the samples decides, durations are in ms.
        use_exported_fixations: take Tobii's own fixations from an export, which need no size of the screen in mm.
        allow_off_image: take a recording of which most fixations lie off the image, such as beside other windows.
        gaze_columns: columns of a csv, such as x=X,y=Y,time=T,image=I, and participant=P where it has several; with
            duration=D each row is a fixation.
    """
    settings = {
        "screen_size_px": screen_size_px,
        "screen_size_mm": screen_size_mm,
        "viewing_distance_mm": viewing_distance_mm,
        "image_rect_px": image_rect_px,
        "image_name": image_name,
        "position_unit": position_unit,
        "time_unit": time_unit,
        "use_exported_fixations": use_exported_fixations,
        "allow_off_image": allow_off_image,
        "columns": None if gaze_columns is None else parse_columns(gaze_columns),
    }
    settings = {name: value for name, value in settings.items() if value not in (None, False)}
    if pattern is None:
        if settings or participant:
            raise ValueError(f"--{next(iter(settings), 'participant')} says how to read gaze: --gaze FILE is missing")
        return None
    paths = [Path(pattern)] if Path(pattern).is_file() else [Path(p) for p in sorted(glob.glob(pattern))]
    if not paths:
        raise FileNotFoundError(f"gaze {pattern}: no such file")
    for path in paths:
        refuse_simulated(path)
    participants = (None,) if participant is None else tuple(as_parts(participant))
    if "" in participants or len(set(participants)) < len(participants):
        raise ValueError(f"--participant {participant}: name each observer once, such as P1,P2")
    return GazeFiles(tuple(paths), {"gaze_format": gaze_format, **settings}, participants)


def parse_columns(text: str) -> dict[str, str]:
    """Read "x=X,y=Y" as the columns of fields."""
    pairs = [part.partition("=") for part in as_parts(text)]
    if not all(field.strip() and column.strip() for field, _, column in pairs):
        raise ValueError(
            f"--gaze_columns is {text!r}: expected x=NAME,y=NAME,time=NAME, and image=NAME where there is one"
        )
    return {field.strip(): column.strip() for field, _, column in pairs}


def refuse_simulated(path: Path) -> None:
    """Refuse the table of gaze that ``clinbundles simulate-gaze --csv`` wrote: nobody looked there.

    Raises:
        ValueError: its column GAZE_SOURCE says so, or it is no table.
    """
    from clinbundles.transforms.gaze.tables import open_table  # brings pandas

    table = open_table(path)  # in any encoding and with any delimiter, as a spreadsheet may have saved it
    column = table.find("gaze_source")
    if column is None:
        return
    table.load(frozenset({column.stem}))
    if any("simulated" in text for text in table.text(column)):
        raise ValueError(
            f"{path}: simulated gaze (column GAZE_SOURCE), not recorded: give the datalist that clinbundles "
            "simulate-gaze wrote, which says so."
        )


def recorded_gaze(image: str, recordings: Sequence[Recording]) -> dict[str, Any]:
    """Entries of an image's item in the datalist; observers who did not see the image leave nothing in it.

    An image on which nobody has a fixation has none either: it would count as looked at nowhere.

    Raises:
        ValueError: two recordings tell different original sizes of the image.
    """
    name = Path(image).name
    views = [recording.fixations[name] for recording in recordings if name in recording.fixations]
    if not any(len(rows) for rows in views):
        return {}
    fixations = [[[round(x, 5), round(y, 5), round(duration, 1)] for x, y, duration in rows.tolist()] for rows in views]
    sizes = {recording.original_sizes[name]: recording for recording in recordings if name in recording.original_sizes}
    if len(sizes) > 1:
        (first, one), (second, other) = list(sizes.items())[:2]
        raise ValueError(
            f"{name} is {first[1]}x{first[0]} px large in {one.path} and {second[1]}x{second[0]} in {other.path}: "
            "which is the size of the original image?"
        )
    size: dict[str, Any] = {"original_size": list(*sizes)} if sizes else {}
    return {**size, "fixations": fixations, "gaze_source": "recorded"}


def gaze_facts(files: GazeFiles, recordings: Sequence[Recording]) -> dict[str, Any]:
    """What a datalist says about the recordings in it: their files with hashes, and how they were read.

    Of a participant's name, which can tell who was recorded, it has the first digits of a hash.
    """
    hashes = {recording.path.name: hashlib.sha256(recording.path.read_bytes()).hexdigest() for recording in recordings}
    reading = {**files.settings, "gaze_format": ", ".join(sorted({recording.gaze_format for recording in recordings}))}
    names = [hashlib.sha256(name.encode()).hexdigest()[:12] for name in files.participants if name is not None]
    reading |= {"participant_sha256": names} if names else {}
    return {"source": "recorded", "files": hashes, "reading": json.loads(json.dumps(reading))}


def say_other_reading(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Sentence about what recorded gaze is read by now and was not before, of two facts; empty where it is the same."""
    if "reading" not in before:
        return "how the recorded gaze before was read is not in the datalist"
    old, new = before["reading"], after["reading"]
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    changes = [f"{name} {new.get(name, 'not given')} (before: {old.get(name, 'not given')})" for name in names]
    return f"read with other settings than the recorded gaze before: {', '.join(changes)}" if changes else ""


def say_gaze(items: Sequence[Mapping[str, Any]], recordings: Sequence[Recording]) -> str:
    """Sentence about how many of the items have gaze."""
    without = [Path(item["image"]).name for item in items if "fixations" not in item]
    shown = sum(any(name in recording.fixations for recording in recordings) for name in without)
    sentence = f"recorded gaze of {len(recordings)} observers; {len(without)} of {len(items)} images have none"
    return f"{sentence}, {shown} of them were shown, but no fixation lies on them" if shown else sentence
