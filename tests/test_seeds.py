"""--seeds: several runs of one command, and what they come to together."""

import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import digits, imagenet
from experiments.bench import seeds as bench
from experiments.harness import kinds, seeds
from experiments.harness.arguments import Arguments, resolve
from experiments.harness.finish import as_dataset
from experiments.harness.train import main
from lrscape.errors import InputError
from lrscape.records import Records
from lrscape.runs import open_run
from lrscape.training.checkpoint import Checkpoints
from tests.processes import (
    assert_same_run,
    finish,
    newest_checkpoint,
    start,
    wait_until,
)

SHORT = [
    "--num-devices=1", "--epochs=2", "--batch-size=256", "--checkpoint-every=3",
    "--augment", "crop",
]  # fmt: skip


def command(*flags):
    return main("digits", digits.__doc__, digits.PRESETS, list(map(str, flags)))


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Two seeds, trained in one program."""
    root = tmp_path_factory.mktemp("seeds") / "together"
    flags = ["--seed=4", "--seeds=2", "--replicas=together", f"--run-dir={root}"]
    assert command(*SHORT, *flags) == 0
    return root


def losses(run_dir):
    return [line["train_loss"] for line in Records(run_dir).metrics()]


def test_each_seed_is_an_ordinary_run(together, tmp_path, capsys):
    """One after another to the last bit, together up to rounding."""
    apart, alone = tmp_path / "apart", tmp_path / "alone"
    flags = ["--seed=4", "--seeds=2", "--replicas=apart"]
    assert command(*SHORT, *flags, f"--run-dir={apart}") == 0
    assert "2 of 2 seeds" in capsys.readouterr().out
    assert command(*SHORT, "--seed=5", f"--run-dir={alone}") == 0
    assert_same_run(alone, apart / "seed_5")
    for seed in (4, 5):
        one, other = (open_run(root / f"seed_{seed}") for root in (together, apart))
        assert one.config == other.config and one.config.seed == seed
        assert (
            set(one.snapshots) == set(other.snapshots) == {"initial", "peak", "final"}
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
            one.snapshots["final"].variables, other.snapshots["final"].variables,
        )  # fmt: skip
        np.testing.assert_allclose(losses(one.path), losses(other.path), rtol=1e-4)
        assert set(one.records.summary()) == set(other.records.summary())
        assert newest_checkpoint(one.path) == 10
        # It says by itself what it is: it can be gone on with alone.
        assert command("--resume", f"--run-dir={one.path}") == 0
        assert "is finished" in capsys.readouterr().out


def test_they_are_gathered(together, capsys):
    runs = [open_run(together / f"seed_{seed}").records for seed in (4, 5)]
    found = Records(together).load_result("seeds")
    assert found.seed.values.tolist() == [4, 5] and found.step.values.tolist() == [
        5,
        10,
    ]
    assert found.first_bad_step.values.tolist() == [-1, -1]
    assert found.test_loss.dims == ("seed", "step")
    assert found.test_loss.units == "nat" and found.step.units == "update"
    for n, records in enumerate(runs):
        expected = [line["test_error"] for line in records.metrics()]
        np.testing.assert_allclose(found.test_error[n], expected)
    numbers = Records(together).summary()["last"]["test_loss"]
    last = [records.summary()["last"]["test_loss"] for records in runs]
    assert numbers["mean"] == pytest.approx(np.mean(last))
    assert numbers["standard_deviation"] == pytest.approx(
        abs(last[0] - last[1]) / np.sqrt(2)
    )
    # Student's t: of two seeds 12.7 standard errors, and one is half their difference.
    half = 12.7062047 * abs(last[0] - last[1]) / 2
    assert numbers["high"] - numbers["mean"] == pytest.approx(half)
    assert numbers["mean"] - numbers["low"] == pytest.approx(half)
    rows = Records(together).load_result_summary("seeds")["rows"]
    assert "test error (%)" in [row["metric"] for row in rows]
    assert (together / "figures" / "seeds.png").stat().st_size > 10_000

    with pytest.raises(InputError, match=r"holds 2 runs, one a seed.*seed_4"):
        open_run(together)
    assert command("--resume", f"--run-dir={together}") == 0
    assert "is finished" in capsys.readouterr().out
    assert command("--seeds=2", f"--run-dir={together}") == 2
    assert "already holds a run" in capsys.readouterr().err
    assert command("--resume", "--seeds=3", f"--run-dir={together}") == 2
    assert "seeds=3, but" in capsys.readouterr().err
    assert command("--resume", "--replicas=apart", f"--run-dir={together}") == 2
    assert "replicas='apart' differs from 'together'" in capsys.readouterr().err


def test_interrupted_between_two_seeds_checkpoints(together, tmp_path, monkeypatch):
    """All go back to the last update that all have saved, and on as if never ended."""
    root = tmp_path / "seeds"
    saved = []
    save = Checkpoints.save

    def interrupted(self, state, notes):
        if len(saved) == 5:  # of 0, 3 and 6, twice each
            raise KeyboardInterrupt
        saved.append(int(state.step))
        save(self, state, notes)

    monkeypatch.setattr(Checkpoints, "save", interrupted)
    flags = ["--seed=4", "--seeds=2", "--replicas=together", f"--run-dir={root}"]
    assert command(*SHORT, *flags) == 128 + signal.SIGINT
    assert saved == [0, 0, 3, 3, 6]
    assert [newest_checkpoint(root / f"seed_{seed}") for seed in (4, 5)] == [6, 3]
    monkeypatch.undo()
    assert command("--resume", f"--run-dir={root}") == 0
    for seed in (4, 5):
        assert_same_run(root / f"seed_{seed}", together / f"seed_{seed}")


def test_checkpoints_that_do_not_meet(together, tmp_path, capsys):
    root = tmp_path / "seeds"
    shutil.copytree(together, root)
    (root / "summary.json").unlink()
    (root / "seed_4" / "summary.json").unlink()
    shutil.rmtree(root / "seed_5" / "checkpoints")
    assert command("--resume", f"--run-dir={root}") == 2
    assert "no checkpoints after the same update" in capsys.readouterr().err


def spoil(monkeypatch, *which):
    """Makes seeds start from weights that are not finite."""
    make = kinds.make_initial_state

    def made(*arguments):
        state_of = make(*arguments)

        def spoiled(seed):
            state = state_of(seed)
            factor = jnp.nan if seed in which else 1.0
            params = jax.tree.map(lambda leaf: leaf * factor, state.params)
            return state.replace(params=params)

        return spoiled

    monkeypatch.setattr(kinds, "make_initial_state", made)


@pytest.mark.parametrize(
    "replicas", ["together", pytest.param("apart", marks=pytest.mark.slow)]
)
def test_a_seed_that_fails(together, tmp_path, monkeypatch, capsys, replicas):
    root = tmp_path / "seeds"
    spoil(monkeypatch, 5)
    flags = ["--seed=4", "--seeds=2", f"--replicas={replicas}", f"--run-dir={root}"]
    assert command(*SHORT, *flags) == 1
    captured = capsys.readouterr()
    assert "not finite at step 0" in captured.out + captured.err
    assert "1 of 2 seeds" in captured.out and "seed 5 is in no mean" in captured.out
    if replicas == "together":
        assert_same_run(root / "seed_4", together / "seed_4")
    assert Records(root / "seed_5").summary() is None
    assert Records(root).summary()["failed"] == {"5": 0}
    found = Records(root).load_result("seeds")
    assert found.first_bad_step.values.tolist() == [-1, 0]
    assert np.isnan(found.test_loss[1]).all() and np.isfinite(found.test_loss[0]).all()


@pytest.mark.slow
def test_one_that_failed_stays_out_after_an_interruption(
    together, tmp_path, monkeypatch
):
    root = tmp_path / "seeds"
    spoil(monkeypatch, 5)
    save, saved = Checkpoints.save, []

    def interrupted(self, state, notes):
        save(self, state, notes)
        saved.append(int(state.step))
        if saved[-1] == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", interrupted)
    flags = ["--seed=4", "--seeds=2", "--replicas=together", f"--run-dir={root}"]
    assert command(*SHORT, *flags) == 128 + signal.SIGINT
    monkeypatch.undo()
    assert Records(root).load_result_summary("failed") == {"5": 0}
    assert command("--resume", f"--run-dir={root}") == 1
    assert_same_run(root / "seed_4", together / "seed_4")
    assert Records(root / "seed_5").summary() is None


@pytest.mark.slow
def test_all_may_fail(tmp_path, monkeypatch, capsys):
    root = tmp_path / "seeds"
    spoil(monkeypatch, 0, 1)
    flags = ["--seeds=2", "--replicas=together", f"--run-dir={root}"]
    assert command(*SHORT, *flags) == 1
    assert "0 of 2 seeds" in capsys.readouterr().out
    assert Records(root).summary()["failed"] == {"0": 0, "1": 0}


@pytest.mark.slow
@pytest.mark.parametrize("replicas", ["together", "apart"])
def test_killed_and_stopped(tmp_path, replicas):
    flags = [
        "--seeds=2", f"--replicas={replicas}", "--epochs=20", "--checkpoint-every=45",
        "--num-devices=1",
    ]  # fmt: skip
    whole, root = tmp_path / "whole", tmp_path / "seeds"
    finish(start(whole, *flags))
    for number in (signal.SIGKILL, signal.SIGTERM):
        before = newest_checkpoint(root / "seed_0")
        process = start(root, *(["--resume"] if before >= 0 else flags))
        wait_until(
            lambda b=before: newest_checkpoint(root / "seed_0") > b + 45, process
        )
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
        expected = -number if number == signal.SIGKILL else 128 + number
        assert process.returncode == expected, out
        assert not (root / "summary.json").exists()
    finish(start(root, "--resume"))
    for seed in (0, 1):
        assert_same_run(whole / f"seed_{seed}", root / f"seed_{seed}")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--seeds=0"], "seeds=0 must be a whole number, from 1"),
        (["--seeds=-3"], "seeds=-3 must be a whole number, from 1"),
        (["--replicas=together"], "replicas='together' needs --seeds"),
        (["--seeds=2", "--replicas=togehter"], "did you mean 'together'"),
        (["--seeds=2", "--seed=4294967295"], "seed=4294967296 must be a whole"),
        (["--seeds=2", "--model=cnn", "--replicas=together"], "CNN has convolutions"),
        (["--seeds=2", "--batch-size=9999"], "batch_size=9999 is larger"),
        (["--seeds=2", "--resume"], "--resume needs --run-dir"),
    ],
)
def test_bad_input(flags, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command(*flags) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_streams_have_no_seeds():
    config = resolve("imagenet", imagenet.PRESETS, "paper", {}, None)
    with pytest.raises(InputError, match="seeds=2 train on data in memory"):
        seeds.asked_for(Arguments(seeds=2), config, None)
    assert seeds.asked_for(Arguments(), config, None) is None


def test_a_single_run_is_not_several(together, capsys):
    run_dir = together / "seed_4"
    assert command("--resume", "--seeds=2", f"--run-dir={run_dir}") == 2
    assert "holds a single run" in capsys.readouterr().err


def lines(offset, count=2):
    return [
        {
            "step": 5 * n, "epoch": n, "learning_rate": 0.1, "train_loss": offset + n,
            "test_error": 0.1 * n,
        }
        for n in range(1, count + 1)
    ]  # fmt: skip


def test_seeds_side_by_side():
    found = seeds.side_by_side({3: lines(0.0), 1: [], 2: lines(1.0, 1)}, {1: 0, 2: 6})
    assert found.seed.values.tolist() == [3, 1, 2]
    np.testing.assert_array_equal(
        found.train_loss, [[1.0, 2.0], [np.nan, np.nan], [2.0, np.nan]]
    )
    assert found.first_bad_step.values.tolist() == [-1, 0, 6]
    assert seeds.side_by_side({0: []}, {0: 0}).sizes == {"seed": 1}


def test_curves_have_bands():
    figure = seeds.curves([lines(0.0), lines(1.0)], "title")
    loss = figure.axes[0]
    np.testing.assert_allclose(loss.get_lines()[0].get_ydata(), [1.5, 2.5])
    (band,) = loss.collections
    ys = band.get_paths()[0].vertices[:, 1]
    half = 12.7062047 / 2
    assert ys.min() == pytest.approx(1.5 - half)
    assert ys.max() == pytest.approx(2.5 + half)
    assert not seeds.curves([lines(0.0)], "title").axes[0].collections


def test_rows_show_per_cent_and_dashes():
    row = seeds.row_of("test_error", seeds.spread([0.02, 0.04]))
    assert row["metric"] == "test error (%)" and row["mean"] == "3"
    assert row["standard deviation"] == "1.414" and row["95 % interval"] == (
        "-9.706 to 15.71"
    )
    assert seeds.row_of("test_loss", seeds.spread([0.5])) == {
        "metric": "test loss (nats)", "mean": "0.5", "standard deviation": "-",
        "95 % interval": "-",
    }  # fmt: skip


@pytest.mark.slow
def test_the_benchmark_times_as_many_updates(capsys):
    config = resolve("digits", digits.PRESETS, "quick", {"num_devices": 1}, None)
    found = bench.seeds_table(config, count=2, updates=3, repeats=2)
    assert (found["seeds"], found["updates"]) == (2, 3)
    assert found["table"]["one after another"]["ratio"] == 1.0
    assert "in one program" in capsys.readouterr().out


def test_what_the_last_line_lacks_is_kept():
    lines = [
        {"step": 1, "test_loss": 0.5, "images_per_second": None},
        {"step": 2, "test_loss": 0.4, "images_per_second": 3.0},
        {"step": 3, "images_per_second": 2.0},
    ]
    found = as_dataset(lines)
    np.testing.assert_array_equal(found.test_loss, [0.5, 0.4, np.nan])
    np.testing.assert_array_equal(found.images_per_second, [np.nan, 3, 2])
    assert found.images_per_second.dtype == float
    assert found.images_per_second.attrs["units"] == "1/s"
