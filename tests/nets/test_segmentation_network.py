import functools
import io
import subprocess
import sys

import pytest
import timm
import torch
import torchvision
from monai.bundle import ConfigParser
from safetensors.torch import save_file
from torchvision.models.segmentation import FCN_ResNet50_Weights

from clinbundles.nets import trans_unet
from clinbundles.nets.segmentation_network import NETWORK_NAMES, SegmentationNetwork, untaken_encoder_options
from clinbundles.nets.trans_unet import TransUNet
from clinbundles.scripts.doctor.torchscript import foreign_operators

FROM_SMP = NETWORK_NAMES[4:]
SMALL = {
    "UNet": {"channels": (4, 4, 8, 8, 8, 4)},
    "ResAttUNet": {"channels": (4, 4, 8, 8, 8)},
    "FCN": {},
    "TransUNet": {},
}
TINY_TRANS_UNET = functools.partial(
    TransUNet,
    units=(1, 1, 1),
    channels=(128, 128, 128),
    hidden=16,
    mlp=32,
    heads=2,
    depth=2,
    decoder_channels=(16, 8, 8, 4),
)


def small_network(name, **kwargs):
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trans_unet, "TransUNet", TINY_TRANS_UNET)
        return SegmentationNetwork(name, image_size=64, **{**SMALL.get(name, {"encoder_name": "resnet18"}), **kwargs})


@pytest.fixture(scope="module", params=NETWORK_NAMES)
def network(request):
    return small_network(request.param)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def meta_network(name, **kwargs):
    with torch.device("meta"):
        return SegmentationNetwork(name, **kwargs)


def saved(path, state):
    torch.save(state, path)
    return str(path)


@pytest.mark.filterwarnings("ignore:`torch.jit", "ignore::torch.jit.TracerWarning")
def test_its_export_does_nothing_but_compute(network, tmp_path):
    torch.jit.trace(network.eval(), torch.randn(1, 3, 64, 64)).save(str(tmp_path / "model.ts"))
    assert list(foreign_operators(tmp_path / "model.ts")) == []


def test_a_batch_of_two_trains_every_parameter(network):
    network.train().zero_grad()
    logits = network(torch.randn(2, 3, 64, 64))
    logits.square().mean().backward()
    assert logits.shape == (2, 1, 64, 64)
    without = [name for name, value in network.named_parameters() if value.requires_grad and value.grad is None]
    assert without == []
    assert all(value.grad.isfinite().all() for value in network.parameters())


def test_images_need_not_be_square(network):
    with torch.no_grad():
        assert network.eval()(torch.randn(1, 3, 64, 96)).shape == (1, 1, 64, 96)


def test_evaluation_repeats_itself_and_ignores_the_rest_of_the_batch(network):
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        together = network.eval()(images)
        assert torch.equal(together, network(images))
        torch.testing.assert_close(network(images[1:]), together[1:], atol=1e-3, rtol=1e-3)


def test_weights_survive_a_file_that_holds_only_tensors(network):
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    buffer.seek(0)
    other = small_network(network.network_name)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(torch.load(buffer, weights_only=True))
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(other.eval()(image), network.eval()(image))


def test_a_side_that_does_not_divide_is_refused_by_name_and_size(network):
    for shape in ((64, 68), (68, 64)):
        height, width = shape
        with pytest.raises(ValueError, match=f"{height} x {width} pixels, both must be multiples of {network.divisor}"):
            network(torch.zeros(1, 3, *shape))
    assert {"UNet": 16, "TransUNet": 16, "FCN": 8, "PSPNet": 8, "DeepLabV3": 8}.get(
        network.network_name, 32
    ) == network.divisor


def test_it_takes_other_channel_counts(network):
    other = small_network(network.network_name, in_channels=4, out_channels=2).eval()
    with torch.no_grad():
        assert other(torch.randn(1, 4, 64, 64)).shape == (1, 2, 64, 64)


def test_basic_unet_count_follows_from_its_widths():
    def two_convolutions(before, after):
        return 9 * before * after + 9 * after * after + 2 * (after + 2 * after)

    down = [(3, 64), (64, 128), (128, 256), (256, 512), (512, 1024)]
    # Each transposed 2 x 2 convolution halves the width, except the last, which keeps it.
    up = [(1024, 512, 512, 512), (512, 256, 256, 256), (256, 128, 128, 128), (128, 128, 64, 64)]
    expected = sum(two_convolutions(*stage) for stage in down) + 64 + 1
    expected += sum(
        4 * before * raised + raised + two_convolutions(raised + skip, after) for before, raised, skip, after in up
    )
    assert count(meta_network("UNet")) == expected == 31_113_217


