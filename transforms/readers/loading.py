"""Loading with one reader and no other."""

from __future__ import annotations

from monai.config import KeysCollection
from monai.data import ImageReader
from monai.transforms import LoadImaged


class StrictLoadImaged(LoadImaged):
    """File name under each of ``keys`` in, MetaTensor out, read by ``reader`` or not at all.

    MONAI's ``LoadImaged`` tries every reader it knows when the given one fails: a file that was refused for a reason (a
    grey DICOM, a 16-bit PNG) is then read all the same, and the reason is lost in a page of tracebacks.

    Args:
        keys: keys of the file names.
        reader: the one reader.
        allow_missing_keys: pass over keys that are absent.

    Raises:
        Whatever the reader raises, unchanged.
    """

    def __init__(self, keys: KeysCollection, reader: ImageReader, *, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, image_only=True, allow_missing_keys=allow_missing_keys)
        self._loader.readers = [reader]
        self._loader.auto_select = True
