"""The shipped sample images of nuclei and a list of some of their boxes."""

import json
from pathlib import Path
from typing import Any

import pytest

from clinbundles.transforms.readers.coco import CocoList, read_coco

SAMPLES = Path(__file__).parents[3] / "bundles" / "pace_cell_segmentation" / "samples"


@pytest.fixture
def images() -> Path:
    return SAMPLES / "images"


@pytest.fixture
def content() -> dict[str, Any]:
    """Images 5 and 30 with three boxes each, whose masks are known."""
    whole = json.loads((SAMPLES / "instances.json").read_text())
    kept = [[a for a in whole["annotations"] if a["image_id"] == image_id][:3] for image_id in (5, 30)]
    listed = [image for image in whole["images"] if image["id"] in (5, 30)]
    return {"images": listed, "annotations": kept[0] + kept[1], "categories": whole["categories"]}


@pytest.fixture
def boxes(content: dict[str, Any], tmp_path: Path) -> CocoList:
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    return read_coco(tmp_path / "boxes.json")
