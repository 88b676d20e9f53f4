"""Zips whose network is a program that does more than compute."""

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from clinbundles.scripts.pack.run import pack
from clinbundles.scripts.predict.run import predict

BUNDLE = Path(__file__).parents[3] / "bundles" / "covid_xray_transfer"
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:`torch.jit:FutureWarning")


class Program(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save([x], "ran")
        return x.flatten(1)[:, :3]


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """A pure zip whose network writes a file where it is run."""
    pack(BUNDLE.name, out=str(tmp_path), profile="pure")
    (pure,) = tmp_path.glob("*.zip")
    torch.jit.script(Program().eval()).save(str(tmp_path / "model.ts"), _extra_files={"metadata.json": "{}"})
    with zipfile.ZipFile(pure) as source, zipfile.ZipFile(tmp_path / "strange.zip", "w") as target:
        files = {name: source.read(name) for name in source.namelist()}
        (network,) = (name for name in files if name.endswith("/models/model.ts"))
        files[network] = (tmp_path / "model.ts").read_bytes()
        card = network.replace("model.ts", "model.json")
        digest = hashlib.sha256(files[network]).hexdigest()
        files[card] = json.dumps(json.loads(files[card]) | {"weights_sha256": digest}).encode()
        for name, content in files.items():
            target.writestr(name, content)
    return tmp_path / "strange.zip"


def test_a_program_is_refused_before_it_is_loaded_unless_it_is_trusted(
    strange: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image = shutil.copy(min((BUNDLE / "samples").rglob("*.jp*g")), tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"strange\.zip/.*model\.ts: would run aten::save .*--allow_expressions"):
        predict(str(strange), str(image), str(tmp_path / "out"))
    assert not Path("ran").exists()
    assert not Path("out").exists()
    predict(str(strange), str(image), str(tmp_path / "out"), allow_expressions=True)
    assert Path("ran").is_file()


def test_a_program_that_an_option_names_is_refused_before_it_is_loaded_unless_it_is_trusted(
    strange: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image = shutil.copy(min((BUNDLE / "samples").rglob("*.jp*g")), tmp_path / "a.jpg")
    (pure,) = tmp_path.glob("*_pure_*.zip")
    for value in ("model.ts", "$'model.ts'"):
        with pytest.raises(ValueError, match=r"^model\.ts: would run aten::save .*--allow_expressions"):
            predict(str(pure), str(image), "out", ckpt_path=value)
    with pytest.raises(ValueError, match=r"^model\.ts: would run aten::save"):
        predict(str(pure), str(image), "out", **{"exported#filename_prefix_or_stream": "model.ts"})
    assert not Path("ran").exists()
    assert not Path("out").exists()
    predict(str(pure), str(image), "out", ckpt_path="model.ts", allow_expressions=True)
    assert Path("ran").is_file()
