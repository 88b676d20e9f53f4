"""The box stages: their parts, how they follow each other, and the gradient into the features."""

import pytest
import torch
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou

from clinbundles.nets.cascade_mask_rcnn.cascade import CascadeHeads, CascadeStage, ScaleGradient

SIZES = {"image_size": (64, 64), "padded_size": (64, 64)}


def heads(**options: object) -> CascadeHeads:
    torch.manual_seed(0)
    values = {"n_stages": 3, "box_units": 16, "box_layers": 1, "box_conv_layers": 0, "mask_channels": 8}
    values |= {"mask_layers": 1, "box_rois": 32, "mask_rois": 8, "score_threshold": 0.05, "nms_threshold": 0.5}
    return CascadeHeads(8, ("0", "1"), **(values | {"detections": 100} | options))


@pytest.fixture
def features() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {"0": torch.randn(2, 8, 16, 16, requires_grad=True), "1": torch.randn(2, 8, 8, 8, requires_grad=True)}


@pytest.fixture
def proposals() -> list[torch.Tensor]:
    corners = torch.rand(2, 40, 2, generator=torch.Generator().manual_seed(2)) * 40
    return list(torch.cat([corners, corners + 16], dim=2))


def test_a_gradient_is_scaled_and_values_are_not() -> None:
    values = torch.randn(5, requires_grad=True)
    result = ScaleGradient.apply(values, 1 / 3)
    assert torch.equal(result, values)
    result.sum().backward()
    torch.testing.assert_close(values.grad, torch.full((5,), 1 / 3))


def test_stages_have_the_published_thresholds_and_weights() -> None:
    stages = heads().stages
    assert [stage.proposal_matcher.high_threshold for stage in stages] == [0.5, 0.6, 0.7]
    assert [stage.proposal_matcher.low_threshold for stage in stages] == [0.5, 0.6, 0.7]
    assert [stage.box_coder.weights for stage in stages] == [(10, 10, 5, 5), (20, 20, 10, 10), (30, 30, 15, 15)]
    assert len(heads(n_stages=1).stages) == 1
    with pytest.raises(ValueError, match="n_stages is 4"):
        heads(n_stages=4)


@pytest.mark.parametrize("n_stages", [1, 3])
def test_a_stage_gives_the_features_its_share_of_the_gradient(
    n_stages: int, features: dict[str, torch.Tensor], proposals: list[torch.Tensor]
) -> None:
    parts = heads(n_stages=n_stages)
    stage = parts.stages[0]
    pooled = stage.box_roi_pool(features, proposals, [(64, 64)] * 2)
    logits, _ = stage.box_predictor(stage.box_head(pooled))
    whole = torch.autograd.grad(logits.square().sum(), features["0"])[0]
    logits, _ = stage.predict(features, proposals, (64, 64), 1 / n_stages)
    share = torch.autograd.grad(logits.square().sum(), features["0"])[0]
    torch.testing.assert_close(share, whole / n_stages)


def test_each_stage_sees_the_boxes_that_the_one_before_made(
    features: dict[str, torch.Tensor], proposals: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = heads()
    seen, moves = [], []
    predict = CascadeStage.predict

    def watched(stage, features, boxes, size, gradient):
        assert gradient == 1 / 3
        result = predict(stage, features, boxes, size, gradient)
        seen.append(torch.cat(boxes))
        moves.append(result[1])
        return result

    monkeypatch.setattr(CascadeStage, "predict", watched)
    for stage in parts.stages:
        torch.nn.init.normal_(stage.box_predictor.boxes.weight, std=0.5)
    targets = [{"boxes": boxes[:2] + 1.5} for boxes in proposals]
    losses, samples = parts.losses(features, proposals, targets, **SIZES)
    assert list(losses) == [f"loss_{kind}_{number}" for number in (1, 2, 3) for kind in ("classifier", "box_reg")]
    assert len(seen) == 3
    for number, weights in enumerate(((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0))):
        decoded = BoxCoder(weights).decode_single(moves[number], seen[number]).clamp(0, 64)
        torch.testing.assert_close(seen[number + 1], decoded.detach(), atol=0.02, rtol=0)
    assert len(torch.cat(samples.boxes)) == len(samples.logits) > 0


def test_masks_are_trained_on_the_positive_proposals_of_the_first_stage(
    features: dict[str, torch.Tensor], proposals: list[torch.Tensor]
) -> None:
    targets = [{"boxes": boxes[:2] + 1.5} for boxes in proposals]
    _, samples = heads(mask_rois=3).losses(features, proposals, targets, **SIZES)
    for boxes, matches, target, proposed in zip(samples.boxes, samples.matches, targets, proposals, strict=True):
        assert 1 <= len(boxes) <= 3
        assert (box_iou(boxes, target["boxes"][matches]).diagonal() >= 0.5).all()
        assert (box_iou(boxes, torch.cat([proposed, target["boxes"]])).amax(dim=1) > 0.999).all()


def test_an_image_without_proposals_of_its_own_learns_from_its_true_boxes(features: dict[str, torch.Tensor]) -> None:
    targets = [{"boxes": torch.tensor([[5.0, 5.0, 20.0, 20.0]])}, {"boxes": torch.zeros(0, 4)}]
    proposals = [torch.zeros(0, 4), torch.tensor([[1.0, 1.0, 9.0, 9.0]])]
    losses, samples = heads().losses(features, proposals, targets, **SIZES)
    assert all(torch.isfinite(loss) for loss in losses.values())
    torch.testing.assert_close(samples.boxes[0], targets[0]["boxes"])
    assert len(samples.boxes[1]) == 0


def test_a_score_is_the_mean_over_the_stages_and_the_box_the_last_one(
    features: dict[str, torch.Tensor], proposals: list[torch.Tensor]
) -> None:
    parts = heads(score_threshold=0.0, nms_threshold=1.0).eval()
    for stage, bias in zip(parts.stages, (0.0, 1.0, 2.0), strict=True):
        torch.nn.init.zeros_(stage.box_predictor.scores.weight)
        torch.nn.init.zeros_(stage.box_predictor.boxes.weight)
        stage.box_predictor.scores.bias.data = torch.tensor([0.0, bias])
        stage.box_predictor.boxes.bias.data = torch.tensor([stage.box_coder.weights[0] * 0.1, 0, 0, 0])
    with torch.no_grad():
        detections = parts.detect(features, proposals, **SIZES)
    mean = torch.tensor([0.0, 1.0, 2.0]).sigmoid().mean()
    for detection, proposed in zip(detections, proposals, strict=True):
        torch.testing.assert_close(detection["scores"], mean.expand(40))
        moved = (proposed + torch.tensor([4.8, 0, 4.8, 0])).clamp(max=64)  # a tenth of 16 px, three times
        torch.testing.assert_close(detection["boxes"].sort(dim=0)[0], moved.sort(dim=0)[0], atol=0.03, rtol=0)
        assert detection["masks"].shape == (40, 28, 28)
        assert 0 <= float(detection["masks"].min()) <= float(detection["masks"].max()) <= 1


def test_without_proposals_nothing_is_detected(features: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        detections = heads().eval().detect(features, [torch.zeros(0, 4)] * 2, **SIZES)
    assert [tuple(detection["masks"].shape) for detection in detections] == [(0, 28, 28)] * 2
