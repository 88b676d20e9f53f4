"""What goes into a run, in MLflow's own terms: its data sets, and the model that is evaluated."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

DIGEST_LENGTH = 36  # of the longest digest that MLflow's database takes


def splits_of(config: Mapping[str, Any], kind: str) -> dict[str, str]:
    """Give the lists of the datalist that a run reads, by what they are to it: training, validation, test.

    Args:
        config: the executed config with the knobs `training_split`, `validation_split` and `split`.
        kind: training, evaluation or inference.
    """
    if kind == "training":
        splits = {name: str(config.get(f"{name}_split", name)) for name in ("training", "validation")}
    else:
        splits = {(split := str(config.get("split", "test"))): split}
    return splits


def data_sets(params: Mapping[str, str], splits: Mapping[str, str]) -> list[DatasetInput]:
    """Give MLflow's data sets of a datalist, one a split that is not empty, without the name of a file.

    The digest is the hash of the data's content, else that of the split, else that of the datalist.

    Args:
        params: what :func:`.facts.describe_datalist` gives.
        splits: lists of the datalist by context.
    """
    hashes = [params[key] for key in ("data_sha256", "split_sha256", "datalist_sha256") if key in params]
    if not hashes:
        return []
    name = params.get("data_name", "datalist")
    source = json.dumps({"name": name, "datalist_sha256": params.get("datalist_sha256")})
    profile = json.dumps({"sha256": hashes[0]})
    result = []
    for context, split in splits.items():
        if params.get(f"n_{split}") == "0":
            continue
        # MLflow keeps one data set of a name and digest, and one context of it a run: a split is a data set.
        entity = Dataset(f"{name}, {split}", hashes[0][:DIGEST_LENGTH], "datalist", source, None, profile)
        tags = {MLFLOW_DATASET_CONTEXT: context, "images": params.get(f"n_{split}", "")}
        tags["split_sha256"] = params.get("split_sha256", "")
        result.append(DatasetInput(entity, [InputTag(key, value) for key, value in tags.items() if value]))
    return result


def log_inputs(
    client: mlflow.MlflowClient, run_id: str, *, datasets: Sequence[DatasetInput] = (), model_id: str | None = None
) -> None:
    """Send the inputs of a run.

    Args:
        client, run_id: the store and the run.
        datasets: see :func:`data_sets`.
        model_id: of the LoggedModel that is evaluated.
    """
    models = [LoggedModelInput(model_id)] if model_id else None
    client.log_inputs(run_id, datasets=list(datasets) or None, models=models)
