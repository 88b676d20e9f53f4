import json
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from clinbundles.scripts import bundle
from clinbundles.scripts.flags import read_value

ROOT = Path(__file__).parents[2]
FOLDERS = sorted((ROOT / "bundles").glob("*/"))


def test_a_bundle_is_found_by_name_and_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert FOLDERS
    for folder in FOLDERS:
        assert bundle.find_bundle(folder.name) == bundle.find_bundle(folder) == folder
    with pytest.raises(FileNotFoundError, match=r"'covid_xray' is no bundle.*did you mean covid_xray_transfer"):
        bundle.find_bundle("covid_xray")


def test_a_config_comes_behind_all_that_it_extends_each_file_once() -> None:
    folder = ROOT / "bundles" / "covid_xray_transfer"
    names = [file.name for file in bundle.config_files(folder, ["train_transfer", "evaluate"])]
    assert names == ["train.json", "train_transfer.json", "evaluate.json"]
    with pytest.raises(FileNotFoundError, match="has no config 'trian'; did you mean train"):
        bundle.config_files(folder, ["trian"])


def test_options_are_values_of_the_config_and_keep_their_type() -> None:
    folder = ROOT / "bundles" / "two_stage_segmentation"
    bundle.check_options(folder, ["train"], {"rotate": False, "max_epochs": 2, "train#dataloader#shuffle": False})
    with pytest.raises(ValueError, match=r"--max_epoch is no value of train\.json; did you mean --max_epochs"):
        bundle.check_options(folder, ["train"], {"max_epoch": 2})
    with pytest.raises(ValueError, match=r"--names is no value of train\.json"):
        bundle.open_configs(folder, ["train"], names="a")
    with pytest.raises(ValueError, match="rotate"):
        bundle.check_options(folder, ["train"], {"rotate": "maybe"})


def test_counts_are_whole_numbers_from_one_on_and_lists_are_lists() -> None:
    folder = ROOT / "bundles" / "ct_datasetgan"
    for name in ("batch_size", "steps_per_epoch", "max_epochs", "val_interval"):
        for value in (0, -3):
            with pytest.raises(ValueError, match=f"--{name} is {value}, expected 1 or more"):
                bundle.check_options(folder, ["train"], {name: value})
        with pytest.raises(ValueError, match=f"--{name} is '2.5', expected a whole number"):
            bundle.check_options(folder, ["train"], {name: 2.5})
        bundle.check_options(folder, ["train"], {name: "$2 * 3"})
    options = bundle.describe_run("ct_datasetgan", "generate")
    assert read_value("background,left lung", options["class_names"]) == ["background", "left lung"]
    options = bundle.describe_run("ct_datasetgan", "train_interpreter")
    for text, value in (("[8]", [8]), ("datasetgan_128_32", "datasetgan_128_32"), ("[a", "[a")):
        assert read_value(text, options["classifier_widths"]) == value
    parser = bundle.open_configs(folder, ["train_interpreter"], classifier_widths=[8])
    assert parser.get_parsed_content("classifier_widths") == [8]
    assert read_value("[8]", options["dataset_dir"]) == "[8]"
    for name, config in (("path_length_weight", "train_gan"), ("ada_kimg", "paper"), ("truncation", "generate")):
        assert read_value("0.5", bundle.describe_run("ct_datasetgan", config)[name]) == 0.5


def test_segment_large_takes_what_the_network_is_made_of_and_its_own_options_come_first() -> None:
    options = bundle.describe_network("two_stage_segmentation")
    assert {"channels", "n_patches", "scale", "network_def#score", "in_channels", "image_size"} <= options.keys()
    assert read_value("4,8,16", options["channels"]) == [4, 8, 16]
    own, of_other_parts = {"threshold", "overlap", "ckpt_path", "device"}, {"batch_size", "precision", "output_dir"}
    assert not options.keys() & (own | of_other_parts)
    assert bundle.describe_network() == {}


def test_of_the_options_for_several_runs_each_takes_those_that_its_configs_have() -> None:
    folder = ROOT / "bundles" / "covid_xray_transfer"
    options = {"max_epochs": 2, "n_timed_files": 1, "train::dataloader::shuffle": False, "split": "test"}
    assert bundle.options_for(folder, ["evaluate"], options) == options
    assert list(bundle.options_for(folder, ["train"], options)) == ["max_epochs", "train::dataloader::shuffle"]


