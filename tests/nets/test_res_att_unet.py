import pytest
import torch

from clinbundles.nets.res_att_unet import Cbam, ResAttUNet

WIDTHS = (4, 8, 16)


@pytest.fixture
def cbam():
    torch.manual_seed(0)
    return Cbam(32)


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return ResAttUNet(channels=WIDTHS, residual_blocks=1)


def test_attention_weights_lie_between_nothing_and_all(cbam):
    features = 3 * torch.randn(2, 32, 9, 7)
    for weights, shape in (
        (cbam.channel_weights(features), (2, 32, 1, 1)),
        (cbam.spatial_weights(features), (2, 1, 9, 7)),
    ):
        assert weights.shape == shape
        assert 0 < weights.min() < weights.max() < 1
    assert (cbam(features).abs() <= features.abs()).all()


def test_silent_perceptron_and_convolution_quarter_the_features(cbam):
    for parameter in cbam.parameters():
        torch.nn.init.zeros_(parameter)
    features = torch.randn(1, 32, 5, 5)
    torch.testing.assert_close(cbam(features), features / 4)


def test_one_channel_is_weighted_by_its_mean_and_peak():
    cbam = Cbam(1)
    for layer in (cbam.channel_perceptron[0], cbam.channel_perceptron[2]):
        torch.nn.init.ones_(layer.weight)
    features = torch.tensor([[[[0.0, 1.0], [2.0, 5.0]]]])
    torch.testing.assert_close(cbam.channel_weights(features).item(), torch.tensor(2.0 + 5.0).sigmoid().item())


def test_channel_weights_do_not_care_where_things_are(cbam):
    features = torch.randn(2, 32, 6, 6)
    shuffled = features.flatten(2)[..., torch.randperm(36)].unflatten(2, (6, 6))
    torch.testing.assert_close(cbam.channel_weights(features), cbam.channel_weights(shuffled))


def test_spatial_weights_do_not_care_for_the_order_of_channels(cbam):
    features = torch.randn(2, 32, 6, 6)
    torch.testing.assert_close(cbam.spatial_weights(features), cbam.spatial_weights(features[:, torch.randperm(32)]))


def test_renumbering_channels_renumbers_their_weights(cbam):
    order = torch.randperm(32)
    features = torch.randn(2, 32, 6, 6)
    expected = cbam(features)[:, order]
    first, last = cbam.channel_perceptron[0], cbam.channel_perceptron[2]
    with torch.no_grad():
        first.weight.copy_(first.weight[:, order])
        last.weight.copy_(last.weight[order])
    torch.testing.assert_close(cbam(features[:, order]), expected)


def test_parameter_count_follows_from_the_layer_list():
    def two_convolutions(before, after):
        return 9 * before * after + 9 * after * after + 4 * after

    def attention(width):
        return 2 * width * (width // 16) + 2 * 49

    down = [(3, 32), (32, 64), (64, 128), (128, 256), (256, 512)]
    up = [(512, 256), (512, 128), (256, 64), (128, 32), (64, 32)]
    expected = sum(two_convolutions(*stage) + attention(stage[1]) for stage in down + 3 * [(512, 512)] + up) + 33
    with torch.device("meta"):
        network = ResAttUNet()
    assert sum(parameter.numel() for parameter in network.parameters()) == expected == 21_797_243


def test_nothing_is_joined_at_full_resolution(tiny):
    calls = []
    handles = [
        stage.register_forward_hook(lambda _, inputs, output: calls.append((inputs[0], output))) for stage in tiny.up
    ]
    head_input = []
    handles.append(tiny.head.register_forward_hook(lambda _, inputs, output: head_input.append(inputs[0])))
    tiny.eval()(torch.randn(1, 3, 16, 24))
    for handle in handles:
        handle.remove()
    assert [tuple(inputs.shape[-2:]) for inputs, _ in calls] == [(2, 3), (4, 6), (8, 12)]
    # Joined maps are twice as wide as their skip; the last stage goes to the head alone.
    assert [inputs.shape[1] for inputs, _ in calls] == [16, 2 * 8, 2 * 4]
    assert head_input[0] is calls[-1][1]


def test_a_silent_residual_branch_passes_features_on(tiny):
    block = tiny.bottleneck[0].eval()
    features = torch.randn(1, WIDTHS[-1], 4, 4)
    assert not torch.allclose(block(features), features)
    last_norm = [module for module in block.modules() if isinstance(module, torch.nn.BatchNorm2d)][-1]
    torch.nn.init.zeros_(last_norm.weight)
    torch.testing.assert_close(block(features), features)


def test_it_learns_one_picture(tiny):
    image = torch.randn(2, 3, 16, 16)
    target = (torch.nn.functional.avg_pool2d(image[:, :1], 5, 1, 2) > 0).float()
    optimizer = torch.optim.Adam(tiny.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(tiny(image), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_it_exports(tiny):
    image = torch.randn(1, 3, 16, 24)
    exported = torch.export.export(tiny.eval(), (image,)).module()
    torch.testing.assert_close(exported(image), tiny(image))
