"""A PACS by DICOMweb: a study out of it (QIDO-RS, WADO-RS), results into it (STOW-RS), nothing twice."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from dicomweb_client import DICOMwebClient
from pydicom import Dataset, dcmread

TOKEN = "CLINBUNDLES_PACS_TOKEN"
TIMEOUT_S = 60.0


class _Session(requests.Session):
    """Requests that do not wait for ever."""

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs["timeout"] = kwargs.get("timeout") or TIMEOUT_S
        return super().request(*args, **kwargs)


class Pacs:
    """A server of DICOMweb.

    The variable CLINBUNDLES_PACS_TOKEN, where it is set, goes with each request: a bearer's token, or a whole value of
    the header Authorization ("Basic ...").

    Args:
        url: where its services begin, such as http://127.0.0.1:8042/dicom-web.

    Raises:
        ValueError: it is no such address; of each method, the server cannot be reached, refuses the token or what it
            was sent.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise ValueError(f"--pacs is {url!r}, expected http://HOST:PORT/PATH without a password.")
        self.url = url.rstrip("/")
        session = _Session()
        if token := os.environ.get(TOKEN):
            session.headers["Authorization"] = token if " " in token else f"Bearer {token}"
        self._client = DICOMwebClient(self.url, session=session)
        self._client.set_http_retry_params(retry=False)  # the same command goes on

    def read_study(self, uid: str) -> list[Dataset]:
        """Read what a study has, without pixels.

        Raises:
            ValueError: there is no such study.
        """
        with self._sentences(uid):
            found = self._client.retrieve_study_metadata(uid)
        if not found:
            raise ValueError(f"{self.url}: holds no study {uid}.")
        return [Dataset.from_json(each) for each in found]

    def fetch(self, images: Iterable[Dataset], folder: Path) -> None:
        """Write instances into a folder, in the transfer syntax in which the server has them."""
        for number, image in enumerate(images, start=1):
            with self._sentences(image.StudyInstanceUID):
                dataset = self._client.retrieve_instance(
                    image.StudyInstanceUID,
                    image.SeriesInstanceUID,
                    image.SOPInstanceUID,
                    media_types=(("application/dicom", "*"),),
                )
            dataset.save_as(folder / f"{number:04}.dcm", enforce_file_format=True)

    def has(self, study: str, instance: str) -> bool:
        """Tell whether the server has an instance of a study."""
        with self._sentences(study):
            return bool(self._client.search_for_instances(study, search_filters={"SOPInstanceUID": instance}))

    def store(self, files: Sequence[Path]) -> int:
        """Send files one by one, without those that the server has; the number of those that were sent."""
        sent = 0
        for file in files:
            dataset = dcmread(file)
            if self.has(dataset.StudyInstanceUID, dataset.SOPInstanceUID):
                continue
            with self._sentences(dataset.StudyInstanceUID):
                answer = self._client.store_instances([dataset])
            if failed := answer.get("FailedSOPSequence"):
                reason = failed[0].get("FailureReason", 0)
                raise ValueError(f"{self.url}: does not take {file.name} (failure reason {reason:#06x}).")
            sent += 1
        return sent

    @contextmanager
    def _sentences(self, study: str) -> Iterator[None]:
        try:
            yield
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            if status in (401, 403):
                raise ValueError(f"{self.url}: refuses access ({status}); {TOKEN} has to hold a valid token.") from None
            if status == 404:
                raise ValueError(f"{self.url}: holds no study {study}, or has no DICOMweb there (404).") from None
            raise ValueError(f"{self.url}: answers with an error ({status}).") from None
        except requests.RequestException as error:
            raise ValueError(
                f"{self.url}: cannot be reached ({type(error).__name__}); the same command goes on later."
            ) from None
