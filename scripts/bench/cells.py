"""Print how long cell instances take, beside what a user would take instead.

    clinbundles bench cells [--rows "cascade,step"] [--device cuda]

- cascade: the cascade on ResNet-50 and torchvision's ``maskrcnn_resnet50_fpn`` on one image of 520 x 704, with anchors,
  proposals and heads of the same size and the same number of final detections; random weights, which find what the
  lowest scores let through.
- step: a training step of the default network by eight points a cell and by masks.
- score: average precision of 15 images of 200 cells, here and by pycocotools; the values must be equal.
- image: the default network on an image of 520 x 704, with 100 detections and with 3,000, label map included, and what
  memory the latter adds.

Every round runs each contender once, so that a busy machine slows all of them alike; shown are medians.
"""

from __future__ import annotations

import contextlib
import io
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision.models.detection import maskrcnn_resnet50_fpn

from clinbundles.engines.metrics.detection import Detections, average_precision
from clinbundles.engines.outputs.cost import peak_memory
from clinbundles.nets.cascade_mask_rcnn.network import CascadeMaskRCNN, cascade_mask_rcnn
from clinbundles.scripts.bench.rounds import describe_machine, ratio, time_rounds
from clinbundles.scripts.flags import choose_names
from clinbundles.transforms.readers.coco import Instances, encode_mask, mask_area

HEIGHT, WIDTH = 520, 704
ROWS = ("cascade", "step", "score", "image")


def bench_cascade(device: str, rounds: int, detections: int) -> None:
    """Time the cascade beside torchvision's network, with as many final detections on both sides."""
    torch.manual_seed(0)
    sizes = ((32,), (64,), (128,), (256,), (512,))
    ours = cascade_mask_rcnn(
        "resnet50", fpn_channels=256, anchor_sizes=sizes, aspect_ratios=(0.5, 1.0, 2.0), box_units=1024, box_layers=2,
        mask_channels=256, pre_nms=(2000, 1000), post_nms=(2000, 1000), score_threshold=0.0, nms_threshold=1.0,
        label_score_threshold=0.0, detections=detections, freeze_batch_norms=True,
    )  # fmt: skip
    plain = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=2, min_size=HEIGHT, max_size=WIDTH, box_score_thresh=0.0,
        box_nms_thresh=1.0, box_detections_per_img=detections,
    )  # fmt: skip
    networks = {"cascade": ours.eval().to(device), "torchvision": plain.eval().to(device)}
    image = torch.rand(1, 3, HEIGHT, WIDTH, device=device)
    with torch.inference_mode():
        calls: dict[str, Callable[[], Any]] = {name: partial(network, image) for name, network in networks.items()}
        seconds = time_rounds(calls, rounds=rounds, device=device)
        found = len(plain(image)[0]["scores"])
    _print(f"one image, {len(ours.detections[0]['scores'])} and {found} detections", seconds, "torchvision")


def bench_step(device: str, rounds: int) -> None:
    """Time a training step by points and by masks."""
    torch.manual_seed(0)
    network = cascade_mask_rcnn(box_units=64, freeze_batch_norms=True).to(device).train()
    images = torch.rand(2, 3, 256, 256, device=device)
    calls: dict[str, Callable[[], Any]] = {}
    for name, supervision in (("points", 1), ("masks", 2)):
        targets = [_targets(50, supervision, seed, device) for seed in range(2)]
        calls[name] = partial(_step, network, images, targets)
    _print(
        "a training step, 2 crops of 256 x 256, 50 cells each",
        time_rounds(calls, rounds=rounds, device=device),
        "masks",
    )


def _step(network: CascadeMaskRCNN, images: torch.Tensor, targets: list[dict[str, torch.Tensor]]) -> None:
    network.zero_grad()
    losses: Any = network(images, targets)
    sum(losses.values()).backward()


