"""What every bundle must keep, whatever its method: found by glob, nothing listed by hand."""

import hashlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from monai.bundle import ComponentLocator, ConfigParser, ConfigWorkflow
from monai.bundle import load as load_bundle
from monai.utils import optional_import

from clinbundles.scripts.bundle import (
    check_options,
    config_files,
    config_names,
    open_configs,
    options_for,
    read_configs,
)

ROOT = Path(__file__).parents[2]
BUNDLES = sorted(p.parents[1] for p in ROOT.glob("bundles/*/configs/metadata.json"))
SCHEMA = json.loads((Path(__file__).parent / "meta_schema_20240725.json").read_text())
# What training and inference each have of their own.
OF_THE_RUN = {
    "_desc_",
    "batch_size",
    "dataset_dir",
    "output_dir",
    "ckpt_dir",
    "network_def",
    "switches",
    "initialize",
    "run",
    "finalize",
}
# Of these training and validation need one each.
STATEFUL = ("IgniteMetricHandler", "DiceMetric")
TRAINING_WORDS = {
    "channels",
    "image_size",
    "initial_weights",
    "precision",
    "training_split",
    "validation_split",
    "seed",
}
TRAINING_WORDS |= {"batch_size", "max_epochs", "val_interval", "num_workers", "cache_rate", "resume", "ckpt_dir"}

pytestmark = pytest.mark.parametrize("bundle", BUNDLES, ids=lambda p: p.name)


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def merged_train_configs(bundle: Path) -> dict[str, dict[str, Any]]:
    """Every training config as it runs."""
    return {name: read_configs(bundle, [name]) for name in config_names(bundle) if name.startswith("train")}


def workflow(bundle: Path, name: str, **overrides: Any) -> ConfigWorkflow:
    files = [str(file) for file in config_files(bundle, [name])]
    kind = "train" if "train" in read_configs(bundle, [name]) else "infer"
    return ConfigWorkflow(files, workflow_type=kind, logging_file=False, bundle_root=str(bundle), **overrides)


def components(config: Any) -> Iterator[dict]:
    if isinstance(config, dict):
        if "_target_" in config:
            yield config
        for value in config.values():
            yield from components(value)
    elif isinstance(config, list):
        for value in config:
            yield from components(value)


def test_there_is_a_bundle_to_check(bundle: Path) -> None:
    assert len(BUNDLES) >= 1
    for name in (
        "LICENSE",
        "docs/README.md",
        "docs/data_license.txt",
        "configs/inference.json",
        "configs/logging.conf",
    ):
        assert (bundle / name).is_file(), name


def test_every_target_exists_and_no_macro_is_left(bundle: Path) -> None:
    locator = ComponentLocator()
    for name in config_names(bundle):
        parser = workflow(bundle, name).parser
        parser.parse(True)
        found = list(components(parser.get()))
        assert found, name
        for component in found:
            target = component["_target_"]
            module = locator.get_component_module_name(target)
            path = f"{module}.{target}" if isinstance(module, str) else target
            if isinstance(module, list):
                path = f"{module[0]}.{target}"
            assert optional_import(path.rpartition(".")[0], name=path.rpartition(".")[2])[1], f"{name}: {target}"
        assert '"%' not in json.dumps(parser.get()), f"{name}: a macro was not replaced"


def test_a_config_stands_alone_or_says_what_it_extends(bundle: Path) -> None:
    for name in config_names(bundle):
        whole = read_configs(bundle, [name])
        assert {"imports", "bundle_root", "network_def", "initialize", "run"} <= whole.keys(), name
        parser = ConfigParser(whole)
        parser.read_meta(str(bundle / "configs/metadata.json"))
        parser.parse()
        for key in re.findall(r"@([\w#:]+)", json.dumps({k: v for k, v in whole.items() if k != "_desc_"})):
            assert key in parser, f"{name}: @{key} refers to nothing"


