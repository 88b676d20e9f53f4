"""A network that finds instances as an ONNX file: other images, other sizes, other numbers of cells."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clinbundles.nets.cascade_mask_rcnn.network import CascadeMaskRCNN
from clinbundles.nets.cascade_mask_rcnn.onnx_cascade import OnnxCascade
from clinbundles.nets.onnx_network import OnnxNetwork
from clinbundles.scripts.bundle import load_network, open_configs
from clinbundles.scripts.pack.cascade import cascade_as_onnx, largest_difference
from clinbundles.scripts.pack.machine_paths import IN_EXAMPLES

BUNDLE = Path(__file__).parents[3] / "bundles" / "pace_cell_segmentation"
OPTIONS = {"min_size": None, "anchor_sizes": ((8,), (16,))}


@pytest.fixture(scope="module")
def images() -> list[torch.Tensor]:
    dataset = open_configs(BUNDLE, ["inference"], device="cpu").get_parsed_content("dataset")
    return [dataset[number]["image"][None].as_tensor() for number in range(6)]


@pytest.fixture(scope="module")
def network() -> CascadeMaskRCNN:
    network = load_network(open_configs(BUNDLE, ["inference"], device="cpu"))
    assert isinstance(network, CascadeMaskRCNN)
    return network


@pytest.fixture(scope="module")
def file(network: CascadeMaskRCNN, images: list[torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "a.onnx"
    path.write_bytes(cascade_as_onnx(network, images[0], OPTIONS))
    return path


@pytest.fixture
def exported(file: Path) -> Callable[..., OnnxCascade]:
    def make(**options: object) -> OnnxCascade:
        network = OnnxCascade(**options)  # type: ignore[arg-type]
        network.load_file(file)
        return network

    return make


def test_it_finds_the_same_in_images_of_other_sizes(
    images: list[torch.Tensor], network: CascadeMaskRCNN, exported: Callable[..., OnnxCascade]
) -> None:
    assert len({image.shape for image in images}) > 2
    odd = [images[4][..., :200, :131], images[0].repeat(1, 1, 2, 2), images[1][..., :64, :64]]
    assert largest_difference(exported(), network, [*images[1:], *odd]) < 1e-5
    found = exported()
    pair = torch.cat([images[1], images[2]])
    assert torch.equal(found(pair), network(pair))
    for mine, other in zip(found.detections, network.detections, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-3, rtol=0)


def test_an_image_without_cells_is_an_empty_map(network: CascadeMaskRCNN, exported: Callable[..., OnnxCascade]) -> None:
    empty, found = torch.zeros(1, 3, 100, 77), exported()
    assert not found(empty).any()
    assert not network(empty).any()
    assert [tuple(values.shape) for values in found.detections[0].values()] == [(0, 4), (0,), (0, 28, 28)]


def test_the_file_is_the_same_each_time_and_names_no_folder(
    file: Path, network: CascadeMaskRCNN, images: list[torch.Tensor]
) -> None:
    assert file.read_bytes() == cascade_as_onnx(network, images[0], OPTIONS)
    assert not IN_EXAMPLES.search(file.read_bytes().decode("latin-1"))


def test_another_label_map_or_number_of_cells_is_no_small_difference(
    images: list[torch.Tensor], network: CascadeMaskRCNN, exported: Callable[..., OnnxCascade]
) -> None:
    assert largest_difference(exported(label_score_threshold=0.95), network, images[:1]) == float("inf")


def test_it_carries_the_options_and_the_least_score_of_the_weights(
    file: Path, network: CascadeMaskRCNN, images: list[torch.Tensor], exported: Callable[..., OnnxCascade]
) -> None:
    assert exported(options=json.loads(json.dumps(OPTIONS))).label_score_threshold == network.label_score_threshold
    with pytest.raises(ValueError, match=r"a.onnx: was exported with min_size null, which cannot become 512: leave"):
        exported(options={"min_size": 512})
    with pytest.raises(ValueError, match=r"a.onnx: expected a network of one input, and of pred"):
        OnnxNetwork().load_file(file)
