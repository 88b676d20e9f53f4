"""Fixtures that several test files share: the shipped polyp frames, and development data that may be absent."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def root_log_handlers() -> Iterator[None]:
    """Take back the handlers that a bundle's logging.conf adds: they write to a stream that pytest closes."""
    handlers = logging.root.handlers[:]
    yield
    for handler in [h for h in logging.root.handlers if h not in handlers]:
        logging.root.removeHandler(handler)


@pytest.fixture(scope="session")
def polyp_samples() -> Path:
    """The sample data set of the gaze bundle: frames, masks and datalist.json, to be read only."""
    return REPOSITORY / "bundles" / "gaze_polyp_segmentation" / "samples"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of development data beside the repository; without it the test is skipped."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no development data: {folder} is missing")
    return folder
