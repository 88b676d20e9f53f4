"""Folders of this or that machine in the texts of a zip, which would tell who made it and where."""

from __future__ import annotations

import codecs
import re
from pathlib import PurePosixPath

PLACES = "home|root|Users|work|workspace|tmp|mnt|media|Volumes|export|scratch|gpfs|lustre|nfs|srv|storage|private"
PLACES += "|content|kaggle|usr/home|var/folders"
# A slash may be escaped, as JSON has it, and a backslash doubled.
ON_UNIX = r"(?:file://|(?<![\w./]))(?:\\?/(?:{places})\\?/[\w.-])"
ON_WINDOWS = r"(?<!\w)[A-Za-z]:(?:\\{{1,2}}|/)(?:{places})(?:\\{{1,2}}|/)[\w.-]"
HOMES = "(?i:Users|Documents and Settings|home)"
ANY_FOLDER = r"[\w.$-]{2,}"
# Pages and code give /data or a drive as an example of where data lie.
IN_EXAMPLES = re.compile(f"{ON_UNIX.format(places=PLACES)}|{ON_WINDOWS.format(places=HOMES)}")
ELSEWHERE = re.compile(
    f"{ON_UNIX.format(places=PLACES + '|data')}|{ON_WINDOWS.format(places=HOMES + '|' + ANY_FOLDER)}"
)
WITH_EXAMPLES = (".md", ".py")


def check_machine_paths(name: str, content: bytes) -> None:
    """Refuse a text that names a folder of a machine; what is no text, such as weights, is passed over.

    Args:
        name: of the file, for the error.
        content: of it.

    Raises:
        ValueError: the message names the line, and how the path begins.
    """
    text = as_text(content)
    if text is None:
        return
    has_examples = PurePosixPath(name).suffix.lower() in WITH_EXAMPLES
    if found := (IN_EXAMPLES if has_examples else ELSEWHERE).search(text):
        line = text[: found.start()].count("\n") + 1
        raise ValueError(
            f"{name}, line {line}: names a folder of a machine ({found[0]}…), which a zip would pass on: leave it out."
        )


def as_text(content: bytes) -> str | None:
    """Decode UTF-8, or UTF-16 that begins with its mark; None for what is neither."""
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError:
        return None
