"""Ten published segmentation networks behind one name, each from an image to logits of the same size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.nets import BasicUNet
from torch import nn
from torchvision.models import ResNet50_Weights
from torchvision.models.segmentation import fcn_resnet50

from .optional_packages import needed_by
from .res_att_unet import ResAttUNet
from .weights import fit_weights, is_file_name, read_weights

NETWORK_NAMES = (
    "UNet",
    "FCN",
    "TransUNet",
    "ResAttUNet",
    "UNet++",
    "FPN",
    "MANet",
    "LinkNet",
    "PSPNet",
    "DeepLabV3",
)
_SMP_CLASSES = {
    "UNet++": "UnetPlusPlus",
    "FPN": "FPN",
    "MANet": "MAnet",
    "LinkNet": "Linknet",
    "PSPNet": "PSPNet",
    "DeepLabV3": "DeepLabV3",
}
# The arguments that not all of them take.
_TAKES = {
    "UNet": ("channels",),
    "ResAttUNet": ("channels",),
    "FCN": ("encoder_weights",),
    "TransUNet": ("encoder_weights",),
    **dict.fromkeys(_SMP_CLASSES, ("encoder_name", "encoder_weights")),
    "FPN": ("encoder_name", "encoder_weights", "decoder_channels"),
}
_TRANS_UNET_WEIGHTS = "vit_base_r50_s16_224.orig_in21k"
# What a classification checkpoint holds beyond its encoder, as torchvision, smp and timm name it.
_CLASSIFICATION_PARTS = ("fc.", "last_linear.", "classifier.", "_fc.", "linear.", "head.", "pre_logits.", "cls_token")


class SegmentationNetwork(nn.Module):
    """Segment images (B, in_channels, H, W) by the published network of a name.

    - UNet: MONAI's BasicUNet; sides divisible by 16.
    - FCN: torchvision's fcn_resnet50 without its auxiliary head; 8.
    - TransUNet: R50-ViT-B/16; 16.
    - ResAttUNet: residual attention U-Net; 32.
    - UNet++, FPN, MANet, LinkNet (32), PSPNet and DeepLabV3 (8): segmentation_models_pytorch with its defaults over a
      ResNet-34. MANet is the multi-scale attention net of Fan et al. (2020).

    Height and width need not be equal.

    Args:
        network_name: one of NETWORK_NAMES, in upper or lower case.
        in_channels: channels of the image.
        out_channels: channels of the logits.
        encoder_weights: None for random weights; the path of a state dict (.pt, .pth, .bin, .safetensors) whose names
            are those of the encoder, a classification head apart; or a name such as "imagenet", which the library
            behind the network downloads. UNet and ResAttUNet have no encoder to load.
        encoder_name: an encoder of segmentation_models_pytorch ("resnet34", "tu-tf_efficientnet_lite0"), for the six
            networks taken from there.
        channels: widths of UNet (six) or ResAttUNet (five), for small machines.
        decoder_channels: of FPN, for small files: the width of its pyramid and that of its segmentation branches, by
            default 256 and 128.
        image_size: side in pixels of the training images; sizes the position embedding of TransUNet.

    Raises:
        ValueError: unknown name, an argument the network does not take, weights that do not fit; in forward, a side
            that the divisor of the network does not divide, or one image alone in a training of DeepLabV3.
        FileNotFoundError: encoder_weights is a path and nothing is there.
        ConnectionError: encoder_weights is a name and cannot be downloaded.
        ModuleNotFoundError: the package behind the network is not installed: timm behind TransUNet,
            segmentation_models_pytorch and timm behind the six.
    """

    def __init__(
        self,
        network_name: str,
        in_channels: int = 3,
        out_channels: int = 1,
        encoder_weights: str | None = None,
        encoder_name: str | None = None,
        channels: Sequence[int] | None = None,
        image_size: int = 512,
        decoder_channels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if network_name not in NETWORK_NAMES:
            raise ValueError(f"network_name is {network_name!r}, it must be one of {', '.join(NETWORK_NAMES)}")
        self.network_name = name = network_name
        for argument, value in (
            ("encoder_weights", encoder_weights),
            ("encoder_name", encoder_name),
            ("channels", channels),
            ("decoder_channels", decoder_channels),
        ):
            if value is not None and argument not in _TAKES[name]:
                raise ValueError(f"{name} does not take {argument}, which is {value!r}; leave it None")

        self.network: Any
        self.divisor: int
        if name == "UNet":
            widths = _widths(name, channels or (64, 128, 256, 512, 1024, 64), count=6)
            self.network, self.divisor = BasicUNet(2, in_channels, out_channels, features=widths), 16
        elif name == "ResAttUNet":
            widths = _widths(name, channels or (32, 64, 128, 256, 512), count=5)
            self.network, self.divisor = ResAttUNet(in_channels, out_channels, widths), 32
        elif name == "TransUNet":
            with needed_by(name):
                from .trans_unet import TransUNet
            self.network, self.divisor = TransUNet(in_channels, out_channels, image_size=image_size), 16
            if encoder_weights is not None:
                load_encoder_weights(self.network.encoder, encoder_weights)
        elif name == "FCN":
            self.network, self.divisor = _Fcn(in_channels, out_channels), 8
            if encoder_weights is not None:
                load_encoder_weights(self.network.fcn.backbone, encoder_weights)
        else:
            widths_of: dict[str, int] = {}
            if decoder_channels is not None:
                pyramid, branches = _widths(name, decoder_channels, count=2, of="decoder_channels")
                if branches % 32:
                    raise ValueError(
                        f"decoder_channels is {list(decoder_channels)}: the second must be a multiple of 32"
                    )
                widths_of = {"decoder_pyramid_channels": pyramid, "decoder_segmentation_channels": branches}
            self.network = _smp_network(
                name, in_channels, out_channels, encoder_name or "resnet34", encoder_weights, **widths_of
            )
            self.divisor = self.network.encoder.output_stride

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, out_channels, H, W)."""
        height, width = image.shape[-2], image.shape[-1]
        # While tracing, sides are tensors, and asking about them would be recorded.
        if not torch.jit.is_tracing() and (height % self.divisor != 0 or width % self.divisor != 0):
            raise ValueError(
                f"{self.network_name}: the image is {height} x {width} pixels, both must be multiples of {self.divisor}"
            )
        if self.training and len(image) == 1 and self.network_name == "DeepLabV3":  # it pools an image to one pixel
            raise ValueError("a batch of DeepLabV3 holds two images or more in training: give a larger batch_size.")
        return self.network(image)


