"""The network: what it learns, what it returns, and what it refuses."""

import re

import pytest
import torch
from monai.data import MetaTensor
from monai.utils.type_conversion import get_equivalent_dtype
from torch import nn

from clinbundles.nets.cascade_mask_rcnn.cascade import CascadeHeads
from clinbundles.nets.cascade_mask_rcnn.network import cascade_mask_rcnn
from clinbundles.nets.cascade_mask_rcnn.supervision import BOX, MASK, POINTS
from clinbundles.nets.cascade_mask_rcnn.trunks import batch_norms
from clinbundles.nets.weights import load_weights

RPN_LOSSES = ["loss_objectness", "loss_rpn_box_reg"]
MASK_LOSSES = ["loss_mask", "loss_points", "loss_box_projection", "loss_box_pairwise"]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def box_losses(n_stages: int) -> list[str]:
    return [f"loss_{kind}_{number}" for number in range(1, n_stages + 1) for kind in ("classifier", "box_reg")]


def nothing() -> dict[str, torch.Tensor]:
    return {
        "boxes": torch.zeros(0, 4),
        "points": torch.zeros(0, 8, 2),
        "point_labels": torch.zeros(0, 8, dtype=torch.int64),
        "supervision": torch.zeros(0, dtype=torch.int64),
    }


def best_overlaps(labels: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """The IoU of each true mask (K, H, W) with the label it overlaps most, in a map (H, W) with one label at least."""
    shown = torch.stack([labels == number for number in labels.unique() if number > 0]).flatten(1).float()
    true = masks.flatten(1).float()
    shared = true @ shown.T
    return (shared / (true.sum(dim=1)[:, None] + shown.sum(dim=1) - shared)).amax(dim=1)


@pytest.mark.parametrize(("supervision", "n_steps"), [(MASK, 120), (POINTS, 120), (BOX, 150)])
@pytest.mark.slow
def test_it_learns_two_images_by_heart_from_masks_points_or_boxes(
    supervision: int, n_steps: int, batch, tiny_network
) -> None:
    images, targets = batch(supervision)
    if supervision != MASK:
        for target in targets:
            del target["masks"]
    network = tiny_network(ramp_steps=n_steps // 3)
    optimizer = torch.optim.Adam(network.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=n_steps)
    for _ in range(n_steps):
        sum(network(images, targets).values()).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    labels = network.eval()(images)
    truth = batch()[1]
    overlaps = torch.cat([best_overlaps(m[0], t["masks"]) for m, t in zip(labels, truth, strict=True)])
    # The whole box has an overlap of 0.5.
    assert float(overlaps.mean()) > 0.7, overlaps
    assert [int(one.max()) for one in labels] == [3, 3]


def test_the_defaults_are_the_small_preset_and_everything_learns(batch) -> None:
    images, targets = batch()
    network = cascade_mask_rcnn()
    for target in targets:
        target["supervision"] = torch.tensor([BOX, POINTS, MASK])
    losses = network(images, targets)
    assert list(losses) == RPN_LOSSES + box_losses(3) + MASK_LOSSES
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert sum(parameter.numel() for parameter in network.parameters()) == 2_915_436
    assert network.proposals.anchor_generator.num_anchors_per_location() == [5] * 5
    assert network.heads.stages[0].fg_bg_sampler.batch_size_per_image == 128


def test_one_stage_is_mask_rcnn(batch, tiny_network) -> None:
    images, targets = batch(POINTS)
    assert list(tiny_network(n_stages=1)(images, targets)) == RPN_LOSSES + box_losses(1) + MASK_LOSSES


@pytest.mark.parametrize("device", DEVICES)
def test_evaluation_returns_one_label_map_and_keeps_the_instances(device: str, batch, tiny_network) -> None:
    network = tiny_network(score_threshold=0.0, label_score_threshold=0.0, detections=20).eval().to(device)
    labels = network(batch()[0].to(device))
    assert (tuple(labels.shape), labels.device.type) == ((2, 1, 64, 64), device)
    assert labels.dtype == get_equivalent_dtype("int32", torch.Tensor)
    for one, detection in zip(labels, network.detections, strict=True):
        count = len(detection["scores"])
        assert 0 < count <= 20
        assert (detection["scores"].diff() <= 0).all()
        assert set(one.unique().tolist()) <= set(range(count + 1))
        assert (tuple(detection["boxes"].shape), tuple(detection["masks"].shape)) == ((count, 4), (count, 28, 28))
        assert all(values.device.type == "cpu" for values in detection.values())


def test_instances_below_the_threshold_are_kept_and_not_shown(batch, tiny_network) -> None:
    network = tiny_network(score_threshold=0.0, label_score_threshold=1.0).eval()
    assert not network(batch()[0]).any()
    assert len(network.detections[0]["scores"]) > 0


def test_images_without_instances_teach_background_alone(batch, tiny_network) -> None:
    images, targets = batch()
    network = tiny_network()
    losses = network(images, [nothing(), nothing()])
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(losses[name].item() == 0 for name in losses if "reg" in name or name in MASK_LOSSES)
    assert losses["loss_objectness"].item() > 0
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)
    mixed = network(images, [targets[0], nothing()])
    assert mixed["loss_mask"].item() > 0


def test_the_same_seed_gives_the_same_losses(batch, tiny_network) -> None:
    images, targets = batch(POINTS)
    runs = []
    for _ in range(2):
        network = tiny_network()
        torch.manual_seed(3)
        runs.append({name: loss.item() for name, loss in network(images, targets).items()})
    assert runs[0] == runs[1]


@pytest.mark.parametrize("supervision", [BOX, POINTS, MASK])
def test_mixed_precision_leaves_boxes_exact(supervision: int, batch, tiny_network) -> None:
    images, targets = batch(supervision)
    exact = tiny_network()
    torch.manual_seed(1)
    expected = exact(images, targets)
    mixed = tiny_network()
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = mixed(images, targets)
        mixed_map = mixed.eval()(images)
    sum(losses.values()).backward()
    assert mixed_map.dtype == torch.int32
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    for one, other in zip(
        mixed.proposals.anchor_generator.cell_anchors, exact.proposals.anchor_generator.cell_anchors, strict=True
    ):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)
    assert losses["loss_objectness"].item() == pytest.approx(expected["loss_objectness"].item(), rel=0.02)


