"""The weights of a training as MLflow's LoggedModel: what they are, never the weights themselves."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.models.signature import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_IS_EXTERNAL


def sha256_of(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def signature_of(meta: Mapping[str, Any]) -> ModelSignature | None:
    """Give the shapes and types of a bundle's input and output, None where its metadata has no `network_data_format`.

    Args:
        meta: the bundle's metadata; a size that is no number, such as "32*n", is free, as is the batch.
    """
    formats = meta.get("network_data_format", {})

    def schema(part: Mapping[str, Any]) -> Schema:
        specs: list[ColSpec | TensorSpec] = []
        for name, tensor in part.items():
            sizes = [size if isinstance(size, int) else -1 for size in tensor["spatial_shape"]]
            shape = (-1, int(tensor["num_channels"]), *sizes)
            specs.append(TensorSpec(np.dtype(tensor["dtype"]), shape, name))
        return Schema(specs)

    if not formats.get("inputs") or not formats.get("outputs"):
        return None
    return ModelSignature(inputs=schema(formats["inputs"]), outputs=schema(formats["outputs"]))


class WeightsLink:
    """Link a file of weights to the run that made it; called with a client and the id of the run.

    The file stays where it is: MLflow learns its name, its hash, its bundle and version, and the signature.

    Args:
        weights: the file.
        folder: of the training; the file's path is told relative to it.
        name: of the model.
        bundle: name of the bundle.
        meta: the bundle's metadata.
        register: name of a registered model that gets a new version, or None.
    """

    def __init__(
        self, weights: Path, *, folder: Path, name: str, bundle: str, meta: Mapping[str, Any], register: str | None
    ) -> None:
        inside = weights.is_relative_to(folder)
        self.name = "".join("-" if letter in "/:.%\"'" else letter for letter in name)  # what MLflow takes
        self.tags = {
            "path": weights.relative_to(folder).as_posix() if inside else weights.name,
            "sha256": sha256_of(weights),
            "bundle": bundle,
            "bundle_version": str(meta.get("version", "unknown")),
        }
        self.signature, self.register = signature_of(meta), register
        self.model_id: str | None = None  # once MLflow has the link

    def __call__(self, client: mlflow.MlflowClient, run_id: str) -> None:
        """Make the model, its version in the registry if asked for, and the link."""
        run = client.get_run(run_id)
        outputs = run.outputs.model_outputs if run.outputs else []
        models = [client.get_logged_model(output.model_id) for output in outputs]
        model = next((m for m in models if m.tags.get("sha256") == self.tags["sha256"]), None)
        if model is None:
            model = client.create_logged_model(
                run.info.experiment_id,
                self.name,
                source_run_id=run_id,
                tags={**self.tags, MLFLOW_MODEL_IS_EXTERNAL: "true"},
                model_type="MONAI bundle",
            )
            self._describe(client, model.model_id, run_id)
            client.finalize_logged_model(model.model_id, "READY")
            client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        if self.register is not None:
            self._register(client, model, run_id)
        self.model_id = model.model_id

    def _describe(self, client: mlflow.MlflowClient, model_id: str, run_id: str) -> None:
        # The registry and the page of a model read this file; it names no flavour that could load anything.
        card = Model(
            run_id=run_id, model_id=model_id, model_uuid=model_id, signature=self.signature, metadata=self.tags
        )
        with tempfile.TemporaryDirectory() as folder:
            card.save(str(Path(folder) / MLMODEL_FILE_NAME))
            client.log_model_artifacts(model_id, folder)

    def _register(self, client: mlflow.MlflowClient, model: LoggedModel, run_id: str) -> None:
        assert self.register is not None
        try:
            client.create_registered_model(self.register)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        versions = client.search_model_versions(f"name = '{self.register}'")
        if not any(version.tags.get("sha256") == self.tags["sha256"] for version in versions):
            # Not models:/<id>, which a database would look up in the store of the process, not in its own.
            source = model.artifact_location
            client.create_model_version(self.register, source, run_id=run_id, tags=self.tags, model_id=model.model_id)
