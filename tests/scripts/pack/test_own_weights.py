"""Zips with weights of a user's own: they run as they stand, and say whose weights they are."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clinbundles.engines.weights_card import write_card
from clinbundles.scripts.bundle import ROOT, open_configs, options_for, read_configs
from clinbundles.scripts.cli import main
from clinbundles.scripts.deploy.inference import infer, opened
from clinbundles.scripts.doctor.run import doctor
from clinbundles.scripts.label.bundles import lay_out
from clinbundles.scripts.label.models import ServedBundle
from clinbundles.scripts.pack.archive import unzip
from clinbundles.scripts.pack.own_weights import checked_version, options_of_card
from clinbundles.scripts.pack.run import pack
from clinbundles.scripts.predict.run import predict
from clinbundles.scripts.run import run

# Other options of the training than the configs have, and an image to apply them to.
OWN: dict[str, tuple[dict[str, Any], str]] = {
    "covid_xray_transfer": (
        {"class_names": ["sick", "well"], "channels": [4, 4, 8, 8], "dense_units": 8, "image_size": 96},
        "images/IM-normal.dcm",
    ),
    "ct_datasetgan": (
        {"class_names": ["air", "bone", "nodule"], "window_hu": [-500, 900], "channels": [4] * 6, "image_size": 32},
        "images",
    ),
    "gaze_polyp_segmentation": (
        {"channels": [4] * 6, "image_size": 64, "arm": "original", "color_space": "HSV", "batch_size": 8},
        "PolypGen2021_MultiCenterData_v3/data_C1/images_C1",
    ),
    "pace_cell_segmentation": (
        {"channels": 16, "box_units": 16, "mask_channels": 16, "score_threshold": 0.2, "label_score_threshold": 0.3},
        "images",
    ),
    "two_stage_segmentation": (
        {"channels": [4] * 5, "image_size": 256, "scale": 2, "n_select": 3, "conditioned": False},
        "images",
    ),
}  # fmt: skip
BETWEEN = re.compile(r"<!-- (?:table|value) [\w-]+ -->(.*?)<!-- end -->", re.DOTALL)
Make = Callable[..., Path]
# MONAI loads and saves TorchScript, and the exporter of ONNX deprecates parts of itself.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture
def weights(tmp_path: Path) -> Make:
    """Write the network of a bundle's training as random as it begins, with the card of its options."""

    def make(name: str, **options: Any) -> Path:
        parser = open_configs(ROOT / "bundles" / name, ["train"], **OWN[name][0] | options)
        torch.manual_seed(0)
        path = tmp_path / "trained" / "model.pt"
        path.parent.mkdir(exist_ok=True)
        torch.save(parser.get_parsed_content("network_def").state_dict(), path)
        write_card(path, {"options": parser.get_parsed_content("training_options"), "data_name": "ours"})
        return path

    return make


def packed(name: str, weights: Path, out: Path, **options: Any) -> Path:
    pack(name, ckpt_path=str(weights), out=str(out), **options)
    (file,) = out.glob("*.zip")
    return file


