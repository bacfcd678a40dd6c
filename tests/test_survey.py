"""`python -m experiments.survey` on small runs: every probe, resumed, refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments import digits, survey
from experiments.harness.train import main as train
from lrscape import landscape
from lrscape.errors import InputError
from lrscape.runs import open_run

SMALL = ["--points=5", "--grid=3", "--examples=100", "--directions=2", "--steps=3"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two short runs of different seeds."""
    root = tmp_path_factory.mktemp("survey")
    paths = []
    for seed in (0, 1):
        paths.append(root / f"run{seed}")
        flags = [f"--run-dir={paths[-1]}", f"--seed={seed}", "--epochs=2"]
        flags += ["--snapshot-epochs", "1", "--num-devices=1"]
        assert train("digits", digits.__doc__, digits.PRESETS, flags) == 0
    return paths


def call(*flags):
    return survey.main([*SMALL, *map(str, flags)])


def result_of(run, name):
    records = open_run(run).records
    summary = json.loads((run / "results" / f"{name}.json").read_text())
    return records.load_result(name), summary


def test_line(runs, capsys):
    assert call(runs[0], "--probe=line") == 0
    found, summary = result_of(runs[0], "line-initial-final")
    assert {"loss", "error", "loss_standard_error"} <= set(found)
    assert found["alpha"].values.min() == -0.25 and 0.0 in found["alpha"].values
    run = open_run(runs[0])
    objective = landscape.flax_objective(
        run.model, run.sample("train", 100), norm="recalibrate", batch_size=250
    )
    for at, name in ((0.0, "initial"), (1.0, "final")):
        expected = objective(run.snapshots[name].params)
        np.testing.assert_allclose(found["loss"].sel(alpha=at), expected, rtol=1e-5)
    assert summary["norm"] == "recalibrate" and summary["num_examples"] == 100
    assert summary["settings"]["device"] and summary["settings"]["runs"]
    assert (runs[0] / "figures" / "line-initial-final.png").stat().st_size > 1000
    assert not list((runs[0] / "results").glob(".*.store"))
    assert "barrier_height" in capsys.readouterr().out


@pytest.mark.slow
def test_plane_path_and_surfaces_between_runs(runs):
    assert call(runs[0], "--probe=plane", "--norm=eval", "--grid=4") == 0
    found, summary = result_of(runs[0], "plane-final")
    assert found["loss"].shape == (5, 5)  # zero comes in between
    assert summary["loss_at_final"] == found["loss"].values[2, 2]

    assert call(runs[0], "--probe=path", "--norm=train") == 0
    found, summary = result_of(runs[0], "path")
    assert set(summary["snapshots"]) == {"initial", "peak", "epoch_1", "final"}
    assert found["snapshot"].values[0] == "initial"
    html = runs[0] / "figures" / "path-3d.html"
    assert "plotly" in html.read_text().lower()

    assert call(*runs, "--probe=barycentric") == 0
    _, summary = result_of(runs[0], "barycentric-initial-final-run1")
    assert set(summary["loss_at"]) == {"initial", "run0 final", "run1 final"}
    assert call(*runs, "--probe=bilinear", "--norm=interpolate") == 0
    found, summary = result_of(runs[0], "bilinear-initial-final-run1")
    assert found["loss"].values[2, 2] == summary["loss_at"]["run0 initial"]


def test_walk(runs):
    assert call(
        runs[0], "--probe=walk", "--epoch=2", "--second-sample", "--norm=train"
    ) == 0  # fmt: skip
    found, summary = result_of(runs[0], "walk-epoch_2")
    assert found["step"].values.tolist() == [22, 23, 24]
    assert found["loss"].shape == (3, 12)
    assert {"barriers", "barriers_on_both_samples", "mean_height_above_floor"} <= set(
        summary
    )
    # It walks the same way that the run went: epoch 1 ends where its snapshot is.
    assert found["distance"].values[0] > 0
    run = open_run(runs[0])
    objective = landscape.flax_objective(
        run.model, run.sample("train", 100), norm="train", batch_size=250
    )
    start = run.snapshots["epoch_1"]
    assert start.step == 22
    np.testing.assert_allclose(
        found["loss"].values[0, 0], objective(start.params), rtol=1e-5
    )


