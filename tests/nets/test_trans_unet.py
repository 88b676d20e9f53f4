import pytest
import timm
import torch

from clinbundles.nets.trans_unet import TransUNet

TINY = {
    "units": (1, 1, 1),
    "channels": (128, 128, 128),
    "hidden": 16,
    "mlp": 32,
    "heads": 2,
    "depth": 2,
    "decoder_channels": (16, 8, 8, 4),
}


def tiny(image_size=64, **kwargs):
    torch.manual_seed(0)
    return TransUNet(image_size=image_size, **TINY, **kwargs).eval()


def with_positions(network, positions):
    return {**network.state_dict(), "encoder.pos_embed": positions}


def test_default_has_the_size_of_r50_vit_b_16():
    with torch.device("meta"):
        network = TransUNet(image_size=224, out_channels=9)
        reference = timm.create_model("vit_base_r50_s16_224", num_classes=0)
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6) == 105
    ours = {name: value.shape for name, value in network.encoder.state_dict().items() if name != "pos_embed"}
    theirs = {name: value.shape for name, value in reference.state_dict().items()}
    # One position fewer: a segmentation has no class token.
    assert theirs.pop("pos_embed")[1] == network.encoder.pos_embed.shape[1] + 1 == 14 * 14 + 1
    assert theirs.pop("cls_token") is not None
    assert ours == theirs


def test_encoder_gives_what_timms_hybrid_gives_without_its_class_token():
    torch.manual_seed(0)
    small = {"embed_dim": 32, "num_heads": 2, "depth": 1}
    reference = timm.create_model("vit_base_r50_s16_224", img_size=64, num_classes=0, **small).eval()
    encoder = TransUNet(
        image_size=64, hidden=32, mlp=128, heads=2, depth=1, decoder_channels=(8, 8, 8, 8)
    ).encoder.eval()
    encoder.load_state_dict({name: value for name, value in reference.state_dict().items() if name != "cls_token"})
    image = torch.randn(1, 3, 64, 64)
    tokens = reference.norm(reference.blocks(reference.patch_embed(image) + reference.pos_embed[:, 1:]))
    features, skips = encoder(image)
    torch.testing.assert_close(features, tokens.transpose(1, 2).unflatten(2, (4, 4)))
    assert [tuple(skip.shape[1:]) for skip in skips] == [(512, 8, 8), (256, 16, 16), (64, 32, 32)]


def test_positions_of_the_same_grid_load_as_they_are():
    network = tiny()
    positions = torch.randn(1, 16, 16)
    network.load_state_dict(with_positions(network, positions))
    assert torch.equal(network.encoder.pos_embed, positions)


def test_positions_of_a_finer_grid_are_interpolated_on_load():
    network = tiny(image_size=64)
    ramp = torch.linspace(0, 1, 8)[:, None].expand(8, 8)
    state = with_positions(network, ramp.reshape(1, 64, 1).repeat(1, 1, 16))
    network.load_state_dict(state)
    loaded = network.encoder.pos_embed.detach()[0, :, 0].reshape(4, 4)
    # Along the ramp means of neighbouring pairs, across it nothing changes; the caller's dict is left alone.
    torch.testing.assert_close(loaded[:, 0], ramp[:, 0].reshape(4, 2).mean(1), atol=0.03, rtol=0)
    torch.testing.assert_close(loaded, loaded[:, :1].expand(4, 4))
    assert state["encoder.pos_embed"].shape == (1, 64, 16)


def test_a_class_token_is_dropped_from_the_positions_on_load():
    network = tiny(image_size=64)
    positions = torch.full((1, 1 + 2 * 2, 16), 0.5)
    positions[:, 0] = 100.0
    network.load_state_dict(with_positions(network, positions))
    torch.testing.assert_close(network.encoder.pos_embed.detach(), torch.full((1, 16, 16), 0.5))


def test_a_trained_state_moves_to_another_image_size():
    small, large = tiny(image_size=32), tiny(image_size=96)
    large.load_state_dict(small.state_dict())
    image = torch.randn(1, 3, 96, 96)
    # The same interpolation serves both ways of meeting a size that the positions were not made for.
    torch.testing.assert_close(large(image), small(image))


def test_images_need_not_be_square():
    assert tiny()(torch.randn(1, 3, 48, 80)).shape == (1, 1, 48, 80)


def test_every_token_hears_of_every_other():
    encoder = tiny().encoder
    tokens = torch.randn(1, 16, 16)
    changed = tokens.clone()
    changed[:, 15, 3] += 1.0
    difference = (encoder.blocks(changed) - encoder.blocks(tokens)).abs().amax(dim=2)
    assert (difference > 0).all()


def test_positions_tell_places_apart():
    network = tiny()
    flat = torch.zeros(1, 16, 16)
    assert network.encoder.blocks(flat + network.encoder.pos_embed).std(dim=1).max() > 0
    assert network.encoder.blocks(flat).std(dim=1).max() < 1e-6


@pytest.mark.parametrize("image_size", [0, 8, 100])
def test_an_image_size_that_patches_do_not_tile_is_refused(image_size):
    with pytest.raises(ValueError, match=f"image_size is {image_size}, it must be a multiple of 16"):
        TransUNet(image_size=image_size)


def test_dropout_acts_only_in_training():
    network = tiny()
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(network(image), network(image))
    network.encoder.train()
    assert not torch.equal(network(image), network(image))


def test_it_exports():
    network = tiny()
    image = torch.randn(1, 3, 64, 64)
    exported = torch.export.export(network, (image,)).module()
    torch.testing.assert_close(exported(image), network(image))
