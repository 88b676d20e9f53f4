"""Names of studies: one that a study has once got in an output folder is its name there for good."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from clinbundles.engines.outputs.files import distinct_stems

from .hashes import source_of
from .studies import CHANGED, DONE, Status, Study, read_statuses, write_status

MAX_BYTES = 200  # of a name, to which .json is added where 255 are the most


def name_studies(paths: Iterable[Path], statuses: Iterable[Status]) -> list[Study]:
    """Name studies: as their status calls them, and new ones by what tells them from each other and from those.

    A study that is done, and has since been moved, keeps its name: it has the same bytes and the same last name, and
    nothing is now where it was.

    Args:
        paths: of the studies, absolute.
        statuses: that the output folder has.

    Raises:
        ValueError: a name would be hidden.
    """
    rest = list(paths)
    known = {status.path: status for status in statuses if status.path}
    names = {path: known[str(path)].study for path in rest if str(path) in known}
    gone = {
        (status.source_sha256, Path(path).name): status.study
        for path, status in known.items()
        if status.status in (DONE, CHANGED) and not os.path.exists(path)
    }
    if gone:
        for path in (path for path in rest if path not in names):
            if name := gone.pop((source_of(Study("any", path)), path.name), ""):
                names[path] = name
    # Those of before are named once more, so that p2/a becomes p2_a beside the a of p1.
    stems = distinct_stems([*rest, *map(Path, known)], taken=[status.study for status in known.values()])
    names |= {path: _short(stems[path], path) for path in rest if path not in names}
    return [Study(names[path], path) for path in rest]


def claim_names(folder: Path, paths: Iterable[Path]) -> list[Study]:
    """Name studies, and write that down in their statuses: no other process may be doing so.

    Args:
        folder: of the statuses.
        paths: of the studies, absolute.
    """
    statuses = {status.study: status for status in read_statuses(folder)}
    studies = name_studies(paths, statuses.values())
    for study in studies:
        status = statuses.get(study.name, Status(study.name))
        if status.path != str(study.path):
            write_status(folder, replace(status, path=str(study.path)))
    return studies


def _short(name: str, path: Path) -> str:
    """Cut a name that no file can have to its beginning and a hash of the path."""
    if len(os.fsencode(name)) <= MAX_BYTES:
        return name
    return f"{name[:40]}_{hashlib.sha256(os.fsencode(path)).hexdigest()[:12]}"
