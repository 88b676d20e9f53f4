"""How far jobs on other machines are, by the statuses that they write."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from clinbundles.scripts.bars import MinuteLines

from .studies import DONE, Study, read_statuses, stamps

SECONDS = 5.0  # between two looks at a folder that may lie on a server


@contextmanager
def watched(folder: Path, studies: Sequence[Study]) -> Iterator[None]:
    """Show how many studies that are not done yet get a status meanwhile: a bar, or a line a minute.

    Args:
        folder: of the statuses.
        studies: those that jobs have.
    """
    done = {status.study for status in read_statuses(folder) if status.status == DONE}
    left = [study for study in studies if study.name not in done]
    before, ended = stamps(folder, left), threading.Event()

    def look() -> None:
        lines, waiting, is_last = MinuteLines("applying", "studies", len(left)), left, False
        with tqdm(desc="applying", unit="study", total=len(left), disable=None) as bar:
            while waiting and not is_last:
                is_last = ended.wait(SECONDS)
                now = stamps(folder, waiting)
                still = [study for study in waiting if now[study.name] == before[study.name]]
                for _ in range(len(waiting) - len(still)):
                    bar.update()
                    lines.count()
                waiting = still

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
