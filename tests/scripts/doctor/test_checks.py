import json
import zipfile
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from clinbundles.scripts.doctor.checks import (
    FAULT,
    check_code,
    check_files,
    check_metadata,
    check_networks,
    read_json,
)

ROOT = Path(__file__).parents[3]


def test_a_package_of_scripts_would_shadow_another_bundle(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "__init__.py").touch()
    sentences = [finding.sentence for finding in check_files(tmp_path)]
    assert any("scripts/__init__.py makes a second bundle" in sentence for sentence in sentences)
    assert any("no weights" in sentence for sentence in sentences)


def test_metadata_is_checked_for_what_hosts_read(tmp_path: Path) -> None:
    content = json.loads((ROOT / "bundles" / "ct_datasetgan" / "configs" / "metadata.json").read_text())
    (tmp_path / "configs").mkdir()
    path = tmp_path / "configs" / "metadata.json"
    path.write_text(json.dumps(content))
    assert list(check_metadata(tmp_path)) == []
    content["version"] = "9.9"
    content["network_data_format"]["outputs"]["result"] = content["network_data_format"]["outputs"].pop("pred")
    del content["task"]
    path.write_text(json.dumps(content))
    findings = list(check_metadata(tmp_path))
    assert [finding.status for finding in findings] == [FAULT] * 3
    assert "has no task" in findings[0].sentence
    assert "does not know version '9.9'" in findings[1].sentence
    assert "no output called 'pred'" in findings[2].sentence


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_what_is_no_json_object_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "metadata.json").write_text(text)
    with pytest.raises(ValueError, match=r"metadata.json"):
        read_json(tmp_path / "metadata.json")


@pytest.mark.parametrize("name", ["scripts", "models"])
def test_a_link_to_a_folder_is_a_fault_as_an_import_would_go_there(name: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "code.py").write_text("1")
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / name).symlink_to(tmp_path / "elsewhere")
    (finding,) = check_code(tmp_path / "bundle")
    assert (finding.status, finding.check) == (FAULT, "code")
    assert finding.sentence == f"{name} is a link to a folder, behind which nothing is looked at: put a copy there."


def appended(path: Path, archive: Path) -> int:
    """Copy the records of an archive behind what a file has, and return the number of bytes."""
    before = path.stat().st_size
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "a") as target:
        for entry in source.namelist():
            target.writestr(entry, source.read(entry))
    return path.stat().st_size - before


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:`torch.jit:FutureWarning")
def test_a_file_of_onnx_that_is_torchscript_too_is_asked_for_both(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "pred")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["pred"])], "network", values[:1], values[1:])
    torch.jit.script(nn.Identity()).save(str(tmp_path / "network"))
    file = tmp_path / "bundle" / "net.onnx"
    file.parent.mkdir()
    file.touch()
    size = appended(file, tmp_path / "network")
    # A field of bytes that ONNX does not know, and a reader of ONNX passes over: its number, its length, the archive.
    length = bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14])
    file.write_bytes(helper.make_model(graph).SerializeToString() + b"\xba\x3e" + length)
    assert appended(file, tmp_path / "network") == size < 1 << 21
    assert onnx.load(file).graph.node
    (finding,) = check_networks(file.parent)
    assert finding.status == FAULT
    assert finding.sentence.startswith("net.onnx is no whole archive of TorchScript")
    file.write_bytes((tmp_path / "network").read_bytes())
    (finding,) = check_networks(file.parent)
    assert finding.sentence.startswith("net.onnx is no network in ONNX")


def test_what_a_config_loads_is_a_fault_if_it_cannot_be_looked_at_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    config = {"ckpt_path": "$@bundle_root + '/net.bin'", "network_def": {"filename_prefix_or_stream": "@ckpt_path"}}
    (tmp_path / "configs" / "inference.json").write_text(json.dumps(config))
    (tmp_path / "net.bin").write_text("of a format that is not known")
    (finding,) = check_networks(tmp_path)
    assert finding.status == FAULT
    assert finding.sentence.startswith("net.bin is no whole archive of TorchScript")
