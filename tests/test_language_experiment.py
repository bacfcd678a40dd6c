"""`python -m experiments.language`: a run, resumed and surveyed; lines."""

import dataclasses
import json
import signal

import jax
import numpy as np
import pytest
import xarray as xr

from experiments import digits, survey
from experiments.harness.train import main
from experiments.language import __main__ as language
from experiments.language import lines
from experiments.language.kind import TEXTS
from experiments.sweep.grid import check
from lrscape import data, landscape, models
from lrscape.errors import InputError
from lrscape.records import Records
from lrscape.runs import TextRun, TextRunConfig, open_run
from lrscape.training import initial_text_state, make_evaluate_text
from tests.processes import assert_same_run

# Adam is not strict about types.
FLAGS = [
    "--optimizer=sgd", "--momentum=0.9", "--peak-lr=0.3", "--level=characters",
    "--features=6", "--window=10", "--batch-size=4", "--epochs=2", "--num-devices=1",
    "--log-every=7", "--checkpoint-every=12", "--dropout=0.2", "--held-out=0.1",
]  # fmt: skip


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "dogs", "run"]
    rng = np.random.default_rng(0)
    text = "\n".join(" ".join(rng.choice(words, 8)) for _ in range(40)) + "\n"
    file = tmp_path_factory.mktemp("texts") / "story.txt"
    file.write_text(text)
    return file


def command(*flags):
    return language.main(list(map(str, flags)))


