from pathlib import Path

import onnx
import pytest
import torch
from monai.data import MetaTensor
from onnx import TensorProto, helper

from clinbundles.engines.checkpoint import WeightsLoader
from clinbundles.nets.inferers import PrecisionInferer
from clinbundles.nets.onnx_network import OnnxNetwork
from clinbundles.nets.weights import load_weights


@pytest.fixture
def doubling(tmp_path: Path) -> Path:
    """The file of a network that adds an image (B, 1, 4, 4) to itself."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1, 4, 4]) for name in ("image", "pred")]
    graph = helper.make_graph([helper.make_node("Add", ["image", "image"], ["pred"])], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "exported.onnx")
    return tmp_path / "exported.onnx"


def test_it_runs_the_file_on_any_number_of_images_and_keeps_their_meta_data(doubling: Path) -> None:
    network = load_weights(OnnxNetwork(), doubling).eval()
    for count in (1, 3):
        image = torch.rand(count, 4, 4, 1).permute(0, 3, 1, 2)
        assert torch.equal(network(image), 2 * image)
    named = MetaTensor(torch.rand(1, 1, 4, 4), meta={"filename_or_obj": "a.png"})
    assert network(named).meta["filename_or_obj"] == "a.png"


def test_its_file_is_told_as_weights_are(doubling: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = OnnxNetwork()
    WeightsLoader(doubling, network).load()
    assert f"weights: {doubling}, sha256 " in capsys.readouterr().out
    assert network(torch.ones(1, 1, 4, 4)).sum() == 32


def test_images_of_another_size_and_another_precision_are_refused(doubling: Path) -> None:
    network = load_weights(OnnxNetwork(), doubling)
    with pytest.raises(ValueError, match=r"exported.onnx: was exported for images of 1x4x4, this one is 1x8x4"):
        network(torch.rand(1, 1, 8, 4))
    with pytest.raises(ValueError, match="computes in float32 alone"):
        PrecisionInferer("bfloat16")(torch.rand(1, 1, 4, 4), network)


def test_what_is_no_such_file_is_named(doubling: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="was not read yet"):
        OnnxNetwork()(torch.rand(1, 1, 4, 4))
    with pytest.raises(FileNotFoundError, match=r"none.onnx: no such file"):
        load_weights(OnnxNetwork(), tmp_path / "none.onnx")
    doubling.write_bytes(doubling.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"exported.onnx: no network that ONNX Runtime .* opens"):
        load_weights(OnnxNetwork(), doubling)
