"""Runs as plain fields, and opened again from disk."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrscape import data, schedules
from lrscape.errors import InputError
from lrscape.records import Records
from lrscape.runs import RunConfig, open_run, peak_step, save_snapshot
from lrscape.training import initial_state
from lrscape.training.checkpoint import CorruptCheckpointError

FIELDS = {
    "epochs": 2,
    "augment": ["flip"],
    "experiment": "digits",
    "preset": "quick",
    "dataset": "digits",
    "model": "mlp",
    "model_options": {"features": [8, 4]},
    "schedule": "step",
    "schedule_options": {"init_value": 0.1, "milestones": [0.5, 0.75]},
    "snapshot_epochs": [1],
}


def test_json_round_trip():
    config = RunConfig.from_dict(FIELDS)
    assert config.augment == ("flip",) and config.snapshot_epochs == (1,)
    stored = json.loads(json.dumps(config.to_dict()))
    assert RunConfig.from_dict(stored) == config
    assert set(stored) == {field.name for field in dataclasses.fields(RunConfig)}
    assert config.make_model(10).features == (8, 4)
    schedule = config.make_schedule(total_steps=40, steps_per_epoch=20)
    np.testing.assert_allclose(schedule(jnp.array([0, 20, 30])), [0.1, 0.01, 1e-3])


def test_rates_that_change_at_epochs():
    options = {"peak_value": 0.1}
    config = RunConfig.from_dict(
        {
            **FIELDS,
            "schedule": "gaussian",
            "schedule_options": options,
            "per_epoch": True,
        }
    )
    schedule = config.make_schedule(total_steps=40, steps_per_epoch=20)
    assert schedule(39) == schedule(20) == np.float32(0.1)


def test_cycles_by_default():
    options = {"peak_value": 0.1, "base_value": 0.01}
    config = RunConfig.from_dict(
        {**FIELDS, "schedule": "triangular", "schedule_options": options}
    )
    schedule = config.make_schedule(total_steps=40, steps_per_epoch=20)
    np.testing.assert_allclose(schedule(jnp.arange(0, 40, 10)), 0.01, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "mpl"}, "model='mpl'.*did you mean 'mlp'"),
        ({"model_options": {"depth": 3}}, "depth=3 is not a field"),
        ({"schedule": "stepp"}, "schedule='stepp'.*did you mean 'step'"),
        ({"schedule_options": {"peak_value": 1.0}}, "peak_value=1.0 is not taken"),
        ({"optimizer": "sgdd"}, "optimizer='sgdd'"),
        ({"snapshot_epochs": [3]}, "snapshot_epochs: 3"),
        ({"checkpoint_every": 0}, "checkpoint_every=0"),
        ({"validation": -1}, "validation=-1"),
        ({"epochs": 0}, "epochs=0"),
    ],
)
def test_bad_fields(changes, words):
    with pytest.raises(InputError, match=words):
        RunConfig.from_dict({**FIELDS, **changes})


def test_a_lacking_field():
    lacking = {k: v for k, v in FIELDS.items() if k != "model"}
    with pytest.raises(InputError, match="model"):
        RunConfig.from_dict(lacking)


@pytest.fixture
def run(tmp_path):
    config = RunConfig.from_dict(FIELDS)
    records = Records.create(tmp_path / "run", {**config.to_dict(), "cores": 2})
    digits = data.load("digits")
    state = initial_state(
        config.make_model(10), digits, config.make_optimizer(lambda n: 0.1), 0
    )
    save_snapshot(records, "initial", state)
    save_snapshot(records, "epoch_1", state.replace(step=jnp.asarray(22)))
    return records, state, config


def test_open_run(run):
    records, state, config = run
    opened = open_run(records.path)
    assert opened.config == config
    assert list(opened.snapshots) == ["epoch_1", "initial"]
    assert len(opened.snapshots) == 2 and "final" not in opened.snapshots
    snapshot = opened.snapshots["epoch_1"]
    assert snapshot.step == 22
    assert isinstance(snapshot.params["Dense_0"]["kernel"], jnp.ndarray)
    np.testing.assert_array_equal(
        snapshot.params["Dense_0"]["kernel"], state.params["Dense_0"]["kernel"]
    )
    logits = opened.model.apply(
        snapshot.variables, jnp.ones((2, *opened.data.image_shape)), train=False
    )
    assert logits.shape == (2, 10)
    with pytest.raises(KeyError, match="has the snapshots epoch_1, initial"):
        opened.snapshots["final"]
    with pytest.raises(KeyError):
        opened.snapshots["../run/snapshots/initial"]


def test_a_damaged_snapshot(run):
    records, _, _ = run
    folder = records.path / "snapshots" / "initial"
    file = max((f for f in folder.rglob("d/*")), key=lambda f: f.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(bytes(content))
    with pytest.raises(CorruptCheckpointError, match="initial"):
        open_run(records.path).snapshots["initial"]


@given(st.sampled_from(sorted(schedules.NAMES)), st.sampled_from([2, 3, 51, 500]))
def test_the_peak_is_the_last_of_the_largest(name, total):
    options = {
        "gaussian": {"peak_value": 0.3, "start_value": 0.1},
        "laplacian": {"peak_value": 0.3},
        "rational": {"init_value": 0.3, "decay": 3.0},
        "step": {"init_value": 0.3},
        "triangular": {"peak_value": 0.3, "base_value": 0.0},
        "trapezoid": {"peak_value": 0.3, "start_value": 0.1, "end_value": 0.0,
                      "rise": 0.2, "fall": 0.2},
        "swa": {"init_value": 0.3, "swa_value": 0.1, "start": 0.5, "end": 0.75},
    }[name]  # fmt: skip
    config = RunConfig.from_dict(
        {**FIELDS, "schedule": name, "schedule_options": options}
    )
    schedule = config.make_schedule(total, steps_per_epoch=1)
    rates = np.asarray(schedule(jnp.arange(total)))
    peak = peak_step(schedule, total)
    assert rates[peak] == rates.max()
    assert (rates[peak + 1 :] < rates[peak]).all()
    assert peak_step(lambda n: 0.1, total) == total - 1  # a constant's last
