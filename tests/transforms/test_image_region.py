import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from clinbundles.transforms.image_region import REGIONS, ImageRegiond, lung_fields, region_mask


@pytest.mark.parametrize("size", [(224, 224), (97, 160)])
def test_lung_fields_are_two_mirrored_ellipses_beside_the_middle_line(size: tuple[int, int]) -> None:
    height, width = size
    fields = lung_fields(height, width)
    assert fields.shape == size
    assert fields.dtype == torch.bool
    assert torch.equal(fields, fields.flip(1))
    left = fields[:, : width // 2]
    # The area of an ellipse is pi a b.
    assert left.float().mean().item() == pytest.approx(2 * np.pi * 0.23 * 0.40, rel=0.05)
    y, x = torch.nonzero(left, as_tuple=True)
    assert (y.float().mean() / height).item() == pytest.approx(0.46, abs=0.01)
    assert (x.float().mean() / width).item() == pytest.approx(0.30, abs=0.02)


def test_lung_fields_are_the_same_shares_of_an_image_of_any_size() -> None:
    small, large = lung_fields(64, 64), lung_fields(256, 256)
    blocks = large.reshape(64, 4, 64, 4).float().mean((1, 3))
    # Only blocks that the outline crosses may differ.
    whole = (blocks == 0) | (blocks == 1)
    assert torch.equal(blocks[whole] == 1, small[whole])
    assert whole.float().mean() > 0.9


@pytest.mark.parametrize("size", [(64, 64), (101, 57)])
def test_lungs_and_everything_else_add_up_to_the_image(size: tuple[int, int]) -> None:
    masks = {name: region_mask(name, *size, border_share=0.1) for name in REGIONS}
    assert masks["whole"].all()
    assert torch.equal(masks["lungs"], ~masks["lungs_masked"])
    assert torch.equal(masks["lungs"], lung_fields(*size))
    assert not (masks["lungs"] & region_mask("border", *size, border_share=0.05)).any()


def test_the_border_is_a_frame_of_the_asked_width_on_all_four_sides() -> None:
    mask = region_mask("border", 100, 200, border_share=0.1)
    assert mask[:10].all()
    assert mask[-10:].all()
    assert mask[:, :20].all()
    assert mask[:, -20:].all()
    assert not mask[10:-10, 20:-20].any()


@pytest.mark.parametrize("region", REGIONS)
def test_what_is_kept_is_unchanged_and_the_rest_is_black(region: str) -> None:
    image = torch.rand(3, 40, 60) + 0.5
    result = ImageRegiond("image", region)({"image": image, "label": 2})
    mask = region_mask(region, 40, 60, border_share=0.1).expand(3, -1, -1)
    assert torch.equal(result["image"][mask], image[mask])
    assert not result["image"][~mask].any()
    assert result["label"] == 2


def test_the_input_is_not_changed_and_meta_data_stay() -> None:
    image = MetaTensor(torch.ones(1, 32, 32), meta={"filename_or_obj": "a.png"})
    items = {"image": image}
    result = ImageRegiond("image", "border")(items)["image"]
    assert isinstance(result, MetaTensor)
    assert result.meta["filename_or_obj"] == "a.png"
    assert items["image"] is image
    assert image.all()


def test_the_share_of_the_border_is_a_choice() -> None:
    image = torch.ones(1, 100, 100)
    shares = [ImageRegiond("image", "border", border_share=s)({"image": image})["image"].mean() for s in (0.05, 0.25)]
    assert [share.item() for share in shares] == pytest.approx([1 - 0.9**2, 1 - 0.5**2])


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="region is 'heart', expected one of whole, border"):
        ImageRegiond("image", "heart")
    for share in (0, 0.5, -1, float("nan")):
        with pytest.raises(ValueError, match="border_share is"):
            ImageRegiond("image", "border", border_share=share)


def test_an_absent_key_is_an_error_unless_allowed() -> None:
    with pytest.raises(KeyError):
        ImageRegiond("image", "border")({"label": 1})
    assert ImageRegiond("image", "border", allow_missing_keys=True)({"label": 1}) == {"label": 1}
