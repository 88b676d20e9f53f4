"""The store of runs, a SQLite file or a server: how a run in it is made or taken up again."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import sqlite3
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
from filelock import FileLock
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from monai.handlers import MLFlowHandler
from sqlalchemy.exc import SQLAlchemyError

from ..outputs.files import replacing
from .deadline import seconds_of, within
from .facts import without_credentials

logger = logging.getLogger(__name__)

UNREACHABLE = (MlflowException, OSError, SQLAlchemyError)  # what a store that is not there raises
LOCK_SECONDS = 120.0  # of a first run that makes the database, on a slow disk


class UnusableStoreError(OSError):
    """A store that answers and takes no run; the message is a sentence that says why."""


def default_tracking_uri(bundle_root: str | Path) -> str:
    """Give the SQLite URI of a bundle's runs: one database for all bundles of a clone.

    A clone is known by its `mlflow/tracking.json`; the runs of a bundle outside one are kept in the current folder.
    """
    parents = Path(bundle_root).resolve().parents
    home = next((parent for parent in parents if (parent / "mlflow" / "tracking.json").is_file()), Path.cwd())
    return f"sqlite:///{(home / 'runs' / 'mlflow.db').as_posix()}"


class RunStore:
    """Open one run in an MLflow store: a new one under a name of its own, or an earlier one to go on with.

    Args:
        uri: SQLite or server URI.
        experiment: name of the experiment, made if it is not there.
        name: name of a new run; one in use gets a number.
        previous: id of the run to go on with; if it was deleted, a new run points to it.

    Raises:
        PermissionError: the SQLite file cannot be written.
    """

    def __init__(self, uri: str, *, experiment: str, name: str, previous: str | None) -> None:
        self.name = name
        self.best: dict[str, float] = {}  # best value by key metric, of the earlier run too
        self._uri, self._experiment, self._previous = uri, experiment, previous
        self._monai: MLFlowHandler | None = None
        self._identity: tuple[int, int] | None = None
        self._database = Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None
        if self._database is not None:
            _check_writable(self._database)

    @property
    def place(self) -> str:
        """Say where the run is and, of a SQLite file, what shows it from any folder."""
        if self._database is None:
            return f"on {without_credentials(self._uri)}"
        uri = shlex.quote(f"sqlite:///{self._database.as_posix()}")
        return f"in {self._database}: mlflow ui --backend-store-uri {uri} shows it"

    def open(self) -> tuple[mlflow.MlflowClient, str]:
        """Give the client and the run's id; of several processes that open one SQLite file, each waits for the others.

        Raises:
            UnusableStoreError: the experiment was deleted, or the SQLite file was left half made.
            MlflowException, OSError, SQLAlchemyError: the store does not answer, or not within its deadline.
        """
        # MLflow's own defaults hold a training for many minutes when a server is gone.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        if self._database is None:
            return within(seconds_of(self._uri), self._open)
        with FileLock(_lock_file(self._database), timeout=LOCK_SECONDS):
            _make_database(self._database)
            opened = self._open()
            self._identity = _identity(self._database)
            return opened

    def check(self) -> None:
        """Check that the SQLite file is the one in which the run was made; SQLite itself writes on into a deleted one.

        Raises:
            UnusableStoreError: it is another one, or gone.
        """
        if self._database is not None and _identity(self._database) != self._identity:
            raise UnusableStoreError(f"The MLflow database {self._database} was deleted or replaced during the run.")

    def _open(self) -> tuple[mlflow.MlflowClient, str]:
        # MONAI's handler puts artifacts beside a SQLite file, and lets processes make one experiment together.
        self._monai = MLFlowHandler(self._uri, experiment_name=self._experiment)
        client = self._monai.client
        present = client.get_experiment_by_name(self._experiment)
        if present is not None and present.lifecycle_stage == LifecycleStage.DELETED:
            raise UnusableStoreError(
                f"The experiment {self._experiment} was deleted in the MLflow store {without_credentials(self._uri)}; "
                f"restore it (mlflow experiments restore -x {present.experiment_id}) or give another --experiment_name."
            )
        self._monai._set_experiment()
        experiment = self._monai.experiment
        tags: dict[str, str] = {}
        assert experiment is not None
        if self._previous is not None:
            try:
                return client, self._reopen(client, self._previous)
            except MlflowException as error:
                if not refused(error):
                    raise
                logger.warning("MLflow has no run %s to resume; training goes on in a new run.", self._previous)
                tags = {"resumed_from_run_id": self._previous}
        base = self.name = re.sub(r"[^\w.+ -]+", "-", self.name)
        number = 1
        while client.search_runs([experiment.experiment_id], f"attributes.run_name = '{self.name}'", max_results=1):
            number += 1
            self.name = f"{base}-{number}"
        return client, client.create_run(experiment.experiment_id, run_name=self.name, tags=tags).info.run_id

    def _reopen(self, client: mlflow.MlflowClient, run_id: str) -> str:
        run = client.get_run(run_id)
        client.update_run(run_id, status="RUNNING")
        if "error" in run.data.tags:
            client.delete_tag(run_id, "error")
        best = {k.removeprefix("best_"): v for k, v in run.data.metrics.items() if k.startswith("best_")}
        self.best = best | self.best
        return run_id

    def close(self) -> None:
        """Let go of the SQLite file."""
        if self._monai is not None:
            self._monai.close()


def refused(error: MlflowException) -> bool:
    """Tell whether the server answered and did not want the value; else it is away, or not for us, or too busy."""
    status = error.get_http_status_code()
    return 400 <= status < 500 and status not in (401, 403, 408, 429)


def what_failed(uri: str, error: Exception) -> str:
    """Say in one sentence what is wrong with a store, with its URI and without its password."""
    if isinstance(error, UnusableStoreError):
        return str(error)
    public = without_credentials(uri)
    reason = str(error).replace(urlsplit(uri).netloc, urlsplit(public).netloc).partition("\n")[0][:200]
    return f"The MLflow store {public} cannot be used ({type(error).__name__}: {reason}); start it or give another."


def _check_writable(database: Path) -> None:
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        for file in (_lock_file(database), *([database] if database.exists() else [])):
            file.open("ab").close()
    except OSError as error:  # which MLflow would find out after more than a minute
        text = f"The MLflow database {database} cannot be written; give another --tracking_uri."
        raise PermissionError(text) from error


def _identity(database: Path) -> tuple[int, int] | None:
    """Give the device and number of a file, None where there is none."""
    with contextlib.suppress(OSError):
        return (state := database.stat()).st_dev, state.st_ino
    return None


def _lock_file(database: Path) -> Path:
    """Give the hidden file beside the database whose lock goes with its process, however that ends."""
    return database.with_name(f".{database.name}.lock")


def _make_database(database: Path) -> None:
    """Make an MLflow database where there is none, whole or not at all; the caller holds its lock.

    MLflow makes the tables of a new file step by step: a second process would meet half of them, and a kill leaves them
    so for ever.
    """
    if database.is_file() and database.stat().st_size > 0:
        _check_whole(database)
        return
    for left in database.parent.glob(f".{database.stem[:40]}.????????.part*"):  # by a process that was killed meanwhile
        left.unlink(missing_ok=True)
    with replacing(database) as partial:  # of a new name each time, for MLflow remembers what it has made
        client = mlflow.MlflowClient(f"sqlite:///{partial.as_posix()}")
        client.search_experiments(max_results=1)
        client._tracking_client.store._dispose_engine()


def _check_whole(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    if any(name.startswith("_alembic_tmp") for name in names):  # tables that a migration has while it goes on
        raise UnusableStoreError(
            f"The MLflow database {database} was left half made, as by a process that was killed; delete it, or give "
            "another --tracking_uri."
        )
