"""A data set of generated slices with label maps, written image by image so that a stopped run goes on."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from PIL import Image

from ...nets.datasetgan.labelled_generator import LabelledGenerator, digest_of
from ...transforms.latents import latent_of
from ...transforms.readers.slices import check_window
from .files import check_replaceable, replacing, write_atomically
from .sample_grid import as_bytes

ROWS = "rows.jsonl"
NAME = "generated slices"


class GeneratedSet:
    """The folder of a generated data set: which of its seeds are done, and what it says of itself.

    Args:
        output_dir: the folder.
        count: number of images.
        first_seed: of the seeds, which follow each other.
        batch_size: images that are made together. A batch is done whole or again: on some devices the last bit of an
            image depends on the others of its batch.

    Raises:
        ValueError: no images are asked for.
    """

    def __init__(self, output_dir: str | os.PathLike, *, count: int, first_seed: int, batch_size: int) -> None:
        whole = all(isinstance(number, int) for number in (count, first_seed, batch_size))
        if not whole or count < 1 or first_seed < 0 or batch_size < 1:
            raise ValueError(
                f"count is {count}, first_seed {first_seed} and batch_size {batch_size}: expected whole numbers, 1 or "
                "more, 0 or more and 1 or more."
            )
        self.folder = Path(output_dir)
        self.seeds = list(range(first_seed, first_seed + count))
        self.batch_size = batch_size

    def read_rows(self) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
        """Read what earlier runs have written: facts of the set, and the rows by seed; a last half line is dropped.

        Raises:
            ValueError: the file holds something else.
        """
        path = self.folder / ROWS
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
        try:
            entries = [json.loads(line) for line in lines if line.endswith("\n")]
            return (entries[0] if entries else {}), {row["seed"]: row for row in entries[1:]}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: is not what generate writes: take another output_dir.") from error

    def to_do(self) -> list[dict[str, int]]:
        """List the seeds of the batches that are not done, as items of a data set; of a finished set the last batch.

        An engine does not run on nothing, and the list that it writes at its end may have other shares by now.
        """
        open_batches = self._open_batches() or [self.seeds[-(len(self.seeds) % self.batch_size or self.batch_size) :]]
        return [{"seed": seed} for batch in open_batches for seed in batch]

    def n_done(self) -> int:
        """Count the images of batches that are done."""
        return len(self.seeds) - sum(map(len, self._open_batches()))

    def _open_batches(self) -> list[list[int]]:
        _, rows = self.read_rows()
        batches = [self.seeds[k : k + self.batch_size] for k in range(0, len(self.seeds), self.batch_size)]
        return [batch for batch in batches if not all(self._is_done(seed, rows) for seed in batch)]

    def _is_done(self, seed: int, rows: Mapping[int, Mapping[str, Any]]) -> bool:
        files = [rows[seed].get(key) for key in ("image", "label")] if seed in rows else []
        return bool(files) and all((self.folder / name).is_file() for name in files if name)


class GeneratedSetWriter:
    """Write generated images, label maps, latents and one datalist, whole file by whole file.

    ``images/<seed>.png`` and ``labels/<seed>.png`` (the number of the class a pixel), a line a seed in ``rows.jsonl``
    and, at the end, ``latents.npy`` (N, n_ws, w_dim) in the order of the seeds and ``datalist.json``, whose items have
    ``image``, ``label``, ``seed``, ``latent`` (the place in that array) and ``uncertainty``. Memory does not grow with
    the number of images. A folder with images of other weights or options is refused, not mixed.

    Args:
        generated: the set.
        network: makes the images.
        class_names: of the classes, the background first.
        shares: parts of training, validation and test in the datalist, such as 9,1,0; in the order of the seeds.
        drop_uncertain: part of the images, the most uncertain ones, that the datalist leaves out.
        facts: what the datalist says beside, such as the window of Hounsfield units; one that is None is left out.

    Raises:
        ValueError: the folder holds other images or another data set; the interpreter is of another generator; the
            shares, the part or the window make no sense, or nothing would be left; an image is not finite.
    """

    def __init__(
        self,
        generated: GeneratedSet,
        network: LabelledGenerator,
        *,
        class_names: Sequence[str],
        shares: Sequence[float] = (9, 1, 0),
        drop_uncertain: float = 0.0,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        parts = list(shares) if isinstance(shares, Sequence) and not isinstance(shares, str) else []
        numbers = [part for part in parts if isinstance(part, int | float) and 0 <= part < math.inf]
        if len(parts) != 3 or len(numbers) != 3 or not sum(numbers) > 0:
            raise ValueError(f"shares is {shares!r}, expected those of training, validation and test, such as 9,1,0.")
        if not 0 <= drop_uncertain < 1:
            raise ValueError(f"drop_uncertain is {drop_uncertain}, expected 0 or more, and less than 1.")
        if round(drop_uncertain * len(generated.seeds)) == len(generated.seeds):
            raise ValueError(
                f"drop_uncertain is {drop_uncertain}, which leaves nothing of {len(generated.seeds)} images."
            )
        self.generated = generated
        self.network = network
        self.class_names = list(class_names)
        self.shares = parts
        self.drop_uncertain = drop_uncertain
        self.facts = {name: fact for name, fact in (facts or {}).items() if fact is not None}
        if "window_hu" in self.facts:
            check_window(self.facts["window_hu"])

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator, after the loaders of weights."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.write_batch)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def describe(self) -> dict[str, Any]:
        """Say what the images come from."""
        interpreter = self.network.interpreter
        return {
            "generator_sha256": digest_of(self.network.generator).hex(),
            "interpreter_sha256": None if interpreter is None else digest_of(interpreter).hex(),
            "truncation": self.network.truncation,
            "truncated_layers": self.network.truncated_layers,
            "batch_size": self.generated.batch_size,
        }

    def start(self, engine: Engine) -> None:
        """Begin the folder, or go on with it."""
        facts, rows = self.generated.read_rows()
        own = self.describe()
        if self.network.interpreter is not None:
            self.network.interpreter.check(self.network.generator)
        if rows and facts != own:
            key = next(name for name in own if facts.get(name) != own[name])
            raise ValueError(
                f"{self.generated.folder}: holds images of {key} {facts.get(key)}, and this run is of {own[key]}: take "
                "another output_dir."
            )
        check_replaceable(self.generated.folder / "datalist.json", NAME)
        images = self.generated.folder / "images"
        if not facts and images.is_dir() and any(images.iterdir()):
            raise ValueError(f"{images}: holds files that generate did not write: take another output_dir.")
        for name in ("images", "labels") if self.network.interpreter is not None else ("images",):
            (self.generated.folder / name).mkdir(parents=True, exist_ok=True)
        # Whole lines alone, with those of an earlier run that are still good.
        lines = [own, *rows.values()]
        write_atomically(self.generated.folder / ROWS, "".join(json.dumps(line) + "\n" for line in lines))
        if done := self.generated.n_done():
            print(f"{done} of {len(self.generated.seeds)} images are there already", flush=True)

    def write_batch(self, engine: Engine) -> None:
        """Write the images of a batch, then their lines."""
        batch: Any = engine.state.batch
        output: Any = engine.state.output
        lines = ""
        for item, entries in zip(batch, output, strict=True):
            made, seed = entries["pred"], int(item["seed"])
            row: dict[str, Any] = {"seed": seed, "image": f"images/{seed:06d}.png"}
            if not torch.isfinite(made["image"]).all():
                raise ValueError(f"the image of seed {seed} is not finite: look at generator_weights and truncation.")
            self._save(as_bytes(made["image"][None])[0].squeeze(-1), row["image"])
            if "label" in made:
                row |= {"label": f"labels/{seed:06d}.png", "uncertainty": round(float(made["uncertainty"]), 6)}
                self._save(made["label"][0].to(torch.uint8).cpu().numpy(), row["label"])
            lines += json.dumps(row) + "\n"
        path = self.generated.folder / ROWS
        try:
            with path.open("a", encoding="utf-8") as stream:
                stream.write(lines)
        except OSError as error:  # of a full disk, without a name; the half line is dropped by the next run
            error.filename = str(path)
            raise

    def _save(self, pixels: np.ndarray, name: str) -> None:
        with replacing(self.generated.folder / name) as partial:
            Image.fromarray(pixels).save(partial, format="PNG")

    def finish(self, engine: Engine) -> None:
        """Write the latents and the datalist."""
        _, rows = self.generated.read_rows()
        items = [rows[seed] for seed in self.generated.seeds]
        self._write_latents(items)
        items = [{**row, "latent": place} for place, row in enumerate(items)]
        n_dropped = round(self.drop_uncertain * len(items)) if "uncertainty" in items[0] else 0
        if n_dropped:  # of equals the later ones
            order = sorted(range(len(items)), key=lambda place: items[place]["uncertainty"])
            items = [items[place] for place in sorted(order[:-n_dropped])]
        content: dict[str, Any] = {
            "name": NAME,
            "labels": {str(k): name for k, name in enumerate(self.class_names)},
            "labeller": "interpreter (DatasetGAN)" if self.network.interpreter is not None else None,
            "tensorImageSize": "2D",
            **self.facts,
            **self.describe(),
            "dropped_as_uncertain": len(self.generated.seeds) - len(items),
        }
        ends = np.round(np.cumsum(self.shares) / sum(self.shares) * len(items)).astype(int).tolist()
        for split, start, end in zip(("training", "validation", "test"), [0, *ends[:-1]], ends, strict=True):
            if end > start:
                content[split] = items[start:end]
        text = json.dumps(content, indent=1)
        write_atomically(self.generated.folder / "datalist.json", text + "\n")
        print(
            f"{len(self.generated.seeds)} images were asked for, {len(items)} are in datalist.json, "
            f"{content['dropped_as_uncertain']} are left out as uncertain",
            flush=True,
        )

    @torch.no_grad()
    def _write_latents(self, items: Sequence[Mapping[str, Any]]) -> None:
        generator = self.network.generator
        device = next(generator.parameters()).device
        shape = (len(items), generator.n_ws, generator.w_dim)
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
        # Not by a memory map: a full disk would end the program without a word.
        with replacing(self.generated.folder / "latents.npy") as partial, partial.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            for row in items:
                z = latent_of(row["seed"], generator.z_dim)[None].to(device)
                ws = generator.map(
                    z, truncation=self.network.truncation, truncated_layers=self.network.truncated_layers
                )
                stream.write(ws[0].cpu().numpy().astype(np.float32).tobytes())
