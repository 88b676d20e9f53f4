from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import Activationsd, Compose
from PIL import Image
from torch import nn

from clinbundles.engines.outputs.grad_cam import GradCamWriter, blend_heat
from clinbundles.nets.classification_network import classification_network
from clinbundles.transforms.readers.images import BinaryMaskReader, RGBImageReader
from clinbundles.transforms.readers.loading import TolerantDataset

NAMES = ["dark", "bright"]


class GreyReader(RGBImageReader):
    """uint8 (H, W)."""

    def read(self, data, **_):
        return super().read(data)[..., 0]


class BrightSpots(nn.Module):
    """Logits: 1 and ten times the mean brightness; an in-place layer behind the one to look at, as CNNs have."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.ReLU(inplace=True), nn.AvgPool2d(2))
        self.head = nn.Linear(1, 2)
        self.features[0].weight.data.fill_(1 / 3)
        self.head.weight.data = torch.tensor([[0.0], [10.0]])
        self.head.bias.data = torch.tensor([1.0, 0.0])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(image).mean((2, 3)))


def load(item: dict) -> dict:
    pixels = RGBImageReader().read(item["image"])
    small = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BOX))
    image = torch.from_numpy(small.copy()).permute(2, 0, 1).float() / 255
    return {**item, "image": MetaTensor(image, meta={"filename_or_obj": item["image"]})}


@pytest.fixture
def images(tmp_path: Path) -> list[dict]:
    """40 x 80 px: a bright square at the top left, one at the bottom right, and a file that is none."""
    for name, rows, columns in (("a", slice(0, 20), slice(0, 40)), ("b", slice(20, 40), slice(40, 80))):
        pixels = np.zeros((40, 80), dtype=np.uint8)
        pixels[rows, columns] = 255
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"none")
    return [{"image": str(tmp_path / f"{name}.png")} for name in "abc"]


def evaluate(items: list[dict], network: nn.Module, handler: GradCamWriter, batch_size: int = 3) -> None:
    SupervisedEvaluator(
        torch.device("cpu"),
        DataLoader(TolerantDataset(items, load, placeholder=(3, 32, 32)), batch_size=batch_size),
        network,
        postprocessing=Compose(Activationsd("pred", softmax=True)),
        val_handlers=[handler],
    ).run()


def quarters(picture: np.ndarray) -> np.ndarray:
    """How colourful the quarters (2, 2) of the right half's image are."""
    picture = picture[..., :3].astype(float)
    columns = slice(picture.shape[1] // 2, None)
    spread = np.ptp(picture[:, columns], axis=-1)
    rows, cols = np.flatnonzero(spread.max(1) > 30), np.flatnonzero(spread.max(0) > 30)
    assert rows.size
    assert cols.size
    center = (picture.shape[0] + 40) // 2, spread.shape[1] // 2
    spread[:40] = 0
    return np.array(
        [
            [spread[: center[0], : center[1]].mean(), spread[: center[0], center[1] :].mean()],
            [spread[center[0] :, : center[1]].mean(), spread[center[0] :, center[1] :].mean()],
        ]
    )


def test_the_colour_is_where_the_predicted_class_was_found_in_each_image_of_a_batch(
    images: list[dict], tmp_path: Path
) -> None:
    network = BrightSpots()
    evaluate(images, network, GradCamWriter(tmp_path / "out", network, "features.0", NAMES, GreyReader()))
    assert sorted(path.name for path in (tmp_path / "out" / "overlays").iterdir()) == ["a.png", "b.png"]
    pictures = {name: np.asarray(Image.open(tmp_path / "out" / "overlays" / f"{name}.png")) for name in "ab"}
    assert np.unravel_index(quarters(pictures["a"]).argmax(), (2, 2)) == (0, 0)
    assert np.unravel_index(quarters(pictures["b"]).argmax(), (2, 2)) == (1, 1)


def test_an_images_map_does_not_depend_on_the_others_of_its_batch(images: list[dict], tmp_path: Path) -> None:
    pictures = []
    for batch_size in (1, 3):
        network = BrightSpots()
        out = tmp_path / str(batch_size)
        evaluate(images, network, GradCamWriter(out, network, "features", NAMES, GreyReader()), batch_size)
        pictures.append(np.asarray(Image.open(out / "overlays" / "b.png")))
    assert np.array_equal(*pictures)


def test_the_map_follows_the_definition(tmp_path: Path) -> None:
    network = BrightSpots()
    writer = GradCamWriter(tmp_path / "out", network, "features.2", NAMES, GreyReader())
    image = torch.rand(3, 32, 32)
    expected = nn.functional.avg_pool2d(image.mean(0)[None], 2)[0]  # one channel, positive weight: the activation
    assert np.allclose(writer.heat_map(image, 1), expected / expected.max(), atol=1e-6)
    assert not writer.heat_map(image, 0).any()  # brightness says nothing for this class


@pytest.mark.parametrize("mode", ["grad", "no_grad", "inference_mode"])
def test_the_network_is_left_as_it_was(images: list[dict], tmp_path: Path, mode: str) -> None:
    network = BrightSpots()
    network.features.requires_grad_(False)
    network.features.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    writer = GradCamWriter(tmp_path / "out", network, "features.1", NAMES, GreyReader())
    with {"grad": torch.enable_grad, "no_grad": torch.no_grad, "inference_mode": torch.inference_mode}[mode]():
        evaluate(images, network, writer)
    assert (tmp_path / "out" / "overlays" / "a.png").is_file()
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert [p.requires_grad for p in network.parameters()] == [False, True, True]
    assert all(p.grad is None for p in network.parameters())
    assert network.features[1].inplace
    assert not any(m._forward_hooks or m._backward_hooks for m in network.modules())
    training = BrightSpots()
    GradCamWriter(tmp_path / "out", training, "features.1", NAMES, GreyReader()).heat_map(torch.rand(3, 8, 8), 1)
    assert training.training


def test_weights_that_come_after_the_handler_was_made_are_those_that_are_shown(
    images: list[dict], tmp_path: Path
) -> None:
    network = BrightSpots()
    writer = GradCamWriter(tmp_path / "out", network, "features", NAMES, GreyReader())
    network.head.weight.data[1] = -10  # bright is now evidence against: the map of the class is empty
    evaluate(images, network, writer)
    assert not writer.heat_map(torch.rand(3, 32, 32), 1).any()


def test_a_channels_last_network_is_shown_too(images: list[dict], tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.append(nn.Linear(8, 2)).to(memory_format=torch.channels_last)
    evaluate(images, network, GradCamWriter(tmp_path / "out", network, "0", NAMES, GreyReader()))
    assert (tmp_path / "out" / "overlays" / "b.png").is_file()


def test_the_heat_is_stretched_to_the_image_and_leaves_it_alone_where_it_is_cold() -> None:
    grey = np.full((40, 80), 100, dtype=np.uint8)
    heat = np.array([[0.0, 1.0], [0.0, 0.0]])
    mixed = blend_heat(grey, heat)
    assert mixed.shape == (40, 80, 3)
    assert (mixed[:, :20] == 100).all()
    red, green, blue = mixed[0, -1].astype(int)
    assert red > max(green, blue) + 20
    assert (grey == 100).all()
    assert (blend_heat(grey, np.zeros((7, 7))) == 100).all()


def test_two_files_of_one_stem_get_a_picture_each(images: list[dict], tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        Image.open(images[0]["image"]).save(tmp_path / folder / "a.png")
    Image.open(images[0]["image"]).save(tmp_path / "x" / "a.bmp")
    network = BrightSpots()
    items = [{"image": str(tmp_path / name)} for name in ("x/a.png", "y/a.png", "x/a.bmp", "y/a.png")]
    evaluate(items, network, GradCamWriter(tmp_path / "out", network, "features", NAMES, GreyReader()))
    assert sorted(p.name for p in (tmp_path / "out" / "overlays").iterdir()) == ["a.bmp.png", "x_a.png", "y_a.png"]


def test_a_layer_that_does_not_fit_is_named_with_those_that_exist(images: list[dict], tmp_path: Path) -> None:
    network = BrightSpots()
    for layer in ("layer4", ""):
        with pytest.raises(ValueError, match=f"target_layer is '{layer}'.* it has features, head: .*--overlays false"):
            GradCamWriter(tmp_path / "out", network, layer, NAMES, GreyReader())
    with pytest.raises(ValueError, match="target_layer 'head' has no height and width"):
        GradCamWriter(tmp_path / "out", network, "head", NAMES, GreyReader()).heat_map(torch.rand(3, 8, 8), 1)
    relu = nn.ReLU()
    twice = nn.Sequential(nn.Conv2d(3, 2, 1), relu, nn.Conv2d(2, 2, 1), relu, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="target_layer '1' is called 2 times an image, not once"):
        GradCamWriter(tmp_path / "out", twice, "1", NAMES, GreyReader()).heat_map(torch.rand(3, 8, 8), 1)
    with pytest.raises(ValueError, match="2 probabilities for 3 classes"):
        evaluate(
            images, network, GradCamWriter(tmp_path / "out", network, "features", [*NAMES, "third"], BinaryMaskReader())
        )


class SwinLike(nn.Module):
    """Features with their channels last: the first channel is the image at an eighth of its size."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 5, 8, stride=8), Permuted())
        self.head = nn.Linear(5, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(torch.nn.functional.relu(self.features(image), inplace=True).mean(dim=(1, 2)))


class Permuted(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1)


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (40, 40)])
def test_features_with_their_channels_last_and_overwritten_ones_have_the_same_map(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    network, image = SwinLike(), torch.rand(3, *size)
    maps = []
    for layer in ("features", "features.0"):
        maps.append(GradCamWriter(tmp_path / "out", network, layer, ["a", "b"], RGBImageReader()).heat_map(image, 1))
    assert maps[1].shape == (size[0] // 8, size[1] // 8)
    if size != (40, 40):  # as many channels as rows: nothing tells them apart
        np.testing.assert_allclose(maps[0], maps[1], atol=1e-6)


@pytest.mark.parametrize(("name", "layer"), [("swin_t", "features"), ("densenet121", "features")])
def test_published_networks_have_a_map_of_height_and_width(tmp_path: Path, name: str, layer: str) -> None:
    network = classification_network(name, 3)
    heat = GradCamWriter(tmp_path / "out", network, layer, ["a", "b", "c"], RGBImageReader()).heat_map(
        torch.rand(3, 64, 96), 1
    )
    assert heat.shape == (2, 3)
