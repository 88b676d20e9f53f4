"""A training is resumed with the options that it was begun with: each option stands among those that are compared."""

from pathlib import Path
from typing import Any

import pytest

from clinbundles.scripts.bundle import config_names, open_configs

ROOT = Path(__file__).parents[2]
BUNDLES = sorted(p.parents[1] for p in ROOT.glob("bundles/*/configs/metadata.json"))
# What may be another: how long and how fast a training runs, what only an evaluation reads, and where it begins, which
# the checkpoint replaces.
FREE = {
    "extends",
    "max_epochs",
    "val_interval",
    "grid_interval",
    "num_workers",
    "cache_rate",
    "resume",
    "name_knobs",
    "channels_last",
}
FREE |= {
    "initial_weights",
    "encoder_weights",
    "leave_out",
    "coarse_weights",
    "generator_weights",
    "interpreter_weights",
}
FREE |= {"validation_split", "split", "folds", "fold_by", "allow_missing_gaze", "force", "evaluate_with"}
# The widths of networks, which the weights tell, what the state of a scheduler holds, and what follows from max_epochs.
FREE |= {"z_dim", "w_dim", "mapping_layers", "channel_base", "channel_max"}
FREE |= {"patience", "lr_patience", "cosine_epochs", "decay_steps", "ada_kimg"}
ENDS = ("_dir", "_path", "datalist", "_command", "_root")
TRAININGS = [
    pytest.param(bundle, name, id=f"{bundle.name}-{name}")
    for bundle in BUNDLES
    for name in config_names(bundle)
    if "trainer.run()" in str(open_configs(bundle, [name])["run"])
]


def is_option(name: str, value: Any) -> bool:
    if (
        name.startswith("_")
        or name in FREE
        or value == []
        or name.endswith(("_dir", "_path", "datalist", "_command", "_root"))
    ):
        return False
    values = value if isinstance(value, list) else [value]
    return all(v is None or isinstance(v, int | float) or (isinstance(v, str) and v[:1] not in "@$%") for v in values)


def checkpoints(config: Any) -> list[dict[str, Any]]:
    if isinstance(config, dict) and str(config.get("_target_")).endswith("TrainingCheckpoint"):
        return [config]
    parts = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    return [checkpoint for part in parts for checkpoint in checkpoints(part)]


@pytest.mark.parametrize(("bundle", "name"), TRAININGS)
def test_a_resumed_training_compares_every_option_that_changes_what_is_learned(bundle: Path, name: str) -> None:
    parser = open_configs(bundle, [name])
    options = parser["training_options"]
    assert {f"@{key}" for key in options} == set(options.values())
    missing = [key for key, value in parser.get().items() if is_option(key, value) and key not in options]
    assert not missing
    (checkpoint,) = checkpoints(parser["train"])
    assert (checkpoint["options"], checkpoint["datalist"]) == ("@training_options", "@datalist")


def test_all_bundles_train() -> None:
    assert {param.values[0] for param in TRAININGS} == set(BUNDLES)
