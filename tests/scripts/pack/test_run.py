"""Zips of all bundles, run in a process that cannot import this project."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clinbundles.scripts.pack.archive import unzip
from clinbundles.scripts.pack.closure import imported_packages
from clinbundles.scripts.pack.run import bundle_files, own_package, pack, packed_bundle

ROOT = Path(__file__).parents[3]
BUNDLES = sorted(path.parents[1] for path in ROOT.glob("bundles/*/configs/metadata.json"))
# Names of packages where they differ from those of what one imports.
DISTRIBUTIONS = {"PIL": "pillow", "skimage": "scikit-image", "sklearn": "scikit-learn", "ignite": "pytorch-ignite"}
DISTRIBUTIONS |= {"segmentation_models_pytorch": "segmentation-models-pytorch", "faster_coco_eval": "faster-coco-eval"}
# What the code does without (a slower blur), or what tracking alone takes.
OPTIONAL = {"numba", "triton", "mlflow", "sqlalchemy", "filelock"}
# A process in which this project is not installed, which runs the bundles one after the other.
STRANGER = """
import json, os, sys
class NotHere:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "clinbundles":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, NotHere())
sys.path = [p for p in sys.path if p]
from monai.bundle import run
for folder, files, options in json.loads(sys.argv[1]):
    os.chdir(folder)
    run(config_file=files, **options)
    mine = {n.split(".")[1] for n in sys.modules if n.startswith("scripts.")}
    print("ran", os.path.basename(folder), sorted(n.rpartition("_")[0] for n in mine))
"""


@pytest.fixture(scope="module")
def unzipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    pack(all=True, out=str(folder / "dist"))
    for file in (folder / "dist").glob("*.zip"):
        with zipfile.ZipFile(file) as archive:
            archive.extractall(folder / "unzipped")
    return folder


def run_stranger(runs: list, folder: Path) -> str:
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, json.dumps(runs)],
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
    evaluate = ["configs/train.json", "configs/evaluate.json"]
    scored = small | {"ckpt_path": str(unzipped / "trained" / "model.pt"), "output_dir": str(unzipped / "scored")}
    train = small | {"max_epochs": 1, "batch_size": 8}
    run_stranger([[folder, "configs/train.json", train], [folder, evaluate, scored]], unzipped)
    assert (unzipped / "trained" / "model.pt").is_file()
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
    assert f"{top}scripts/__init__.py" not in names
    (own,) = {n.split("/")[2] for n in names if n.startswith(f"{top}scripts/")}
    assert own.startswith(f"{bundle.name}_")
    assert f"{top}scripts/{own}/__init__.py" not in names
    for path in ("LICENSE", "configs/metadata.json", "configs/inference.json", "models/model.pt", "docs/README.md"):
        assert top + path in names
    assert not [n for n, text in texts.items() if n.startswith(f"{top}configs") and "clinbundles.nets" in text]
    assert not [n for n in names if "reproduce.json" in n or "__pycache__" in n]


def test_two_releases_of_a_bundle_in_one_process_run_their_own_code(unzipped: Path, tmp_path: Path) -> None:
    """Of the second, one line of code is another: it says which it is."""
    first = unzipped / "unzipped" / "covid_xray_transfer"
    second = Path(shutil.copytree(first, tmp_path / "later" / first.name))
    (code,) = (second / "scripts").iterdir()
    files = {path.relative_to(code).as_posix(): path.read_bytes() for path in code.rglob("*.py")}
    files["nets/pneumonia_cnn.py"] += b"\nprint('the second release')\n"
    (code / "nets" / "pneumonia_cnn.py").write_bytes(files["nets/pneumonia_cnn.py"])
    own = own_package(first.name, files)
    assert own != code.name
    for config in (second / "configs").glob("*.json"):
        config.write_text(config.read_text().replace(f"scripts.{code.name}", f"scripts.{own}"))
    code.rename(code.with_name(own))
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


# A process in which this project is not installed, which downloads a zip, and loads its network.
DOWNLOADER = """
import sys
from pathlib import Path
import torch
from monai.bundle import download, load
file, folder, pure = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
name = file.stem.partition("_v")[0]
download(name, bundle_dir=folder, url=file.as_uri(), progress=False)
sys.path.insert(0, f"{folder}/{name}")  # MONAI's load tells the config no folder
options = {"model_file": "models/model.ts", "load_ts_module": True} if pure else {"workflow_type": "inference"}
network = load(name, bundle_dir=folder, **options)
network = network[0] if pure else network
torch.manual_seed(0)
print("logits", network.eval()(torch.rand(1, 3, 224, 224)).tolist())
"""


def test_monai_downloads_a_zip_from_a_file_url_and_loads_its_network(unzipped: Path, tmp_path: Path) -> None:
    pack("covid_xray_transfer", out=str(tmp_path), profile="pure")
    (pure,) = tmp_path.glob("*.zip")
    (full,) = (unzipped / "dist").glob("covid_xray_transfer_v*.zip")
    environment = os.environ | {"PYTHONPATH": ""}
    said = []
    for file, is_pure in ((full, ""), (pure, "pure")):
        folder = tmp_path / f"loaded{is_pure}"
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", DOWNLOADER, str(file), str(folder), is_pure],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        said.append(json.loads(done.stdout.partition("logits ")[2].splitlines()[0]))
    np.testing.assert_allclose(said[0], said[1], rtol=1e-4)


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
    imported = imported_packages((folder / "scripts").rglob("*.py")) - set(sys.stdlib_module_names)
    missing = {DISTRIBUTIONS.get(name, name) for name in imported} - known
    assert not missing - OPTIONAL, missing - OPTIONAL


def test_model_info_has_the_checksum_of_each_zip(unzipped: Path) -> None:
    info = json.loads((unzipped / "dist" / "model_info.json").read_text())
    zips = {path.stem: path.read_bytes() for path in (unzipped / "dist").glob("*.zip")}
    assert set(info) == set(zips)
    for name, content in zips.items():
        assert info[name]["sha256"] == hashlib.sha256(content).hexdigest()


def test_hidden_files_stay_out_and_a_folder_of_this_machine_is_refused(tmp_path: Path) -> None:
    bundle = tmp_path / "polyps"
    for path in ("configs", "models", "docs"):
        (bundle / path).mkdir(parents=True)
    (bundle / "LICENSE").write_text("Apache-2.0")
    (bundle / "configs" / ".secret").write_text("x")
    metadata = {"version": "0.1", "monai_version": "1", "pytorch_version": "2", "numpy_version": "2"}
    (bundle / "configs" / "metadata.json").write_text(json.dumps(metadata | {"required_packages_version": {}}))
    with pytest.raises(FileNotFoundError, match=r"model.pt: no weights"):
        packed_bundle(bundle)
    (bundle / "models" / "model.pt").write_bytes(b"x")
    assert "configs/.secret" not in bundle_files(bundle)
    (bundle / "docs" / "README.md").write_text("fine\nsee /home/ann/data\n")
    with pytest.raises(ValueError, match=r"polyps/docs/README.md, line 2: names a folder of a machine"):
        packed_bundle(bundle)


def test_pack_wants_one_bundle_or_all() -> None:
    with pytest.raises(ValueError, match="say which bundle"):
        pack()
    with pytest.raises(ValueError, match="say which bundle"):
        pack("gaze_polyp_segmentation", all=True)
