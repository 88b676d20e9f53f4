"""Weights as a LoggedModel in a real store."""

import hashlib
import json
from pathlib import Path

import mlflow
import pytest
from ignite.engine import Events
from mlflow.models import Model

from clinbundles.engines.tracking.logged_model import WeightsLink, sha256_of, signature_of

ROOT = Path(__file__).parents[3]
META = {
    "version": "0.3.1",
    "network_data_format": {
        "inputs": {"image": {"num_channels": 3, "spatial_shape": ["32*n", 64], "dtype": "float32"}},
        "outputs": {"pred": {"num_channels": 2, "spatial_shape": [], "dtype": "float32"}},
    },
}
# MLflow's queries use an option that SQLAlchemy gives up, and its pools are closed by the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def weights(tmp_path):
    (tmp_path / "DOE_JOHN" / "sub").mkdir(parents=True)
    path = tmp_path / "DOE_JOHN" / "sub" / "model.pt"
    path.write_bytes(b"weights" * 1000)
    return path


@pytest.fixture
def link(weights):
    def make(**more):
        settings = {"folder": weights.parents[1], "name": "train a/b: 1.5", "bundle": "toy", "meta": META}
        return WeightsLink(weights, **settings | {"register": None} | more)

    return make


@pytest.fixture
def run(uri):
    client = mlflow.MlflowClient(uri)
    return client, client.create_run(client.create_experiment("toy_bundle")).info.run_id


def test_a_model_is_linked_by_hash_and_signature_and_its_weights_are_not_in_the_store(link, weights, run, tmp_path):
    client, run_id = run
    made = link()
    made(client, run_id)
    (output,) = client.get_run(run_id).outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert made.model_id == model.model_id
    assert (model.name, model.source_run_id, str(model.status)) == ("train a-b- 1-5", run_id, "READY")
    assert model.tags["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (model.tags["path"], model.tags["bundle_version"]) == ("sub/model.pt", "0.3.1")
    folder = Path(model.artifact_location.removeprefix("file://"))
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["MLmodel"]
    card = Model.load(str(folder))
    assert card.signature.inputs.to_dict() == signature_of(META).inputs.to_dict()
    assert "DOE" not in (folder / "MLmodel").read_text() + json.dumps(model.tags)


def test_a_second_try_makes_no_second_model_nor_version(link, run, weights):
    client, run_id = run
    for _ in range(2):
        link(register="polyps")(client, run_id)
    assert len(client.get_run(run_id).outputs.model_outputs) == 1
    (version,) = client.search_model_versions("name = 'polyps'")
    assert version.tags["sha256"] == sha256_of(weights)
    assert version.run_id == run_id
    weights.write_bytes(b"others")
    link(register="polyps")(client, run_id)
    assert len(client.search_model_versions("name = 'polyps'")) == 2


def test_sizes_that_depend_on_the_image_are_free_in_the_signature():
    signature = signature_of(META)
    assert [spec.shape for spec in signature.inputs] == [(-1, 3, -1, 64)]
    assert [spec.shape for spec in signature.outputs] == [(-1, 2)]
    assert signature_of({"version": "1"}) is None


def test_every_bundle_of_the_clone_has_a_signature():
    metas = [json.loads(path.read_text()) for path in ROOT.glob("bundles/*/configs/metadata.json")]
    assert metas
    for meta in metas:
        assert signature_of(meta).inputs.input_names() == ["image"]
        assert signature_of(meta).outputs.input_names() == ["pred"]


def test_an_evaluation_of_these_weights_has_the_model_as_its_input_and_one_of_others_has_not(
    handler, trainer, evaluator, runs, tmp_path
):
    class Saver:
        def attach(self, engine):
            engine.add_event_handler(Events.COMPLETED, self)

        def __call__(self, engine):
            (tmp_path / "ckpt" / "model.pt").write_bytes(b"weights")

    weights = tmp_path / "ckpt" / "model.pt"
    trainer([Saver(), handler(kind="training", register="toys")]).run()
    evaluator([0.5, 0.5], [handler(output_dir=tmp_path / "a", iteration_log=False, ckpt_path=weights)]).run()
    weights.write_bytes(b"others")
    evaluator([0.5, 0.5], [handler(output_dir=tmp_path / "b", iteration_log=False, ckpt_path=weights)]).run()
    client, (training, first, second) = runs()
    (output,) = training.outputs.model_outputs
    inputs = [client.get_run(run.info.run_id).inputs.model_inputs for run in (first, second)]  # a search has none
    assert [[model.model_id for model in models] for models in inputs] == [[output.model_id], []]
    assert [v.name for v in client.search_model_versions()] == ["toys"]
