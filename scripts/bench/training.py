"""Print how many images a second a training of gaze_polyp_segmentation takes, beside a bare loop on one batch.

    clinbundles bench training [--device cuda --size 512 --batch 32 --precision bfloat16 --workers 6]

The training is the bundle's own, from train.json, on its sample frames again and again, cached, with blur, colours and
flips: once image by image in the data loader, once in batches on the device (``--augment_on``), with
``--channels_last`` too. The bare loop has the same network, loss, optimizer and precision, and one batch of noise that
lies on the device. Passes of all follow one another, so that a busy machine slows all of them alike; the table shows
medians, validation left out.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from json import dumps, loads
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from torch import nn

from clinbundles.scripts.bench.measurements import add_measurements, as_metric
from clinbundles.scripts.bench.rounds import describe_machine, now, ratios
from clinbundles.scripts.bundle import ROOT, open_configs

BARE = "bare loop"
BUNDLE = ROOT / "bundles" / "gaze_polyp_segmentation"


class Bare:
    """Train on one resident batch.

    Args:
        parser: of the bundle's training, for network, loss, optimizer and inferer.
        shape: of the batch (B, 3, H, W).
        channels_last: keep weights and images in that order.
        compiled: run the network through torch.compile.
    """

    def __init__(self, parser: Any, shape: tuple[int, ...], *, channels_last: bool, compiled: bool) -> None:
        network, self.loss, self.inferer = map(parser.get_parsed_content, ("network", "loss", "train#inferer"))
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.network: nn.Module = network.to(memory_format=layout).train()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-4)
        self.call: Any = torch.compile(self.network) if compiled else self.network
        self.device = str(parser.get_parsed_content("device"))
        self.image = torch.rand(shape, device=self.device).to(memory_format=layout)
        self.label = (torch.rand(shape[0], 1, *shape[2:], device=self.device) > 0.5).float()

    def __call__(self, steps: int) -> float:
        """Take steps, and return images a second."""
        start = now(self.device)
        for _ in range(steps):
            self.optimizer.zero_grad(set_to_none=True)
            self.loss(self.inferer(self.image, self.call), self.label).backward()
            self.optimizer.step()
        return steps * len(self.image) / (now(self.device) - start)


class Shipped:
    """Train an epoch of the bundle's training at each call, cached frames and all, without validation."""

    def __init__(self, parser: Any) -> None:
        parser.get_parsed_content("memory_order")
        self.trainer = parser.get_parsed_content("train#trainer")
        self.device = str(parser.get_parsed_content("device"))
        self.batch = int(parser.get_parsed_content("batch_size"))
        self.rates: list[float] = []
        self.trainer.add_event_handler(Events.EPOCH_STARTED, self._start)
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, self._stop)

    def _start(self, _: Any) -> None:
        self.started = now(self.device)

    def _stop(self, engine: Any) -> None:
        last = engine.state.epoch_length
        if (engine.state.iteration - 1) % last == last - 1:
            self.rates.append(last * self.batch / (now(self.device) - self.started))

    def __call__(self, steps: int) -> float:
        """Train one epoch more, and return images a second."""
        self.trainer.state.max_epochs = len(self.rates) + 1
        self.trainer.run()
        return self.rates[-1]


def rates(options: dict[str, Any], steps: int, rounds: int, workers: int, *, compiled: bool) -> dict[str, list[float]]:
    """Return images a second of each contender, one a round; the first round warms up and is left out."""
    with tempfile.TemporaryDirectory() as folder:
        datalist = loads((BUNDLE / "samples" / "datalist.json").read_text())
        frames = datalist["training"]
        n = steps * int(options["batch_size"])
        file = Path(folder) / "datalist.json"
        file.write_text(dumps(datalist | {"training": (frames * (n // len(frames) + 1))[:n]}))
        shape = (int(options["batch_size"]), 3, options["image_size"], options["image_size"])

        def opened(**more: Any) -> Any:
            handlers = "$[h for h in @train::handlers if type(h).__name__ == 'EpochSeed']"
            alone = {"train#trainer#train_handlers": handlers, "datalist": str(file), "ckpt_dir": folder}
            return open_configs(BUNDLE, ["train"], **options, **alone, **more)

        contenders: dict[str, Callable[[int], float]] = {
            BARE: Bare(opened(), shape, channels_last=False, compiled=False),
            f"{BARE}, channels_last": Bare(opened(), shape, channels_last=True, compiled=False),
            f"train.json, augment_on cpu, {workers} workers": Shipped(opened(num_workers=workers)),
            "train.json, augment_on device": Shipped(opened(augment_on="device")),
            "train.json, augment_on device, channels_last": Shipped(opened(augment_on="device", channels_last=True)),
        }
        if compiled:
            name = f"{BARE}, channels_last, compiled"
            contenders[name] = Bare(opened(), shape, channels_last=True, compiled=True)
        measured: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(rounds + 1):
            for name, call in contenders.items():
                rate = call(steps)
                if number:
                    measured[name].append(rate)
        return measured


def main(
    device: str = "cpu",
    size: int = 128,
    batch: int = 8,
    steps: int = 4,
    precision: str = "float32",
    workers: int = 0,
    channels: str = "32,32,64,128,256,32",
    threads: int = 2,
    rounds: int = 3,
    compiled: bool = False,
    json: str | None = None,
) -> None:
    """Print the table, and add its rows to the file that ``--json`` names.

    Args:
        device: cpu or cuda.
        size: side of the square images.
        batch: images at a time.
        steps: of an epoch.
        precision: float32, bfloat16 or float16.
        workers: processes that augment, for the training that does it image by image.
        channels: of the UNet.
        threads: of a CPU.
        rounds: epochs of each that are timed.
        compiled: time the bare loop through torch.compile too, where that can take the network.
        json: file that the rows are added to, for clinbundles report --merge.
    """
    torch.set_num_threads(threads)
    logging.disable(logging.INFO)
    options = {
        "device": f"$torch.device('{device}')",
        "image_size": size,
        "batch_size": batch,
        "precision": precision,
        "channels": [int(width) for width in channels.split(",")],
        "cache_rate": 1.0,
    }
    print(describe_machine(threads))
    measured = rates(options, steps, rounds, workers, compiled=compiled)
    logging.disable(logging.NOTSET)
    rows = {
        name: {"images_per_second": as_metric(values), "of_bare_loop": as_metric(ratios(values, measured[BARE]))}
        for name, values in measured.items()
    }
    scale = f"UNet of {channels}, batch {batch}, 3 x {size} x {size}, {precision}, {rounds} rounds of {steps} steps"
    print(f"\n{scale}\n\n| | images a second | / {BARE} |\n|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | {row['images_per_second']['value']:.1f} | {row['of_bare_loop']['value']:.3f} |")
    if json:
        add_measurements(
            json,
            "gaze_polyp_segmentation",
            f"training, {size}, batch {batch}, {precision}",
            rows,
            device=device,
            threads=threads,
            scale=scale,
            data="the sample frames, and noise for the bare loop",
        )