def untaken_encoder_options(options: Mapping[str, Any]) -> list[str]:
    """Name the options of an encoder that are given to a network which does not take them.

    Weights of an encoder that was named are for those networks alone that take encoders by name: FCN and TransUNet have
    one of their own.

    Args:
        options: of a training, with ``network_name``, and perhaps ``encoder_name`` and ``encoder_weights``.

    Raises:
        ValueError: unknown network.
    """
    name = options["network_name"]
    if name not in NETWORK_NAMES:
        raise ValueError(f"network_name is {name!r}, it must be one of {', '.join(NETWORK_NAMES)}")
    given = [option for option in ("encoder_name", "encoder_weights") if options.get(option) is not None]
    needed = "encoder_name" if "encoder_name" in given else "encoder_weights"
    return [] if needed in _TAKES[name] else given


class _Fcn(nn.Module):
    """torchvision's FCN, its logits as a tensor instead of a dict."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.fcn = fcn_resnet50(weights=None, weights_backbone=None, num_classes=out_channels, aux_loss=False)
        if in_channels != 3:
            self.fcn.backbone.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.fcn(image)["out"]


def _widths(network_name: str, channels: Sequence[int], *, count: int, of: str = "channels") -> tuple[int, ...]:
    if len(channels) != count:
        raise ValueError(f"{network_name} takes {count} {of}, got {len(channels)}: {list(channels)}")
    if wrong := [width for width in channels if type(width) is not int or width < 1]:
        raise ValueError(f"{of} is {list(channels)}: {wrong[0]!r} is no number of channels")
    return tuple(channels)


def _smp_network(
    network_name: str,
    in_channels: int,
    out_channels: int,
    encoder_name: str,
    encoder_weights: str | None,
    **widths: int,
) -> Any:
    with needed_by(network_name):  # seconds of a start, for these networks alone
        import segmentation_models_pytorch as smp
        import timm
    from_timm = encoder_name.startswith("tu-")
    exists = timm.is_model(encoder_name[3:]) if from_timm else encoder_name in smp.encoders.get_encoder_names()
    if not exists:
        raise ValueError(f"encoder_name is {encoder_name!r}, which segmentation_models_pytorch does not have")
    to_download: str | bool | None = None
    if encoder_weights is not None and not is_file_name(encoder_weights):
        # A timm encoder names its weights itself ("tu-resnet18.a1_in1k") and only wants to know whether to fetch them.
        if from_timm and encoder_weights != "imagenet":
            raise ValueError(
                f"encoder_weights is {encoder_weights!r}, it must be a path or 'imagenet' for {encoder_name}"
            )
        to_download = True if from_timm else encoder_weights
    try:
        network = getattr(smp, _SMP_CLASSES[network_name])(
            encoder_name=encoder_name,
            encoder_weights=to_download,
            in_channels=in_channels,
            classes=out_channels,
            **widths,
        )
    except KeyError as error:
        raise ValueError(f"encoder_weights: {error.args[0]}") from error
    except OSError as error:
        raise _no_download(encoder_weights) from error
    encoder = network.encoder
    if encoder_weights is not None and to_download is None:
        # PSPNet stops at the third stage; what timm's whole model has beyond that is no sign of a wrong file.
        spare = timm.create_model(encoder_name[3:]).state_dict() if from_timm else {}
        load_encoder_weights(encoder.model if from_timm else encoder, encoder_weights, spare=spare)
    if network_name == "PSPNet" and not from_timm:
        # Stages that never run get no gradient, which a distributed trainer refuses.
        for stage in ("layer3", "layer4"):
            if hasattr(encoder, stage):
                setattr(encoder, stage, nn.Identity())
    return network


def load_encoder_weights(
    encoder: nn.Module, encoder_weights: str, *, spare: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Load an encoder from a state-dict file, or from the library's download when encoder_weights is "imagenet".

    Args:
        encoder: module whose parameter names the file uses ("stages.0" and "stages_0" are the same); changed in place.
        encoder_weights: path (.pt, .pth, .bin, .safetensors), or "imagenet".
        spare: names that the file may hold and the encoder need not, besides a classification head.

    Raises:
        ValueError: no state dict, or one that does not fit.
        FileNotFoundError, ConnectionError: nothing at the path, or no way to download.
    """
    names = {name.replace(".", "_"): name for name in encoder.state_dict()}
    spare_names = {name.replace(".", "_") for name in spare or ()}
    if is_file_name(encoder_weights):
        content: Mapping[str, torch.Tensor] = read_weights(encoder_weights, purpose="encoder_weights")
    else:
        content = _download(encoder, encoder_weights)
    state = {}
    for name, value in content.items():
        plain = name.replace(".", "_")
        if plain in names or not (plain in spare_names or name.startswith(_CLASSIFICATION_PARTS)):
            state[names.get(plain, name)] = value
    fit_weights(encoder, state, source=encoder_weights, part="the encoder")


def _download(encoder: nn.Module, weights_name: str) -> Mapping[str, torch.Tensor]:
    if weights_name != "imagenet":
        raise ValueError(f"encoder_weights is {weights_name!r}, it must be a path or 'imagenet' for this network")
    try:
        if hasattr(encoder, "pos_embed"):  # that of TransUNet
            import timm

            return timm.create_model(_TRANS_UNET_WEIGHTS, pretrained=True, num_classes=0).state_dict()
        return ResNet50_Weights.IMAGENET1K_V1.get_state_dict(check_hash=True)
    except OSError as error:
        raise _no_download(weights_name) from error


def _no_download(weights_name: str | None) -> ConnectionError:
    return ConnectionError(
        f"encoder_weights {weights_name!r} is a name and must be downloaded, which failed; "
        "give a path to a state dict, or None for random weights"
    )
