"""Tests of a generated data set on disk: repeatable, resumable, and never mixed from two generators."""

import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset, decollate_batch
from PIL import Image

from clinbundles.engines.outputs.generated_set import GeneratedSet, GeneratedSetWriter
from clinbundles.nets.datasetgan.generator import Generator
from clinbundles.nets.datasetgan.labelled_generator import LabelledGenerator, StyleInterpreter
from clinbundles.nets.datasetgan.pixel_classifier import PixelClassifierEnsemble
from clinbundles.transforms.latents import SeedToLatentd

NAMES = ["background", "body"]


def network(seed: int = 0, *, labels: bool = True) -> LabelledGenerator:
    torch.manual_seed(seed)
    generator = Generator(8, 1, 4, 4, channel_base=32, channel_max=4)
    for _ in range(20):
        generator.mapping.track(generator.mapping(torch.randn(32, 4)))
    interpreter = None
    if labels:
        classifier = PixelClassifierEnsemble(generator.feature_channels, 2, n_classifiers=3, widths=[8])
        interpreter = StyleInterpreter(classifier)
        interpreter.belongs_to(generator)
    return LabelledGenerator(generator, interpreter).eval()


def generate(
    folder: Path, made_by: LabelledGenerator, *, count: int, stop_after: int | None = None, **options: Any
) -> int:
    """Run an engine as generate.json does; return the number of its batches."""
    generated = GeneratedSet(folder, count=count, first_seed=5, batch_size=2)
    writer = GeneratedSetWriter(generated, made_by, class_names=NAMES, **options)

    def step(engine: Engine, batch: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
        if engine.state.iteration - 1 == stop_after:
            raise OSError(28, "No space left on device")
        with torch.no_grad():
            result = {"pred": made_by(batch["latent"])}
        engine.state.batch = decollate_batch(batch)
        return decollate_batch(result)

    engine = Engine(step)
    writer.attach(engine)
    engine.run(DataLoader(Dataset(generated.to_do(), SeedToLatentd("seed", 4)), batch_size=2))
    return engine.state.iteration


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}


def test_images_label_maps_latents_and_a_datalist_are_written(tmp_path: Path) -> None:
    made_by = network()
    assert generate(tmp_path, made_by, count=5, shares=(3, 2, 0)) == 3
    content = json.loads((tmp_path / "datalist.json").read_text())
    assert [len(content[name]) for name in ("training", "validation")] == [3, 2]
    assert "test" not in content
    assert content["labels"] == {"0": "background", "1": "body"}
    first = content["training"][0]
    assert (first["seed"], first["image"], first["label"], first["latent"]) == (
        5,
        "images/000005.png",
        "labels/000005.png",
        0,
    )
    latents = np.load(tmp_path / "latents.npy")
    assert latents.shape == (5, made_by.generator.n_ws, 4)
    with torch.no_grad():
        again = made_by.label(torch.from_numpy(latents[:1]))
    image = np.asarray(Image.open(tmp_path / first["image"])).astype(int)
    assert np.abs(image - ((again["image"][0, 0] * 127.5 + 128).clamp(0, 255).floor().numpy())).max() <= 1
    assert np.array_equal(np.asarray(Image.open(tmp_path / first["label"])), again["label"][0, 0])


