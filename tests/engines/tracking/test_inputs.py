"""The data sets of a run in a real store."""

import mlflow
import pytest

from clinbundles.engines.tracking.facts import describe_datalist
from clinbundles.engines.tracking.inputs import data_sets, log_inputs, splits_of

# MLflow's queries use an option that SQLAlchemy gives up, and its pools are closed by the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
PARAMS = {"data_name": "polyps", "data_sha256": "ab" * 32, "datalist_sha256": "cd" * 32, "split_sha256": "ef" * 32}
PARAMS |= {"n_training": "6", "n_validation": "2", "n_test": "0"}


def described(inputs):
    return [(x.dataset.name, x.dataset.digest, {t.key: t.value for t in x.tags}) for x in inputs]


def test_each_split_of_a_training_is_a_data_set_with_the_hash_of_the_data_and_its_context(uri):
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment("toy_bundle")
    for _ in range(2):  # the second run meets the data sets of the first
        run_id = client.create_run(experiment).info.run_id
        log_inputs(client, run_id, datasets=data_sets(PARAMS, splits_of({}, "training")))
        kept = described(client.get_run(run_id).inputs.dataset_inputs)
        assert sorted((name, digest, tags["mlflow.data.context"], tags["images"]) for name, digest, tags in kept) == [
            ("polyps, training", "ab" * 18, "training", "6"),
            ("polyps, validation", "ab" * 18, "validation", "2"),
        ]


def test_an_evaluation_has_its_split_alone_and_a_pretraining_its_own_list():
    assert splits_of({"split": "validation"}, "evaluation") == {"validation": "validation"}
    assert splits_of({}, "evaluation") == {"test": "test"}
    splits = splits_of({"training_split": "pretraining"}, "training")
    names = [name for name, _, _ in described(data_sets(PARAMS, splits))]
    assert names == ["polyps, pretraining", "polyps, validation"]


def test_an_empty_split_and_a_datalist_without_a_hash_are_no_data_set(config):
    params, _ = describe_datalist(config["datalist"])
    assert [name for name, _, _ in described(data_sets(params, splits_of({}, "training")))] == ["polyps, training"]
    assert data_sets(params, {"test": "test"}) == []
    assert data_sets({}, {"test": "test"}) == []
    (only,) = data_sets({"datalist_sha256": "cd" * 32}, {"test": "test"})
    assert (only.dataset.name, only.dataset.digest) == ("datalist, test", "cd" * 18)


def test_no_file_is_named(config):
    params, _ = describe_datalist(config["datalist"])
    everything = str([x.to_dictionary() for x in data_sets(params, splits_of({}, "training"))])
    assert "DOE" not in everything
    assert ".png" not in everything
    assert str(config["datalist"]) not in everything