def _targets(count: int, supervision: int, seed: int, device: str) -> dict[str, torch.Tensor]:
    """Discs within their boxes, and eight points of each."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 226
    boxes = torch.cat([corners, corners + 10 + 18 * torch.rand(count, 1, generator=generator)], dim=1)
    middles = torch.arange(256) + 0.5
    x, y = ((boxes[:, k] + boxes[:, k + 2])[:, None] / 2 - middles for k in (0, 1))
    masks = x[:, None] ** 2 + y[:, :, None] ** 2 <= ((boxes[:, 2] - boxes[:, 0]) / 2)[:, None, None] ** 2
    points = boxes[:, None, :2] + torch.rand(count, 8, 2, generator=generator) * (boxes[:, 2:] - boxes[:, :2])[:, None]
    pixels = points.long().clamp(max=255)
    labels = masks[torch.arange(count)[:, None], pixels[..., 1], pixels[..., 0]].long()
    target = {"boxes": boxes, "points": points, "point_labels": labels, "masks": masks.to(torch.uint8)}
    return {name: value.to(device) for name, value in target.items()} | {
        "supervision": torch.full((count,), supervision, device=device)
    }


def bench_score(rounds: int) -> None:
    """Time average precision here and by pycocotools."""
    truth, found = _images(15, 200)
    values: dict[str, float] = {}

    def here() -> None:
        values["here"] = average_precision(truth, found, of="segm")["AP"]

    def pycocotools() -> None:
        values["pycocotools"] = _by_pycocotools(truth, found)

    seconds = time_rounds({"here": here, "pycocotools": pycocotools}, rounds=rounds, warm_up=0)
    if abs(values["here"] - values["pycocotools"]) > 1e-6:
        raise AssertionError(f"the values differ: {values}")
    _print(f"scoring 15 images of 200 cells, mask AP {values['here']:.4f} on both sides", seconds, "pycocotools")


def _images(count: int, cells: int) -> tuple[list[Instances], list[Detections]]:
    """Discs on images of 520 x 704, and the same moved by up to 2 px."""
    generator = np.random.default_rng(0)
    truth, found = [], []
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    for number in range(count):
        places = np.column_stack(
            [generator.uniform(12, side - 12, cells) for side in (HEIGHT, WIDTH)] + [generator.uniform(4, 11, cells)]
        )
        sides: list[tuple[np.ndarray, list[dict[str, Any]]]] = []
        for moved in (places, places + np.column_stack([generator.integers(-2, 3, (cells, 2)), np.zeros(cells)])):
            masks = [encode_mask((rows - y) ** 2 + (columns - x) ** 2 <= r**2) for y, x, r in moved]
            y, x, r = moved.T
            sides.append((np.column_stack([x - r, y - r, x + r, y + r]), masks))
        truth.append(Instances(number, HEIGHT, WIDTH, sides[0][0], list(sides[0][1])))
        found.append(Detections(sides[1][0], generator.random(cells), sides[1][1]))
    return truth, found


def _by_pycocotools(truth: list[Instances], found: list[Detections]) -> float:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def entries(images: list[Any], **more: Any) -> list[dict[str, Any]]:
        return [
            {"image_id": number, "category_id": 1, "segmentation": mask} | {k: v[number][row] for k, v in more.items()}
            for number, image in enumerate(images)
            for row, mask in enumerate(image.masks)
        ]

    annotations = [a | {"area": mask_area(a["segmentation"]), "iscrowd": 0} for a in entries(truth)]
    content = {
        "images": [{"id": number, "height": HEIGHT, "width": WIDTH} for number in range(len(truth))],
        "annotations": [a | {"id": number} for number, a in enumerate(annotations, start=1)],
        "categories": [{"id": 1}],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        listed = COCO()
        listed.dataset = content
        listed.createIndex()
        scores = [each.scores for each in found]
        evaluation = COCOeval(listed, listed.loadRes(entries(found, score=scores)), "segm")
        evaluation.params.maxDets = [100, 500, 2000]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, 0, 0, -1]
    return float(precision[precision > -1].mean())


def bench_image(device: str, rounds: int) -> None:
    """Time the default network on one image, by the number of detections."""
    image = torch.rand(1, 3, HEIGHT, WIDTH, device=device)
    networks: dict[str, nn.Module] = {}
    for count in (100, 3000):
        torch.manual_seed(0)
        options: dict[str, Any] = {"score_threshold": 0.0, "nms_threshold": 1.0, "label_score_threshold": 0.0}
        network = cascade_mask_rcnn(box_units=64, detections=count, **options)
        networks[f"{count} detections"] = network.eval().to(device)
    with torch.inference_mode():
        calls: dict[str, Callable[[], Any]] = {name: partial(network, image) for name, network in networks.items()}
        seconds = time_rounds(calls, rounds=rounds, device=device)
        many: Any = networks["3000 detections"]
        memory = peak_memory(partial(many, image), torch.device(device))
    title = f"an image of {HEIGHT} x {WIDTH}; {len(many.detections[0]['scores'])} add {memory / 2**20:.0f} MiB"
    _print(title, seconds, "100 detections")


def _print(title: str, seconds: dict[str, list[float]], reference: str) -> None:
    print(f"\n{title}\n\n| | s | ratio |\n|---|---|---|")
    for name, values in seconds.items():
        print(f"| {name} | {statistics.median(values):.3f} | {ratio(values, seconds[reference]):.3f} |", flush=True)


def main(
    rows: str | None = None, device: str = "cpu", threads: int = 2, rounds: int = 5, detections: int = 100
) -> None:
    """Print all tables, or those of some ``rows``; ``detections`` are those of the cascade and of torchvision."""
    chosen = choose_names(rows, list(ROWS), "rows")
    torch.set_num_threads(threads)
    print(describe_machine(threads, ["torchvision", "faster-coco-eval"]))
    for name in chosen:
        if name == "cascade":
            bench_cascade(device, rounds, detections)
        elif name == "step":
            bench_step(device, rounds)
        elif name == "score":
            bench_score(rounds)
        else:
            bench_image(device, rounds)
