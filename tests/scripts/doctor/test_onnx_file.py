import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from clinbundles.scripts.doctor.onnx_file import foreign_parts

FLOATS = numpy_helper.from_array(np.ones(3, np.float32), "weights")


def saved(path: Path, *, nodes: list | None = None, functions: list | None = None, location: str | None = None) -> Path:
    """A network that adds weights to its input; they lie in another file if a place for them is given."""
    weights = TensorProto()
    weights.CopyFrom(FLOATS)
    if location is not None:
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=location)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in ("x", "pred")]
    nodes = nodes or [helper.make_node("Add", ["x", "weights"], ["pred"])]
    graph = helper.make_graph(nodes, "network", values[:1], values[1:], [weights])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(helper.make_model(graph, functions=functions or []).SerializeToString())
    return path


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../../outside.bin", "../more.bin", "..\\outside.bin", "C:outside.bin", "gone.bin"]
)
def test_weights_that_lie_elsewhere_are_told(location: str, tmp_path: Path) -> None:
    (tmp_path / "outside.bin").write_bytes(bytes(12))
    file = saved(tmp_path / "bundle" / "models" / "exported.onnx", location=location)
    (tmp_path / "bundle" / "more.bin").write_bytes(bytes(12))
    assert list(foreign_parts(file, tmp_path / "bundle")) == [
        f"would read {location!r}, which is no file of the bundle"
    ]


def test_a_link_out_of_the_bundle_is_told(tmp_path: Path) -> None:
    (tmp_path / "outside.bin").write_bytes(bytes(12))
    file = saved(tmp_path / "bundle" / "exported.onnx", location="weights.bin")
    (file.parent / "weights.bin").symlink_to(tmp_path / "outside.bin")
    assert list(foreign_parts(file, file.parent)) == ["would read 'weights.bin', which is no file of the bundle"]


def test_weights_beside_the_file_are_not_told(tmp_path: Path) -> None:
    file = saved(tmp_path / "exported.onnx", location="weights.bin")
    (tmp_path / "weights.bin").write_bytes(bytes(12))
    assert list(foreign_parts(file, tmp_path)) == []


def test_a_tensor_in_an_operator_is_looked_at(tmp_path: Path) -> None:
    value = onnx.TensorProto(data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    value.external_data.add(key="location", value="/etc/passwd")
    file = saved(tmp_path / "exported.onnx", nodes=[helper.make_node("Constant", [], ["pred"], value=value)])
    assert list(foreign_parts(file, tmp_path)) == ["would read '/etc/passwd', which is no file of the bundle"]


def test_an_operator_of_strangers_is_told_also_in_a_graph_in_a_graph(tmp_path: Path) -> None:
    output = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])]
    strange = helper.make_node("Twice", ["x"], ["y"], domain="strangers")
    branch = helper.make_graph([strange], "branch", [], output)
    condition = helper.make_node("Constant", [], ["is"], value=helper.make_tensor("", TensorProto.BOOL, [], [True]))
    nodes = [condition, helper.make_node("If", ["is"], ["pred"], then_branch=branch, else_branch=branch)]
    file = saved(tmp_path / "exported.onnx", nodes=nodes)
    assert list(foreign_parts(file, tmp_path)) == ["would run strangers::Twice, no operator of ONNX"]


def test_a_function_of_the_file_is_what_is_in_it(tmp_path: Path) -> None:
    call = [helper.make_node("Twice", ["x"], ["pred"], domain="mine")]
    ids = [helper.make_opsetid("", 17), helper.make_opsetid("strangers", 1)]
    for kind, domain, lines in [
        ("Add", "", []),
        ("Sum2", "strangers", ["would run strangers::Sum2, no operator of ONNX"]),
    ]:
        body = [helper.make_node(kind, ["a", "a"], ["b"], domain=domain)]
        function = helper.make_function("mine", "Twice", ["a"], ["b"], body, ids)
        file = saved(tmp_path / "exported.onnx", nodes=call, functions=[function])
        assert list(foreign_parts(file, tmp_path)) == lines


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no network", b"\x08\x0a"])
def test_what_is_no_network_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "exported.onnx").write_bytes(content)
    with pytest.raises(ValueError, match="is no network in ONNX"):
        list(foreign_parts(tmp_path / "exported.onnx", tmp_path))


def test_the_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r"a look into exported.onnx needs the package onnx"):
        list(foreign_parts(tmp_path / "exported.onnx", tmp_path))
