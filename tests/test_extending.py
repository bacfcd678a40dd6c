"""Runs made longer: exactly where the rate allows it, otherwise as was asked."""

import json
import shutil
import signal

import jax
import numpy as np
import pytest

from experiments import digits
from experiments.harness.train import main
from experiments.language import __main__ as language
from experiments.language.kind import TEXTS
from lrscape import schedules
from lrscape.errors import InputError
from lrscape.extensions import Extension, seams
from lrscape.figures import interactive_curves, learning_curves
from lrscape.records import Records
from lrscape.runs import RunConfig, open_run
from lrscape.training.checkpoint import Checkpoints
from tests.processes import assert_same_run

BASE = ["--model=mlp", "--num-devices=1", "--batch-size=256", "--checkpoint-every=3"]
PER_EPOCH = 5  # 1,437 // 256
CYCLES = ["--schedule=triangular", "--cycle-steps=7"]


def command(*flags):
    return main("digits", digits.__doc__, digits.PRESETS, list(map(str, flags)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two epochs with a rate that depends on them."""
    run_dir = tmp_path_factory.mktemp("runs") / "two"
    assert command(*BASE, "--schedule=gaussian", "--epochs=2",
                   f"--run-dir={run_dir}") == 0  # fmt: skip
    return run_dir


@pytest.fixture
def run_dir(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def rates(run_dir):
    run = open_run(run_dir)
    schedule = run.config.make_schedule(run.config.epochs * PER_EPOCH, PER_EPOCH)
    return np.asarray(schedule(np.arange(run.config.epochs * PER_EPOCH)))


def interrupt_at(monkeypatch, step):
    save = Checkpoints.save

    def interrupted(self, state, notes):
        save(self, state, notes)
        if int(state.step) == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", interrupted)


def gaussian_of(run_dir, epochs):
    options = open_run(run_dir).config.schedule_options
    return schedules.gaussian(total_steps=epochs * PER_EPOCH, **options)


@pytest.mark.parametrize("seam", [None, 6])
def test_exact_where_the_rate_does_not_depend_on_the_length(
    tmp_path, monkeypatch, capsys, seam
):
    """Bit for bit the longer run, of a finished and of an interrupted one."""
    run_dir, whole = tmp_path / "run", tmp_path / "whole"
    assert command(*BASE, *CYCLES, "--epochs=3", f"--run-dir={whole}") == 0
    if seam is not None:
        interrupt_at(monkeypatch, seam)
    status = command(*BASE, *CYCLES, "--epochs=2", f"--run-dir={run_dir}")
    assert status == (0 if seam is None else 128 + signal.SIGINT)
    monkeypatch.undo()
    assert command("--resume", "--epochs=3", f"--run-dir={run_dir}") == 0
    assert "exactly the run that was begun" in capsys.readouterr().out
    assert_same_run(whole, run_dir)
    stored = Records(run_dir).config()
    assert stored["extended"] == [{"epochs": 2, "step": 10, "how": "exact"}]
    assert open_run(run_dir).config.extended == ()


def test_a_rate_that_depends_on_the_length_needs_a_way(run_dir, capsys):
    before = (run_dir / "config.json").read_bytes()
    assert command("--resume", "--epochs=4", f"--run-dir={run_dir}") == 2
    error = capsys.readouterr().err
    for word in ("epochs=4", "gaussian", "--extend=hold", "--extend=stretch"):
        assert word in error
    assert (run_dir / "config.json").read_bytes() == before
    assert Records(run_dir).summary() is not None
    for flags, words in (
        (["--epochs=1"], "can be made longer, not shorter"),
        (["--epochs=4", "--extend=strech"], "did you mean 'stretch'"),
        (["--extend=hold"], "give --epochs, more than the 2"),
        (["--epochs=4", "--extend=hold", "--seed=3"], "seed=3 differs from 0"),
    ):
        assert command("--resume", *flags, f"--run-dir={run_dir}") == 2
        assert words in capsys.readouterr().err
    new = ["--extend=hold", "--epochs=4", f"--run-dir={run_dir.with_name('new')}"]
    assert command(*BASE, *new) == 2
    assert "add --resume and --run-dir" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("way", ["hold", "stretch"])
def test_rates_after_the_seam(run_dir, monkeypatch, way):
    before, counts = gaussian_of(run_dir, 2), np.arange(20)
    after = gaussian_of(run_dir, 4)
    flags = ["--resume", "--epochs=4", f"--extend={way}"]
    whole = run_dir.with_name("whole")
    shutil.copytree(run_dir, whole)
    assert command(*flags, f"--run-dir={whole}") == 0
    expected = np.where(
        counts < 10, before(counts), before(10) if way == "hold" else after(counts)
    )
    np.testing.assert_array_equal(rates(whole), expected)
    logged = [line["learning_rate"] for line in Records(whole).metrics()]
    np.testing.assert_allclose(logged, expected[[4, 9, 14, 19]], rtol=1e-6)
    assert Records(whole).config()["extended"] == [
        {"epochs": 2, "step": 10, "how": way}
    ]
    # Interrupted, it goes on bit for bit, by the same command and by --resume alone.
    for step in (12, 18):
        with monkeypatch.context() as patch:
            interrupt_at(patch, step)
            assert command(*flags, f"--run-dir={run_dir}") == 128 + signal.SIGINT
    assert command("--resume", f"--run-dir={run_dir}") == 0
    assert_same_run(whole, run_dir)


@pytest.mark.slow
def test_an_interrupted_run_holds_after_its_own_end(finished, tmp_path, monkeypatch):
    """And is stretched from where it is."""
    for way, step, seam in (("hold", 6, 10), ("stretch", 6, 6)):
        run_dir = tmp_path / way
        with monkeypatch.context() as patch:
            interrupt_at(patch, step)
            command(*BASE, "--schedule=gaussian", "--epochs=2", f"--run-dir={run_dir}")
        flags = ["--resume", "--epochs=3", f"--extend={way}", f"--run-dir={run_dir}"]
        assert command(*flags) == 0
        (extension,) = Records(run_dir).config()["extended"]
        assert extension == {"epochs": 2, "step": seam, "how": way}
        old, new, n = gaussian_of(run_dir, 2), gaussian_of(run_dir, 3), np.arange(15)
        expected = old(np.minimum(n, 10))
        if way == "stretch":
            expected = np.where(n < 6, old(n), new(n))
        np.testing.assert_array_equal(rates(run_dir), expected)


def test_a_killed_extension_leaves_a_run_that_goes_on(finished, run_dir, monkeypatch):
    """Between the summary's end and the new settings: it is the run it was before."""

    def killed(self, file, value):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Records, "_write_json", killed)
        flags = ["--epochs=4", "--extend=hold"]
        status = command("--resume", *flags, f"--run-dir={run_dir}")
        assert status == 128 + signal.SIGINT
    assert command("--resume", f"--run-dir={run_dir}") == 0
    assert_same_run(finished, run_dir)


@pytest.mark.slow
def test_twice(run_dir):
    for epochs, way in ((3, "stretch"), (4, "hold")):
        flags = ["--resume", f"--epochs={epochs}", f"--extend={way}"]
        assert command(*flags, f"--run-dir={run_dir}") == 0
    two, three, n = gaussian_of(run_dir, 2), gaussian_of(run_dir, 3), np.arange(20)
    expected = np.where(n < 10, two(n), three(np.minimum(n, 15)))
    np.testing.assert_array_equal(rates(run_dir), expected)
    # What is held goes on as it is.
    assert command("--resume", "--epochs=5", f"--run-dir={run_dir}") == 0
    history = [one["how"] for one in Records(run_dir).config()["extended"]]
    assert history == ["stretch", "hold", "exact"]


@pytest.mark.slow
@pytest.mark.parametrize("replicas", ["together", "apart"])
def test_seeds(tmp_path, monkeypatch, capsys, replicas):
    root, whole = tmp_path / "root", tmp_path / "whole"
    flags = [*BASE, *CYCLES, "--seeds=2", f"--replicas={replicas}"]
    assert command(*flags, "--epochs=2", f"--run-dir={root}") == 0

    # Killed once the root says so, and before its seeds do.
    def killed(root, runs):
        if root.config()["epochs"] == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("experiments.harness.seeds.agree", killed)
        status = command("--resume", "--epochs=3", f"--run-dir={root}")
        assert status == 128 + signal.SIGINT
    assert Records(root / "seed_0").config()["epochs"] == 2
    assert command("--resume", f"--run-dir={root}") == 0
    assert command(*flags, "--epochs=3", f"--run-dir={whole}") == 0
    for seed in (0, 1):
        assert_same_run(whole / f"seed_{seed}", root / f"seed_{seed}")
    assert Records(root).summary()["last"] == Records(whole).summary()["last"]
    own = root / "seed_1"
    assert command("--resume", "--epochs=4", f"--run-dir={own}") == 0
    capsys.readouterr()
    assert command("--resume", "--epochs=5", f"--run-dir={root}") == 2
    assert "made longer by itself" in capsys.readouterr().err


@pytest.mark.slow
@jax.numpy_dtype_promotion("standard")  # Optax's Adam is not strict
def test_texts(tmp_path, monkeypatch):
    text = tmp_path / "song.txt"
    text.write_text("the quick brown fox jumps over the lazy dog\n" * 60)
    flags = [
        f"--dataset={text}", "--level=characters", "--features=8", "--layers=1",
        "--batch-size=4", "--window=20", "--num-devices=1", "--eval-streams=1",
    ]  # fmt: skip

    def words(*flags):
        return main("language", "", language.PRESETS, list(map(str, flags)), TEXTS)

    run_dir, whole = tmp_path / "run", tmp_path / "whole"
    assert words(*flags, *CYCLES, "--epochs=3", f"--run-dir={whole}") == 0
    assert words(*flags, *CYCLES, "--epochs=2", f"--run-dir={run_dir}") == 0
    assert words("--resume", "--epochs=3", f"--run-dir={run_dir}") == 0
    assert_same_run(whole, run_dir)


def test_rates_that_are_told_apart_at_epochs_only():
    fields = {
        "experiment": "digits", "preset": "quick", "dataset": "digits", "model": "mlp",
        "schedule": "rational", "per_epoch": True, "epochs": 4,
        "schedule_options": {"init_value": 1.0, "decay": 1.0},
        "extended": [{"epochs": 2, "step": 5, "how": "stretch"}],
    }  # fmt: skip
    config = RunConfig.from_dict(fields)
    found = np.asarray(config.make_schedule(16, 4)(np.arange(16)))
    # The epoch of the seam ends as it began.
    starts = np.array([1, 1 / 1.5, 1 / (1 + 8 / 16), 1 / (1 + 12 / 16)])
    np.testing.assert_allclose(found, np.repeat(starts, 4), rtol=1e-6)
    assert json.loads(json.dumps(config.to_dict()))["extended"] == fields["extended"]
    assert RunConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    "extended",
    [
        [{"epochs": 2, "step": 5}],
        [{"epochs": 0, "step": 5, "how": "hold"}],
        [{"epochs": 2, "step": -1, "how": "hold"}],
        [{"epochs": 2, "step": 5, "how": "guess"}],
        [{"epochs": 10**400, "step": 5, "how": "hold"}],
        [3],
        "hold",
    ],
)
def test_a_history_that_cannot_be(extended):
    fields = {
        "experiment": "digits", "preset": "quick", "dataset": "digits", "model": "mlp",
        "schedule": "gaussian", "schedule_options": {"peak_value": 0.1}, "epochs": 4,
    }  # fmt: skip
    with pytest.raises(InputError):
        RunConfig.from_dict({**fields, "extended": extended})
    assert seams({"extended": extended}, [{"step": 4, "epoch": 1.0}]) == []


def test_curves_are_marked():
    lines = [
        {"step": 5 * n, "epoch": n, "learning_rate": 0.1, "test_error": 0.1}
        for n in range(1, 5)
    ]
    extended = [{"epochs": 2, "step": 10, "how": "hold"}]
    assert seams({"extended": extended}, lines) == [(Extension(2, 10, "hold"), 2.0)]
    axes = learning_curves(lines, seams=[2.0]).axes
    assert all(any(set(line.get_xdata()) == {2.0} for line in a.lines) for a in axes)
    (shape,) = interactive_curves({"run": lines}, seams={"run": [2.0]}).layout.shapes
    assert (shape.x0, shape.x1) == (2.0, 2.0)
