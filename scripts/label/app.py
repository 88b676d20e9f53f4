"""Our application of MONAI Label: each bundle that is served as a model. Imported where MONAI Label is installed."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np
from fastapi import HTTPException
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.random import Random
from monailabel.transform.writer import Writer

from clinbundles.engines.sentences import sentence_of
from clinbundles.engines.weights_card import read_card
from clinbundles.scripts.bundle import config_names, read_configs
from clinbundles.transforms.readers.folder import IMAGE_SUFFIXES, is_image

from .choice import MOST_IMAGES, Measured, least_sure
from .models import TRAINED, Result, ServedBundle, annotation_of, open_bundles
from .training import train

logger = logging.getLogger(__name__)


class BundleInfer(InferTask):
    """A bundle as a model of the server.

    What a client may set: ``model_filename``, of the weights; ``result_extension``, such as .png or .nii.gz.
    """

    def __init__(self, bundle: ServedBundle) -> None:
        kind = InferType.CLASSIFICATION if bundle.kind == "classes" else InferType.SEGMENTATION
        super().__init__(kind, bundle.labels, 2, bundle.description)
        self.bundle = bundle

    def info(self) -> dict[str, Any]:
        """Describe the model to clients."""
        return super().info() | {"version": self.bundle.version, "label_colors": self.bundle.label_colors}

    def config(self) -> dict[str, Any]:
        """Give what a client may choose."""
        return {"model_filename": self.bundle.weights_names()}

    def is_valid(self) -> bool:
        """Tell that the bundle can be used, which is checked before."""
        return True

    def get_path(self, validate: bool = True) -> str:
        """Give the file of the newest weights."""
        return str(self.bundle.weights())

    def __call__(self, request: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Apply the bundle to the image of a request: the file of its mask, if it makes one, and what else there is.

        Raises:
            HTTPException: status 400 and one sentence, where the image or the request is wrong.
        """
        names = request.get("model_filename")
        try:
            result = self.bundle.infer(request["image"], names[0] if isinstance(names, list) else names)
        except Exception as error:
            if (sentence := sentence_of(error)) is None:
                raise
            raise HTTPException(status_code=400, detail=sentence) from error
        more: dict[str, Any] = {"uncertainty": round(result.uncertainty, 6), "label_names": self.bundle.labels}
        if result.pixels is None:
            places = {name: place for place, name in enumerate(result.scores)}
            listed = [{"idx": places[name], "label": name, "score": score} for name, score in result.scores.items()]
            return None, more | {"prediction": listed}
        if result.outlines is not None:
            more["annotations"] = [annotation_of(result.outlines)]
        if request.get("result_write_to_file") is False:
            return None, more
        return write(result, request), more


def write(result: Result, request: Mapping[str, Any]) -> str:
    """Write the mask of a result to a new file, and return its name; its sender removes it."""
    assert result.pixels is not None
    is_flat = result.pixels.ndim == 2
    data: dict[str, Any] = {
        # The writer takes columns before rows.
        "pred": np.ascontiguousarray(result.pixels.T) if is_flat else result.pixels,
        "result_extension": request.get("result_extension") or (".png" if is_flat else ".nii.gz"),
        "result_dtype": result.pixels.dtype,
        "image_path": str(request["image"]),
    }
    if result.affine is not None:
        data["pred_meta_dict"] = {"affine": result.affine}
    return Writer(label="pred")(data)[0]


