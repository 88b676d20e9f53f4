"""What every shipped training does to its samples and which epoch it keeps: from the configs, for any bundle."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose
from PIL import Image

from clinbundles.scripts.bundle import config_names, open_configs, options_for, read_configs

ROOT = Path(__file__).parents[2]
BUNDLES = sorted(p.parents[1] for p in ROOT.glob("bundles/*/configs/metadata.json"))
RANDOM_LISTS = ("before_random", "random_transforms", "after_random")
# Each turns on what a training does with its samples when it is asked to.
ASKED_FOR = {"augmentation": "strong", "device": "cpu", "cache_rate": 0.0, "seed": 1, "val_interval": 1}
N_DRAWS = 24


def smoke(bundle: Path, name: str, **options: Any) -> dict[str, Any]:
    """The options of the smallest scale, as far as the config has them."""
    sizes = json.loads((bundle / "configs" / "reproduce.json").read_text())["scales"]["smoke"]
    without = {"coarse_weights": None, "initial_weights": None}
    return options_for(bundle, name.split(","), sizes | ASKED_FOR | without | options)


def augments(bundle: Path, name: str) -> bool:
    content = read_configs(bundle, [name])
    return "train" in content and "ckpt_path" not in content and bool(content.get("random_transforms"))


def lists_of(parser: ConfigParser) -> list[Any]:
    """The transforms between loading and the network, without stage 1, whose probabilities a test brings along."""
    steps = [step for name in RANDOM_LISTS if name in parser for step in parser.get_parsed_content(name)]
    return [step for step in steps if type(step).__name__ != "Stage1Probabilityd"]


def recipe(bundle: Path, name: str) -> str:
    """The random transforms of a config and the values that they take."""
    content = read_configs(bundle, [name])
    text = json.dumps([content.get(each) for each in RANDOM_LISTS])
    return text + json.dumps({knob: content.get(knob) for knob in sorted(set(re.findall(r"@(\w+)", text)))})


def augmented(bundle: Path) -> list[str]:
    """The trainings with random transforms, train first, one of those that have the same."""
    names = sorted((n for n in config_names(bundle) if augments(bundle, n)), key=lambda n: n != "train")
    return list({recipe(bundle, name): name for name in reversed(names)}.values())


AUGMENTED = [(bundle, name) for bundle in BUNDLES for name in augmented(bundle)]
WITH_INSTANCES = [(b, n) for b, n in AUGMENTED if "LoadInstancesd" in json.dumps(read_configs(b, [n]))]
WITH_MASKS = [pair for pair in AUGMENTED if pair not in WITH_INSTANCES]
WITH_GAZE = [b for b, n in AUGMENTED if n == "train" and "AttentionGaussianBlurd" in json.dumps(read_configs(b, [n]))]


def plain(values: torch.Tensor) -> torch.Tensor:
    return values.as_subclass(torch.Tensor)


def letter(side: int) -> torch.Tensor:
    """An F, (1, side, side) of 0 and 1, which no flip and no turn brings back to itself."""
    pixels = torch.zeros(1, side, side)
    a, b, c, d = (round(side * part) for part in (0.2, 0.35, 0.55, 0.85))
    pixels[:, a:d, a:b] = 1
    pixels[:, a:b, a:d] = 1
    pixels[:, round(side * 0.45) : c, a : round(side * 0.65)] = 1
    return pixels


def dice(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()).clamp(min=1))


def seen(channel: torch.Tensor) -> torch.Tensor:
    """The bright half of a channel, whatever its brightness and contrast have become."""
    return channel > (channel.max() + channel.min()) / 2


def test_all_trainings_with_random_transforms_are_looked_at() -> None:
    still = {bundle.name for bundle in BUNDLES} - {bundle.name for bundle, _ in AUGMENTED}
    for name in still:
        content = read_configs(ROOT / "bundles" / name, ["train"])
        assert not re.search(r'"_target_": "[^"]*\bRand[A-Z]', json.dumps(content)), name
    assert {bundle.name for bundle, name in AUGMENTED if name == "train"} | still == {b.name for b in BUNDLES}
    assert WITH_MASKS
    assert WITH_INSTANCES
    assert WITH_GAZE


@pytest.mark.parametrize(("bundle", "name"), WITH_MASKS, ids=lambda v: v.name if isinstance(v, Path) else v)
def test_an_image_and_its_label_stay_on_each_other(bundle: Path, name: str) -> None:
    """The image is the label, so it has to look like it after every draw; the channels are the maps it carries too."""
    parser = open_configs(bundle, [name], **smoke(bundle, name, image_size=64, scale=2, n_patches=2))
    size = letter(parser["image_size"])
    steps = Compose(lists_of(parser)).set_random_state(0)
    is_flat = "SliceShaped" in json.dumps(parser.get())
    torch.manual_seed(0)  # torchvision's colours are drawn from there
    n_compared = n_moved = 0
    for _ in range(N_DRAWS):
        shape = MetaTensor(size[..., None] if is_flat else size, affine=torch.eye(4))
        keys = ("label", "stage_1", "uncertainty", "attention")
        sample = {"image": shape.repeat_interleave(3, dim=0)} | {key: shape.clone() for key in keys}
        result = steps(sample)
        for item in result if isinstance(result, list) else [result]:
            label = plain(item["label"])[0] > 0.5
            if not 0.05 < label.float().mean() < 0.95:
                continue
            n_compared += 1
            n_moved += label.shape != size.shape[1:] or not torch.equal(label.squeeze(-1), size[0] > 0.5)
            scores = [dice(seen(channel), label) for channel in plain(item["image"])]
            assert min(scores) > 0.85, f"{name}: {scores}"
    assert n_compared >= N_DRAWS / 2
    assert n_moved >= N_DRAWS / 4, "nothing was moved, so nothing was tested"


@pytest.mark.parametrize("bundle", sorted({bundle for bundle, _ in WITH_MASKS}), ids=lambda p: p.name)
def test_an_image_and_its_label_are_read_onto_each_other(bundle: Path, tmp_path: Path) -> None:
    """A validation of two files with the same picture, of another size than the network's where the bundle takes it."""
    parser = open_configs(bundle, ["train"], **smoke(bundle, "train", image_size=64))
    is_class_map = "label_reader" in parser
    picture = (
        letter(64)[0] if is_class_map else torch.nn.functional.interpolate(letter(64)[None], size=(150, 180))[0, 0]
    )
    for name, value in (("image", 200), ("label", 1 if is_class_map else 255)):
        Image.fromarray((picture * value).byte().numpy()).save(tmp_path / f"{name}.png")
    item = parser.get_parsed_content("validate#preprocessing")(
        {name: str(tmp_path / f"{name}.png") for name in ("image", "label")}
    )
    label = plain(item["label"])[0] > 0.5
    assert label.any()
    for channel in plain(item["image"]):
        assert dice(seen(channel), label) > 0.9