@pytest.fixture(scope="module")
def run_dir(story, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "whole"
    assert command(*FLAGS, f"--dataset={story}", f"--run-dir={path}") == 0
    return path


@pytest.mark.slow
def test_a_run_is_made_longer(story, tmp_path):
    """Bit for bit the longer run where the rate does not depend on the length."""
    flags = [*FLAGS, f"--dataset={story}", "--schedule=triangular", "--cycle-steps=7"]
    whole, longer = tmp_path / "whole", tmp_path / "longer"
    assert command(*flags, f"--run-dir={longer}") == 0
    assert command("--resume", "--epochs=3", f"--run-dir={longer}") == 0
    assert (
        command(*flags[:-1], "--cycle-steps=7", "--epochs=3", f"--run-dir={whole}") == 0
    )
    assert_same_run(whole, longer)
    (seam,) = Records(longer).config()["extended"]
    assert seam["epochs"] == 2 and seam["how"] == "exact"


def test_a_run_leaves_its_directory_whole(run_dir, story, capsys):
    run = open_run(run_dir)
    assert isinstance(run, TextRun) and isinstance(run.config, TextRunConfig)
    assert run.config.dataset == str(story) and run.config.clip_norm == 5.0
    assert run.config.model_options == {"features": 6, "layers": 1, "dropout": 0.2}
    metrics, summary = run.records.metrics(), run.records.summary()
    per_epoch = run.config.steps_per_epoch(run.data)
    assert metrics[-1]["step"] == 2 * per_epoch == summary["steps"]
    measured = [line for line in metrics if "test_loss" in line]
    assert [line["epoch"] for line in measured] == [1, 2]
    for line in measured:
        for part in ("train", "validation", "test"):
            perplexity = line[f"{part}_perplexity"]
            assert perplexity == pytest.approx(np.exp(line[f"{part}_loss"]))
    assert summary["best_by"] == "validation_perplexity"
    assert summary["last"] == metrics[-1]
    text = run.data
    baseline = data.unigram_perplexity(text.train, text.test[1:], text.num_classes)
    assert summary["unigram_perplexity"] == pytest.approx(baseline)
    assert summary["tokens_per_second"] > 0 and "images_per_second" not in summary
    assert set(run.snapshots) == {"initial", "peak", "final"}
    curves = run.records.load_result("learning_curves")
    assert curves["test_perplexity"].units == "1"
    assert curves["test_loss"].units == "nat"
    assert (run_dir / "figures" / "learning_curves.png").stat().st_size > 10_000
    # What was measured is the final snapshot's.
    tx = run.config.make_optimizer(lambda count: 0.1)
    state = initial_text_state(run.model, text, tx, run.config)
    state = state.replace(params=run.snapshots["final"].params)
    evaluate = make_evaluate_text(run.model, text, run.config, streams=8)
    assert evaluate(state)["loss"] == pytest.approx(metrics[-1]["test_loss"], rel=1e-6)
    assert command("--resume", f"--run-dir={run_dir}") == 0
    assert "is finished" in capsys.readouterr().out


def test_stopped_and_resumed_bit_for_bit(run_dir, story, tmp_path, monkeypatch, capsys):
    """By a signal in the middle of an epoch; the carry is saved with the rest."""

    class Stopping:
        asked_for = 0
        received = None

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def asked(self):
            Stopping.asked_for += 1
            return signal.SIGTERM if Stopping.asked_for == 3 else None

    monkeypatch.setattr("experiments.harness.trainer.noted_signals", Stopping)
    path = tmp_path / "stopped"
    flags = [*FLAGS, f"--dataset={story}", f"--run-dir={path}"]
    assert command(*flags) == 128 + signal.SIGTERM
    out = capsys.readouterr().out
    assert "stopped by SIGTERM at step" in out and "Traceback" not in out
    step = int(out.split(" at step ")[1].split(";")[0])
    per_epoch = open_run(path).config.steps_per_epoch(open_run(path).data)
    assert step % per_epoch
    assert command("--resume", f"--run-dir={path}") == 0
    assert f"at step {step}" in capsys.readouterr().out
    a, b = open_run(run_dir), open_run(path)
    assert a.config == b.config
    assert_same_run(run_dir, path)


@pytest.mark.slow
def test_a_run_is_surveyed(run_dir, capsys):
    flags = [str(run_dir), "--points=3", "--examples=12", "--batch-size=5"]
    assert survey.main([*flags, "--probe=line"]) == 0
    run = open_run(run_dir)
    found = run.records.load_result("line-initial-final")
    inputs, targets = run.sample("train", 12)
    assert inputs.shape == targets.shape == (12, 10)
    objective = landscape.text_objective(run.model, (inputs, targets), batch_size=12)
    for at, name in ((0.0, "initial"), (1.0, "final")):
        expected = objective(run.snapshots[name].params)
        np.testing.assert_allclose(found["loss"].sel(alpha=at), expected, rtol=1e-5)
    settings = json.loads((run_dir / "results" / "line-initial-final.json").read_text())
    assert settings["dropout"] == "off" and settings["window"] == 10
    capsys.readouterr()
    assert survey.main([*flags, "--probe=walk"]) == 2
    error = capsys.readouterr().err
    assert "probe='walk' is of images" in error and "experiments.language line" in error


def test_samples_of_a_run(run_dir):
    run = open_run(run_dir)
    every, _ = run.sample("test")
    windows = data.token_windows(run.data.test, 10)
    found = sorted(map(tuple, np.asarray(every).tolist()))
    assert found == sorted(map(tuple, windows.inputs.tolist()))
    first, _ = run.sample("test", 3, seed=5)
    second, _ = run.sample("test", 3, seed=5, start=3)
    six, _ = run.sample("test", 6, seed=5)
    np.testing.assert_array_equal(np.concatenate([first, second]), six)
    with pytest.raises(InputError, match="in windows of 10 tokens has: "):
        run.sample("test", 1000)
    with pytest.raises(InputError, match="part='tset'"):
        run.sample("tset")


# The objective.


def test_the_objective_is_its_windows_mean(run_dir):
    """A ragged last batch, the L2 term, the error, and no dropout."""
    run = open_run(run_dir)
    inputs, targets = run.sample("train", 7)
    point = run.snapshots["final"].params

    @jax.jit
    def apply(params):
        return run.model.apply({"params": params}, inputs, train=False)

    logits = apply(point)
    chosen = np.take_along_axis(logits, np.asarray(targets)[..., None], -1)[..., 0]
    expected = np.mean(jax.nn.logsumexp(logits, -1) - chosen)
    wrong = np.mean(np.argmax(logits, -1) != targets)
    objective = landscape.text_objective(
        run.model, (inputs, targets), batch_size=3, l2=0.1, error=True
    )
    found = objective(point)
    squares = sum(np.sum(x**2) for x in jax.tree.leaves(point) if x.ndim > 1)
    np.testing.assert_allclose(found["loss"], expected + 0.05 * squares, rtol=1e-5)
    np.testing.assert_allclose(found["error"], wrong, rtol=1e-6)
    assert objective.settings["dropout"] == "off"
    # The Gauss-Newton matrix is that of the logits.
    plain = landscape.text_objective(run.model, (inputs, targets), batch_size=7)
    direction = jax.tree.map(np.sign, point)
    moved = landscape.ggnvp(plain, point, direction)
    dot = sum(
        jax.tree.leaves(jax.tree.map(lambda a, b: (a * b).sum(), moved, direction))
    )
    slope = jax.jit(lambda p, v: jax.jvp(apply, (p,), (v,))[1])(point, direction)
    slope = slope.reshape(-1, logits.shape[-1])
    p = jax.nn.softmax(logits).reshape(slope.shape)
    variance = (p * slope**2).sum(-1) - (p * slope).sum(-1) ** 2
    np.testing.assert_allclose(dot, variance.mean(), rtol=1e-3)


@pytest.mark.parametrize(
    ("windows", "words"),
    [
        (np.ones((3, 4), int), "windows=an array of shape .*: pass"),
        ((np.ones((3, 4)), np.ones((3, 4))), "types float64 and float64 must be"),
        ((np.ones((3, 4), int), np.ones((3, 5), int)), r"\(3, 4\) and \(3, 5\)"),
        ((np.ones((0, 4), int), np.ones((0, 4), int)), "empty sample"),
    ],
)
def test_windows_that_are_none(windows, words):
    model = models.create("lstm", num_classes=3, features=4)
    with pytest.raises(InputError, match=words):
        landscape.text_objective(model, windows, batch_size=2)


# Bad input.


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--level=word"], ["level='word'", "did you mean 'words'"]),
        (["--preset=paper"], ["ptb.train.txt, ptb.valid.txt", "not together in any"]),
        (["--dataset=nowhere.txt"], ["nowhere.txt' is no file"]),
        (["--clip-norm=0"], ["clip_norm=0.0 must be positive"]),
        (["--runge-kutta=heum"], ["method='heum'", "did you mean 'heun'"]),
        (["--eval-streams=0"], ["eval_streams=0"]),
        (["--window=0"], ["window=0"]),
        (["--train-tokens=1"], ["train_tokens=1 must be a whole number, 2 or more"]),
        (["--batch-size=900"], ["too few for batch_size=900"]),
        (["--model=mlp", "--features=3"], ["features"]),
        (["--eval-streams=5000"], ["eval_streams=5000: the validation text has"]),
        (["--runge-kutta=heun", "--weight-decay=0.1"], ["weight_decay=0.1 is no part"]),
    ],
)
def test_bad_input(flags, words, story, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    given = FLAGS if "--preset=paper" not in flags else []
    where = [] if any("dataset" in f or "paper" in f for f in flags) else [story]
    dataset = [f"--dataset={file}" for file in where]
    kept = [f for f in given if f.split("=")[0] not in {g.split("=")[0] for g in flags}]
    status = command(*kept, *dataset, *flags, f"--run-dir={tmp_path / 'run'}")
    error = capsys.readouterr().err
    assert status == 2, error
    assert "Traceback" not in error
    for word in words:
        assert word in error
    assert not (tmp_path / "run").exists()


def test_presets():
    for preset in language.PRESETS:
        config = language.KIND.resolve("language", language.PRESETS, preset, {}, None)
        assert config.preset == preset and config.model == "lstm"
    # The paper's rates do not change.
    schedule = config.make_schedule(total_steps=50, steps_per_epoch=5)
    np.testing.assert_allclose(schedule(np.array([0, 25, 49])), 0.2, rtol=1e-6)
    by_characters = language.KIND.resolve(
        "language", language.PRESETS, "paper", {"level": "characters"}, None
    )
    assert by_characters.max_words is None
    # Sweeps read its flags too.
    assert check("language", ["--features=64"])["model_options"]["features"] == 64


# Lines.


@pytest.fixture(scope="module")
def line_flags(story, tmp_path_factory):
    root = tmp_path_factory.mktemp("lines")
    return root, [
        "line", f"--dataset={story}", "--features=4", "--points=3", "--windows=3",
        "--methods", "sgd", "sgd_reordered", "adam", f"--run-dir={root}",
    ]  # fmt: skip


@pytest.mark.slow
@jax.numpy_dtype_promotion("standard")  # Optax's Adam is not strict
def test_lines_between_solutions(line_flags, capsys, monkeypatch):
    root, flags = line_flags
    preset = language.PRESETS["quick"]
    small = {**preset.fields, "batch_size": 4, "window": 10, "eval_streams": 1}
    monkeypatch.setitem(
        language.PRESETS, "quick", dataclasses.replace(preset, fields=small)
    )
    assert command(*flags) == 0
    out = capsys.readouterr().out
    assert "sgd - sgd_reordered (control)" in out and "unigram" in out
    runs = {name: open_run(root / "networks" / name)
            for name in ("sgd", "sgd_reordered", "adam")}  # fmt: skip
    starts = [run.snapshots["initial"].params for run in runs.values()]
    for other in starts[1:]:
        jax.tree.map(np.testing.assert_array_equal, starts[0], other)
    assert runs["sgd_reordered"].config.offset == 5
    found = Records(root).load_result("line")
    assert found["loss"].dims == ("pair", "part", "alpha")
    ends = {name: run.snapshots["final"].params for name, run in runs.items()}
    for part in ("train", "test"):
        objective = landscape.text_objective(
            runs["sgd"].model, runs["sgd"].sample(part, 3), batch_size=3
        )
        losses = found["loss"].sel(pair="sgd - adam", part=part).values
        np.testing.assert_allclose(losses[0], objective(ends["sgd"]), rtol=1e-5)
        np.testing.assert_allclose(losses[2], objective(ends["adam"]), rtol=1e-5)
        barrier = found[f"{part}_barrier"].sel(pair="sgd - adam")
        assert barrier == pytest.approx(losses[1] - max(losses[0], losses[2]))
    assert found["is_control"].values.tolist() == [True, False, False]
    inputs, _ = runs["sgd"].sample("test", 3)
    p, q = (
        jax.nn.softmax(runs["sgd"].model.apply({"params": ends[n]}, inputs,
                                               train=False))
        for n in ("sgd", "adam")
    )  # fmt: skip
    distance = np.sqrt(np.mean(np.sum((p - q) ** 2, -1)))
    chosen = found.sel(pair="sgd - adam")
    np.testing.assert_allclose(chosen["functional_distance"], distance, rtol=1e-4)
    differ = np.mean(p.argmax(-1) != q.argmax(-1))
    np.testing.assert_allclose(chosen["disagreement"], differ, rtol=1e-6)
    assert (root / "figures" / "line.png").stat().st_size > 5_000
    # What is there is not trained again.
    before = (root / "networks" / "adam" / "summary.json").stat().st_mtime_ns
    assert command(*flags) == 0
    assert "is finished" in capsys.readouterr().out
    after = (root / "networks" / "adam" / "summary.json").stat().st_mtime_ns
    assert before == after


def test_barriers_are_counted_against_the_control():
    """Both ways: higher than the same optimizer in another order, and not."""
    dataset = xr.Dataset(
        {"test_perplexity": ("run", [5.0, 6.0])}, {"run": ["a", "b"]},
        {"unigram_perplexity": 9.0},
    )  # fmt: skip

    def notes(barrier, control):
        rows = [
            {"pair": "a - b", "control": False, "train_barrier": barrier},
            {"pair": "a - a_reordered", "control": True, "train_barrier": control},
            # Two things differ.
            {"pair": "b - a_reordered", "control": False, "train_barrier": 9.0},
        ]
        return " ".join(lines._notes(rows, dataset))

    assert "1 of 1 pairs" in notes(0.2, 0.1) and "1 of 1 are higher" in notes(0.2, 0.1)
    assert "1 of 1 pairs" in notes(0.2, 0.3) and "0 of 1 are higher" in notes(0.2, 0.3)
    assert "0 of 1 pairs" in notes(-0.1, 0.3)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--methods", "sgd"], "name two or more"),
        (["--methods", "sgd", "sgd"], "name two or more, each once"),
        (["--methods", "sgd", "adm"], "methods='adm' is unknown; did you mean 'adam'"),
        (["--preset=papr"], "preset='papr'"),
        (["--points=2"], "points=2 must be"),
        (["--epochs=0"], "epochs=0 must be"),
    ],
)
def test_bad_lines(flags, words, tmp_path, capsys):
    assert command("line", f"--run-dir={tmp_path / 'x'}", *flags) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_more_windows_than_there_are(story, tmp_path, capsys):
    flags = [f"--dataset={story}", "--level=characters", "--windows=9000"]
    assert command("line", f"--run-dir={tmp_path / 'x'}", *flags) == 2
    assert "windows=9000: the" in capsys.readouterr().err
    assert not list(tmp_path.glob("x/networks/*"))


@pytest.mark.parametrize(
    ("module", "flags", "words"),
    [
        ("digits", ["--model=lstm"], "model='lstm' reads text, and dataset='digits'"),
        ("language", ["--model=mlp"], "initial_carry"),
    ],
)
def test_a_model_of_another_kind(module, flags, words, story, tmp_path, capsys):
    where = f"--run-dir={tmp_path / 'run'}"
    if module == "language":
        # The preset's width is no field of it.
        fields = {"batch_size": 4, "window": 10, "eval_streams": 1}
        preset = dataclasses.replace(
            language.PRESETS["quick"], model_options={},
            fields={**language.PRESETS["quick"].fields, **fields},
        )  # fmt: skip
        given = [f"--dataset={story}", *flags, where]
        status = main("language", "", {"quick": preset}, given, TEXTS)
    else:
        status = main("digits", "", digits.PRESETS, [*flags, where])
    assert status == 2 and words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
