"""An exported network in the place of its own: what it draws, keeps and refuses, with a file that finds two boxes."""

import json
from pathlib import Path

import onnx
import pytest
import torch
from monai.data import MetaTensor
from onnx import TensorProto, helper

from clinbundles.nets.cascade_mask_rcnn.onnx_cascade import OnnxCascade
from clinbundles.nets.weights import load_weights

BOXES = [[2.0, 4.0, 12.0, 10.0], [20.0, 0.0, 30.0, 8.0]]
SCORES = [0.9, 0.6]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    values = {"boxes": torch.tensor(BOXES), "scores": torch.tensor(SCORES), "masks": torch.ones(2, 28, 28)}
    nodes, outputs = [], []
    for name, value in values.items():
        entry = helper.make_tensor(name, TensorProto.FLOAT, value.shape, value.flatten().tolist())
        nodes.append(helper.make_node("Constant", [], [name], value=entry))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(value.shape)))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "height", "width"])
    graph = helper.make_graph(nodes, "finder", [image], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    content = {"options": {"min_size": None, "anchor_sizes": [[8], [16]]}, "label_score_threshold": 0.7}
    helper.set_model_props(model, {"cascade": json.dumps(content)})
    onnx.save(model, tmp_path / "found.onnx")
    return tmp_path / "found.onnx"


@pytest.mark.parametrize(("threshold", "numbers"), [(None, [0, 1]), (0.5, [0, 1, 2]), (0.95, [0])])
def test_it_draws_what_the_file_finds_and_keeps_it(file: Path, threshold: float | None, numbers: list[int]) -> None:
    network = load_weights(OnnxCascade(threshold, {"anchor_sizes": ((8,), (16,))}), file).eval()
    labels = network(MetaTensor(torch.rand(2, 3, 16, 40)))
    assert labels.dtype == torch.int32
    assert tuple(labels.shape) == (2, 1, 16, 40)
    assert labels.unique().tolist() == numbers
    if len(numbers) > 1:
        assert int((labels[1] == 1).sum()) == 10 * 6
        assert (labels[1, 0, 4:10, 2:12] == 1).all()
    assert len(network.detections) == 2
    assert network.detections[1]["boxes"].tolist() == BOXES
    assert network.label_score_threshold == (threshold or 0.7)


def test_another_option_than_the_exported_one_is_refused(file: Path) -> None:
    network = OnnxCascade(options={"min_size": 512})
    with pytest.raises(
        ValueError, match=r"found.onnx: was exported with min_size null, which cannot become 512: leave"
    ):
        network.load_file(file)
    with pytest.raises(ValueError, match="was not read yet"):
        network(torch.rand(1, 3, 16, 16))


def test_a_file_that_finds_no_instances_is_refused(file: Path) -> None:
    model = onnx.load(file)
    helper.set_model_props(model, {})
    onnx.save(model, file)
    with pytest.raises(ValueError, match=r"found.onnx: no exported network that finds instances"):
        OnnxCascade().load_file(file)
    del model.graph.output[1:]
    onnx.save(model, file)
    with pytest.raises(ValueError, match=r"found.onnx: expected a network of one input, and of boxes and scores and"):
        OnnxCascade().load_file(file)
