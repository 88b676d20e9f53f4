import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from clinbundles.scripts.doctor import run as doctor_module
from clinbundles.scripts.doctor.checks import CHECKS, FAULT, Finding, check_code, check_networks
from clinbundles.scripts.doctor.run import check_checksum, doctor
from clinbundles.scripts.pack.archive import unzip
from clinbundles.scripts.pack.run import pack, packed_bundle

ROOT = Path(__file__).parents[3]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the X-ray bundle, to break."""
    source = ROOT / "bundles" / "covid_xray_transfer"
    return Path(shutil.copytree(source, tmp_path / source.name, ignore=shutil.ignore_patterns("samples")))


def edit(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in {**content, **changes}.items() if v != "gone"}))


def told(target: Path, capsys: pytest.CaptureFixture[str], faults: int) -> list[str]:
    if faults:
        with pytest.raises(SystemExit, match=rf"{faults} faults"):
            doctor(str(target))
    else:
        doctor(str(target))
    return [line for line in capsys.readouterr().out.splitlines() if not line.startswith("ok ")]


def test_a_pure_zip_is_checked_without_words_of_libraries_that_no_user_can_mend(tmp_path: Path) -> None:
    pack("ct_datasetgan", profile="pure", out=str(tmp_path))
    (file,) = tmp_path.glob("*.zip")
    words = [sys.executable, "-m", "clinbundles.scripts.cli", "doctor", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "ok     properties" in done.stdout
    said = done.stdout + done.stderr
    assert not re.search("skipping logging|is deprecated", said), said


def test_a_sound_zip_has_no_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack("covid_xray_transfer", out=str(tmp_path))
    (file,) = tmp_path.glob("*.zip")
    capsys.readouterr()
    doctor(str(file))
    lines = capsys.readouterr().out.splitlines()
    checks = {line.split()[1] for line in lines if line.startswith("ok ")}
    looked_at = {"checksum", "files", "metadata", "versions", "keys", "code", "networks"}
    assert checks == looked_at | {"properties", "weights", "card"}
    assert lines[-1].endswith("no fault, 0 to look at.")
    assert lines[-2] == (
        'its network, unzipped in DIR: monai.bundle.load("covid_xray_transfer", bundle_dir="DIR", '
        'args_file={"bundle_root": "DIR/covid_xray_transfer"})'
    )


def test_a_changed_zip_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack("covid_xray_transfer", out=str(tmp_path))
    (file,) = tmp_path.glob("*.zip")
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("covid_xray_transfer/more.txt", "x")
    capsys.readouterr()
    assert any("it was changed" in line for line in told(file, capsys, 1))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", "model_info.json cannot be read as JSON"),
        (b"[" * 100_000, "model_info.json cannot be read as JSON"),
        (b"\xff{}", "model_info.json cannot be read as JSON"),
        (b"[]", "model_info.json is no JSON object"),
        (b'{"c": []}', "model_info.json has [] for c.zip, and no checksum"),
        (b'{"c": {}}', "c.zip has sha256"),
    ],
)
def test_a_broken_list_of_checksums_is_a_finding(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "model_info.json").write_bytes(content)
    (tmp_path / "c.zip").write_bytes(b"")
    (finding,) = check_checksum(tmp_path / "c.zip")
    assert finding.status == FAULT
    assert sentence in finding.sentence


def test_other_weights_a_wrong_card_and_missing_packages_are_faults(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(
        bundle / "configs" / "inference.json",
        class_names=["bacterial", "normal", "covid19"],
        preprocessing="gone",
        region="lungs",
    )
    edit(bundle / "configs" / "inference.json", intensity_mean=[0.5] * 3)
    packages = {"no-such-package": "1.0", "pydicom": "99.0"}
    optional = {"no-such-option": "1.0"}
    edit(bundle / "configs" / "metadata.json", required_packages_version=packages, packages_of_options=optional)
    other = ROOT / "bundles" / "gaze_polyp_segmentation" / "models" / "model.pt"
    shutil.copy(other, bundle / "models" / "model.pt")
    text = "\n".join(told(bundle, capsys, 9))
    for sentence in (
        "FAULT  versions    no-such-package is not installed",
        "look   versions    no-such-option is not installed; some of its options",
        "is older than 99.0",
        "metadata.json does not name fire, without which python -m monai.bundle ends in an error",
        "inference.json has no preprocessing",
        "models/model.pt does not fit the network",
        "models/model.json is of other weights",
        'class_names is ["normal", "bacterial", "covid19"] on the card, ["bacterial"',
        'region is "whole" on the card, "lungs" in inference.json',
        "intensity_mean is [0.0, 0.0, 0.0] on the card, [0.5, 0.5, 0.5]",
    ):
        assert sentence in text, text


def test_code_is_listed_and_not_run(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mark = tmp_path / "ran"
    edit(bundle / "configs" / "inference.json", network_def=f"$open('{mark}', 'w')")
    lines = told(bundle, capsys, 0)
    assert any("inference.json would run network_def: $open(" in line for line in lines)
    assert sum("not checked" in line for line in lines) == 2
    assert not mark.exists()


@pytest.mark.parametrize(
    ("file", "edits"),
    [
        ("inference", {"device": "$(getattr(getattr(torch, 'os'), 'system')('touch MARK'), 'cpu')[1]"}),
        ("inference", {"module": "$torch", "device": "$(@module.os.system('touch MARK'), 'cpu')[1]"}),
        ("inference", {"device": {"_target_": "monai.utils.misc.run_cmd", "cmd_list": ["touch", "MARK"]}}),
        ("inference", {"device": {"_target_": "run_cmd", "cmd_list": ["touch", "MARK"]}}),
        (
            "inference",
            {"image_reader": "os.system", "device": "$monai.transforms.LoadImage('os.system', 'touch MARK')"},
        ),
        ("inference", {"device": {"_target_": "LoadImage", "reader": "os.system", "command": "touch MARK"}}),
        ("inference", {"device": {"_target_": "open", "file": "MARK", "mode": "w"}}),
        ("inference", {"device": {"_target_": "$open('MARK', 'w') and 'torch'"}}),
        ("inference", {"network_def": "$os._exit(0)", "imports": ["$import os"]}),
        ("metadata", {"_desc_": "$open('MARK', 'w')"}),
    ],
)
def test_no_way_round_runs_code(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, edits: dict[str, object]
) -> None:
    mark = tmp_path / "ran"
    text = json.dumps(edits).replace("MARK", str(mark))
    edit(bundle / "configs" / f"{file}.json", **json.loads(text))
    if file == "metadata":
        edit(bundle / "configs" / "inference.json", device="$(@_meta_#_desc_, 'cpu')[1]")
    lines = told(bundle, capsys, 0)
    assert not mark.exists()
    assert any(f"configs/{file}.json would run" in line for line in lines), lines
    assert sum("not checked" in line for line in lines) == 2


def test_a_package_that_a_config_imports_and_that_is_not_installed_is_a_fault_and_none_is_imported(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("is_here", "is_inside"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (tmp_path / "is_inside.py").rename(bundle / "is_inside.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    statements = ["$import sys", "$import is_here", "$from is_inside import x", "$import no_such, math"]
    edit(bundle / "configs" / "inference.json", imports=[*statements, "$from none_such.a.b import c"])
    edit(bundle / "configs" / "evaluate.json", imports=["$import no_such", "$import (torn"])
    faults = [line.split(maxsplit=2) for line in told(bundle, capsys, 2) if line.startswith("FAULT")]
    assert faults == [
        ["FAULT", "versions", "configs/evaluate.json needs the package no_such, which is not installed."],
        ["FAULT", "versions", "configs/inference.json needs the package none_such, which is not installed."],
    ]
    assert not (tmp_path / "ran").exists()


def test_a_macro_out_of_the_bundle_is_not_followed(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.json").write_text(json.dumps({"d": f"$open('{tmp_path / 'ran'}', 'w')"}))
    edit(bundle / "configs" / "inference.json", device=f"%{tmp_path}/m.json::d")
    (bundle / "configs" / "more.yaml").write_text("a: $exit()")
    lines = told(bundle, capsys, 0)
    assert any(f"would run device: %{tmp_path}/m.json::d" in line for line in lines), lines
    assert any("configs/more.yaml is a config that was not looked at" in line for line in lines), lines
    assert not (tmp_path / "ran").exists()


def test_a_module_of_an_installed_package_in_a_folder_is_a_fault_and_not_imported(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "ran"
    for name in (".git/config", "packaging.py", "torch/__init__.py", "samples/one.py", "notes.so"):
        (bundle / name).parent.mkdir(exist_ok=True)
        (bundle / name).write_text(f"open({str(mark)!r}, 'w')")
    run = "import sys; from clinbundles.scripts.doctor.run import doctor; doctor(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", run, str(bundle)], cwd=tmp_path, capture_output=True, text=True)
    assert not mark.exists()
    assert done.returncode == 1, done.stdout
    assert "2 faults" in done.stderr
    lines = [line for line in done.stdout.splitlines() if line.split()[1] == "code"]
    assert [line.split()[2] for line in lines if line.startswith("look")] == [
        ".git/config",
        "notes.so",
        "packaging.py",
        "samples/one.py",
        "torch/__init__.py",
    ]
    assert [line.split()[2] for line in lines if line.startswith("FAULT")] == ["packaging:", "torch:"]
    path = list(sys.path)
    told(bundle, capsys, 2)
    assert sys.path == path


class Program(nn.Module):
    """A network that writes a file the moment that it is loaded."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[bool]:
        return (self.training,)

    @torch.jit.export
    def __setstate__(self, state: tuple[bool]) -> None:
        self.training = state[0]
        torch.save([torch.ones(3)], "ran")


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:`torch.jit:FutureWarning")
def test_a_network_that_is_a_program_is_listed_under_any_name_and_not_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pack("covid_xray_transfer", out=str(tmp_path), profile="pure")
    (file,) = tmp_path.glob("*.zip")
    folder = unzip(file, tmp_path)
    torch.jit.script(Program().eval()).save(str(folder / "models" / "model.ts"), _extra_files={"metadata.json": "{}"})
    shutil.copy(folder / "models" / "model.ts", folder / "samples" / "a.png")
    capsys.readouterr()
    lines = told(folder, capsys, 1)  # the card's, which is of other weights
    assert sum("model.ts would run aten::save (code/" in line for line in lines) == 1
    assert sum("samples/a.png would run aten::save (code/" in line for line in lines) == 1
    assert sum("not checked" in line for line in lines) == 2
    assert not any("monai.bundle.load" in line for line in lines)
    assert not Path("ran").exists()
    with pytest.raises(SystemExit, match="1 faults"):
        doctor(str(folder), run=True)
    assert Path("ran").is_file()


def test_networks_that_cannot_be_read_or_name_other_files_are_faults(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = onnx.helper.make_model(onnx.helper.make_graph([onnx.helper.make_node("Add", "xw", "y")], "network", [], []))
    weights = model.graph.initializer.add(name="w", data_type=1, dims=[3], data_location=onnx.TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value="../../../etc/passwd")
    (bundle / "models" / "other.onnx").write_bytes(model.SerializeToString())
    (bundle / "models" / "torn.onnx").write_bytes(b"PK")
    (bundle / "models" / "torn.ts").write_bytes(b"PK")
    faults = [line.split(maxsplit=2)[2] for line in told(bundle, capsys, 3) if line.startswith("FAULT")]
    assert faults[0] == "models/other.onnx would read '../../../etc/passwd', which is no file of the bundle."
    assert faults[1].startswith("models/torn.onnx is no network in ONNX")
    assert faults[2].startswith("models/torn.ts is no whole archive of TorchScript")


def test_without_the_package_onnx_its_files_are_said_not_to_be_looked_at(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bundle / "models" / "other.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnx", None)
    (finding,) = check_networks(bundle)
    assert finding.status == "look"
    assert "models/other.onnx was not looked at: " in finding.sentence
    assert "needs the package onnx" in finding.sentence


@pytest.mark.parametrize("source", sorted((ROOT / "bundles").glob("*/")), ids=lambda path: path.name)
def test_our_own_folders_and_zips_run_nothing_that_is_listed(source: Path, tmp_path: Path) -> None:
    assert list(check_code(source)) == []
    name, content = packed_bundle(source)
    (tmp_path / f"{name}.zip").write_bytes(content)
    assert list(check_code(unzip(tmp_path / f"{name}.zip", tmp_path))) == []


def test_the_code_of_a_strangers_zip_is_listed_and_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack("covid_xray_transfer", out=str(tmp_path))
    (file,) = tmp_path.glob("*.zip")
    (tmp_path / "model_info.json").unlink()
    with zipfile.ZipFile(file) as source:
        (name,) = (each for each in source.namelist() if each.endswith("nets/classification_network.py"))
    changed = tmp_path / "changed.zip"
    mark = tmp_path / "ran"
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(changed, "w") as target:
        for entry in source.namelist():
            more = f"\nopen({str(mark)!r}, 'w')\n".encode() if entry == name else b""
            target.writestr(entry, source.read(entry) + more)
        target.writestr("covid_xray_transfer/scripts/other/extra.py", "")
    capsys.readouterr()
    lines = told(changed, capsys, 1)
    assert [line.split()[2] for line in lines if "is not the code of this project" in line] == [
        name.removeprefix("covid_xray_transfer/"),
        "scripts/other/extra.py",
    ]
    (fault,) = (line.split(maxsplit=2)[2] for line in lines if line.startswith("FAULT"))
    own = name.removeprefix("covid_xray_transfer/").partition("/nets")[0]
    assert fault == f"{own} holds other code than that which its name was made of: it was changed after packing."
    assert sum("not checked" in line for line in lines) == 2
    assert not any("monai.bundle.load" in line for line in lines)  # which would run it
    assert not mark.exists()


def test_a_finding_is_told_before_the_next_check_has_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: Path) -> Iterator[Finding]:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor_module, "CHECKS", {"files": CHECKS["files"], "weights": interrupted})
    with pytest.raises(KeyboardInterrupt):
        doctor("ct_datasetgan")
    assert capsys.readouterr().out.split() == ["ok", "files"]


def test_bench_times_both_runtimes_of_a_zip_and_refuses_one_whose_export_is_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack("ct_datasetgan", out=str(tmp_path), runtime="onnx")
    (file,) = tmp_path.glob("*.zip")
    capsys.readouterr()
    doctor(str(file), bench=True)
    said = capsys.readouterr()
    assert said.err.splitlines()[0] == "loading the network as eager and onnx"
    assert re.fullmatch(r"timing each 15 times, which takes .* (s|min)", said.err.splitlines()[1])
    sound, eager, onnx, use = said.out.splitlines()[-4:]
    assert sound == f"{file}: no fault, 0 to look at."
    assert eager.startswith("eager: ")
    assert eager.endswith("1.00 of eager")
    share = float(re.search(r"([\d.]+) of eager", onnx)[1])
    assert use.startswith("use onnx" if share < 0.95 else "use eager")
    folder = unzip(file, tmp_path)
    with (folder / "models" / "exported.onnx").open("ab") as stream:
        stream.write(b"x")
    assert any("exported.onnx is not the export of model.pt" in line for line in told(folder, capsys, 2))


def test_damaged_files_cost_their_check_and_not_the_others(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "models" / "model.pt").write_bytes(b"PK\x03\x04 broken")
    (bundle / "LICENSE").unlink()
    lines = told(bundle, capsys, 4)
    assert [line.split()[1] for line in lines if line.startswith("FAULT")] == ["files", "properties", "weights", "card"]


def test_a_missing_zip_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.zip: there is no such zip"):
        doctor(str(tmp_path / "none.zip"))
