"""What a picture of a result says about itself: where each slice lies, which colour is what, and what it is not for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .colors import RGB

PURPOSE = "research use, not for diagnosis"
SIZE_PX = 12
LINE_PX = 16
GREY = (200, 200, 200)


def slice_positions(affine: np.ndarray, shape: Sequence[int], axis: int) -> list[str]:
    """Say where the middles of the slices of a volume lie along the patient, as viewers of DICOM do.

    Args:
        affine: (4, 4), from voxels to millimetres towards right, anterior and superior.
        shape: of the volume, three sides in voxels.
        axis: of the array that runs through the slices.

    Returns:
        Millimetres towards the head, of each slice from the feet, such as "z -120 mm".
    """
    middle = (np.asarray(shape) - 1) / 2
    middle[axis] = 0
    places = np.sort(affine[2, axis] * np.arange(shape[axis]) + affine[2, :3] @ middle + affine[2, 3])
    digits = 0 if abs(affine[2, axis]) >= 1 else 1
    return [f"z {round(z, digits) + 0.0:.{digits}f} mm" for z in places.tolist()]  # + 0.0, for there is a -0.0


def with_text(picture: np.ndarray, text: str) -> np.ndarray:
    """Write a line into the upper left corner of a picture uint8 (H, W, 3); one too narrow for it stays as it is."""
    image = Image.fromarray(picture)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(SIZE_PX)
    if draw.textlength(text, font) > image.width - 4:
        return picture
    draw.text((2, 1), text, GREY, font, stroke_width=1, stroke_fill=(0, 0, 0))
    return np.asarray(image)


def with_legend(picture: np.ndarray, entries: Sequence[tuple[str, RGB]]) -> np.ndarray:
    """Add lines below a picture uint8 (H, W, 3): the colour and name of each class, and what the picture is for.

    Args:
        picture: whose width stays; what is wider than it stands on a line of its own, and is cut.
        entries: name and colour of each class.
    """
    font = ImageFont.load_default(SIZE_PX)
    width, lines, x = picture.shape[1], 1, 2
    places = []
    for name, color in (*entries, (PURPOSE, (0, 0, 0))):
        length = SIZE_PX + int(font.getlength(name)) + 12
        if x > 2 and x + length > width:
            lines, x = lines + 1, 2
        places.append((x, LINE_PX * (lines - 1) + 1, name, color))
        x += length
    strip = Image.new("RGB", (width, LINE_PX * lines))
    draw = ImageDraw.Draw(strip)
    for left, top, name, color in places:
        draw.rectangle((left, top + 2, left + SIZE_PX - 3, top + SIZE_PX), color)
        draw.text((left + SIZE_PX, top), name, GREY, font)
    return np.vstack([picture, np.asarray(strip)])