def test_sides_of_any_length_and_metatensors_are_taken(batch, tiny_network) -> None:
    images, targets = batch()
    network = tiny_network()
    cut = MetaTensor(images[..., :50, :61])
    targets = [{k: MetaTensor(v) for k, v in t.items()} for t in targets]
    for target in targets:
        target["masks"] = target["masks"][:, :50, :61]
        target["boxes"][:, [1, 3]] = target["boxes"][:, [1, 3]].clamp(max=50)
    assert all(torch.isfinite(loss) for loss in network(cut, targets).values())
    labels = network.eval()(cut)
    assert labels.shape == (2, 1, 50, 61)
    assert network(torch.rand(1, 3, 32, 32)).shape == (1, 1, 32, 32)
    assert not isinstance(labels, MetaTensor)


def test_a_scaled_image_gives_results_in_pixels_of_its_own(tiny_network, monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny_network(min_size=128, max_size=200, label_score_threshold=0.0).eval()
    box = torch.tensor([[20.0, 40.0, 60.0, 100.0]])

    def detect(self, features, proposals, *, image_size, padded_size):
        assert image_size == (125, 200)  # the long side decides
        return [{"boxes": box, "scores": torch.ones(1), "masks": torch.ones(1, 28, 28)}]

    monkeypatch.setattr(CascadeHeads, "detect", detect)
    labels = network(torch.rand(1, 3, 50, 80))
    torch.testing.assert_close(network.detections[0]["boxes"], box * 0.4)
    rows, columns = torch.nonzero(labels[0, 0], as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (16, 39, 8, 23)


def test_the_weight_of_the_pairwise_term_grows_with_the_steps_and_is_saved(batch, tiny_network) -> None:
    images, targets = batch(BOX)
    network = tiny_network(ramp_steps=2)
    values = [network(images, targets)["loss_box_pairwise"].item() for _ in range(3)]
    assert values[0] == 0
    assert 0 < values[1] < values[2]
    assert int(network.state_dict()["steps"]) == 3


def test_frozen_batch_norms_stay_in_training(batch, tiny_network) -> None:
    images, targets = batch()
    for freeze in (True, False):
        network = tiny_network(freeze_batch_norms=freeze)
        before = {name: value.clone() for name, value in network.trunk.body.named_buffers()}
        network(images, targets)
        same = [torch.equal(value, before[name]) for name, value in network.trunk.body.named_buffers()]
        assert all(same) == freeze
        assert all(
            parameter.requires_grad != freeze for norm in batch_norms(network) for parameter in norm.parameters()
        )


def test_batch_norms_are_frozen_where_the_trunk_brings_weights(tmp_path) -> None:
    weights = {"features." + name: value for name, value in cascade_mask_rcnn().trunk.body.state_dict().items()}
    torch.save(weights, tmp_path / "trunk.pt")
    assert cascade_mask_rcnn(initial_weights=tmp_path / "trunk.pt").frozen_batch_norms
    assert not cascade_mask_rcnn().frozen_batch_norms


def test_weights_are_saved_and_loaded_whole(tmp_path, batch, tiny_network) -> None:
    network = tiny_network(score_threshold=0.0, label_score_threshold=0.0).eval()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    other = cascade_mask_rcnn(
        fpn_channels=16,
        box_units=32,
        mask_channels=32,
        mask_layers=3,
        post_nms=(100, 100),
        score_threshold=0.0,
        label_score_threshold=0.0,
    )
    load_weights(other, tmp_path / "model.pt")
    images = batch()[0]
    assert torch.equal(other.eval()(images), network(images))


def test_six_sizes_of_anchors_put_two_on_the_first_map(batch, tiny_network) -> None:
    images, targets = batch()
    network = tiny_network(anchor_sizes=[[4], [9], [17], [31], [64], [127]], aspect_ratios=[0.25, 0.5, 1, 2, 4])
    anchors = []
    network.proposals.anchor_generator.register_forward_hook(lambda *call: anchors.append(call[-1]))
    network(images, targets)
    first = anchors[0][0][: 2 * 16 * 16 * 5]
    areas = (first[:, 2:] - first[:, :2]).prod(dim=1).sqrt().reshape(2, -1).mean(dim=1)
    assert areas.tolist() == pytest.approx([4, 9], rel=0.1)
    with pytest.raises(ValueError, match="anchor_sizes has 2 entries"):
        tiny_network(anchor_sizes=[[4], [9]])


def test_heads_can_have_convolutions() -> None:
    network = cascade_mask_rcnn(box_conv_layers=4, fpn_channels=32)
    head = network.heads.stages[2].box_head
    assert sum(isinstance(layer, nn.Conv2d) for layer in head.modules()) == 4


def test_wrong_input_is_named(batch, tiny_network) -> None:
    images, targets = batch()
    network = tiny_network()
    with pytest.raises(ValueError, match=r"expected floating-point \(B, 3, H, W\)"):
        network((images * 255).to(torch.uint8), targets)
    with pytest.raises(ValueError, match="2 images to train with, and targets for 1"):
        network(images, targets[:1])
    with pytest.raises(ValueError, match="image 1 of the batch: its targets lack supervision"):
        network(images, [targets[0], {"boxes": targets[1]["boxes"]}])
    without = {key: value for key, value in targets[1].items() if key != "masks"}
    with pytest.raises(ValueError, match="learn from masks, and it has none"):
        network(images, [targets[0], without])
    with pytest.raises(ValueError, match="2 points for 3 instances"):
        network(images, [targets[0], targets[1] | {"points": targets[1]["points"][:2]}])
    flat = targets[1] | {"boxes": targets[1]["boxes"].clone()}
    flat["boxes"][1, 3] = flat["boxes"][1, 1]
    with pytest.raises(ValueError, match=r"the box \[39.0, 23.0, 59.0, 23.0\] \(x1, y1, x2, y2\) has no area"):
        network(images, [targets[0], flat])
    with pytest.raises(ValueError, match="pre_nms is"):
        cascade_mask_rcnn(pre_nms=[1000])


def test_training_goes_on_from_a_whole_network_or_from_a_trunk(tmp_path, tiny_network) -> None:
    trained = tiny_network()
    torch.save(trained.state_dict(), tmp_path / "model.pt")
    torch.save(trained.trunk.body.state_dict(), tmp_path / "trunk.pt")
    whole, trunk = (tiny_network(initial_weights=tmp_path / name) for name in ("model.pt", "trunk.pt"))
    torch.manual_seed(1)
    for name, value in trained.state_dict().items():
        assert torch.equal(whole.state_dict()[name], value), name
        if name.startswith("trunk.body."):
            assert torch.equal(trunk.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ({"std": (0.5, 0.5, 0.5)}, "trained with std [0.5, 0.5, 0.5], the network has [0.229, 0.224, 0.225]"),
        ({"mean": (0.4, 0.4, 0.4)}, "trained with mean [0.4, 0.4, 0.4], the network has [0.485, 0.456, 0.406]"),
        ({"anchor_sizes": [[4], [8], [16], [32], [64]]}, "trained with anchors [4.0, 8.0, 16.0, 32.0, 64.0, 0.5"),
    ],
)
def test_weights_of_other_anchors_or_another_mean_are_refused(tmp_path, tiny_network, option, sentence) -> None:
    torch.save(tiny_network(**option).state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=re.escape(f"model.pt: the weights were {sentence}")):
        load_weights(tiny_network(), tmp_path / "model.pt")
    # Half precision rounds, and is no other value.
    half = {k: v.half() if v.is_floating_point() else v for k, v in tiny_network().state_dict().items()}
    torch.save(half, tmp_path / "half.pt")
    load_weights(tiny_network(), tmp_path / "half.pt")


def test_weights_carry_the_least_score_of_the_label_map_and_an_option_goes_before(tmp_path, tiny_network) -> None:
    network = tiny_network()
    assert network.label_score_threshold == 0.5
    network.choose_label_score_threshold(0.71875)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    assert load_weights(tiny_network(), tmp_path / "model.pt").label_score_threshold == 0.71875
    assert load_weights(tiny_network(label_score_threshold=0.2), tmp_path / "model.pt").label_score_threshold == 0.2