def outputs(folder: Path) -> dict[str, bytes]:
    """What a run has written, by name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


@pytest.mark.parametrize("name", OWN)
def test_a_zip_gives_what_the_run_with_the_weights_and_all_their_options_gives(
    name: str, weights: Make, tmp_path: Path
) -> None:
    options, place = OWN[name]
    model = weights(name)
    file = packed(name, model, tmp_path / "dist")
    samples = ROOT / "bundles" / name / "samples" / place
    image = samples if samples.is_file() else next(p for p in sorted(samples.iterdir()) if not p.name.startswith("."))
    study = tmp_path / "study"
    study.mkdir()
    shutil.copy(image, study)
    predict(str(file), str(study / image.name), str(tmp_path / "out"))
    shared = options_for(ROOT / "bundles" / name, ["inference"], options | {"temperature": 1.0})
    shared.pop("batch_size", None)
    run(name, "inference", ckpt_path=str(model), dataset_dir=str(study), output_dir=str(tmp_path / "run"), **shared)
    (made,) = (tmp_path / "out" / "studies").iterdir()
    assert outputs(made) == outputs(tmp_path / "run")
    assert "per_image.csv" in outputs(made)
    digits = hashlib.sha256(model.read_bytes()).hexdigest()[:12]
    assert digits in (made / "per_image.csv").read_text()


@pytest.mark.parametrize("name", OWN)
def test_a_zip_says_whose_weights_it_has_wherever_one_looks(name: str, weights: Make, tmp_path: Path) -> None:
    model = weights(name)
    file = packed(name, model, tmp_path / "dist")
    assert packed(name, model, tmp_path / "again").read_bytes() == file.read_bytes()
    folder = unzip(file, tmp_path)
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert (folder / "models/model.pt").read_bytes() == model.read_bytes()
    assert (folder / "models/model.json").read_bytes() == model.with_suffix(".json").read_bytes()
    metadata = json.loads((folder / "configs/metadata.json").read_text())
    assert metadata["version"] in metadata["changelog"]
    assert file.stem == f"{name}_v{metadata['version']}"
    assert metadata["weights"]["sha256"] == digest
    assert "headline" not in metadata
    assert metadata["data_source"].startswith("ours")
    before = json.loads((ROOT / "bundles" / name / "configs/metadata.json").read_text())
    assert metadata["required_packages_version"] == before["required_packages_version"]
    page = (folder / "docs/README.md").read_text()
    title, _, note, *_ = page.splitlines()
    assert title.startswith("# ")
    assert note.startswith(
        "**The weights here are not the project's: a user has trained them (ours, sha256 " + digest[:12]
    )
    assert not (folder / "docs/results.json").exists()
    assert "left out" in (folder / "docs/results.md").read_text()
    before_page = (ROOT / "bundles" / name / "docs/README.md").read_text()
    parts = BETWEEN.findall(before_page)
    assert parts
    assert not [part for part in parts if "." in part and part in page]
    card = json.loads(model.with_suffix(".json").read_text())
    options = options_of_card(read_configs(folder, ["inference"]), card)
    for key, value in OWN[name][0].items():
        assert options.get(key) == (None if key == "batch_size" else value)  # how one trains is not how one applies
    for config in ("inference", "train", "evaluate"):
        content = read_configs(folder, [config])
        shared = options.keys() & content.keys()
        assert shared
        assert {key: content[key] for key in shared} == {key: options[key] for key in shared}


def test_classes_size_and_window_in_metadata_follow_the_card(weights: Make, tmp_path: Path) -> None:
    folder = unzip(packed("covid_xray_transfer", weights("covid_xray_transfer"), tmp_path / "x"), tmp_path)
    metadata = json.loads((folder / "configs/metadata.json").read_text())
    formats = metadata["network_data_format"]
    assert formats["inputs"]["image"]["spatial_shape"] == [96, 96]
    for side in ("outputs", "post_processed_outputs"):
        assert formats[side]["pred"]["num_channels"] == 2
        assert formats[side]["pred"]["channel_def"] == {"0": "sick", "1": "well"}
    assert metadata["pred_classes"] == "0 sick, 1 well"
    assert read_configs(folder, ["inference"])["temperature"] == 1.0  # that of the bundle was fitted to other weights
    folder = unzip(packed("ct_datasetgan", weights("ct_datasetgan"), tmp_path / "ct"), tmp_path)
    metadata = json.loads((folder / "configs/metadata.json").read_text())
    assert metadata["network_data_format"]["outputs"]["pred"]["num_channels"] == 3
    assert metadata["image_classes"].startswith("CT, -500 to 900 HU")


def test_deploy_and_label_take_the_zip_with_its_own_classes(weights: Make, tmp_path: Path) -> None:
    file = packed("covid_xray_transfer", weights("covid_xray_transfer"), tmp_path / "dist")
    image = ROOT / "bundles/covid_xray_transfer/samples/images/IM-normal.dcm"
    with opened(str(file)) as bundle:
        assert bundle.labels == {0: "sick", 1: "well"}
        (prediction,), _ = infer(bundle, [image], tmp_path)
    (place,) = lay_out([str(file)], tmp_path)
    scores = ServedBundle(place).infer(image).scores
    assert list(scores) == ["sick", "well"]
    assert list(scores.values()) == pytest.approx(prediction.probabilities.tolist(), rel=1e-5)


def test_with_onnx_and_in_the_pure_form_the_weights_are_those_too(
    weights: Make, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model = weights("covid_xray_transfer")
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    for form, options in {"onnx": {"runtime": "onnx"}, "pure": {"profile": "pure"}}.items():
        file = packed("covid_xray_transfer", model, tmp_path / form, version="0.1.0+mine", **options)
        assert file.name.endswith("_v0.1.0+mine.zip")
        folder = unzip(file, tmp_path / form)
        card = next(
            folder / "models" / each for each in ("exported.json", "model.json") if (folder / "models" / each).is_file()
        )
        assert json.loads(card.read_text())["exported_from_sha256"] == digest
        assert "The weights here are not the project's" in (folder / "docs/README.md").read_text()
        doctor(str(file))
        said = capsys.readouterr().out
        assert "no fault" in said
        # The samples have three classes, and these weights two: only the full zip trains.
        assert ("look   samples     train.json does not take them: samples/datalist.json: item" in said) == (
            form == "onnx"
        )


def test_the_weights_of_a_real_training_are_packed_and_looked_through(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = {"channels": [4] * 6, "image_size": 32, "max_epochs": 1, "batch_size": 8, "arm": "original"}
    run("gaze_polyp_segmentation", "train", **small)
    main(["pack", "gaze_polyp_segmentation", "--ckpt_path", "runs/gaze_polyp_segmentation/train/model.pt"])
    (file,) = Path("dist").glob("*.zip")
    doctor(str(file))
    assert "no fault, 0 to look at" in capsys.readouterr().out


def test_weights_that_no_zip_can_have_are_refused_in_a_sentence(weights: Make, tmp_path: Path) -> None:
    name = "gaze_polyp_segmentation"
    model = weights(name)
    torn, alone = tmp_path / "torn.pt", tmp_path / "alone.pt"
    torn.write_bytes(model.read_bytes()[:20_000])
    shutil.copy(model, alone)
    shutil.copy(ROOT / f"bundles/{name}/models/model.json", alone.with_suffix(".json"))
    mistakes: dict[str, dict[str, Any]] = {
        r"none\.pt: no such file": {"ckpt_path": str(tmp_path / "none.pt")},
        r"torn\.pt: is truncated": {"ckpt_path": str(torn)},
        r"alone\.pt: has no card of its own \(alone\.json beside it": {"ckpt_path": str(alone)},
        "say which, and leave --all out": {"ckpt_path": str(model), "all": True},
        "--version is '0.1.0', expected one with a part of your own": {"ckpt_path": str(model), "version": "0.1.0"},
        "give --ckpt_path, too": {"version": "0.1.0+mine"},
    }
    for sentence, options in mistakes.items():
        with pytest.raises((ValueError, FileNotFoundError), match=sentence):
            pack(None if "all" in options else name, out=str(tmp_path / "dist"), **options)
    with pytest.raises(ValueError, match=r"model\.json: its options lack class_names, window_hu"):
        pack("ct_datasetgan", ckpt_path=str(model), out=str(tmp_path / "dist"))
    card = json.loads(model.with_suffix(".json").read_text())["options"]
    write_card(model, {"options": card | {"class_names": ["a", "b"], "window_hu": [0, 1]}})
    with pytest.raises(ValueError, match=r"model\.pt: \d+ of \d+ weights do not fit the network"):
        pack("ct_datasetgan", ckpt_path=str(model), out=str(tmp_path / "dist"))
    assert not (tmp_path / "dist").exists()


def test_a_version_of_ones_own_stands_for_one_content(weights: Make, tmp_path: Path) -> None:
    name, out = "gaze_polyp_segmentation", tmp_path / "dist"
    file = packed(name, weights(name), out, version="0.1.0+mine")
    first = file.read_bytes()
    assert packed(name, weights(name), out, version="0.1.0+mine").read_bytes() == first
    with pytest.raises(ValueError, match=r"mine\.zip: is there, with other contents"):
        pack(name, ckpt_path=str(weights(name, image_size=32)), out=str(out), version="0.1.0+mine")
    assert file.read_bytes() == first
    pack(name, ckpt_path=str(weights(name)), out=str(out))
    pack(name, ckpt_path=str(weights(name, image_size=32)), out=str(out))
    zips = list(out.glob("*.zip"))
    assert len(zips) == 3
    for each in zips:  # as with another --runtime
        each.write_bytes(b"other")
    with pytest.raises(ValueError, match=r"is there, with other contents: give another --version, or another --out"):
        pack(name, ckpt_path=str(weights(name)), out=str(out))


@pytest.mark.parametrize(("form", "options"), [("full", {}), ("pure", {"profile": "pure"})])
def test_a_version_that_is_there_is_refused_before_the_export_where_the_weights_differ_and_before_packed_is_said(
    form: str, options: dict[str, Any], weights: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, out = "gaze_polyp_segmentation", tmp_path / "dist"
    told: dict[str, Any] = {"out": str(out), "version": "0.1.0+mine", **options}
    pack(name, ckpt_path=str(weights(name, color_space="RGB")), **told)
    assert "packed 1 of 1" in capsys.readouterr().err
    with pytest.raises(ValueError, match="is there, with other contents"):
        pack(name, ckpt_path=str(weights(name, color_space="RGB", image_size=32)), **told)
    said = capsys.readouterr().err
    assert "packed" not in said
    assert ("exporting" in said) == (form == "pure")
    with pytest.raises(
        ValueError, match=r"mine\.zip: is there, with other weights: give another --version, or another"
    ):
        pack(name, ckpt_path=str(weights(name, color_space="RGB", channels=[8] * 6)), **told)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("version", ["1", "1.0+", "mine", "1.0+Mine", "../1+a", "1.0+a b"])
def test_a_version_is_plain_and_has_a_part_of_ones_own(version: str) -> None:
    assert checked_version("0.1.0+mine.2", "0.1.0", "ab") == "0.1.0+mine.2"
    assert checked_version(None, "0.1.0", "0123abcd") == "0.1.0+0123abcd"
    with pytest.raises(ValueError, match="expected one with a part of your own behind a plus"):
        checked_version(version, "0.1.0", "ab")


def test_a_card_that_lacks_or_spoils_options_is_refused_in_a_sentence(weights: Make, tmp_path: Path) -> None:
    name, model = "covid_xray_transfer", weights("covid_xray_transfer")
    whole = json.loads(model.with_suffix(".json").read_text())["options"]

    def refused(options: dict[str, Any], sentence: str) -> None:
        write_card(model, {"options": options})
        with pytest.raises(ValueError, match=sentence):
            pack(name, ckpt_path=str(model), out=str(tmp_path / "dist"))

    less = {key: value for key, value in whole.items() if not key.startswith("intensity")}
    refused(
        less, r"model\.json: its options lack intensity_mean, intensity_std, which covid_xray_transfer has to share"
    )
    refused(whole | {"channels": [4, 4, 8, 8.0]}, r"no network of covid_xray_transfer can be made .*: TypeError: .+")
    refused(whole | {"class_names": "$print('ran')"}, r"model\.json: class_names has .*, which a config would run")
    assert not (tmp_path / "dist").exists()


def test_of_a_card_only_plain_values_are_taken_and_no_places() -> None:
    content = read_configs(ROOT / "bundles/covid_xray_transfer", ["inference"])
    card = {"options": {"image_size": 96, "preprocessing": {}, "ckpt_path": "a.pt", "bundle_root": "/b", "device": "x"}}
    assert options_of_card(content, card) == {"image_size": 96, "temperature": 1.0}
