"""Zips of all bundles, run in a process that cannot import this project."""

import hashlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import monai.bundle
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch

from clinbundles.scripts.bundle import load_network, open_configs
from clinbundles.scripts.doctor.checks import OF_RUNNER
from clinbundles.scripts.doctor.onnx_file import foreign_parts
from clinbundles.scripts.pack.archive import unzip
from clinbundles.scripts.pack.closure import imported_packages
from clinbundles.scripts.pack.export import plain, probabilities
from clinbundles.scripts.pack.run import bundle_files, own_package, pack, packed_bundle

ROOT = Path(__file__).parents[3]
BUNDLES = sorted(path.parents[1] for path in ROOT.glob("bundles/*/configs/metadata.json"))
NOT_EXPORTABLE = ("pace_cell_segmentation", "onnx")  # by MONAI: the shapes in it depend on the cells
# Names of packages where they differ from those of what one imports.
DISTRIBUTIONS = {"PIL": "pillow", "skimage": "scikit-image", "sklearn": "scikit-learn", "ignite": "pytorch-ignite"}
DISTRIBUTIONS |= {"segmentation_models_pytorch": "segmentation-models-pytorch", "faster_coco_eval": "faster-coco-eval"}
# What the code does without (a slower blur), or what tracking alone takes.
OPTIONAL = {"numba", "triton", "mlflow", "sqlalchemy", "filelock"}
# A process in which this project is not installed, and another package is that is called scripts.
ELSEWHERE = """
import json, os, re, sys
import scripts
class NotHere:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "clinbundles":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, NotHere())
sys.path = [p for p in sys.path if p]
"""
# It runs the bundles one after the other.
STRANGER = (
    ELSEWHERE
    + """
from monai.bundle import run
for folder, files, options in json.loads(sys.argv[1]):
    os.chdir(folder)
    run(config_file=files, **options)
    mine = {n for n in sys.modules if re.fullmatch(r"\\w+_[0-9a-f]{8}", n)}
    print("ran", os.path.basename(folder), sorted(n[:-9] for n in mine))
"""
)
# It gives the commands of `python -m monai.bundle`, each in the folder of a bundle.
COMMANDER = (
    ELSEWHERE
    + """
import runpy
for folder, words in json.loads(sys.argv[1]):
    os.chdir(folder)
    sys.path.insert(0, folder)  # as python -m does
    sys.argv = ["monai.bundle", *words]
    runpy.run_module("monai.bundle", run_name="__main__")
"""
)


@pytest.fixture(scope="module")
def unzipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    pack(all=True, out=str(folder / "dist"))
    for file in (folder / "dist").glob("*.zip"):
        with zipfile.ZipFile(file) as archive:
            archive.extractall(folder / "unzipped")
    return folder


def run_stranger(runs: list, folder: Path, code: str = STRANGER) -> str:
    (folder / "installed" / "scripts").mkdir(parents=True, exist_ok=True)
    (folder / "installed" / "scripts" / "__init__.py").touch()
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": str(folder / "installed")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, json.dumps(runs)],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_zip_segments_or_classifies_where_the_project_is_not_installed(unzipped: Path) -> None:
    """All in one process: the later ones run their own code, not that of the first."""
    folders = sorted((unzipped / "unzipped").iterdir())
    assert [folder.name for folder in folders] == [bundle.name for bundle in BUNDLES]
    runs = [
        [str(f), "configs/inference.json", {"bundle_root": str(f), "output_dir": str(unzipped / "out" / f.name)}]
        for f in folders
    ]
    said = run_stranger(runs, unzipped)
    names = [folder.name for folder in folders]
    assert [line for line in said.splitlines() if line.startswith("ran ")] == [
        f"ran {name} {sorted(names[: number + 1])}" for number, name in enumerate(names)
    ]
    for folder in folders:
        assert list((unzipped / "out" / folder.name).glob("per_image.csv")), folder.name


