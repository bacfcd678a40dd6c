"""A paper's network is an ordinary run: resumed, opened, surveyed, reported."""

import dataclasses
import json
import signal

import jax
import numpy as np
import pytest

from experiments import report, survey
from experiments.harness.network import Network
from experiments.harness.signals import Signals
from experiments.harness.trainer import Stopped
from lrscape.errors import InputError
from lrscape.records import Records
from lrscape.runs import RunConfig, open_run
from tests.processes import without_times

CONFIG = RunConfig(
    experiment="nonmonotonic", preset="quick", dataset="digits", examples=256,
    validation=64, test_examples=100, model="mlp", model_options={"features": (16,)},
    epochs=3, batch_size=64, schedule="gaussian",
    schedule_options={"peak_value": 0.1, "start_value": 0.03}, momentum=0.9,
    snapshot_epochs=(1,), eval_batch_size=100,
)  # fmt: skip


class Stopping(Signals):
    """Asks to stop after some updates of each call."""

    after = 5

    def asked(self):
        self.after -= 1
        return None if self.after else signal.SIGTERM


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    network = Network(CONFIG, tmp_path_factory.mktemp("networks") / "whole")
    network.history()
    return network


def test_stopped_twice_and_resumed_it_is_the_same_to_the_last_bit(
    whole, tmp_path, monkeypatch
):
    path = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr("experiments.harness.trainer.noted_signals", Stopping)
        for step in (5, 10):
            with pytest.raises(Stopped, match=f"SIGTERM at step {step}"):
                Network(CONFIG, path).history()
    resumed = Network(CONFIG, path)
    assert without_times(resumed.history()) == without_times(whole.history())
    jax.tree.map(np.testing.assert_array_equal, resumed.final, whole.final)
    for name in whole.snapshots:
        jax.tree.map(
            np.testing.assert_array_equal, resumed.at(name), whole.snapshots[name]
        )


def test_its_history_starts_before_the_first_update(whole):
    rows = whole.history()
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert "train_loss" not in rows[0] and rows[0]["test_error"] > 0.5
    total = CONFIG.total_steps(whole.data)
    schedule = CONFIG.make_schedule(total, whole.steps_per_epoch)
    # Of the initial row the first update's rate, of the others their last one's.
    rates = np.asarray(schedule(np.array([0, 3, 7, 11])))
    np.testing.assert_allclose([row["rate"] for row in rows], rates, rtol=1e-6)


def test_it_is_opened_as_any_run(whole):
    run = open_run(whole.records.path)
    assert set(run.snapshots) == {"initial", "epoch_1", "final"}
    assert run.records.summary()["last"]["step"] == 12 == run.snapshots["final"].step
    assert len(run.data.train) == 256 and len(run.data.validation) == 64
    images, labels = run.data.test.image, run.data.test.label
    assert len(images) == len(labels) == 100
    # Its settings alone repeat it.
    again = dataclasses.replace(run.config, epochs=3)
    assert again.make_optimizer(lambda count: 0.1) is not None


def test_it_is_surveyed_and_reported(whole, tmp_path, capsys):
    path = str(whole.records.path)
    flags = ["--probe=line", "--points=3", "--examples=50"]
    assert survey.main([path, *flags]) == 0
    assert report.main([path, f"--out={tmp_path / 'page.html'}"]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "test error" in page and "not finished" not in page


def test_its_optimizer_is_not_made_from_settings_that_do_not_say_it(tmp_path, capsys):
    config = dataclasses.replace(CONFIG, recipe="heun, sgd at 0.1")

    class Own(Network):
        tx = Network(CONFIG, tmp_path / "plain").tx

    Own(config, tmp_path / "own").history()
    run = open_run(tmp_path / "own")
    with pytest.raises(InputError, match="recipe='heun, sgd at 0.1'.*nonmonotonic"):
        run.config.make_optimizer(lambda count: 0.1)
    flags = ["--probe=walk", "--steps=2"]
    assert survey.main([str(tmp_path / "own"), *flags]) == 2
    assert "recipe='heun" in capsys.readouterr().err


def test_a_run_that_failed_says_so_and_is_not_trained_again(tmp_path):
    options = {"peak_value": 1e30, "start_value": 1e29}
    config = dataclasses.replace(CONFIG, schedule_options=options, momentum=None)
    network = Network(config, tmp_path / "far")
    history = network.history()
    assert network.failed() and history[-1]["diverged"] < 4
    before = (tmp_path / "far" / "metrics.jsonl").read_bytes()
    assert Network(config, tmp_path / "far").history() == history
    assert (tmp_path / "far" / "metrics.jsonl").read_bytes() == before
    with pytest.raises(InputError, match="no snapshot 'final'.*lower its rates"):
        network.at("final")


def test_states_before_the_newest_checkpoint_are_made_again(whole):
    lines = whole.records.metrics()
    states = {}
    for state in whole.states(2, 6, lambda step: step in (3, 6)):
        states[int(state.step)] = jax.tree.map(np.asarray, state.params)
    assert list(states) == [3, 6] and whole.records.metrics() == lines
    for state in whole.states(4, 4, lambda step: step == 4):
        jax.tree.map(
            np.testing.assert_array_equal, state.params, whole.at("epoch_1").params
        )


def test_another_network_in_its_directory_is_refused(whole):
    other = dataclasses.replace(CONFIG, seed=1)
    with pytest.raises(InputError, match="trained otherwise; remove it"):
        Network(other, whole.records.path)
    # Where the data lie may change.
    moved = dataclasses.replace(CONFIG, data_dir="/elsewhere")
    assert Network(moved, whole.records.path).history() == whole.history()


def test_a_kill_before_the_first_checkpoint_loses_nothing(whole, tmp_path):
    network = Network(CONFIG, tmp_path / "killed")
    line = {"step": 0, "epoch": 0.0, "learning_rate": 0.03, "seconds": 0.0}
    network.records.append_metrics(line)
    assert without_times(network.history()) == without_times(whole.history())
    kept = Records(tmp_path / "killed").metrics()
    assert [one["step"] for one in kept] == [0, 1, 4, 8, 12]
    assert json.loads((tmp_path / "killed" / "config.json").read_text())["model"]
