"""How much of a chest X-ray classifier's score is the disease, and how much is where the image comes from?

    clinbundles audit --dataset_dir DIR --datalist FILE --ckpt_dir DIR --output_dir DIR

Scores the model of ``ckpt_dir`` on the test split, on whole images and on parts of them alone; the same network
trained anew on these parts; a decision tree on the aspect ratio; a table of the sources; what it calls the images of
outside sets. Marks test images that it was trained on, and ends with what was not measured. Writes audit.md, audit.json
and audit.png. What is there already is not done again. Pass the knobs that the model was trained with.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from monai.data import load_decathlon_datalist

from clinbundles.engines.checkpoint import epochs_done
from clinbundles.engines.metrics.intervals import mean_interval, with_interval
from clinbundles.engines.outputs.files import replacing, write_atomically
from clinbundles.engines.outputs.per_image import patients_of, read_class_table
from clinbundles.engines.tracking.facts import describe_datalist, scrub
from clinbundles.engines.weights_card import read_card
from clinbundles.nets.weights import fit_weights, read_weights
from clinbundles.scripts.audit.baselines import BASELINES, score_baselines
from clinbundles.scripts.audit.grad_cam import grad_cam_shares
from clinbundles.scripts.audit.outside import keep_images, parse_sets, summarise
from clinbundles.scripts.audit.report import ANEW, AUDITED, DISEASE, INPUTS, Row, as_markdown, compose_audit, draw
from clinbundles.scripts.audit.results import as_results
from clinbundles.scripts.audit.setting import BUNDLE, Setting
from clinbundles.scripts.audit.training_images import count_seen, say_seen
from clinbundles.scripts.bundle import open_configs, options_for, run_configs
from clinbundles.scripts.flags import choose_names
from clinbundles.scripts.option_values import check_datalist
from clinbundles.scripts.report.provenance import run_of
from clinbundles.scripts.report.results import as_json
from clinbundles.transforms.image_region import REGIONS
from clinbundles.transforms.readers.folder import find_images

LOADER_OPTIONS = {"class_names": "@class_names", "image_size": "@image_size"}
OWN_KNOBS = ("region", "resume", "bundle_root", "ckpt_path", "split", "training_split", "run", "report")


def audit_shortcuts(
    dataset_dir: str,
    datalist: str,
    ckpt_dir: str,
    output_dir: str,
    *,
    regions: Any = "border,lungs_masked,lungs",
    retrain: bool = True,
    cam_layer: str = "features",
    overlays: int = 3,
    seed: int = 0,
    trained_on: str | None = None,
    trained_on_dir: str | None = None,
    outside: str | None = None,
    **knobs: Any,
) -> None:
    """Audit ``ckpt_dir``/model.pt; write audit.md, audit.json, audit.png and results.json to ``output_dir``.

    Args:
        dataset_dir: folder that the paths of the datalist start from.
        datalist: JSON datalist of clinbundles prepare, splits training, validation and test; its split
            same_source, if it has one, holds images of the COVID-19 collection without COVID-19.
        ckpt_dir: folder of the model.pt to audit.
        output_dir: folder for all results.
        regions: parts of the image to look at alone: border, lungs_masked, lungs; with "whole", the network is also
            trained anew on whole images, for a comparison of equals.
        retrain: train the network anew on each region. False leaves out what takes longest.
        cam_layer: layer for Grad-CAM: features (PneumoniaCNN), layer4 (ResNet-50).
        overlays: Grad-CAM pictures of each class.
        seed: of the trainings, the tree and the choice of the pictures.
        trained_on: datalist that the audited model was trained on, if not ``datalist``: test images that are in it are
            marked, and an audit of nothing else is refused.
        trained_on_dir: folder that its paths start from; ``dataset_dir`` if not given.
        outside: folders of images from elsewhere, "NAME=FOLDER,NAME=FOLDER": what the audited model calls them.
        knobs: values of train.json and evaluate.json, as the model was trained: image_size,
            network_name, max_epochs, precision and so on.
    """
    chosen = choose_names(regions, list(REGIONS), "regions")
    if not isinstance(overlays, int) or overlays < 1:
        raise ValueError(f"--overlays is {overlays!r}, expected a number of pictures.")
    paths = {"trained_on": trained_on, "trained_on_dir": trained_on_dir, "outside": outside}
    setting = prepare(dataset_dir, datalist, ckpt_dir, output_dir, seed=seed, knobs=knobs, **paths)
    check_weights(setting, cam_layer)
    print(" ".join(say_seen(setting.seen)), flush=True)
    remember(setting, cam_layer=cam_layer, overlays=overlays)
    print(f"auditing on {len(setting.items['test'])} test images; results go to {setting.output}", flush=True)
    folder = setting.output / "audited"
    parts = ["whole", *(region for region in chosen if region != "whole")]
    rows = [(AUDITED, part, evaluate(setting, setting.ckpt_dir, folder / part, region=part)) for part in parts]
    calls, strangers = disease_calls(setting), classify_outside(setting)
    print(f"scoring what needs no pixel: {', '.join(BASELINES)}", flush=True)
    names, items = setting.class_names, setting.items
    baselines = score_baselines(items["training"], items["test"], names, setting.output / "baselines", seed=seed)
    last_rows = [(BASELINES[name], name, metrics) for name, metrics in baselines.items()]
    grad_cam = grad_cam_shares(setting, layer=cam_layer, per_class=overlays)
    report = write_audit(setting, rows + last_rows, calls, grad_cam, strangers)
    for region in chosen if retrain else ():
        rows.append((ANEW, region, train_and_evaluate(setting, region)))
        report = write_audit(setting, rows + last_rows, calls, grad_cam, strangers)
    print(f"{report}\naudit.md, audit.json, audit.png and results.json: {setting.output}")


def prepare(
    dataset_dir: Any,
    datalist: Any,
    ckpt_dir: Any,
    output_dir: Any,
    *,
    seed: int,
    knobs: dict[str, Any],
    trained_on: Any = None,
    trained_on_dir: Any = None,
    outside: Any = None,
) -> Setting:
    """Check the arguments of the command and read the datalist."""
    root, file, weights = (Path(str(path)).resolve() for path in (dataset_dir, datalist, ckpt_dir))
    if not root.is_dir():
        raise FileNotFoundError(f"--dataset_dir {root}: no such folder.")
    if not file.is_file():
        raise FileNotFoundError(f"--datalist {file}: no such file.")
    if not (weights / "model.pt").is_file():
        raise FileNotFoundError(f"--ckpt_dir {weights}: has no model.pt.")
    for name in knobs:
        if name.partition("#")[0] in OWN_KNOBS:
            raise ValueError(f"--{name} is set by the audit itself.")
    class_names = open_configs(BUNDLE, ["evaluate"], **knobs)["class_names"]
    items = read_splits(file, root, class_names)
    check_datalist(trained_on, option="--trained_on")
    if trained_on_dir is not None and not Path(trained_on_dir).is_dir():
        raise FileNotFoundError(f"--trained_on_dir {trained_on_dir}: no such folder.")
    sets = parse_sets(outside)
    seen = count_seen(
        weights / "model.pt",
        items=items,
        datalist=file,
        root=root,
        outside={name: find_images(str(folder)) for name, folder in sets.items()},
        trained_on=None if trained_on is None else Path(trained_on).resolve(),
        trained_on_dir=None if trained_on_dir is None else Path(trained_on_dir).resolve(),
    )
    return Setting(root, file, weights, Path(str(output_dir)).resolve(), class_names, items, seed, knobs, seen, sets)


def read_splits(datalist: Path, root: Path, class_names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Read the splits that an audit needs, and same_source where there is one; the images with whole paths."""
    try:
        content = json.loads(datalist.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{datalist}: is not JSON ({error}).") from error
    found = {}
    for split in ("training", "validation", "test", "same_source"):
        if not content.get(split):
            if split == "same_source":
                continue
            raise ValueError(f"{datalist}: has no split {split}, or an empty one.")
        for item in content[split]:
            if (label := item.get("label")) not in range(len(class_names)):
                raise ValueError(
                    f"{datalist}: {item.get('image')} in {split} has label {label}, expected 0 to "
                    f"{len(class_names) - 1} ({', '.join(class_names)})."
                )
        found[split] = load_decathlon_datalist(datalist, False, split, root)
    return found


def check_weights(setting: Setting, layer: str) -> None:
    """Refuse a model.pt that is not of the network that the knobs make or of whole images, and a layer that is not."""
    path, parser = setting.ckpt_dir / "model.pt", setting.parser()
    if (trained := (read_card(path).get("options") or {}).get("region", "whole")) != "whole":
        raise ValueError(f"{path}: was trained on region {trained}; the audit is of models of whole images.")
    network = parser.get_parsed_content("network_def")
    weights = read_weights(path)
    try:
        fit_weights(network, weights, source=path)
    except ValueError as error:
        raise ValueError(f"{error} Pass the options that the model was trained with.") from error
    if layer not in dict(network.named_modules()) or not layer:
        layers = ", ".join(name for name, _ in network.named_children())
        raise ValueError(f"--cam_layer is {layer!r}, which the network does not have; it has {layers}.")


def remember(setting: Setting, **drawn: Any) -> None:
    """Keep what the results depend on beside them, and refuse a folder whose results depend on something else."""
    model, datalist = _sha256(setting.ckpt_dir / "model.pt"), _sha256(setting.datalist)
    asked = {"model": model, "datalist": datalist, "seed": setting.seed, **drawn, "knobs": setting.knobs}
    path = setting.output / "settings.json"
    if not path.is_file():
        setting.output.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(asked, indent=4))
    done = json.loads(path.read_text())
    for name, value in json.loads(json.dumps(asked)).items():
        if done[name] != value:
            raise ValueError(
                f"{setting.output}: was begun with {name} {done[name]}, now asked for {value}. "
                "Use another --output_dir."
            )


