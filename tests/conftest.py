"""Fixtures that several test files share: the shipped polyp frames, and development data that may be absent."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


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
