"""Pure zips: no Python, and on real samples the outputs of the full bundles."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine, Events
from imagecodecs import png_encode
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, decollate_batch
from monai.handlers import ClassificationSaver
from PIL import Image

from clinbundles.scripts.bundle import load_network, open_configs, read_configs
from clinbundles.scripts.deploy.inference import opened
from clinbundles.scripts.doctor.code import foreign_code
from clinbundles.scripts.doctor.run import doctor
from clinbundles.scripts.label.bundles import lay_out
from clinbundles.scripts.pack.archive import unzip
from clinbundles.scripts.pack.machine_paths import IN_EXAMPLES
from clinbundles.scripts.pack.pure import check_is_full, pure_inference
from clinbundles.scripts.pack.run import pack
from clinbundles.scripts.predict.run import predict

ROOT = Path(__file__).parents[3]
BUNDLES = sorted(path.parents[1] for path in ROOT.glob("bundles/*/configs/metadata.json"))
HAS_TURNED_RESULTS = ("gaze_polyp_segmentation", "two_stage_segmentation", "pace_cell_segmentation")
# MONAI loads and saves TorchScript, and torch is about to leave it.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:`torch.jit:FutureWarning")


@pytest.fixture(scope="module", params=BUNDLES, ids=lambda path: path.name)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A bundle, its pure zip, and the folder of what is in it."""
    folder = tmp_path_factory.mktemp("pure")
    pack(request.param.name, out=str(folder), profile="pure")
    (file,) = folder.glob("*.zip")
    return request.param, file, unzip(file, folder)


def results(parser: ConfigParser, network: torch.nn.Module, images: list[str]) -> dict[str, np.ndarray]:
    """Probabilities or logits by name of the image, as they leave the last step that does not round them."""
    steps = parser.get_parsed_content("postprocessing").transforms if "postprocessing" in parser else []
    steps = [step for step in steps if type(step).__name__ not in ("AsDiscreted", "SaveImaged", "CopyItemsd")]
    data = Dataset([{"image": path} for path in images], parser.get_parsed_content("preprocessing"))
    found = {}
    for path, batch in zip(images, DataLoader(data), strict=True):
        with torch.inference_mode():
            batch["pred"] = parser.get_parsed_content("inferer")(batch["image"], network)
        (result,) = decollate_batch(batch)
        for step in steps:
            result = step(result)
        found[path] = np.squeeze(np.asarray(result["pred"]))
    return found


def test_a_pure_zip_gives_what_the_full_bundle_gives(pair: tuple[Path, Path, Path]) -> None:
    bundle, _, folder = pair
    pure = ConfigParser()
    pure.read_config(str(folder / "configs" / "inference.json"))
    pure.update({"bundle_root": str(folder), "device": "cpu"})
    images = [item["image"] for item in pure.get_parsed_content("dataset").data][:3]
    assert images
    full = open_configs(bundle, ["inference"], device="cpu")
    here = results(full, load_network(full), images)
    there = results(pure, pure.get_parsed_content("network").eval(), images)
    for path in images:
        mine = (
            there[path].T if bundle.name in HAS_TURNED_RESULTS else there[path]
        )  # MONAI's reader and writer of pictures have columns first
        assert mine.shape == here[path].shape
        scale = max(1.0, np.abs(here[path]).max())
        assert np.abs(mine - here[path]).max() / scale < 1e-5
        assert here[path].std() > 0.001