def evaluate(
    setting: Setting, weights: Path, folder: Path, *, split: str = "test", region: str = "whole"
) -> dict[str, Any]:
    """Evaluate the model of folder ``weights`` on a split; per_image.csv and metrics.json go to ``folder``."""
    if not (folder / "metrics.json").is_file():
        print(f"evaluating {weights.name}/model.pt on split {split}, {INPUTS[region]}", flush=True)
        run_configs(
            BUNDLE,
            ["evaluate"],
            output_dir=str(folder),
            ckpt_path=str(weights / "model.pt"),
            region=region,
            split=split,
            # Neither the temperature nor the time of a file is asked for.
            run=["$@validate#evaluator.run()"],
            # A part of the image is not what the card says the weights were trained on: that is the question here.
            **{"report#validation_table": None, "validate#weights_loader#options": LOADER_OPTIONS},
            **setting.common,
        )
    return json.loads((folder / "metrics.json").read_text())


def train_and_evaluate(setting: Setting, region: str) -> dict[str, Any]:
    """Train the network anew on a region, or go on where it was left, and give its metrics on that region."""
    folder = setting.output / "trained_anew" / region
    done = folder / "trained.json"
    if not done.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        epochs = epochs_done(folder)
        if epochs < setting.parser()["max_epochs"]:
            print(f"training on {INPUTS[region]}, from epoch {epochs + 1}", flush=True)
            options = options_for(BUNDLE, ["train"], setting.common)
            options |= {"region": region, "output_dir": str(folder), "ckpt_dir": str(folder)}
            # Test images that are trained on too are counted in the report.
            shared: dict[str, Any] = {"train#dataset#data#apart_from": [], "resume": epochs > 0}
            run_configs(BUNDLE, ["train"], **options, **shared)
        write_atomically(done, json.dumps({"region": region, "seed": setting.seed}))
    return evaluate(setting, folder, folder / "test", region=region)


