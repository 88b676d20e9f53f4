from pathlib import Path

import pytest

from clinbundles.scripts.pack.closure import carried_modules, imported_packages

HOUSE = {
    "transforms/__init__.py": '"""Transforms."""\n',
    "transforms/readers/__init__.py": '"""Readers."""\n',
    "transforms/readers/images.py": "import numpy as np\nfrom .files import read\n",
    "transforms/readers/files.py": "def read():\n    from PIL import Image\n",
    "transforms/gaze.py": "import pandas.api\n",
    "nets/__init__.py": '"""Networks."""\n',
    "nets/unet.py": "from torch import nn\n",
    "engines/__init__.py": '"""Engines."""\n',
    "engines/outputs/__init__.py": '"""Outputs."""\n',
    "engines/outputs/masks.py": "def f():\n    from ...transforms.readers.images import R\n    from ... import nets\n",
}


@pytest.fixture
def house(tmp_path: Path) -> Path:
    for name, text in HOUSE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_config_carries_what_it_names_and_all_that_this_imports_with_their_packages(house: Path) -> None:
    carried = carried_modules(['{"_target_": "clinbundles.engines.outputs.masks.Writer"}'], house)
    assert list(carried) == [
        "engines",
        "engines.outputs",
        "engines.outputs.masks",
        "nets",
        "transforms",
        "transforms.readers",
        "transforms.readers.files",
        "transforms.readers.images",
    ]
    assert carried["engines.outputs"] == house / "engines" / "outputs" / "__init__.py"
    assert imported_packages(file.read_text() for file in carried.values()) == {"numpy", "PIL"}


def test_names_in_expressions_count_and_other_packages_do_not(house: Path) -> None:
    assert "transforms.gaze" in carried_modules(['"$clinbundles.transforms.gaze.read(@x)"'], house)
    assert carried_modules(['"monai.transforms.Compose", "xclinbundles.nets.unet"'], house) == {}


@pytest.mark.parametrize(
    ("config", "changes", "sentence"),
    [
        ("clinbundles.gone.nets.Net", {}, "a config names clinbundles.gone.nets.Net, which is no module"),
        ("clinbundles.nets.gone.Net", {}, "a config names clinbundles.nets.gone.Net, which is no module"),
        ("clinbundles.nets.unet.Net", {"nets/unet.py": "import clinbundles.nets\n"}, "unet.py: imports clinbundles by"),
        ("clinbundles.nets.unet.Net", {"nets/unet.py": "from ...x import y\n"}, "unet.py: a relative import leads out"),
        ("clinbundles.nets.unet.Net", {"nets/unet.py": "from ..x import y\n"}, "unet.py: imports x.y, which is no"),
    ],
)
def test_what_a_zip_cannot_carry_is_named(house: Path, config: str, changes: dict, sentence: str) -> None:
    for name, text in changes.items():
        (house / name).write_text(text)
    with pytest.raises(ValueError, match=sentence):
        carried_modules([f'"{config}"'], house)