@pytest.mark.slow
def test_flatness_and_distance(runs):
    assert call(runs[0], "--probe=flatness") == 0
    found, summary = result_of(runs[0], "flatness-initial-final")
    assert found["all_layers"].shape == (2, 3)
    assert summary["average_slope"] > 0
    unmoved = [found[name].values[:, 0] for name in ("noise", "first_layer", "fooling")]
    for values in unmoved:
        np.testing.assert_allclose(values, summary["loss_unmoved"], rtol=1e-4)

    assert call(*runs, "--probe=distance", "--from=final") == 0
    found, summary = result_of(runs[0], "distance-final-final-run1")
    distances = found["functional_distance"].values
    np.testing.assert_allclose(
        distances[[0, -1]], [summary["functional_distance"], 0], rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(
        found["disagreement"].values[0], summary["disagreement"], rtol=1e-5
    )


def test_curvature(runs):
    flags = [runs[0], "--probe=curvature", "--eigenpairs=2", "--matvecs=4"]
    assert call(*flags) == 0
    found, summary = result_of(runs[0], "curvature-final")
    assert found["layer_share"].dims == ("eigenvector", "layer")
    np.testing.assert_allclose(found["layer_share"].sum("layer"), 1, rtol=1e-6)
    assert summary["norm"] == "train" and summary["precision"] == "single"
    assert found["node"].shape == found["weight"].shape == (2, 4)
    run = open_run(runs[0])
    objective = landscape.flax_objective(
        run.model, run.sample("train", 100), norm="train", batch_size=250
    )
    norm = landscape.spectral_norm(
        objective, run.snapshots["final"].params, key=jax.random.key(3),
        tolerance=1e-6, max_products=500,
    )  # fmt: skip
    largest = [*summary["eigenvalues"], summary["smallest_eigenvalue"]]
    np.testing.assert_allclose(np.abs(largest).max(), float(norm), rtol=1e-2)
    assert (runs[0] / "figures" / "curvature-final-layers.png").stat().st_size > 1000


@pytest.mark.slow
def test_sharpness_at_every_snapshot_in_double_precision(runs):
    with jax.numpy_dtype_promotion("standard"):
        assert call(runs[0], "--probe=sharpness", "--precision=double") == 0
    found, summary = result_of(runs[0], "sharpness")
    assert found["eigenvalue"].dtype == np.float64
    names = found["snapshot"].values.tolist()
    assert names[0] == "initial" and names[-1] == "final"
    assert set(summary["snapshots"]) == set(names)
    run = open_run(runs[0])
    schedule = run.config.make_schedule(44, 22)
    rates = [float(schedule(int(step))) for step in found["step"].values]
    np.testing.assert_allclose(found["limit"], 2 / np.array(rates), rtol=1e-6)


def test_a_survey_that_was_stopped_goes_on(runs, monkeypatch, capsys):
    """What was measured before Ctrl-C is not measured again."""
    measured = []
    run_points = landscape.points.PointLosses.run

    def interrupted(self, *arguments):
        for indices, losses in run_points(self, *arguments):
            measured.append(len(indices))
            yield indices, losses
            if len(measured) == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(landscape.points.PointLosses, "run", interrupted)
    flags = [runs[1], "--probe=line", "--name=again", "--points=25"]
    assert call(*flags) == 130
    assert "same command" in capsys.readouterr().err
    (store,) = (runs[1] / "results").glob(".again-*.store")
    assert call(*flags) == 0
    assert "going on" in capsys.readouterr().out and not store.exists()
    assert sum(measured) == len(result_of(runs[1], "again")[0]["alpha"])


BAD = {
    "probe": (["--probe=lines"], "did you mean 'line'"),
    "preset": (["--probe=line", "--preset=fast"], "preset='fast'"),
    "norm": (["--probe=line", "--norm=batch"], "norm='batch'"),
    "normalize": (["--probe=plane", "--normalize=filters"], "did you mean 'filter'"),
    "snapshot": (["--probe=line", "--from=start"], "initial"),
    "extent": (["--probe=plane", "--extent=0"], "extent=0"),
    "epoch": (["--probe=walk", "--epoch=9"], "between 1 and 2"),
    "batch": (["--probe=line", "--batch-size=0"], "batch_size=0"),
    "part": (["--probe=line", "--part=validation"], "without one"),
    "part name": (["--probe=line", "--part=tests"], "did you mean 'test'"),
    "corners": (["--probe=barycentric"], "two or three runs"),
    "four": (["--probe=bilinear"], "two or four runs"),
    "distance": (["--probe=distance", "--norm=train"], "own averages"),
    "walk": (["--probe=walk", "--norm=interpolate"], "no meaning"),
    "precision": (["--probe=curvature", "--precision=half"], "precision='half'"),
    "averages": (["--probe=sharpness", "--norm=eval"], "do not fit the others"),
    "eigenpairs": (["--probe=curvature", "--eigenpairs=0"], "eigenpairs=0"),
    "no end": (["--probe=sharpness", "--norm=eval", "--to=end"], "has the snapshots"),
    "name": (["--probe=line", "--name=a/b"], "name='a/b'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(runs, name, capsys):
    flags, message = BAD[name]
    assert call(runs[0], *flags) == 2
    assert message in capsys.readouterr().err


def test_runs_that_are_not_there_or_do_not_fit(runs, tmp_path, capsys):
    assert call(tmp_path, "--probe=line") == 2
    assert "holds no run" in capsys.readouterr().err
    other = tmp_path / "other"
    flags = [f"--run-dir={other}", "--epochs=1", "--model=cnn", "--num-devices=1"]
    assert train("digits", digits.__doc__, digits.PRESETS, flags) == 0
    assert call(runs[0], other, "--probe=line") == 2
    assert "first leaf that differs" in capsys.readouterr().err
    assert call(runs[0], "--probe=line", "--examples=5000") == 2
    assert "5000" in capsys.readouterr().err


@pytest.mark.parametrize("probe", ["curvature", "sharpness"])
def test_curvature_is_that_of_one_run(runs, probe, capsys):
    assert call(*runs, f"--probe={probe}") == 2
    assert "one run, not 2" in capsys.readouterr().err


def test_samples_are_fixed_and_do_not_overlap(runs):
    run = open_run(runs[0])
    first, labels = run.sample("train", 50, seed=3)
    again, _ = run.sample("train", 50, seed=3)
    np.testing.assert_array_equal(first, again)
    assert first.shape == (50, 8, 8, 1) and labels.shape == (50,)
    second, _ = run.sample("train", 50, seed=3, start=50)
    both, _ = run.sample("train", 100, seed=3)
    np.testing.assert_array_equal(np.concatenate([first, second]), both)
    np.testing.assert_allclose(np.mean(run.sample("train")[0]), 0, atol=1e-4)
    with pytest.raises(InputError, match="more than"):
        run.sample("test", 300, start=100)


def test_presets_and_their_numbers_are_what_the_flags_say():
    asked = survey.Arguments(runs=(), probe="line", preset="full")
    assert survey.resolve(asked).examples is None
    asked = dataclasses.replace(asked, preset="quick", points=7)
    assert survey.resolve(asked).points == 7
    with pytest.raises(InputError, match="at least one run"):
        survey.survey(asked)
