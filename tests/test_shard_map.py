"""shard_map against pmap: the same bits, and as many compilations."""

import functools
import os
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax import lax

from experiments import digits
from experiments.harness.train import main
from lrscape import models
from lrscape.errors import InputError
from lrscape.records import Records
from lrscape.runs import open_run
from lrscape.training import Config, TextConfig, step
from tests import mapped
from tests.processes import ROOT, rewrite, without_times


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def command(*flags):
    return main("digits", digits.__doc__, digits.PRESETS, list(flags))


def mlp():
    return models.create("mlp", num_classes=10, features=(16,))


@pytest.mark.parametrize("num_devices", [slow(1), 2, slow(4)])
def test_a_compiled_loop_of_donated_states(num_devices):
    call = functools.partial(mapped.images, mlp(), scan_steps=3, donate=True)
    assert mapped.both(call, num_devices)["count"] == 2


@pytest.mark.parametrize("num_devices", [1, slow(2), 4])
def test_update_by_update(num_devices):
    call = functools.partial(mapped.images, mlp())
    assert mapped.both(call, num_devices)["count"] == 8


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [1, 4])
@pytest.mark.parametrize(
    ("scan_steps", "donate"), [(1, False), (3, True)], ids=["stepwise", "scanned"]
)
def test_a_residual_network(num_devices, scan_steps, donate):
    model = models.create("resnet8", num_classes=10)
    call = functools.partial(mapped.images, model)
    mapped.both(call, num_devices, scan_steps=scan_steps, donate=donate)


@pytest.mark.parametrize("num_devices", [slow(1), slow(2), 4])
@pytest.mark.parametrize(
    "call",
    [mapped.seeds, mapped.streamed, mapped.measurements, mapped.text],
    ids=lambda call: call.__name__,
)
def test_every_other_mapped_call(call, num_devices):
    mapped.both(call, num_devices)


class Without:
    """`jax.lax`, one of whose functions leaves what it is given as it is."""

    def __init__(self, name):
        self.name = name

    def __getattr__(self, name):
        return (lambda tree, axis: tree) if name == self.name else getattr(lax, name)


@pytest.mark.parametrize("mapping", mapped.MAPPINGS)
def test_a_forgotten_average_shows_in_the_devices_copies(monkeypatch, mapping):
    """What `test_devices_change_nothing` looks at finds it under both mappings."""

    def copies():
        config = Config(epochs=1, batch_size=32, num_devices=4, mapping=mapping)
        few, tx = mapped.few_digits(), mapped.momentum(8)
        state = next(mapped.training.fit(mlp(), few, tx, config))
        return [
            {np.asarray(shard.data).tobytes() for shard in leaf.addressable_shards}
            for leaf in jax.tree.leaves(state.params)
        ]

    assert {len(different) for different in copies()} == {1}
    monkeypatch.setattr(step, "lax", Without("pmean"))
    assert max(len(different) for different in copies()) == 4


@pytest.mark.skipif(
    (os.cpu_count() or 1) < 4,
    reason="a process that compiles while its collectives wait needs two cores",
)
@pytest.mark.slow
def test_several_processes(tmp_path):
    """Two of one device each: all mapped calls, which give arrays of their own."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listening.getsockname()[1]}"
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.mapped", str(tmp_path), address, "2", rank],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "JAX_NUM_CPU_DEVICES": "1", "XLA_FLAGS": ""},
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=600)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert not any(process.returncode for process in running), "\n".join(outputs)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0", "1"]


@pytest.mark.parametrize("settings", [Config, TextConfig])
@pytest.mark.parametrize("mapping", ["shardmap", None, 1, ["pmap"]], ids=repr)
def test_an_unknown_mapping_is_refused(settings, mapping):
    assert settings(epochs=1).mapping == "pmap"
    with pytest.raises(InputError, match=r"mapping=.*pmap.*shard_map"):
        settings(epochs=1, mapping=mapping)


# Runs on disk.

FLAGS = (
    "--model=mlp", "--epochs=2", "--batch-size=480", "--num-devices=2",
    "--checkpoint-every=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "finished"
    assert command(*FLAGS, "--mapping=shard_map", f"--run-dir={run_dir}") == 0
    assert open_run(run_dir).config.mapping == "shard_map"
    return run_dir


@pytest.mark.parametrize(
    "flags", [(), ("--mapping=shard_map",)], ids=["pmap", "shard_map"]
)
def test_a_run_without_the_field_goes_on(finished, tmp_path, capsys, flags):
    """As it was saved before there was a choice, from the middle."""
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir)
    # As if it had been killed before its last checkpoint.
    steps = sorted(int(path.name) for path in (run_dir / "checkpoints").iterdir())
    shutil.rmtree(run_dir / "checkpoints" / str(steps[-1]))
    (run_dir / "summary.json").unlink()
    config = Records(run_dir).config()
    del config["mapping"]
    rewrite(run_dir / "config.json", config)
    assert open_run(run_dir).config.mapping == "pmap"
    assert command("--resume", f"--run-dir={run_dir}", *flags) == 0
    assert f"resuming {run_dir} at step {steps[-2]}" in capsys.readouterr().out
    assert_same_numbers(finished, run_dir)


def test_a_mapping_that_there_is_not(tmp_path, capsys):
    run_dir = tmp_path / "run"
    assert command(*FLAGS, "--mapping=pmaps", f"--run-dir={run_dir}") == 2
    assert "did you mean 'pmap'" in capsys.readouterr().err
    assert not run_dir.exists()


def assert_same_numbers(one, other):
    """Weights and metrics bit for bit."""
    one, other = open_run(one), open_run(other)
    mapped.assert_same(
        mapped.on_host(one.snapshots["final"].variables),
        mapped.on_host(other.snapshots["final"].variables),
    )
    lines = [list(map(without_times, run.records.metrics())) for run in (one, other)]
    assert lines[0] == lines[1]