def test_fcn_has_torchvisions_published_count():
    auxiliary_head = 9 * 1024 * 256 + 2 * 256 + 256 * 21 + 21
    published = FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.meta["num_params"]
    assert count(meta_network("FCN", out_channels=21)) == published - auxiliary_head


def test_trans_unet_at_512_has_1024_positions_and_105_million_parameters():
    network = meta_network("TransUNet")
    assert network.network.encoder.pos_embed.shape == (1, 1024, 768)
    assert 105e6 < count(network) < 106e6


@pytest.mark.parametrize("name", [name for name in FROM_SMP if name != "PSPNet"])
def test_encoders_are_whole_resnet_34s_by_default(name):
    published = torchvision.models.ResNet34_Weights.IMAGENET1K_V1.meta["num_params"]
    assert count(meta_network(name).network.encoder) == published - (512 + 1) * 1000


def test_names_have_one_spelling():
    with pytest.raises(ValueError, match="network_name is 'unet', it must be one of UNet"):
        SegmentationNetwork("unet")


@pytest.mark.parametrize("name", ["UNet", "FPN", "DeepLabV3"])
def test_one_image_is_a_batch_for_all_but_deeplab(name):
    network = SegmentationNetwork(name, encoder_name=None if name == "UNet" else "resnet18")
    image = torch.zeros(1, 3, 64, 64)
    if name == "DeepLabV3":
        with pytest.raises(ValueError, match="two images or more in training: give a larger batch_size"):
            network.train()(image)
    else:
        assert network.train()(image).shape == (1, 1, 64, 64)
    assert network.eval()(image).shape == (1, 1, 64, 64)


def test_an_fpn_takes_the_widths_of_its_decoder():
    network = SegmentationNetwork("FPN", encoder_name="resnet18", decoder_channels=(64, 32)).network
    assert network.decoder.p5.out_channels == 64
    assert network.segmentation_head[0].in_channels == 32


def test_an_unknown_name_is_answered_with_the_ten():
    with pytest.raises(ValueError, match="'SegNet', it must be one of UNet, FCN, TransUNet") as caught:
        SegmentationNetwork("SegNet")
    assert all(name in str(caught.value) for name in NETWORK_NAMES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network_name": "UNet", "encoder_weights": "imagenet"}, "UNet does not take encoder_weights"),
        ({"network_name": "FCN", "encoder_name": "resnet34"}, "FCN does not take encoder_name"),
        ({"network_name": "FPN", "channels": (8, 8)}, "FPN does not take channels"),
        ({"network_name": "UNet", "channels": (8, 8)}, "UNet takes 6 channels, got 2"),
        ({"network_name": "LinkNet", "decoder_channels": (64, 32)}, "LinkNet does not take decoder_channels"),
        ({"network_name": "FPN", "decoder_channels": (64,)}, "FPN takes 2 decoder_channels, got 1"),
        ({"network_name": "FPN", "decoder_channels": (64, 40)}, "the second must be a multiple of 32"),
        ({"network_name": "FPN", "decoder_channels": (64, 0)}, r"decoder_channels is \[64, 0\]: 0 is no number"),
        ({"network_name": "FPN", "decoder_channels": (64.5, 32)}, "64.5 is no number of channels"),
        ({"network_name": "FPN", "decoder_channels": (64, "a")}, "'a' is no number of channels"),
        ({"network_name": "UNet", "channels": (8, 8, 8, 8, True, 8)}, "True is no number of channels"),
        ({"network_name": "FPN", "encoder_name": "resnet3"}, "encoder_name is 'resnet3'"),
        ({"network_name": "FPN", "encoder_name": "tu-resnet3"}, "encoder_name is 'tu-resnet3'"),
        ({"network_name": "FPN", "encoder_weights": "imagenot"}, "Wrong pretrained weights `imagenot`"),
        ({"network_name": "FCN", "encoder_weights": "imagenot"}, "'imagenot', it must be a path or 'imagenet'"),
        (
            {"network_name": "FPN", "encoder_name": "tu-resnet18", "encoder_weights": "imagenot"},
            "'imagenot', it must be a path or 'imagenet' for tu-resnet18",
        ),
    ],
)
def test_arguments_a_network_does_not_take_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SegmentationNetwork(**arguments)


