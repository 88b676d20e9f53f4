"""Loading with one reader and no other, and a data set that goes on past a file that cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import Dataset, ImageReader, MetaTensor
from monai.transforms import Invertd, LoadImaged
from monai.utils import CommonKeys, ImageMetaKey, MetaKeys

FAILURE, WARNING = "failure", "warning"
_refuses_blank: ContextVar[bool] = ContextVar("refuses_blank", default=False)  # while a TolerantDataset reads

logger = logging.getLogger(__name__)


class StrictLoadImaged(LoadImaged):
    """Load files by one reader, or not at all.

    MONAI's ``LoadImaged`` tries every reader it knows when the given one fails: a file that was refused for a reason (a
    grey DICOM, a 16-bit PNG) is then read all the same, and the reason is lost in a page of tracebacks.

    Args:
        keys: keys of the file names.
        reader: the one reader.
        allow_missing_keys: pass over keys that are absent.

    Raises:
        Whatever the reader raises, unchanged; ValueError where a :class:`TolerantDataset` reads an image that is blank.
    """

    def __init__(self, keys: KeysCollection, reader: ImageReader, *, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, image_only=True, allow_missing_keys=allow_missing_keys)
        self._loader.readers = [reader]
        self._loader.auto_select = True

    def __call__(self, data: Mapping[Hashable, Any], reader: ImageReader | None = None) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with the files loaded."""
        item = super().__call__(data, reader)
        if _refuses_blank.get() and CommonKeys.IMAGE in self.keys and (color := _only_color(item[CommonKeys.IMAGE])):
            raise ValueError(
                f"{data[CommonKeys.IMAGE]}: every pixel is {color}, so that there is nothing to see in it."
            )
        return item


def _only_color(image: MetaTensor) -> str:
    """Name the value that all pixels of an image have, of each channel its own; nothing where they differ."""
    channel = image.meta.get(MetaKeys.ORIGINAL_CHANNEL_DIM)
    pixels = image.as_tensor()
    pixels = pixels.movedim(channel, -1).flatten(0, -2) if isinstance(channel, int) else pixels.flatten()[:, None]
    some = pixels[:: max(1, len(pixels) // 1000)]  # which nearly always tell
    if not len(pixels) or (some != pixels[0]).any() or (pixels != pixels[0]).any():
        return ""
    values = [f"{value:g}" for value in pixels[0].tolist()]
    return values[0] if len(set(values)) == 1 else f"({', '.join(values)})"


def reading_error(error: Exception) -> ValueError | OSError | None:
    """Unwrap what a reader raised from the error of a transform; None for another kind of error.

    MONAI wraps the error of a transform in a ``RuntimeError`` for every ``Compose`` around it.
    """
    cause: BaseException = error
    while isinstance(cause, RuntimeError) and cause.__cause__ and str(cause).startswith("applying transform"):
        cause = cause.__cause__
    return cause if isinstance(cause, ValueError | OSError) else None


class TolerantDataset(Dataset):
    """Data set of transformed items with a ``failure``, which is empty where the ``image`` could be read.

    Beside it there is a ``warning``: what the reader had to say of an image that it read, in its meta data.

    An image of which every pixel has one value, as of a camera with its cap on, counts as one that cannot be read.

    Where reading fails with a ``ValueError`` or ``OSError``, the item has the entries it came with, zeros for its image
    (a float32 MetaTensor with the file's name) and the reader's sentence for its failure, so that a batch goes on. Good
    and failed items have the same entries, and make one batch, if the transform neither adds nor removes any. The
    sentence is logged once whenever the item is read. An error of another kind is raised as it is.

    Args:
        data: items, each a dict.
        transform: applied to each item, as for MONAI's ``Dataset``.
        placeholder: shape of a transformed image, such as (3, 224, 224).
        any_size: images may have other shapes than that, and go one by one; ``placeholder`` is then the shape of failed
            ones alone.
        removed: keys of entries that the transform removes, and that a failed item loses too.

    Raises:
        ValueError: ``placeholder`` is no shape; for a good item, its image has another shape, unless ``any_size``.
    """

    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        transform: Sequence[Callable] | Callable,
        *,
        placeholder: Sequence[int],
        any_size: bool = False,
        removed: Sequence[str] = (),
    ) -> None:
        super().__init__(data, transform)
        self.any_size = any_size
        self.removed = removed
        self.placeholder = tuple(placeholder)
        if not self.placeholder or not all(isinstance(n, int) and n > 0 for n in self.placeholder):
            raise ValueError(f"placeholder is {placeholder!r}, expected the shape of an image, such as (3, 224, 224).")

    def _transform(self, index: int) -> dict[str, Any]:
        entries = self.data[index]
        token = _refuses_blank.set(True)
        try:
            item = super()._transform(index)
        except (RuntimeError, ValueError, OSError) as error:
            if (cause := reading_error(error)) is None:
                raise
            sentence = " ".join(str(cause).splitlines()) or type(cause).__name__
            logger.warning("%s", sentence)
            meta = {ImageMetaKey.FILENAME_OR_OBJ: str(entries[CommonKeys.IMAGE])}  # the one that all readers give
            image = MetaTensor(torch.zeros(self.placeholder), meta=meta)
            rest = {key: value for key, value in entries.items() if key not in self.removed}
            return {**rest, CommonKeys.IMAGE: image, FAILURE: sentence, WARNING: ""}
        finally:
            _refuses_blank.reset(token)
        if (shape := tuple(item[CommonKeys.IMAGE].shape)) != self.placeholder and not self.any_size:
            # Otherwise it would come out with the first bad file, and as an error of collation.
            file = entries[CommonKeys.IMAGE]
            raise ValueError(f"{file}: image of shape {shape} after the transform, placeholder is {self.placeholder}.")
        warning = getattr(item[CommonKeys.IMAGE], "meta", {}).get(WARNING, "")
        if warning:
            logger.warning("%s: %s", entries[CommonKeys.IMAGE], warning)
        return {**item, FAILURE: "", WARNING: warning}


class TolerantInvertd(Invertd):
    """Undo transforms as MONAI's ``Invertd`` does, and leave an item with a ``failure`` as it is.

    The image of such an item is a placeholder, to which nothing was done that could be undone. An item without the
    entry, as a host makes it that loads files by itself, is one that was read.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with the results inverted."""
        return dict(data) if data.get(FAILURE) else super().__call__(data)