def test_inference_and_the_main_training_stand_alone_and_the_others_do_not(bundle: Path) -> None:
    alone = {name for name in config_names(bundle) if len(config_files(bundle, [name])) == 1}
    assert alone == {"inference", "train"}


def test_a_config_opens_with_the_command_that_runs_it(bundle: Path) -> None:
    for name in config_names(bundle):
        command = shlex.split(load(bundle / "configs" / f"{name}.json")["_desc_"].partition(": ")[0])
        files = [file.name for file in config_files(bundle, [name])]
        if command[0] == "torchrun":
            passed = re.findall(r"[\w.]+\.json", command[-1])
        else:
            assert command[:3] == ["clinbundles", "run", bundle.name], name
            names = command[3].split(",")
            passed = [file.name for file in config_files(bundle, names)]
            check_options(bundle, names, {word[2:]: None for word in command[4:] if word.startswith("--")})
        assert set(passed) >= set(files), name
        assert passed[-1] == f"{name}.json"


def test_check_properties_has_nothing_to_say(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_process = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in one_process.items():
        monkeypatch.setenv(name, value)
    for name in config_names(bundle):
        checked = workflow(bundle, name, **options_for(bundle, [name], {"cache_rate": 0.0, "batch_size": 4}))
        checked.initialize()
        try:
            assert checked.check_properties() == [], name
        finally:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()


def test_every_config_puts_the_bundle_on_the_path_before_anything_else(bundle: Path) -> None:
    for name in config_names(bundle):
        parser = open_configs(bundle, [name])
        assert "$import sys" in parser["imports"], name
        assert parser["initialize"][0] == "$sys.path.insert(0, @bundle_root)", name


def test_every_option_that_is_true_or_false_is_checked_before_anything_runs(bundle: Path) -> None:
    for name in config_names(bundle):
        whole = read_configs(bundle, [name])
        options = {key for key, value in whole.items() if isinstance(value, bool)}
        assert options <= whole.get("switches", {}).keys(), name
        assert "$@switches" in whole["initialize"] or not options, name


def test_metadata_is_valid_and_the_changelog_has_the_version(bundle: Path) -> None:
    metadata = load(bundle / "configs/metadata.json")
    jsonschema.validate(metadata, SCHEMA)
    assert metadata["schema"].endswith("meta_schema_20240725.json")
    assert metadata["version"] in metadata["changelog"]
    assert f"## {metadata['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_network_maps_the_declared_input_to_the_declared_output(bundle: Path) -> None:
    formats = load(bundle / "configs/metadata.json")["network_data_format"]
    spec, expected = formats["inputs"]["image"], formats["outputs"]["pred"]

    def shape(of: dict) -> tuple[int, ...]:
        sizes = [
            eval(str(s).replace("*n", "*1") if str(s) != "*" else "1", {"p": 1, "n": 1}) for s in of["spatial_shape"]
        ]
        return (1, of["num_channels"], *sizes)

    network = open_configs(bundle, ["inference"], device="cpu").get_parsed_content("network_def").eval()
    low, high = spec["value_range"] or (0, 1)
    image = torch.rand(shape(spec)).mul(high - low).add(low)
    with torch.no_grad():
        pred = network(image)
    assert pred.shape == shape(expected)
    assert str(pred.dtype).endswith(expected["dtype"])


def test_shipped_weights_load_strictly_and_without_pickled_code(bundle: Path) -> None:
    weights = bundle / "models/model.pt"
    if not weights.is_file():
        assert (bundle / "large_files.yml").is_file()
        pytest.skip(f"{bundle.name} ships no weights")
    described = load(bundle / "configs/metadata.json").get("weights", {})
    assert described.get("sha256") == hashlib.sha256(weights.read_bytes()).hexdigest()
    network = open_configs(bundle, ["inference"], device="cpu").get_parsed_content("network_def")
    network.load_state_dict(torch.load(weights, weights_only=True))


@pytest.mark.parametrize("kind", ["train", "inference"])
def test_monai_loads_the_network_with_its_weights_by_the_name_of_the_bundle(bundle: Path, kind: str) -> None:
    network = load_bundle(bundle.name, bundle_dir=str(bundle.parent), workflow_type=kind, device="cpu")
    assert isinstance(network, torch.nn.Module)
    present = network.state_dict()
    shipped = torch.load(bundle / "models/model.pt", weights_only=True)
    assert present.keys() == shipped.keys()
    assert all(torch.equal(present[name], value.to(present[name].dtype)) for name, value in shipped.items())


def test_what_training_and_inference_share_is_the_same(bundle: Path) -> None:
    inference = load(bundle / "configs/inference.json")
    trained = merged_train_configs(bundle)
    for name, train in trained.items():
        shared = inference.keys() & train.keys() - OF_THE_RUN
        if name != "train":  # it is there to train something else
            shared -= load(bundle / "configs" / f"{name}.json").keys()
        assert {"channels", "image_size", "precision", "network", "image_reader"} <= shared, name
        for key in sorted(shared):
            assert train[key] == inference[key], f"{name}: {key}"
    network = trained["train"]["network_def"]
    assert inference["network_def"] == {
        k: v for k, v in network.items() if v not in ("@initial_weights", "@encoder_weights")
    }


def test_workers_stay_between_validations_and_a_gpu_gets_pinned_batches(
    bundle: Path,
) -> None:
    train = load(bundle / "configs/train.json")
    assert train["validate"]["dataloader"]["persistent_workers"] == "$@num_workers > 0"
    # The epoch's seed reaches random transforms in workers only when these start (EpochSeed).
    assert "persistent_workers" not in train["train"]["dataloader"]
    assert train["train"]["dataloader"]["pin_memory"] == "$str(@device).startswith('cuda')"


def test_the_same_idea_has_the_same_name_in_every_bundle(bundle: Path) -> None:
    train, evaluate, inference = (load(bundle / "configs" / f"{n}.json") for n in ("train", "evaluate", "inference"))
    lacking = {
        "train.json": TRAINING_WORDS - train.keys(),
        "evaluate.json": {"split", "ckpt_path", "output_dir"} - evaluate.keys(),
        "inference.json": {"channels", "precision", "ckpt_path", "output_dir"} - inference.keys(),
    }
    assert not any(lacking.values()), lacking
    assert evaluate["split"] == "test"


def test_an_evaluation_takes_its_split_whatever_the_training_validated_on(bundle: Path) -> None:
    content = read_configs(bundle, ["evaluate"])
    assert content.get("evaluation", content["validate"])["dataset"]["data"]["split"] == "@split"


def test_precision_is_one_of_three_words(bundle: Path) -> None:
    for name, part in (("train", "train#inferer"), ("inference", "inferer")):
        for precision in ("float32", "bfloat16", "float16"):
            parser = open_configs(bundle, [name], precision=precision)
            assert parser.get_parsed_content(part).precision == precision
            if part.startswith("train"):
                assert parser.get_parsed_content("train#trainer#amp") == (precision == "float16")
        with pytest.raises(RuntimeError) as caught:
            open_configs(bundle, [name], precision="half").get_parsed_content(part)
        assert "precision is 'half', expected one of float32, bfloat16, float16" in str(caught.value.__cause__)


def test_validation_and_inference_do_the_same_to_an_image(bundle: Path) -> None:
    def of_the_image(config: dict, preprocessing: dict) -> list[dict]:
        names = re.findall(r"@(\w+_transforms)", preprocessing["transforms"])
        assert "image_transforms" in names
        return [step for name in names if name != "label_transforms" for step in config[name]]

    inference = load(bundle / "configs/inference.json")
    expected = of_the_image(inference, inference["preprocessing"])
    for name, train in merged_train_configs(bundle).items():
        assert of_the_image(train, train["validate"]["preprocessing"]) == expected, name


def test_no_transform_and_no_handler_stands_twice_in_a_config(bundle: Path) -> None:
    for name in config_names(bundle):
        parts = [c for c in components(load(bundle / "configs" / f"{name}.json")) if len(c) > 1]
        twice = [c for k, c in enumerate(parts) if c in parts[:k]]
        assert not [c for c in twice if c["_target_"] not in STATEFUL], name


def test_handlers_are_referred_to_by_name_and_not_by_position(bundle: Path) -> None:
    files = [*(bundle / "configs").glob("*.json"), *ROOT.glob("scripts/**/*.py"), *ROOT.glob("tests/bundles/*.py")]
    for file in files:
        found = re.findall(r"[A-Za-z]\w*(?:#|::)\d|handlers[\"']\)?\]\[\d", file.read_text())
        assert not found, f"{file}: {found}"


def test_every_metric_asked_for_exists(bundle: Path) -> None:
    offered: set[str] = set()
    for train in merged_train_configs(bundle).values():
        validate = train["validate"]
        offered |= set(validate["key_metric"]) | set(validate.get("additional_metrics", {}))
    metadata = load(bundle / "configs/metadata.json")
    asked = {metadata["headline"]["metric"]}
    if (bundle / "configs/reproduce.json").is_file():
        asked |= {t["metric"] for t in load(bundle / "configs/reproduce.json")["tables"].values()}
    assert asked <= offered


def test_the_command_after_a_training_scores_the_network_that_it_trained(bundle: Path) -> None:
    names = [name for name in config_names(bundle) if "train" in read_configs(bundle, [name])]
    assert "train" in names
    scored = 0
    # The paper's settings are an overlay, and go over the trainings that are built on the same one.
    base = set(config_files(bundle, ["paper"])[:-1]) if "paper" in names else set()
    built = [n for n in names if base and base <= set(config_files(bundle, [n])) and n not in ("train", "paper")]
    for name in [*names, *(f"{name},paper" for name in built)]:
        parser = open_configs(bundle, name.split(","))
        if not shapes(parser):  # a method without weights, such as a threshold, has nothing to train
            continue
        _, _, own, configs, *_ = shlex.split(parser.get_parsed_content("next_command"))
        assert own == bundle.name
        following = open_configs(bundle, configs.split(","))
        if "evaluate" in configs.split(","):
            assert shapes(following) == shapes(parser), name
            scored += 1
    assert scored


def test_a_training_that_starts_from_weights_names_them_in_the_card_of_its_own(bundle: Path) -> None:
    checked = 0
    for name in config_names(bundle):
        content = read_configs(bundle, [name])
        if not {"$@start_weights", "$@checked_weights"} & set(content.get("run", [])):
            continue
        (checkpoint,) = (c for c in components(content) if c["_target_"].endswith("TrainingCheckpoint"))
        starts = checkpoint["initial_weights"]
        starts = content[starts[1:]] if isinstance(starts, str) else starts
        loaded = json.dumps([content.get("start_weights"), content.get("checked_weights"), content["network_def"]])
        options = ("initial_weights", "encoder_weights", "coarse_weights")
        assert sorted(starts) == sorted(f"@{option}" for option in options if f'"@{option}"' in loaded), name
        checked += 1
    assert checked


def shapes(parser: ConfigParser) -> dict[str, torch.Size]:
    """Shapes of the weights of the network that a config makes."""
    with torch.device("meta"):
        return {name: value.shape for name, value in parser.get_parsed_content("network_def").state_dict().items()}


def test_places_in_which_monai_changed_a_character_are_refused_before_anything_runs(bundle: Path) -> None:
    for name in ("train", "inference"):
        content = read_configs(bundle, [name])
        assert "$@switches" in content["initialize"]
        assert {"@dataset_dir", "@output_dir"} <= set(content["switches"]["places"])