def test_a_bundle_config_builds_it():
    parser = ConfigParser(
        {
            "network_name": "UNet",
            "network_def": {
                "_target_": "clinbundles.nets.segmentation_network.SegmentationNetwork",
                "network_name": "@network_name",
                "channels": [4, 4, 8, 8, 8, 4],
            },
        }
    )
    network = parser.get_parsed_content("network_def")
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 1, 32, 32)


@pytest.mark.parametrize("name", ["FPN", "PSPNet"])
@pytest.mark.parametrize(("prefix", "library"), [("", "torchvision"), ("", "timm"), ("tu-", "timm")])
def test_a_classifiers_file_fills_the_encoder(tmp_path, name, prefix, library):
    source = torchvision.models.resnet18() if library == "torchvision" else timm.create_model("resnet18")
    path = saved(tmp_path / "resnet18.pth", source.state_dict())
    network = SegmentationNetwork(name, encoder_name=f"{prefix}resnet18", encoder_weights=path)
    encoder = network.network.encoder.model if prefix else network.network.encoder
    assert torch.equal(encoder.layer2[1].conv2.weight, source.layer2[1].conv2.weight)
    # A tracked mean is part of the encoder, too.
    assert torch.equal(encoder.bn1.running_mean, source.bn1.running_mean)


@pytest.mark.parametrize("name", FROM_SMP)
def test_efficientnet_lite_files_fill_every_smp_network(tmp_path, name):
    source = timm.create_model("tf_efficientnet_lite0")
    path = saved(tmp_path / "lite0.pt", source.state_dict())
    network = SegmentationNetwork(name, encoder_name="tu-tf_efficientnet_lite0", encoder_weights=path).eval()
    assert torch.equal(network.network.encoder.model.blocks[1][0].conv_dw.weight, source.blocks[1][0].conv_dw.weight)
    with torch.no_grad():
        assert network(torch.randn(1, 3, 64, 64)).shape == (1, 1, 64, 64)


def test_names_flattened_by_timm_still_match(tmp_path):
    source = timm.create_model("convnext_atto")
    path = saved(tmp_path / "convnext.pt", source.state_dict())
    network = SegmentationNetwork("FPN", encoder_name="tu-convnext_atto", encoder_weights=path)
    loaded = network.network.encoder.model.stages_1.blocks[0].conv_dw.weight
    assert torch.equal(loaded, source.stages[1].blocks[0].conv_dw.weight)


def test_fcn_reads_a_resnet_50_from_safetensors(tmp_path):
    source = torchvision.models.resnet50()
    save_file(source.state_dict(), tmp_path / "resnet50.safetensors")
    network = SegmentationNetwork("FCN", encoder_weights=str(tmp_path / "resnet50.safetensors"))
    assert torch.equal(network.network.fcn.backbone.layer4[2].conv3.weight, source.layer4[2].conv3.weight)


def test_trans_unet_reads_an_encoder_trained_at_another_size(tmp_path):
    source = TINY_TRANS_UNET(image_size=32).encoder
    state = {**source.state_dict(), "cls_token": torch.zeros(1, 1, 16), "head.weight": torch.zeros(10, 16)}
    network = small_network("TransUNet", encoder_weights=saved(tmp_path / "encoder.pt", state))
    assert torch.equal(network.network.encoder.norm.weight, source.norm.weight)
    assert torch.equal(network.network.encoder.blocks[1].mlp.fc1.weight, source.blocks[1].mlp.fc1.weight)
    assert network.network.encoder.pos_embed.shape == (1, 16, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layer1.0.conv1.weight"), r"layer1\.0\.conv1\.weight \(missing, expected 64x64x3x3\)"),
        (
            lambda state: state.update({"layer1.9.conv1.weight": torch.zeros(1)}),
            r"layer1\.9\.conv1\.weight \(1, not expected\)",
        ),
        (
            lambda state: state.update({"conv1.weight": torch.zeros(64, 1, 7, 7)}),
            r"conv1\.weight \(64x1x7x7, expected 64x3x7x7\)",
        ),
    ],
)
def test_a_file_that_does_not_fit_names_the_first_misfit(tmp_path, change, message):
    state = torchvision.models.resnet18().state_dict()
    change(state)
    path = saved(tmp_path / "odd.pt", state)
    with pytest.raises(ValueError, match=rf"odd\.pt: 1 of \d+ weights do not fit the encoder, the first is {message}"):
        SegmentationNetwork("FPN", encoder_name="resnet18", encoder_weights=path)


