"""How many images of a study a run has used, left out and warned of, by the table that it wrote."""

from __future__ import annotations

from pathlib import Path

from clinbundles.engines.outputs.per_image import read_per_image
from clinbundles.transforms.readers.folder import files_below, is_image


def count_images(made: Path) -> tuple[int | None, int | None, int | None, str]:
    """Count the images of a table, and tell the first warning.

    Args:
        made: folder of the table ``per_image.csv``.

    Returns:
        how many were used, left out, and used but with a warning, None where there is no table; and a sentence with the
        first warning, or "".
    """
    try:
        table, failed = read_per_image(made / "per_image.csv")
    except (FileNotFoundError, ValueError):
        return None, None, None, ""
    rows = table[table["warning"].notna()] if "warning" in table else table[:0]
    if rows.empty:
        return len(table), failed, 0, ""
    first = rows.iloc[0]
    sentence = f"{len(rows)} of {len(table)} images have a warning; of the first: {first['image']}: {first['warning']}"
    return len(table), failed, len(rows), sentence


def left_below(folder: Path, used: int | None, left_out: int | None) -> tuple[int, str]:
    """Count the images below the folders of a study that a bundle has not read, which lists one folder alone.

    Returns:
        their number and a sentence, or 0 and "": there are none, or the table has more rows than the study's own folder
        has images.
    """
    below = [path for path in files_below(folder) if path.parent != folder and is_image(path)]
    own = sum(is_image(path) for path in folder.iterdir())
    if not below or not own or (used is not None and used + (left_out or 0) > own):
        return 0, ""
    first = min(below).relative_to(folder).as_posix()
    return len(below), f"{len(below)} images in folders below were left out, such as {first}: make each a study."
