"""MONAI's export of every bundle to TorchScript, as the model zoo checks it, from its folder and from its zip."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from monai.bundle import ckpt_export
from monai.data import load_net_with_metadata

from clinbundles.scripts.bundle import load_network, open_configs
from clinbundles.scripts.doctor.torchscript import foreign_operators
from clinbundles.scripts.pack.archive import unzip
from clinbundles.scripts.pack.run import pack

BUNDLES = sorted(path.parents[1] for path in Path(__file__).parents[2].glob("bundles/*/configs/metadata.json"))
EXPORT = {
    "net_id": "network_def",
    "ckpt_file": "models/model.pt",
    "meta_file": "configs/metadata.json",
    "config_file": "configs/inference.json",
}
# A process in which this project is not installed, which exports the bundles of some folders.
STRANGER = """
import json, os, sys
sys.modules["clinbundles"] = None
from monai.bundle import ckpt_export
for folder in sys.argv[2:]:
    os.chdir(folder)
    sys.path[0] = folder
    ckpt_export(filepath="model.ts", **json.loads(sys.argv[1]))
"""
# MONAI saves TorchScript, and torch is about to leave it.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:`torch.jit:FutureWarning")


def results(bundle: Path, network: torch.nn.Module, count: int = 4) -> list[torch.Tensor]:
    """What the inferer of a bundle makes of its first samples."""
    parser = open_configs(bundle, ["inference"], device="cpu")
    dataset, infer = parser.get_parsed_content("dataset"), parser.get_parsed_content("inferer")
    with torch.inference_mode():
        images = [dataset[number]["image"][None].as_tensor() for number in range(min(count, len(dataset)))]
        return [infer(image, network) for image in images]


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_the_export_gives_the_results_of_the_network(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bundle)
    ckpt_export(filepath=str(tmp_path / "model.ts"), **EXPORT)
    assert list(foreign_operators(tmp_path / "model.ts")) == []
    exported, metadata, files = load_net_with_metadata(str(tmp_path / "model.ts"), more_extra_files=["inference.json"])
    assert metadata["task"] == json.loads(Path("configs/metadata.json").read_text())["task"]
    assert json.loads(files["inference.json"]) == json.loads(Path("configs/inference.json").read_text())
    expected = results(bundle, load_network(open_configs(bundle, ["inference"], device="cpu")))
    assert expected
    for mine, other in zip(results(bundle, exported.eval()), expected, strict=True):
        assert mine.dtype == other.dtype
        assert other.float().std() > 0
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_every_zip_is_exported_from_its_folder_where_this_project_is_not_installed(tmp_path: Path) -> None:
    pack(all=True, out=str(tmp_path))
    folders = [unzip(file, tmp_path) for file in sorted(tmp_path.glob("*.zip"))]
    assert [folder.name for folder in folders] == [bundle.name for bundle in BUNDLES]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STRANGER, json.dumps(EXPORT), *map(str, folders)],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": ""}, capture_output=True, text=True, check=False, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    for folder in folders:
        assert (folder / "model.ts").stat().st_size > 1e6