def test_a_deeper_classifier_does_not_pass_for_a_shallower_one(tmp_path):
    path = saved(tmp_path / "resnet34.pt", torchvision.models.resnet34().state_dict())
    with pytest.raises(ValueError, match=r"layer1\.2"):
        SegmentationNetwork("FPN", encoder_name="tu-resnet18", encoder_weights=path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.pt: no such file; encoder_weights were expected there"):
        SegmentationNetwork("FPN", encoder_name="resnet18", encoder_weights=str(tmp_path / "gone.pt"))


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"a page that says not found"])
def test_a_file_that_is_no_state_dict_is_named(tmp_path, suffix, content):
    path = tmp_path / f"page.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"page\.{suffix}: (not a file of weights|is empty|is truncated|is a)"):
        SegmentationNetwork("FPN", encoder_name="resnet18", encoder_weights=str(path))


def test_a_pickled_network_is_not_run(tmp_path):
    torch.save(torch.nn.Linear(1, 1), tmp_path / "whole.pt")
    with pytest.raises(ValueError, match=r"whole\.pt: not a file of weights that torch\.load\(…, weights_only=True\)"):
        SegmentationNetwork("FPN", encoder_name="resnet18", encoder_weights=str(tmp_path / "whole.pt"))


def test_a_training_checkpoint_is_told_from_a_state_dict(tmp_path):
    path = saved(tmp_path / "epoch.pt", {"epoch": 3, "network": torchvision.models.resnet18().state_dict()})
    with pytest.raises(ValueError, match=r"epoch\.pt: no plain state dict"):
        SegmentationNetwork("FPN", encoder_name="resnet18", encoder_weights=path)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("FPN", "segmentation_models_pytorch.encoders.hf_hub_download"),
        ("FCN", "torchvision.models._api.load_state_dict_from_url"),
        ("TransUNet", "timm.create_model"),
    ],
)
def test_a_download_that_fails_says_what_to_give_instead(monkeypatch, name, source):
    def no_network(*args, **kwargs):
        raise OSError("name resolution failed")

    monkeypatch.setattr(source, no_network)
    with pytest.raises(ConnectionError, match="'imagenet' is a name and must be downloaded, which failed; give a path"):
        small_network(name, encoder_weights="imagenet")


def test_options_of_an_encoder_are_left_out_exactly_where_the_network_refuses_them():
    named = {"encoder_name": "resnet18", "encoder_weights": None}
    both = {"encoder_name": "resnet18", "encoder_weights": "file.pt"}
    for name in NETWORK_NAMES:
        try:
            small_network(name, encoder_name="resnet18")
            refused = []
        except ValueError:
            refused = ["encoder_name"]
        assert untaken_encoder_options({"network_name": name, **named}) == refused
        assert untaken_encoder_options({"network_name": name, **both}) == (list(both) if refused else [])
        weights = untaken_encoder_options({"network_name": name, "encoder_weights": "imagenet"})
        assert weights == (["encoder_weights"] if name in ("UNet", "ResAttUNet") else [])
        assert untaken_encoder_options({"network_name": name}) == []


def in_a_new_process(code):
    command = [sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()


# A network needs what it is made of: the others start, and run, without timm and segmentation_models_pytorch.
WITHOUT = """
import sys
for name in ("timm", "segmentation_models_pytorch"):
    sys.modules[name] = None
import torch
from clinbundles.nets.segmentation_network import SegmentationNetwork
for name, channels in ("UNet", (4, 4, 8, 8, 8, 4)), ("ResAttUNet", (4, 4, 8, 8, 8)), ("FCN", None):
    print(name, *SegmentationNetwork(name, channels=channels).eval()(torch.zeros(1, 3, 64, 64)).shape)
for name in ("TransUNet", "FPN"):
    try:
        SegmentationNetwork(name)
    except ModuleNotFoundError as error:
        print(error)
"""


def test_networks_that_are_none_of_timm_are_made_without_it_and_the_others_name_it():
    assert in_a_new_process(WITHOUT) == [
        "UNet 1 1 64 64",
        "ResAttUNet 1 1 64 64",
        "FCN 1 1 64 64",
        "TransUNet needs the package timm, which is not installed: pip install timm",
        "FPN needs the package segmentation-models-pytorch, which is not installed: "
        "pip install segmentation-models-pytorch",
    ]
