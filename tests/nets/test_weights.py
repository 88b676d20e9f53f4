import zipfile
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import ResNet18_Weights, densenet121

from clinbundles.nets.classification_network import classification_network
from clinbundles.nets.trans_unet import TransUNet
from clinbundles.nets.weights import belongs_to, load_initial_weights, load_weights, read_weights

NAME = "ResNet18_Weights.IMAGENET1K_V1"


def small(num_classes: int = 3, *, dense_units: int = 8) -> nn.Module:
    return classification_network(
        "PneumoniaCNN", num_classes, channels=(2, 2), dense_units=dense_units, dropout=0.0, image_size=16
    )


def copied(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save(small().state_dict(), tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_nothing_asked_for_changes_nothing() -> None:
    network = small()
    before = copied(network)
    assert load_initial_weights(network, None, leave_out=["head"]) is network
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_file_gives_all_weights(file: Path) -> None:
    network = load_initial_weights(small(), str(file))
    for name, value in torch.load(file, weights_only=True).items():
        assert torch.equal(network.state_dict()[name], value)


def test_what_is_left_out_keeps_its_own_weights_and_may_differ_in_shape(file: Path) -> None:
    for classes in (3, 5):
        network = small(classes)
        before = copied(network)
        load_initial_weights(network, file, leave_out=["head"])
        weights = torch.load(file, weights_only=True)
        for name, value in network.state_dict().items():
            assert torch.equal(value, before[name] if name.startswith("head.") else weights[name]), name


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_of_a_training_that_diverged_are_refused(file: Path, value: float) -> None:
    weights = torch.load(file, weights_only=True)
    weights["head.bias"][1] = value
    torch.save(weights, file)
    network = small()
    before = copied(network)
    with pytest.raises(ValueError, match=r"model\.pt: head\.bias is not finite"):
        load_weights(network, file)
    assert all(torch.equal(kept, before[name]) for name, kept in network.state_dict().items())


def test_a_file_with_wrong_bytes_is_refused_where_torch_would_read_it(file: Path) -> None:
    content = bytearray(file.read_bytes())
    number = torch.load(file, weights_only=True)["head.weight"].numpy().tobytes()
    place = content.index(number)
    content[place] ^= 0xFF
    file.write_bytes(content)
    assert torch.load(file, weights_only=True)
    with pytest.raises(ValueError, match=r"model\.pt: is damaged, the checksum of .*data/\d+"):
        read_weights(file)


def test_a_layer_is_left_out_by_its_whole_name() -> None:
    assert belongs_to("layer4.2.conv1.weight", ["layer4.2"])
    assert belongs_to("head", ["head"])
    assert not belongs_to("layer4.20.conv1.weight", ["layer4.2"])
    assert not belongs_to("header.weight", ["head"])
    assert not belongs_to("head.weight", [])


def test_weights_that_do_not_fit_are_counted_and_the_first_is_named(file: Path) -> None:
    network = small(dense_units=9)
    before = copied(network)
    message = r"model\.pt: 3 of 8 weights do not fit .* first is dense\.linear\.bias \(8, expected 9\)\."
    with pytest.raises(ValueError, match=message):
        load_initial_weights(network, file)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with pytest.raises(ValueError, match=r"2 of 8 .* first is head\.bias \(3, expected 5\)"):
        load_initial_weights(small(5), file)


def test_weights_that_are_missing_or_too_many_are_named(file: Path, tmp_path: Path) -> None:
    weights = torch.load(file, weights_only=True)
    torch.save({name: value for name, value in weights.items() if name != "head.bias"}, tmp_path / "less.pt")
    with pytest.raises(ValueError, match=r"less\.pt: 1 of 8 .* head\.bias \(missing, expected 3\)"):
        load_initial_weights(small(), tmp_path / "less.pt")
    torch.save(weights | {"extra": torch.tensor(1.0)}, tmp_path / "more.pt")
    with pytest.raises(ValueError, match=r"more\.pt: 1 of 9 .* extra \(a number, not expected\)"):
        load_initial_weights(small(), tmp_path / "more.pt")


def test_files_from_before_batches_were_counted_fit(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4))
    old = {name: value + 1 for name, value in network.state_dict().items() if "num_batches" not in name}
    torch.save(old, tmp_path / "old.pth")
    load_initial_weights(network, tmp_path / "old.pth")
    assert all(torch.equal(network.state_dict()[name], value) for name, value in old.items())
    assert network[1].num_batches_tracked == 0


def test_half_precision_becomes_the_networks_precision(file: Path, tmp_path: Path) -> None:
    torch.save({k: v.half() for k, v in torch.load(file, weights_only=True).items()}, tmp_path / "half.pt")
    assert {p.dtype for p in load_initial_weights(small(), tmp_path / "half.pt").parameters()} == {torch.float32}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.pt: no such file; initial weights were expected there"):
        load_initial_weights(small(), tmp_path / "none.pt")


def test_a_file_that_is_no_state_dict_is_named(file: Path, tmp_path: Path) -> None:
    torch.save({"network": torch.load(file, weights_only=True), "epoch": 3}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match=r"last\.pt: no plain state dict"):
        load_initial_weights(small(), tmp_path / "last.pt")
    torch.save(small(), tmp_path / "pickled.pt")
    (tmp_path / "notes.txt").write_text("x")
    for name in ("pickled.pt", "notes.txt"):
        with pytest.raises(ValueError, match=rf"{name}: not a file of weights") as caught:
            load_initial_weights(small(), tmp_path / name)
        assert caught.value.__suppress_context__, "torch's advice to run the code in the file would be shown"


def test_a_file_that_only_has_the_name_of_weights_is_called_what_it_is(file: Path, tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 1024\n"
    save_file(small().state_dict(), tmp_path / "whole.safetensors")
    whole, safe = file.read_bytes(), (tmp_path / "whole.safetensors").read_bytes()
    contents = {
        "pointer.pt": (pointer, "is a Git LFS pointer and not the weights, which git lfs pull brings"),
        "pointer.safetensors": (pointer, "is a Git LFS pointer"),
        "page.pt": (b"\n<!DOCTYPE html><html>Log in</html>", "is a web page and not the weights"),
        "empty.pt": (b"", "is empty"),
        "start.pt": (whole[:500], "is truncated"),
        "half.pt": (whole[: len(whole) // 2], "is truncated"),
        "nearly.pt": (whole[:-30], "is truncated"),
        "half.safetensors": (safe[:60], "is truncated"),
        "nearly.safetensors": (safe[:-30], "is truncated"),
    }
    for name, (content, sentence) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}: {sentence}"):
            read_weights(tmp_path / name)


def test_a_buffer_may_be_infinite_and_not_nan(tmp_path: Path) -> None:
    network = nn.Sequential(nn.BatchNorm1d(4))
    weights = copied(network)
    weights["0.running_var"][2] = float("inf")
    torch.save(weights, tmp_path / "model.pt")
    load_weights(network, tmp_path / "model.pt")
    weights["0.running_var"][2] = float("nan")
    torch.save(weights, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt: 0\.running_var is not finite"):
        load_weights(network, tmp_path / "model.pt")


@pytest.mark.parametrize("content", [{}, {1: torch.zeros(2)}, [torch.zeros(2)], torch.zeros(2)])
def test_tensors_without_names_are_no_state_dict(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=r"odd\.pt: no plain state dict"):
        read_weights(tmp_path / "odd.pt")


def test_every_weight_of_a_network_comes_from_its_file(file: Path) -> None:
    network = load_weights(small(), file)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in read_weights(file).items())
    with pytest.raises(ValueError, match=r"model\.pt: 3 of 8 weights do not fit the network"):
        load_weights(small(dense_units=9), file)


def test_a_position_embedding_of_another_size_is_no_misfit_and_hides_none(tmp_path: Path) -> None:
    options: dict[str, Any] = {"units": (1, 1, 1), "channels": (128, 128, 128), "hidden": 16, "mlp": 32, "heads": 2}
    options |= {"depth": 1, "decoder_channels": (16, 8, 8, 4)}
    torch.save(TransUNet(image_size=32, **options).state_dict(), tmp_path / "small.pt")
    assert load_weights(TransUNet(image_size=64, **options), tmp_path / "small.pt").encoder.pos_embed.shape[1] == 16
    with pytest.raises(ValueError, match=r"small\.pt: 2 of \d+ .* \(1, expected 2\)"):
        load_weights(TransUNet(image_size=64, out_channels=2, **options), tmp_path / "small.pt")


@pytest.mark.parametrize("name", ["resnet50", "ResNet18_Weights.NONE", "NoNet_Weights.DEFAULT", "a.b.c"])
def test_a_name_that_torchvision_does_not_know_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"initial_weights is '{name}': neither a file nor weights of torchvision"):
        load_initial_weights(small(), name)


def test_a_layer_to_leave_out_must_be_there(file: Path) -> None:
    message = "leave_out: the network has no layer 'fc'; its layers are features, dense, head"
    with pytest.raises(ValueError, match=message):
        load_initial_weights(small(), file, leave_out=["fc"])


def test_published_weights_are_loaded_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    published = classification_network("resnet18", 1000).state_dict()
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", lambda self, **options: published)
    network = classification_network("resnet18", 3)
    before = copied(network)
    load_initial_weights(network, NAME, leave_out=["fc"])
    assert torch.equal(network.layer4[1].conv2.weight, published["layer4.1.conv2.weight"])
    assert torch.equal(network.fc.weight, before["fc.weight"])
    with pytest.raises(ValueError, match=rf"{NAME}: 2 of 122 weights .* fc\.bias \(1000, expected 3\)"):
        load_initial_weights(classification_network("resnet18", 3), NAME)


def test_published_densenets_fit_under_their_old_names(tmp_path: Path) -> None:
    old = {
        name.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): value
        for name, value in densenet121(weights=None).state_dict().items()
    }
    assert any(".norm.1." in name for name in old)
    torch.save(old, tmp_path / "densenet.pth")
    network = classification_network("densenet121", 3)
    load_initial_weights(network, tmp_path / "densenet.pth", leave_out=["classifier"])
    layer = "features.denseblock1.denselayer1"
    assert torch.equal(network.state_dict()[f"{layer}.conv2.weight"], old[f"{layer}.conv.2.weight"])


def test_weights_that_cannot_be_downloaded_ask_for_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(self: ResNet18_Weights, **options: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", offline)
    with pytest.raises(ConnectionError, match=rf"^{NAME}: cannot be downloaded \(URLError\); give the path of a file"):
        load_initial_weights(classification_network("resnet18", 3), NAME, leave_out=["fc"])


def test_an_archive_that_unpacks_to_far_more_is_refused_before_it_is_unpacked(file: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in archive.namelist():
            packed.writestr(name, bytes(1_000_000) if name.endswith("/data/0") else archive.read(name))
    with pytest.raises(ValueError, match=r"bomb\.pt: is a compressed archive, as torch\.save writes none"):
        read_weights(tmp_path / "bomb.pt")
