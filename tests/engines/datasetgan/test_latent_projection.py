"""Tests of what a projection reads and writes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from PIL import Image

from clinbundles.engines.datasetgan.interpreter_training import LabelledFeatures
from clinbundles.engines.datasetgan.latent_projection import ProjectedSetWriter, ProjectionTargets
from clinbundles.nets.datasetgan.generator import Generator
from clinbundles.nets.datasetgan.labelled_generator import digest_of
from clinbundles.nets.datasetgan.latent_projection import LatentRenderer, ProjectedLatents

NAMES = ["background", "cell"]


def read(item: dict) -> dict:
    image = torch.full((1, 16, 16, 1), float(item["value"]))
    return {"image": image, "label": (image > 0).float()}


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(0)
    return Generator(16, 1, 8, 8, channel_base=64, channel_max=8).eval()


def targets(n: int = 3, size: int = 16) -> ProjectionTargets:
    items = [{"image": f"/data/p{k}.png", "group": f"p{k}", "value": k - 1} for k in range(n)]
    return ProjectionTargets(items, read, size)


def test_an_item_is_a_number_and_its_slice() -> None:
    data = targets()
    assert len(data) == 3
    assert (int(data[2]["image"]), data[2]["label"].shape, float(data[2]["label"].max())) == (2, (1, 16, 16), 1)
    assert [int(label.sum()) for label in data.labels] == [0, 0, 256]


def test_slices_of_another_size_than_the_generator_are_refused() -> None:
    with pytest.raises(ValueError, match=r"slices of \(16, 16\) px for a generator of 32 px"):
        targets(size=32)


def test_no_slice_and_a_folder_of_another_data_set_are_refused(tmp_path: Path, generator: Generator) -> None:
    with pytest.raises(ValueError, match="n_labelled is 0: there is no slice to project"):
        targets(0)
    (tmp_path / "datalist.json").write_text('{"name": "real slices"}')
    renderer = LatentRenderer(ProjectedLatents(3, generator.n_ws, 8), generator)
    engine = Engine(lambda engine, batch: None)
    ProjectedSetWriter(tmp_path, targets(), renderer, str(tmp_path / "datalist.json")).attach(engine)
    with pytest.raises(ValueError, match=r"datalist.json: is of another data set \(real slices\) and would be lost"):
        engine.run([0])
    assert [path.name for path in tmp_path.iterdir()] == ["datalist.json"]


def test_an_interpreter_can_learn_from_what_is_written(
    tmp_path: Path, generator: Generator, capsys: pytest.CaptureFixture
) -> None:
    source = tmp_path / "real.json"
    source.write_text(json.dumps({"labels": dict(enumerate(NAMES)), "labeller": "people", "window_hu": [0, 80]}))
    latents = ProjectedLatents(3, generator.n_ws, 8)
    renderer = LatentRenderer(latents, generator)
    with torch.no_grad():
        latents.offsets[1] += 1
    writer = ProjectedSetWriter(tmp_path / "out", targets(), renderer, str(source))
    engine = Engine(lambda engine, batch: None)
    writer.attach(engine)
    engine.run([0])
    content = json.loads((tmp_path / "out" / "datalist.json").read_text())
    assert (content["labeller"], content["window_hu"]) == ("people", [0, 80])
    assert content["generator_sha256"] == digest_of(generator).hex()
    item = content["training"][1]
    assert (item["real"], item["group"], item["latent"]) == ("p1.png", "p1", 1)
    with torch.no_grad():
        made = renderer(torch.tensor([1]))["image"].clamp(-1, 1)
    assert item["error"] == pytest.approx(float((made / 2).square().mean().sqrt()), abs=1e-5)
    values = np.asarray(Image.open(tmp_path / "out" / item["image"]), dtype=float)
    assert np.abs(values - (made[0, 0].numpy() * 127.5 + 128)).max() <= 1.01
    assert np.asarray(Image.open(tmp_path / "out" / "projection.png")).shape == (32, 160)
    labelled = LabelledFeatures(tmp_path / "out", tmp_path / "out" / "datalist.json", generator, NAMES)
    assert torch.equal(labelled.ws, renderer.ws(torch.arange(3)).detach())
    assert "3 images labelled by people" in capsys.readouterr().out
    other = Generator(16, 1, 8, 8, channel_base=64, channel_max=8)
    with pytest.raises(ValueError, match=r"its slices were made by the generator .* and this is the generator"):
        LabelledFeatures(tmp_path / "out", tmp_path / "out" / "datalist.json", other, NAMES)