def disease_calls(setting: Setting) -> dict[str, dict[str, Any]] | None:
    """How often the audited model says COVID-19, to images with and without it, and to those of the same source."""
    names, folder = setting.class_names, setting.output / "audited"
    if DISEASE not in names or "same_source" not in setting.items:
        print(f"no split same_source, or no class {DISEASE}: what the model calls images of one source is left out")
        return None
    evaluate(setting, setting.ckpt_dir, folder / "same_source", split="same_source")
    test, same = (read_class_table(folder / name / "per_image.csv", names)[0] for name in ("whole", "same_source"))
    diseased = test["label"] == DISEASE
    found = {}
    for group, table in (
        (f"test, with {DISEASE}", test[diseased]),
        (f"test, without {DISEASE}", test[~diseased]),
        (f"same source, without {DISEASE}", same[same["label"] != DISEASE]),
    ):
        called = (table["prediction"] == DISEASE).to_numpy()
        found[group] = {
            "images": len(table),
            "called": int(called.sum()),
            "share": _mean(called, table),
        }
    return found


def classify_outside(setting: Setting) -> dict[str, dict[str, Any]]:
    """Classify the outside sets by the audited model, at the temperature of its card, and summarise each by name."""
    weights = setting.ckpt_dir / "model.pt"
    temperature = float(read_card(weights).get("temperature") or 1.0)
    found = {}
    for name, folder in setting.outside.items():
        output = setting.output / "outside" / name
        table = output / "per_image.csv"
        keep_images(folder, output)
        if not (output / "summary.json").is_file():  # which comes after the last row
            print(f"classifying the outside set {name}", flush=True)
            options = options_for(BUNDLE, ["inference"], setting.knobs) | {"region": "whole"}
            options |= {"dataset_dir": str(folder), "output_dir": str(output), "ckpt_path": str(weights)}
            try:
                run_configs(BUNDLE, ["inference"], **options, temperature=temperature)
            except Exception:
                # Of a set of which nothing could be read the table says why, and the others go on.
                if not (output / "summary.json").is_file() or summarise(table, setting.class_names)["used"]:
                    raise
        found[name] = summarise(table, setting.class_names) | {"temperature": temperature}
    return found