def test_none_reaches_monai_as_an_expression_and_pairs_as_lists() -> None:
    assert bundle.as_overrides({"a": None, "b": (1, 2), "c": 0}) == {"a": "$None", "b": [1, 2], "c": 0}
    assert bundle.as_overrides({"run_id": "run#x"}) == {"run_id": "run#x"}, "it is no value of the config"


@pytest.mark.parametrize("text", ["/data #1", "C#/it's", 'a "#" @b', "\\\\#ä"])
def test_a_path_with_a_hash_reaches_the_config_as_it_is_typed(text: str) -> None:
    parser = ConfigParser({"b": "$@a + '/c'"})
    parser.update(bundle.as_overrides({"a": text, "list": [text, "$1 + 1"]}))
    assert parser.get_parsed_content("b") == f"{text}/c"
    assert parser.get_parsed_content("list") == [text, 2]


def test_a_bundle_and_its_data_run_from_folders_with_a_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder, data = tmp_path / "C# x" / "toy", tmp_path / "data #1"
    (folder / "configs").mkdir(parents=True)
    data.mkdir()
    (data / "a.png").touch()
    content = {
        "imports": ["$import sys"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/samples'",
        "items": {"_target_": "clinbundles.transforms.readers.folder.list_images", "folder": "@dataset_dir"},
        "run": ["$print(@bundle_root, @items[0]['image'])"],
    }
    (folder / "configs" / "inference.json").write_text(json.dumps(content))
    (folder / "configs" / "metadata.json").write_text("{}")
    bundle.run_configs(folder, ["inference"], dataset_dir=str(data))
    assert capsys.readouterr().out.strip().endswith(f"{folder} {data / 'a.png'}")


@pytest.mark.parametrize("name", bundle.IDS)
def test_what_monai_is_to_run_has_to_be_in_the_config(name: str, tmp_path: Path) -> None:
    options = {"output_dir": str(tmp_path / "out"), name: "zz"}
    with pytest.raises(ValueError, match=rf"^--{name}: 'zz' is no value of inference\.json"):
        bundle.run_configs(bundle.find_bundle("ct_datasetgan"), ["inference"], **options)
    assert not list(tmp_path.iterdir())
    folder = bundle.find_bundle("ct_datasetgan")
    bundle.check_options(folder, ["inference"], {"init_id": "initialize", "run_id": "finalize"}, more=bundle.OF_MONAI)


def test_a_datalist_that_is_not_there_or_no_json_is_named_before_anything_runs(tmp_path: Path) -> None:
    folder, broken = ROOT / "bundles" / "gaze_polyp_segmentation", tmp_path / "broken.json"
    broken.write_text('{"training": [,]}')
    out = {"output_dir": str(tmp_path / "out"), "ckpt_dir": str(tmp_path / "out")}
    with pytest.raises(ValueError, match=r"--datalist .*broken\.json: is not JSON \(Expecting value"):
        bundle.run_configs(folder, ["train"], datalist=str(broken), **out)
    with pytest.raises(FileNotFoundError, match=r"--datalist .*absent\.json: no such file"):
        bundle.run_configs(folder, ["train"], datalist=str(tmp_path / "absent.json"), **out)
    assert not (tmp_path / "out").exists()


def test_a_config_or_metadata_that_is_no_json_object_is_named(tmp_path: Path) -> None:
    configs = tmp_path / "mine" / "configs"
    configs.mkdir(parents=True)
    for text, message in (
        ("{", r"inference\.json: is not JSON \(Expecting property name"),
        ("[]", r"inference\.json: is no JSON object, which begins with \{"),
    ):
        (configs / "inference.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            bundle.run_configs(configs.parent, ["inference"])
    (configs / "inference.json").write_text("{}")
    (configs / "metadata.json").write_text("[]")
    with pytest.raises(ValueError, match=r"metadata\.json: is no JSON object"):
        bundle.run_configs(configs.parent, ["inference"])


def test_a_network_is_loaded_with_the_sentence_of_its_weights_and_the_options_of_their_training(
    capsys: pytest.CaptureFixture,
) -> None:
    folder = ROOT / "bundles" / "two_stage_segmentation"
    card = json.loads((folder / "models" / "model.json").read_text())
    network = bundle.load_network(bundle.open_configs(folder, ["inference"]))
    assert not network.training
    assert card["warning"] in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"model\.pt: was trained with scale 4, and this run has 8"):
        bundle.load_network(bundle.open_configs(folder, ["inference"], scale=8))