def test_a_run_cut_off_by_a_full_disk_leaves_whole_files_and_goes_on_to_the_same_result(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    generate(whole, network(), count=7)
    with pytest.raises(OSError, match="No space left"):
        generate(broken, network(), count=7, stop_after=2)
    assert not (broken / "datalist.json").exists()
    assert len(list((broken / "images").iterdir())) == 4
    with (broken / "rows.jsonl").open("a") as stream:
        stream.write('{"seed": 9, "image": "images/0000')  # a line that was cut off
    (broken / "labels" / "000008.png").unlink()  # and a file that got lost: its batch is made again
    assert generate(broken, network(), count=7) == 3
    first, second = contents(whole), contents(broken)
    assert first.keys() == second.keys()
    assert all(first[name] == second[name] for name in first if name != "rows.jsonl")


def test_images_of_another_generator_are_not_mixed_in(tmp_path: Path) -> None:
    generate(tmp_path, network(), count=2)
    with pytest.raises(ValueError, match=r"holds images of generator_sha256 .* take another output_dir"):
        generate(tmp_path, network(1), count=4)


def test_the_most_uncertain_images_are_left_out_of_the_list(tmp_path: Path) -> None:
    generate(tmp_path, network(), count=8, drop_uncertain=0.25, shares=(1, 0, 0))
    content = json.loads((tmp_path / "datalist.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()[1:]]
    kept = {row["seed"] for row in content["training"]}
    dropped = [row["uncertainty"] for row in rows if row["seed"] not in kept]
    assert len(dropped) == 2
    assert min(dropped) >= max(row["uncertainty"] for row in content["training"])
    assert content["dropped_as_uncertain"] == 2


def test_of_equally_uncertain_images_only_as_many_are_left_out_as_were_asked_for(tmp_path: Path) -> None:
    made_by = network()
    assert made_by.interpreter is not None
    for classifier in range(3):  # who all agree, everywhere
        made_by.interpreter.classifier.weights[-1].data[classifier] = 0
    generate(tmp_path, made_by, count=8, drop_uncertain=0.25, shares=(1, 0, 0))
    content = json.loads((tmp_path / "datalist.json").read_text())
    assert {row["uncertainty"] for row in content["training"]} == {0.0}
    assert [row["seed"] for row in content["training"]] == [5, 6, 7, 8, 9, 10]


def test_an_interpreter_of_another_generator_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    made_by = LabelledGenerator(network(1).generator, network().interpreter).eval()
    with pytest.raises(ValueError, match="the interpreter was trained on the generator"):
        generate(tmp_path / "new", made_by, count=2)
    assert not (tmp_path / "new").exists()


def test_a_run_that_made_no_image_does_not_bind_the_next_one(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        generate(tmp_path, network(), count=2, stop_after=0)
    generate(tmp_path, network(1), count=2)
    assert len(list((tmp_path / "images").iterdir())) == 2


def test_another_data_set_in_the_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "datalist.json").write_text('{"name": "people drew this"}')
    with pytest.raises(ValueError, match=r"datalist.json: is of another data set \(people drew this\)"):
        generate(tmp_path, network(), count=2)
    (tmp_path / "datalist.json").unlink()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "000005.png").write_bytes(b"mine")
    with pytest.raises(ValueError, match="images: holds files that generate did not write"):
        generate(tmp_path, network(), count=2)
    assert (tmp_path / "images" / "000005.png").read_bytes() == b"mine"
    (tmp_path / "rows.jsonl").write_text("no JSON\n")
    with pytest.raises(ValueError, match=r"rows.jsonl: is not what generate writes"):
        generate(tmp_path, network(), count=2)


def test_an_image_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    made_by = network(labels=False)
    made_by.generator.mapping.average.fill_(float("nan"))
    with pytest.raises(ValueError, match="the image of seed 5 is not finite"):
        generate(tmp_path, made_by, count=2)
    assert not list((tmp_path / "images").iterdir())


def test_latents_that_a_full_disk_does_not_take_are_told_and_come_with_the_next_run(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, limits[1]))  # a memory map would kill the process without a word
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            generate(tmp_path, network(labels=False), count=8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(tmp_path / "latents.npy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "rows.jsonl"]
    generate(tmp_path, network(labels=False), count=8)
    assert np.load(tmp_path / "latents.npy").shape == (8, 4, 4)


def test_a_list_of_fewer_images_than_there_are_drops_none_of_the_others_as_uncertain(tmp_path: Path) -> None:
    generate(tmp_path, network(), count=4)
    generate(tmp_path, network(), count=2)
    content = json.loads((tmp_path / "datalist.json").read_text())
    assert (len(content["training"]), content["dropped_as_uncertain"]) == (2, 0)


def test_the_list_says_the_facts_that_there_are(tmp_path: Path) -> None:
    generate(tmp_path, network(), count=2, facts={"window_hu": [-1000, 600], "site": None})
    content = json.loads((tmp_path / "datalist.json").read_text())
    assert content["window_hu"] == [-1000, 600]
    assert "site" not in content


def test_without_an_interpreter_there_are_images_to_label(tmp_path: Path) -> None:
    generate(tmp_path, network(labels=False), count=2)
    content = json.loads((tmp_path / "datalist.json").read_text())
    assert "label" not in content["training"][0]
    assert content["labeller"] is None
    assert not (tmp_path / "labels").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shares": (1, -1, 0)}, "shares is"),
        ({"shares": ["a", "b", "c"]}, "shares is"),
        ({"shares": 1}, "shares is 1, expected those of training, validation and test"),
        ({"drop_uncertain": 0.9}, "drop_uncertain is 0.9, which leaves nothing of 2 images"),
        ({"facts": {"window_hu": [600, -1000]}}, r"window_hu is \[600, -1000\], expected two HU, low and high"),
        ({"drop_uncertain": 1.0}, "drop_uncertain is 1.0, expected 0 or more, and less than 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(tmp_path, network(), count=2, **options)
    for count in (0, -3, 2.5):
        with pytest.raises(ValueError, match=f"count is {count}"):
            GeneratedSet(tmp_path, count=count, first_seed=0, batch_size=1)  # type: ignore[arg-type]