def count_patients(setting: Setting) -> dict[str, int]:
    """Count the patients of each class in the test split; an image without a group is a patient of its own."""
    groups = {(item["label"], item.get("group", f"image {k}")) for k, item in enumerate(setting.items["test"])}
    labels = [label for label, _ in groups]
    return {name: labels.count(k) for k, name in enumerate(setting.class_names)}


def write_audit(
    setting: Setting,
    rows: Sequence[Row],
    calls: dict[str, dict[str, Any]] | None,
    grad_cam: dict[str, Any],
    outside: dict[str, dict[str, Any]],
) -> str:
    """Write audit.json, audit.png, audit.md, and results.json for clinbundles report --merge; give the text."""
    params, _ = describe_datalist(setting.datalist)
    facts = {
        "data": params.get("data_name", setting.datalist.stem),
        "datalist_sha256": params["datalist_sha256"],
        "model_sha256": _sha256(setting.ckpt_dir / "model.pt"),
        "seed": setting.seed,
        "training_images": len(setting.items["training"]),
        "entries": sorted({name for item in setting.items["test"] for name in item}),
    }
    more: dict[str, Any] = {"seen": setting.seen, "disease_calls": calls, "grad_cam": grad_cam, "outside": outside}
    audit = compose_audit(rows, facts=facts, patients=count_patients(setting), **more)
    text = as_markdown(audit)
    write_atomically(setting.output / "audit.json", json.dumps(audit, indent=4, ensure_ascii=False) + "\n")
    write_atomically(setting.output / "audit.md", text)
    scale = ", ".join(["audit", *(f"{name} {scrub(value)}" for name, value in setting.knobs.items())])
    run = run_of(setting.datalist, verb="audit", seeds=[setting.seed], scale=scale)
    write_atomically(setting.output / "results.json", as_json(as_results(audit, run)) + "\n")
    with replacing(setting.output / "audit.png") as partial:
        draw(audit).savefig(partial, format="png", dpi=130)
    return text


def _mean(values: np.ndarray, table: pd.DataFrame) -> dict[str, float | None]:
    """Give the mean of a value an image of a table, with its interval by patient."""
    return with_interval(values.mean() if len(values) else math.nan, mean_interval(values, patients_of(table)))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