def cells(side: int) -> dict[str, Any]:
    """Three rectangles of their own grey values, with box, mask, a point in the middle and one in the box's corner."""
    grey, numbers = torch.zeros(1, side, side), torch.zeros(1, side, side, dtype=torch.int32)
    boxes, points = [], []
    for k, (x, y, width, height) in enumerate([(0.1, 0.15, 0.3, 0.15), (0.6, 0.2, 0.2, 0.5), (0.2, 0.6, 0.25, 0.25)]):
        x1, y1, x2, y2 = (round(side * v) for v in (x, y, x + width, y + height))
        grey[:, y1:y2, x1:x2], numbers[:, y1:y2, x1:x2] = 0.3 * (k + 1), k + 1
        boxes.append([x1, y1, x2, y2])
        points.append([[(x1 + x2) // 2 + 0.5, (y1 + y2) // 2 + 0.5], [max(x1 - 6, 0) + 0.5, max(y1 - 6, 0) + 0.5]])
    return {
        "image": MetaTensor(grey.repeat(3, 1, 1), affine=torch.eye(4)),
        "masks": MetaTensor(numbers, affine=torch.eye(4)),
        "boxes": torch.tensor(boxes, dtype=torch.float32),
        "points": torch.tensor(points, dtype=torch.float32),
        "point_labels": torch.tensor([[1, 0]] * 3),
        "supervision": torch.full((3,), 2),
    }


@pytest.mark.parametrize(("bundle", "name"), WITH_INSTANCES, ids=lambda v: v.name if isinstance(v, Path) else v)
def test_boxes_points_and_masks_stay_on_the_cells_of_the_image(bundle: Path, name: str) -> None:
    """The parts of the smallest scale that size a network are left out: what a config does to samples is its own."""
    kept = read_configs(bundle, [name])
    sizes = {knob: kept[knob] for knob in ("short_sides", "zoom", "image_size") if knob in kept}
    parser = open_configs(bundle, [name], **smoke(bundle, name, **sizes, patch_size=kept["patch_size"] and 96))
    steps = Compose(lists_of(parser)).set_random_state(0)
    n_cells, corners = 0, set()
    for _ in range(N_DRAWS):
        item = steps(cells(128))
        grey = plain(item["image"])[0]
        height, width = grey.shape
        numbers = (grey / 0.3).round().long()  # of the cell that a pixel belongs to, but for its edge
        assert dice(grey > 0.15, plain(item["masks"]).any(dim=0)) > 0.9
        inside: list[int] = []
        for mask, box, points, labels in zip(
            *(item[k] for k in ("masks", "boxes", "points", "point_labels")), strict=True
        ):
            mask = mask.bool()
            if mask.sum() < 200:
                continue
            n_cells += 1
            inside.append(int(numbers[mask].mode().values))
            rows, columns = torch.nonzero(mask, as_tuple=True)
            around = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            assert float((around - box).abs().max()) <= 1.5
            for (x, y), label in zip(points.tolist(), labels.tolist(), strict=True):
                if label >= 0:
                    assert bool(mask[int(y), int(x)]) == bool(label)
            assert all(inside)
            assert len(set(inside)) == len(inside)
            corners.add((round(float(box[0]) / width, 1), round(float(box[1]) / height, 1)))
    assert n_cells > N_DRAWS
    assert len(corners) > 3, "nothing was moved, so nothing was tested"


@pytest.mark.parametrize("bundle", WITH_GAZE, ids=lambda p: p.name)
def test_what_was_looked_at_is_what_stays_sharp_and_the_label_goes_with_it(bundle: Path) -> None:
    """Noise all over the image, and attention where the label is: there it keeps its detail, flipped or not."""
    blur = {"sigma_min": 0.1, "sigma_max": 0.2, "blur_weight": 2.0}
    parser = open_configs(bundle, ["train"], **smoke(bundle, "train", image_size=64, **blur))
    steps = Compose(lists_of(parser)).set_random_state(0)
    shape = letter(64)
    noise = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0)).repeat(3, 1, 1)
    for _ in range(N_DRAWS):
        item = steps({"image": MetaTensor(noise), "label": MetaTensor(shape), "attention": MetaTensor(shape)})
        detail = plain(item["image"]).diff(dim=-1).abs().mean(dim=0)
        inside = plain(item["label"])[0, :, 1:] > 0.5
        assert detail[inside].mean() > 2 * detail[~inside].mean()


class ScriptedMetric:
    """Give a validation the value of its epoch from a list, in place of a metric."""

    def __init__(self, values: list[float]) -> None:
        self.values = values

    def attach(self, engine: Engine, name: str) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.give, name)

    def give(self, engine: Engine, name: str) -> None:
        engine.state.metrics[name] = self.values[engine.state.epoch - 1]


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda p: p.name)
def test_the_weights_that_are_kept_are_those_of_the_best_epoch(bundle: Path, tmp_path: Path) -> None:
    """The trainer of the config runs with its handlers; a step sets a weight to the epoch, validations are scripted."""
    options = {"max_epochs": 6, "ckpt_dir": str(tmp_path), "output_dir": str(tmp_path)}
    parser = open_configs(bundle, ["train"], **smoke(bundle, "train", **options))
    (name,) = parser["validate"]["key_metric"]
    goodness = [0.2, 0.5, 0.7, 0.6, 0.4, 0.3]
    is_loss = "loss" in name
    metric = ScriptedMetric([1 - value if is_loss else value for value in goodness])

    def step(engine: Any, batch: Any) -> dict[str, float]:
        for weight in engine.network.parameters():
            weight.data.fill_(1000 + engine.state.epoch)
        engine.optimizer.step()
        return {"loss": 0.0}

    nothing = {"train#postprocessing", "train#key_metric", "validate#postprocessing", "validate#additional_metrics"}
    prints = [h for h in parser["train"]["handlers"] if h["_target_"] != "StatsHandler"]
    parser.update({id_: None for id_ in nothing if id_ in parser})
    parser.update({"train#handlers": prints, "validate#key_metric": {name: metric}})
    for engine, loader in (("train#trainer", "train_data_loader"), ("validate#evaluator", "val_data_loader")):
        parser.update({f"{engine}#{loader}": [None]})
    parser.update({"train#trainer#iteration_update": step, "validate#evaluator#iteration_update": lambda e, b: {}})
    parser.get_parsed_content("train#trainer").run()
    weights = torch.load(tmp_path / "model.pt", weights_only=True)
    kept = {float(value.max()) for value in weights.values() if value.numel()}
    assert {value for value in kept if value > 1000} == {1003}, f"the best {name} is that of epoch 3"


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda p: p.name)
def test_training_validation_evaluation_and_inference_make_the_same_image_of_a_file(bundle: Path) -> None:
    """But for what is random; bit by bit, from a file of the samples."""
    datalist = json.loads((bundle / "samples" / "datalist.json").read_text())
    images: dict[str, np.ndarray] = {}
    # The sizes themselves are the same by the contract.
    size = {"image_size": 64} if read_configs(bundle, ["train"])["image_size"] else {}
    for name, ids in (("train", ("train", "validate")), ("evaluate", ("validate",)), ("inference", ("",))):
        parser = open_configs(bundle, [name], **options_for(bundle, [name], size | {"device": "cpu"}))
        parser.update({key: [] for key in RANDOM_LISTS if key in parser})
        for id_ in ids:
            steps = parser.get_parsed_content(f"{id_}#preprocessing".lstrip("#"))
            item = {
                k: str(bundle / "samples" / v) if k in ("image", "label") and isinstance(v, str) else v
                for k, v in datalist["test"][0].items()
            }
            images[f"{name} {id_}"] = np.asarray(steps(item)["image"])
    first = images["train train"]
    assert first.std() > 0
    for name, image in images.items():
        np.testing.assert_array_equal(image, first, err_msg=name)