def opened_on(name: str, folder: Path) -> ConfigParser:
    """The pure inference.json of a bundle, with a folder of images."""
    parser = ConfigParser(pure_inference(read_configs(ROOT / "bundles" / name, ["inference"]), name))
    parser.update({"bundle_root": str(folder), "dataset_dir": str(folder), "output_dir": str(folder / "out")})
    parser.update({"device": "cpu"})
    return parser


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two images of one stem, one that EXIF turns upright, and what is not read, in a folder of a name for glob."""
    folder = tmp_path / "p[1]"
    folder.mkdir()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.rotate(90, expand=True).save(folder / "turned.png", exif=exif)
    for file in ("same.jpg", "same.png", "left.tif"):
        image.save(folder / file)
    return folder


@pytest.mark.parametrize("name", ["covid_xray_transfer", "gaze_polyp_segmentation", "pace_cell_segmentation"])
def test_a_picture_is_turned_upright_as_exif_says(name: str, study: Path) -> None:
    read = opened_on(name, study).get_parsed_content("preprocessing")
    with Image.open(study / "turned.png") as image:
        image.save(study / "turned.jpg", exif=image.getexif(), quality=100, subsampling=0)
    files = ("turned.png", "turned.jpg", "same.png")
    png, jpeg, upright = (torch.as_tensor(read({"image": str(study / file)})["image"]) for file in files)
    torch.testing.assert_close(png, upright)
    assert (jpeg - upright).abs().mean() < 0.05 * upright.std()


def test_all_images_of_a_folder_are_read_whatever_its_name_and_the_rest_is_told(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = opened_on("gaze_polyp_segmentation", study)
    assert [Path(path).name for path in parser.get_parsed_content("images")] == ["same.jpg", "same.png", "turned.png"]
    parser.get_parsed_content("run#0")
    assert capsys.readouterr().out == f"Left out, for JPEG or PNG alone is read: {study}/left.tif\n"
    (study / "left.tif").unlink()
    opened_on("gaze_polyp_segmentation", study).get_parsed_content("run#0")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["gaze_polyp_segmentation", "pace_cell_segmentation"])
def test_images_that_differ_in_their_suffix_alone_have_a_mask_each(name: str, study: Path) -> None:
    for masks in (["same.jpg.png", "same.png.png", "turned.png.png"], ["same.png", "turned.png"]):
        parser = opened_on(name, study)
        save = parser.get_parsed_content("postprocessing").transforms[-1]
        read = parser.get_parsed_content("preprocessing")
        for path in parser.get_parsed_content("images"):
            save({"pred": read({"image": path})["image"][:1]})
        assert sorted(path.name for path in (study / "out").iterdir()) == masks
        shutil.rmtree(study / "out")
        (study / "same.jpg").unlink(missing_ok=True)


def test_the_table_of_classes_has_titles(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(study.parent)
    (study / "turned.png").rename(study / "turned, left.png")
    parser = opened_on("covid_xray_transfer", Path(study.name))
    parser.update({"dataset_dir": f"./{study.name}"})  # which a reader makes another path of
    handlers = parser.get_parsed_content("handlers")
    (saver,) = (handler for handler in handlers if isinstance(handler, ClassificationSaver))
    loader = DataLoader(parser.get_parsed_content("dataset"))
    engine = Engine(lambda _, batch: [{"pred": torch.tensor([0.25, 0.5, 0.25])}])

    def decollate(engine: Engine) -> None:
        engine.state.batch = decollate_batch(engine.state.batch)

    engine.add_event_handler(Events.ITERATION_STARTED, decollate)
    saver.attach(engine)
    engine.run(loader)
    table = pd.read_csv(study / "out" / "predictions.csv")
    assert list(table) == ["image", "weights", "normal", "bacterial", "covid19"]
    assert list(table["image"]) == ["same.jpg", "same.png", "turned, left.png"]
    assert list(table["bacterial"]) == [0.5, 0.5, 0.5]


# MONAI's reader leaves a refused file open.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["covid_xray_transfer", "gaze_polyp_segmentation", "pace_cell_segmentation"])
def test_a_picture_of_16_bits_is_refused_and_one_in_capitals_is_read(name: str, tmp_path: Path) -> None:
    parser = ConfigParser(pure_inference(read_configs(ROOT / "bundles" / name, ["inference"]), name))
    parser.update({"bundle_root": str(tmp_path), "dataset_dir": str(tmp_path), "device": "cpu"})
    grey = np.tile(np.arange(256, dtype=np.uint16) * 257, (200, 1))
    Image.fromarray((grey >> 8).astype(np.uint8)).save(tmp_path / "EIGHT.PNG")
    read = parser.get_parsed_content("preprocessing")
    (item,) = parser.get_parsed_content("dataset").data
    assert read(item)["image"].std() > 0
    Image.fromarray(grey).save(tmp_path / "sixteen.png")
    for channels in (2, 3, 4):  # of which Pillow would make 8 bits
        (tmp_path / f"sixteen_{channels}.png").write_bytes(png_encode(np.dstack([grey] * channels)))
    Image.fromarray(grey).save(tmp_path / "tiff.png", format="TIFF")
    files = sorted(tmp_path.glob("*.png"))
    assert len(files) == 5
    for file in files:
        with pytest.raises(RuntimeError, match="LoadImaged"):
            read({"image": str(file)})


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_picture_larger_than_a_tile_is_refused_where_the_full_bundle_goes_by_tiles(tmp_path: Path) -> None:
    name = "pace_cell_segmentation"
    parser = ConfigParser(pure_inference(read_configs(ROOT / "bundles" / name, ["inference"]), name))
    parser.update({"bundle_root": str(tmp_path), "dataset_dir": str(tmp_path), "device": "cpu"})
    read = parser.get_parsed_content("preprocessing")
    for width in (1024, 1025):
        Image.new("RGB", (width, 64)).save(tmp_path / f"{width}.png")
    assert tuple(read({"image": str(tmp_path / "1024.png")})["image"].shape) == (3, 64, 1024)
    with pytest.raises(RuntimeError, match="LoadImaged"):
        read({"image": str(tmp_path / "1025.png")})


def test_a_pure_zip_has_no_python_and_the_doctor_finds_nothing(
    pair: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, file, folder = pair
    assert not list(folder.rglob("*.py"))
    assert not (folder / "scripts").exists()
    text = (folder / "configs" / "inference.json").read_text()
    assert "clinbundles." not in text
    assert "scripts." not in text
    assert list(foreign_code(json.loads(text), "none_00000000")) == []
    assert not IN_EXAMPLES.search((folder / "models" / "model.ts").read_bytes().decode("latin-1"))
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    assert "pydicom" not in metadata["required_packages_version"]
    assert "packages_of_options" not in metadata
    assert "dicom" not in metadata["data_type"]
    assert file.name == f"{bundle.name}_pure_v{metadata['version']}.zip"
    doctor(str(file))
    assert capsys.readouterr().out.splitlines()[-1].endswith("no fault, 0 to look at.")


def test_a_pure_zip_is_refused_by_our_applications_of_hosts_and_a_full_bundle_is_not(
    pair: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    bundle, file, _ = pair
    with pytest.raises(ValueError, match=rf"{file.name}: is a pure zip, .* give the full one"), opened(str(file)):
        pass
    with pytest.raises(ValueError, match=rf"{bundle.name}_pure: is a pure zip, .* give the full one"):
        lay_out([str(file)], tmp_path)
    check_is_full(bundle, bundle.name)


def test_a_pure_zip_is_the_same_whatever_the_seed_of_hashes_and_whatever_was_exported_before(tmp_path: Path) -> None:
    """Of two processes, the second has a network of the same classes in TorchScript already."""
    before = "import torch; torch.jit.script(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3)))"
    for seed, first in (("1", ""), ("2", before)):
        then = f"from clinbundles.scripts.pack.run import pack\npack('ct_datasetgan', out='{seed}', profile='pure')"
        environment = os.environ | {"PYTHONHASHSEED": seed}
        words = [sys.executable, "-W", "ignore", "-c", f"{first}\n{then}"]
        subprocess.run(words, cwd=tmp_path, env=environment, check=True)
    (one,), (other,) = ((tmp_path / seed).glob("*.zip") for seed in "12")
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("config", ["inference", "metadata"])
def test_a_config_with_code_of_its_own_has_no_pure_form_and_is_not_run(config: str, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(ROOT / "bundles" / "ct_datasetgan", tmp_path / "ct_datasetgan"))
    file, name = bundle / "configs" / f"{config}.json", {"inference": "device", "metadata": "intended_use"}[config]
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: f"$open('{tmp_path}/ran', 'w')"}))
    with pytest.raises(
        ValueError, match=rf"ct_datasetgan: has no pure form, for it would run {name}: \$open\(.*lists: "
    ):
        pack(str(bundle), out=str(tmp_path / "out"), profile="pure")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct_datasetgan"]


def test_weights_that_cannot_be_exported_are_named_in_one_sentence(tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(ROOT / "bundles" / "ct_datasetgan", tmp_path / "ct_datasetgan"))
    (bundle / "models" / "model.pt").write_bytes(b"PK torn")
    with pytest.raises(ValueError, match=r"^\S+models/model\.pt\b.*$"):
        pack(str(bundle), out=str(tmp_path / "out"), profile="pure")
    assert not (tmp_path / "out").exists()


# MONAI's reader leaves a refused file open; an engine without images warns.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:`dataloader` is empty")
@pytest.mark.parametrize("pair", [ROOT / "bundles" / "gaze_polyp_segmentation"], indirect=True, ids=["polyps"])
def test_of_a_picture_that_a_pure_zip_does_not_read_predict_says_why_in_one_line(
    pair: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    grey = Image.fromarray(np.tile(np.arange(256, dtype=np.uint16) * 257, (200, 1)))
    for name in ("sixteen.png", "sixteen.tif", "one.png"):
        (grey if "sixteen" in name else Image.new("RGB", (1, 1))).save(tmp_path / name)
    inputs = ",".join(str(tmp_path / name) for name in ("one.png", "sixteen.png", "sixteen.tif"))
    with pytest.raises(SystemExit):
        predict(str(pair[1]), inputs, str(tmp_path / "out"))
    table = (tmp_path / "out" / "status.csv").read_text()
    assert len(table.splitlines()) == 4
    one, png, tif = pd.read_csv(tmp_path / "out" / "status.csv").sentence
    assert png == (
        "0 of 1 images could be read; of the first: sixteen.png: I;16 of 16 bits, 256 px: "
        "JPEG and PNG of 8 bits a channel alone are read."
    )
    assert tif.startswith("Left out, for JPEG or PNG alone is read: sixteen.tif")
    assert one.startswith("one.png: RuntimeError: SaveImage cannot find a suitable writer")


@pytest.mark.parametrize("pair", [ROOT / "bundles" / "covid_xray_transfer"], indirect=True, ids=["X-rays"])
def test_the_table_of_a_pure_zip_names_the_input_and_the_weights(pair: tuple[Path, Path, Path], tmp_path: Path) -> None:
    bundle, file, folder = pair
    image = tmp_path / "left, upright.png"
    Image.open(min((bundle / "samples" / "images").iterdir())).convert("L").save(image)
    predict(str(file), str(image), str(tmp_path / "out"))
    (row,) = pd.read_csv(tmp_path / "out" / "studies" / image.stem / "predictions.csv").to_dict("records")
    card = json.loads((folder / "models" / "model.json").read_text())
    assert row["image"] == image.name
    assert row["weights"] == f"sha256 {card['weights_sha256'][:12]}: {card['warning']}"
    assert sum(value for value in row.values() if isinstance(value, float)) == pytest.approx(1)


def test_what_monai_has_nothing_like_is_refused(tmp_path: Path) -> None:
    content = read_configs(ROOT / "bundles" / "pace_cell_segmentation", ["inference"])
    content["writer"]["_target_"] = "clinbundles.engines.outputs.cost.CostWriter"
    with pytest.raises(ValueError, match="cells: has no pure form, for MONAI has nothing that writes what CostWriter"):
        pure_inference(content, "cells")
    with pytest.raises(ValueError, match="--profile is 'lean', expected one of full, pure"):
        pack("ct_datasetgan", out=str(tmp_path), profile="lean")
    with pytest.raises(ValueError, match="--profile pure has no Python"):
        pack("ct_datasetgan", out=str(tmp_path), profile="pure", runtime="onnx")
    content = read_configs(ROOT / "bundles" / "covid_xray_transfer", ["inference"])
    with pytest.raises(ValueError, match="no pure form where region is 'lungs', which ImageRegiond does"):
        pure_inference(content | {"region": "lungs"}, "covid_xray_transfer")


PRINTS = """
import torch


class Prints(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)

    def forward(self, x):
        print("shown")
        return self.layer(x.mean((2, 3)))
"""


def test_a_network_that_predict_would_refuse_is_not_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "covid_xray_transfer"
    folder = tmp_path / name
    shutil.copytree(ROOT / "bundles" / name, folder, ignore=shutil.ignore_patterns("model.json"))
    torch.save(
        {f"layer.{key}": value for key, value in torch.nn.Linear(3, 3).state_dict().items()},
        folder / "models" / "model.pt",
    )
    (tmp_path / "of_strangers.py").write_text(PRINTS)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    path = folder / "configs" / "inference.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"network_def": {"_target_": "of_strangers.Prints"}}))
    with pytest.raises(ValueError, match=rf"{name}: the network as TorchScript would run print .*give the full one"):
        pack(str(folder), out=str(tmp_path / "out"), profile="pure")
    assert not (tmp_path / "out").exists()