class BundleTraining(TrainTask):
    """The training of a bundle, in a process of its own that the server can end."""

    def __init__(self, bundle: ServedBundle) -> None:
        super().__init__(bundle.description)
        self.bundle = bundle

    def config(self) -> dict[str, Any]:
        """Give what a client may choose, beside the other values of train.json."""
        max_epochs = read_configs(self.bundle.folder, ["train"])["max_epochs"]
        return {"max_epochs": max_epochs, "val_split": 0.2, "pretrained": True}

    def stats(self) -> dict[str, Any]:
        """Give the card of the weights that were trained here, if there are any."""
        return read_card(self.bundle.folder / "models" / TRAINED) if TRAINED in self.bundle.weights_names() else {}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train on all images with a final label.

        Raises:
            SystemExit: one sentence, where that cannot be done.
        """
        pairs = [(pair["image"], pair["label"]) for pair in datastore.datalist()]
        try:
            weights = train(self.bundle, pairs, Path(datastore.datastore_path), request)
        except Exception as error:
            if (sentence := sentence_of(error)) is None:
                raise
            raise SystemExit(sentence) from error
        return {"weights": weights.name}


class LeastSure(Strategy):
    """Ask about the image that a bundle is least sure of."""

    def __init__(self, bundle: ServedBundle) -> None:
        super().__init__(f"The image that {bundle.name} is least sure of")
        self.measure = Measured(bundle.uncertainty, lambda: [bundle.weights(name) for name in bundle.weights_names()])

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Choose one of the images without a final label."""
        ids = datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels"))
        infos = {image: datastore.get_image_info(image).get("strategy", {}) for image in ids}
        asked = {image: info[request["strategy"]]["ts"] for image, info in infos.items() if request["strategy"] in info}
        files = {image: datastore.get_image_uri(image) for image in ids}
        chosen = least_sure(files, asked, self.measure, most=int(request.get("most", MOST_IMAGES)))
        return None if chosen is None else {"id": chosen[0], "weight": round(chosen[1], 6)}


class Images(LocalDatastore):
    """A folder of images, of any kind that the bundles read, with labels below it, those of classes as JSON."""

    @property
    def datastore_path(self) -> str:
        """The folder of the images."""
        return self._datastore_path

    def _list_files(self, path: str, patterns: Sequence[str]) -> dict[str, str]:
        is_root = Path(path).resolve() == Path(self._datastore.image_path()).resolve()
        files = [file for file in Path(path).iterdir() if file.is_file() and not file.name.startswith(".")]
        return {file.name: file.name for file in files if is_image(file) or (not is_root and file.suffix == ".json")}


class App(MONAILabelApp):
    """The bundles of a server, named by ``--conf bundles`` as a JSON list of folders."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.bundles = open_bundles(json.loads(conf["bundles"]))
        super().__init__(app_dir, studies, conf, name="clinbundles", description=", ".join(self.bundles))

    def init_datastore(self) -> Datastore:
        """Open the images: a folder by our rules, anything else by MONAI Label's."""
        if "://" in self.studies:
            return super().init_datastore()
        suffixes = sorted({*IMAGE_SUFFIXES, ".dcm", ".json"}, key=len, reverse=True)
        return Images(self.studies, extensions=[f"*{suffix}" for suffix in suffixes], auto_reload=True)

    def init_infers(self) -> dict[str, InferTask]:
        """Give each bundle as a model."""
        return {name: BundleInfer(bundle) for name, bundle in self.bundles.items()}

    def init_trainers(self) -> dict[str, TrainTask]:
        """Give the training of each bundle that has one."""
        names = [name for name, bundle in self.bundles.items() if "train" in config_names(bundle.folder)]
        return {name: BundleTraining(self.bundles[name]) for name in names}

    def init_strategies(self) -> dict[str, Strategy]:
        """Give for each bundle the choice of the image that it is least sure of."""
        return {"random": Random()} | {f"unsure_{name}": LeastSure(bundle) for name, bundle in self.bundles.items()}

    def infer(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Answer a request for an inference.

        Raises:
            HTTPException: status 404 and one sentence, where there is no such model or image.
        """
        model, image = request.get("model"), request.get("image", "")
        if model not in self._infers:
            raise HTTPException(404, f"there is no model {model!r}: there are {', '.join(self._infers)}.")
        # What was sent along lies in the folder for temporary files; no other file of this machine is read.
        is_sent = Path(image).is_file() and Path(image).resolve().parent == Path(gettempdir()).resolve()
        if not is_sent and (Path(image).exists() or not (datastore or self.datastore()).get_image_uri(image)):
            raise HTTPException(404, f"there is no image {image!r}.")
        return super().infer(request, datastore)