def test_a_zip_trains_and_evaluates_where_the_project_is_not_installed(unzipped: Path) -> None:
    folder = str(unzipped / "unzipped" / "gaze_polyp_segmentation")
    small = {"image_size": 32, "channels": [4] * 6, "ckpt_dir": str(unzipped / "trained")}
    said = run_stranger([[folder, "configs/train.json", small | {"max_epochs": 1, "batch_size": 8}]], unzipped)
    (command,) = (line.partition("same options: ")[2] for line in said.splitlines() if line.startswith("next, "))
    files = """ "['configs/train.json','configs/evaluate.json']" """
    assert command == f"python -m monai.bundle run --config_file{files}--ckpt_path {unzipped}/trained/model.pt"
    scored = ["--image_size", "32", "--channels", "[4,4,4,4,4,4]", "--output_dir", str(unzipped / "scored")]
    run_stranger([[folder, [*shlex.split(command)[3:], *scored]]], unzipped, COMMANDER)
    assert (unzipped / "scored" / "per_image.csv").is_file()


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_a_zip_is_the_same_each_time_and_holds_its_own_code_alone(bundle: Path) -> None:
    name, content = packed_bundle(bundle)
    assert packed_bundle(bundle) == (name, content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        texts = {n: archive.read(n).decode() for n in names if n.endswith((".json", ".py"))}
    top = f"{bundle.name}/"
    assert all(n.startswith(top) for n in names)
    (own,) = {n.split("/")[2] for n in names if n.startswith(f"{top}scripts/")}
    assert [n for n in names if n.endswith(".py") and not n.startswith(f"{top}scripts/")] == [f"{top}{own}.py"]
    assert own.startswith(f"{bundle.name}_")
    assert own.isidentifier()
    for path in ("LICENSE", "configs/metadata.json", "configs/inference.json", "models/model.pt", "docs/README.md"):
        assert top + path in names
    assert not [n for n, text in texts.items() if n.startswith(f"{top}configs") and "clinbundles.nets" in text]
    assert not [n for n in names if "reproduce.json" in n or "__pycache__" in n]


def test_two_releases_of_a_bundle_in_one_process_run_their_own_code(unzipped: Path, tmp_path: Path) -> None:
    """Of the second, one line of code is another: it says which it is."""
    first = unzipped / "unzipped" / "covid_xray_transfer"
    second = Path(shutil.copytree(first, tmp_path / "later" / first.name))
    (code,) = (second / "scripts").glob(f"{first.name}_*")
    files = {path.relative_to(code).as_posix(): path.read_bytes() for path in code.rglob("*.py")}
    files["nets/pneumonia_cnn.py"] += b"\nprint('the second release')\n"
    (code / "nets" / "pneumonia_cnn.py").write_bytes(files["nets/pneumonia_cnn.py"])
    own = own_package(first.name, files)
    assert own != code.name
    for config in (second / "configs").glob("*.json"):
        config.write_text(config.read_text().replace(code.name, own))
    code.rename(code.with_name(own))
    (second / f"{code.name}.py").rename(second / f"{own}.py")
    files_of = [
        [str(folder), "configs/inference.json", {"bundle_root": str(folder), "output_dir": str(tmp_path / number)}]
        for number, folder in (("1", first), ("2", second))
    ]
    said = run_stranger(files_of, tmp_path).splitlines()
    ran = [number for number, line in enumerate(said) if line.startswith("ran ")]
    assert len(ran) == 2
    assert "the second release" not in said[: ran[0]]
    assert "the second release" in said[ran[0] :]


def test_the_network_in_onnx_gives_the_table_of_the_network_itself(unzipped: Path, tmp_path: Path) -> None:
    pack("covid_xray_transfer", out=str(tmp_path), runtime="onnx")
    (file,) = tmp_path.glob("*.zip")
    folder = unzip(file, tmp_path)
    assert "onnxruntime" in json.loads((folder / "configs" / "metadata.json").read_text())["required_packages_version"]
    both = ["configs/inference.json", "configs/inference_onnx.json"]
    runs = [
        [str(folder), files, {"bundle_root": str(folder), "output_dir": str(tmp_path / name)}]
        for name, files in (("eager", both[:1]), ("onnx", both))
    ]
    run_stranger(runs, tmp_path)
    eager, onnx = (pd.read_csv(tmp_path / name / "per_image.csv") for name in ("eager", "onnx"))
    assert len(eager) == 4
    assert list(onnx["prediction"]) == list(eager["prediction"])
    columns = [name for name in eager if name.startswith("probability_")]
    np.testing.assert_allclose(onnx[columns], eager[columns], rtol=1e-4)
    digest = hashlib.sha256((folder / "models" / "exported.onnx").read_bytes()).hexdigest()
    assert onnx["weights"].str.startswith(f"sha256 {digest[:12]}: For research").all()


# It loads networks of zips, each by the call on the zip's own page.
LOADER = (
    ELSEWHERE
    + """
import torch
import monai
for call in json.loads(sys.argv[1]):
    network = eval(call)
    torch.manual_seed(0)
    result = network.eval()(torch.rand(2, 1 if "ct_datasetgan" in call else 3, 224, 224))
    print("logits", json.dumps(result.tolist() if isinstance(result, torch.Tensor) else len(result)))
"""
)


def test_monai_loads_the_network_of_each_zip_from_a_file_url(unzipped: Path, tmp_path: Path) -> None:
    """In a folder in which no bundle lies, and without a word to Python's path."""
    pack("covid_xray_transfer", out=str(tmp_path / "pure"), profile="pure")
    calls = []
    for file in [*sorted((unzipped / "dist").glob("*.zip")), *(tmp_path / "pure").glob("*.zip")]:
        with zipfile.ZipFile(file) as archive:
            page = archive.read(f"{file.stem.partition('_v')[0]}/docs/README.md").decode()
        (call,) = [line.strip() for line in page.splitlines() if line.startswith("    monai.bundle.load(")]
        calls.append(call.replace(f"file:///PATH/{file.name}", file.as_uri()).replace("DIR", str(tmp_path)))
    said = run_stranger(calls, tmp_path, LOADER)
    results = [json.loads(line.removeprefix("logits ")) for line in said.splitlines() if line.startswith("logits ")]
    assert len(results) == len(BUNDLES) + 1
    assert "covid_xray_transfer_pure" in calls[-1]
    np.testing.assert_allclose(results[0], results[-1], rtol=1e-4)
    assert "runs" not in {path.name for path in tmp_path.iterdir()}


@pytest.fixture(scope="module")
def exported(unzipped: Path) -> Path:
    """A folder with each network as TorchScript and ONNX, by MONAI's own commands."""
    commands = []
    for folder in sorted((unzipped / "unzipped").iterdir()):
        files = ["--config_file", "configs/inference.json", "--meta_file", "configs/metadata.json"]
        to = [*files, "--ckpt_file", "models/model.pt", "--net_id", "network_def", "--filepath"]
        for verb, suffix in (("ckpt_export", "ts"), ("onnx_export", "onnx")):
            if (folder.name, suffix) != NOT_EXPORTABLE:
                commands.append([str(folder), [verb, *to, str(unzipped / "exported" / f"{folder.name}.{suffix}")]])
    (unzipped / "exported").mkdir()
    run_stranger(commands, unzipped, COMMANDER)
    return unzipped / "exported"


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_monai_exports_the_network_of_a_zip_and_it_computes_the_same(bundle: Path, exported: Path) -> None:
    network = load_network(parser := open_configs(bundle, ["inference"], device="cpu"))
    read = torch.Tensor.double if bundle.name in NOT_EXPORTABLE else probabilities  # label maps as they are
    sample = plain(parser.get_parsed_content("dataset")[0]["image"])
    image = (sample[..., 0] if sample.ndim == 4 else sample)[None]
    results = []
    if (bundle.name, "onnx") != NOT_EXPORTABLE:
        assert list(foreign_parts(exported / f"{bundle.name}.onnx", exported)) == []
        as_onnx = onnxruntime.InferenceSession(exported / f"{bundle.name}.onnx", providers=["CPUExecutionProvider"])
        (given,) = as_onnx.get_inputs()
        image = torch.nn.functional.interpolate(image, given.shape[2:])
        results.append(torch.from_numpy(as_onnx.run(None, {given.name: image.numpy()})[0]))
    with torch.inference_mode():
        expected = network(image)
        results.append(torch.jit.load(exported / f"{bundle.name}.ts")(image))
    assert read(expected).std() > 0.01
    for result in results:
        torch.testing.assert_close(read(result), read(expected), atol=1e-4, rtol=0)


def test_an_unknown_runtime_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--runtime is 'tensorrt', expected one of eager, onnx"):
        pack("pace_cell_segmentation", out=str(tmp_path), runtime="tensorrt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_metadata_names_every_package_that_the_code_of_a_zip_imports(bundle: Path, unzipped: Path) -> None:
    folder = unzipped / "unzipped" / bundle.name
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    known = {"monai", "torch", "numpy", *metadata["required_packages_version"]}
    known |= set(metadata.get("packages_of_options", {}))
    imported = imported_packages(p.read_text() for p in folder.rglob("*.py")) - set(sys.stdlib_module_names)
    assert "torch" in imported
    # The runner asks for these by name, ignite's bar for tqdm, and MONAI brings neither.
    runner = Path(monai.bundle.__file__).with_name("__main__.py").read_text()
    imported |= (asked := set(re.findall(r'optional_import\("(\w+)"\)', runner)))
    assert asked >= set(OF_RUNNER)
    imported |= {
        "tqdm" for path in (folder / "configs").glob("*.json") if "ignite.handlers.ProgressBar" in path.read_text()
    }
    assert "tqdm" in imported
    missing = {DISTRIBUTIONS.get(name, name) for name in imported} - known
    assert not missing - OPTIONAL, missing - OPTIONAL


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_a_zip_has_requirements_of_the_packages_in_metadata_and_its_page_says_how_to_install_them(
    bundle: Path, unzipped: Path
) -> None:
    folder = unzipped / "unzipped" / bundle.name
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    packages = dict(line.split("==") for line in (folder / "requirements.txt").read_text().splitlines())
    assert packages.pop("torch") == metadata["pytorch_version"]
    assert packages == {
        "monai": metadata["monai_version"], "numpy": metadata["numpy_version"], **metadata["required_packages_version"],
        **metadata.get("packages_of_options", {}),
    }  # fmt: skip
    assert "\npip install -r requirements.txt\npython -m monai.bundle run" in (folder / "docs/README.md").read_text()


def test_model_info_has_the_checksum_of_each_zip(unzipped: Path) -> None:
    info = json.loads((unzipped / "dist" / "model_info.json").read_text())
    zips = {path.stem: path.read_bytes() for path in (unzipped / "dist").glob("*.zip")}
    assert set(info) == set(zips)
    for name, content in zips.items():
        assert info[name]["sha256"] == hashlib.sha256(content).hexdigest()


METADATA = {"version": "0.1", "monai_version": "1", "pytorch_version": "2", "numpy_version": "2"}
METADATA |= {"required_packages_version": {}}


@pytest.fixture
def polyps(tmp_path: Path) -> Path:
    """A bundle of no network."""
    bundle = tmp_path / "polyps"
    for path in ("configs", "models", "docs"):
        (bundle / path).mkdir(parents=True)
    (bundle / "LICENSE").write_text("Apache-2.0")
    (bundle / "configs" / "metadata.json").write_text(json.dumps(METADATA))
    (bundle / "models" / "model.pt").write_bytes(b"x")
    return bundle


def test_the_package_of_a_bundle_of_any_name_is_one_that_python_imports() -> None:
    assert own_package("3d-polyps.v2", {}).startswith("_3d_polyps_v2_")
    assert own_package("3d-polyps.v2", {}).isidentifier()


def test_images_that_git_does_not_know_stay_out_and_are_counted(
    polyps: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", polyps, *words], check=True, capture_output=True)

    (polyps / "samples").mkdir()
    for name in ("frame.png", "Mueller_Hans.dcm", "Thumbs.db"):
        (polyps / "samples" / name).write_bytes(b"x")
    before = set(bundle_files(polyps))
    assert {"samples/frame.png", "samples/Mueller_Hans.dcm"} <= before
    assert "samples/Thumbs.db" not in before
    git("init")
    assert set(bundle_files(polyps)) == before  # a checkout that knows nothing of the bundle
    git("add", "configs", "samples/frame.png")
    assert capsys.readouterr().err == ""
    assert set(bundle_files(polyps)) == before - {"samples/Mueller_Hans.dcm"}
    said = capsys.readouterr().err
    assert "polyps: left out 1 of samples and docs, which git does not know" in said
    assert "Mueller" not in said


def test_hidden_files_stay_out_and_a_folder_of_this_machine_is_refused(polyps: Path) -> None:
    (polyps / "configs" / ".secret").write_text("x")
    assert "configs/.secret" not in bundle_files(polyps)
    (polyps / "docs" / "README.md").write_text("fine\nsee /home/ann/data\n")
    with pytest.raises(ValueError, match=r"polyps/docs/README.md, line 2: names a folder of a machine"):
        packed_bundle(polyps)
    (polyps / "models" / "model.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"model.pt: no weights"):
        packed_bundle(polyps)


@pytest.mark.parametrize("link", ["docs/p.txt", "LICENSE", "samples", "models/more"])
def test_a_link_is_refused_whatever_it_leads_to(polyps: Path, tmp_path: Path, link: str) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "passwd").write_text("jane:x:1000")
    (polyps / "LICENSE").unlink()
    is_file = Path(link).suffix or link == "LICENSE"
    (polyps / link).symlink_to(tmp_path / "secret" / "passwd" if is_file else tmp_path / "secret")
    with pytest.raises(ValueError, match=rf"polyps/{link}: is a link, and a zip would hold what it leads to"):
        packed_bundle(polyps)
    (polyps / link).rename((polyps / link).with_name(".hidden"))
    packed_bundle(polyps)


@pytest.mark.parametrize("version", ["1/../../../escaped", "a/b", None])
def test_a_version_that_is_none_writes_nothing_anywhere(polyps: Path, tmp_path: Path, version: str | None) -> None:
    (polyps / "configs" / "metadata.json").write_text(json.dumps(METADATA | {"version": version}))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=r"polyps/configs/metadata\.json: version is .+, expected a version"):
        pack(str(polyps), out=str(tmp_path / "a" / "dist"))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("text", ["[]", '{"polyps_v0.1": {"checksum"', '{"polyps_v0.1": []}', "\xff"])
def test_a_torn_list_of_zips_is_named_before_a_zip_is_written(polyps: Path, tmp_path: Path, text: str) -> None:
    info = tmp_path / "model_info.json"
    info.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"model_info\.json: is .+: mend it or move it away, and pack again"):
        pack(str(polyps), out=str(tmp_path))
    assert not list(tmp_path.glob("*.zip"))
    info.write_text('{"other_v1": {"source": "other_v1.zip"}}')
    pack(str(polyps), out=str(tmp_path))
    assert list(json.loads(info.read_text())) == ["other_v1", "polyps_v0.1"]


def test_pack_wants_one_bundle_or_all() -> None:
    with pytest.raises(ValueError, match="say which bundle"):
        pack()
    with pytest.raises(ValueError, match="say which bundle"):
        pack("gaze_polyp_segmentation", all=True)
