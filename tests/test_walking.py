"""Paper 3's figures, its equation and its claims, on digits and a plan of seconds."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.harness import statistics
from experiments.harness.statistics import Claim, Condition, judge, t_interval
from experiments.walk_with_sgd import __main__ as walk_with_sgd
from experiments.walk_with_sgd import claims, identity, noise, quadratic, rates, redrawn
from experiments.walk_with_sgd.claims import PARTS
from experiments.walk_with_sgd.descent import descend, minibatch_gradient
from experiments.walk_with_sgd.networks import Sample
from experiments.walk_with_sgd.presets import PRESETS, Plan
from lrscape import data as data_
from lrscape import landscape, models
from lrscape.errors import InputError
from lrscape.landscape.noise import gradient_variance
from lrscape.records import Records
from lrscape.training.device_data import DeviceData
from tests.points import linear_point, regression

SAMPLE = Sample(examples=120, batch_size=60)
PLAN = Plan(
    epochs=(1, 2), updates=6, seeds=3, sample=SAMPLE, trained=3, angles=10,
    batch_sizes=(50, 100), rates=(0.1, 0.2), noise=(6, 4), peaks=(0.1, 0.3),
    curvature=SAMPLE,
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny():
    """The presets quick and authors, cut down."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS["quick"], "mlp", PLAN)
        redrawn_plan = dataclasses.replace(
            PLAN, seeds=1, sample=dataclasses.replace(SAMPLE, redrawn=True),
            curvature=dataclasses.replace(SAMPLE, redrawn=True),
        )  # fmt: skip
        patch.setitem(PRESETS["authors"], "mlp", redrawn_plan)
        patch.setattr("experiments.walk_with_sgd.trajectories.SHOWN", 6)
        patch.setattr(identity, "SAMPLES", 3)
        patch.setattr(identity, "TOP", 2)
        patch.setitem(claims.SEEDS, "quick", 3)
        yield


@pytest.fixture(scope="module")
def root(tiny, tmp_path_factory):
    return tmp_path_factory.mktemp("lab")


def call(root, item, *flags):
    flags = ["--dataset=digits", "--models", "mlp", *flags]
    return walk_with_sgd.main([item, f"--run-dir={root}", *flags])


def rows_of(root, item):
    return json.loads((root / "results" / f"{item}.json").read_text())["rows"]


@pytest.mark.slow
def test_the_spectral_norm_is_that_of_both_modes(root):
    assert call(root, "fig3") == 0
    rows = rows_of(root, "fig3")
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    found = Records(root).load_result("fig3")
    train, in_eval = found["mlp_norm_train"].values, found["mlp_norm_eval"].values
    assert train.shape == (3, 4) and (train > 0).all() and (in_eval > 0).all()
    # At the start the running averages are 0 and 1: nothing alike.
    assert not np.allclose(train[:, 0], in_eval[:, 0], rtol=0.2)
    errors = found["mlp_validation_error"].values
    assert (errors[:, -1] < errors[:, 0]).all()


@pytest.mark.slow
def test_a_history_goes_on_where_it_stopped(root, monkeypatch):
    history = next(root.glob("mlp-*seed_0/results/history-*.json"))
    whole = history.read_text()
    records = Records(history.parents[1])
    records.save_result_summary(history.stem, json.loads(whole)[:2])
    assert call(root, "fig3") == 0
    assert history.read_text() == whole


@pytest.mark.slow
def test_angles_over_batch_sizes_and_rates(root):
    assert call(root, "fig4") == 0
    rows = rows_of(root, "fig4")
    assert [(row["batch size"], row["rate"]) for row in rows] == [
        (50, 0.1), (100, 0.1), (100, 0.1), (100, 0.2),
    ]  # fmt: skip
    assert rows[1]["cosine"] == rows[2]["cosine"]
    found = Records(root).load_result("fig4")
    assert (np.abs(found["mlp-50-0.1_cosine"].values[:, 1:]) <= 1).all()
    # The same walk as the one whose ground is measured.
    assert call(root, "table1") == 0
    walk = Records(root).load_result("table1")
    np.testing.assert_allclose(
        found["mlp-100-0.1_cosine"].values[:, 1:6], walk["mlp-0.1-1_cosine"][:, 1:6],
        rtol=1e-5,
    )  # fmt: skip
    np.testing.assert_allclose(
        found["mlp-100-0.1_distance"].values[:, :6], walk["mlp-0.1-1_distance"],
        rtol=1e-5,
    )  # fmt: skip


@pytest.mark.slow
def test_noise_worsens_descent_and_is_of_its_variance(root):
    assert call(root, "fig5") == 0
    rows = {row["noise"]: row for row in rows_of(root, "fig5")}
    assert list(rows) == [
        "GD", "variance 0.1", "deviation 0.1", "variance 0.05", "deviation 0.05",
        "matched", "SGD", "then a tenth of the rate", "then GD", "then SGD",
    ]  # fmt: skip
    mean = {name: float(row["loss"].split()[0]) for name, row in rows.items()}
    assert mean["variance 0.1"] > mean["GD"]
    found = Records(root).load_result("fig5")
    gd, noisy = (
        found[f"mlp-{name}_distance"].values for name in ("GD", "variance_0.1")
    )
    assert (noisy[:, -1] > gd[:, -1]).all()
    # What goes on starts where the noise ended.
    ends = found["mlp-deviation_0.1_loss"].values[:, -1]
    np.testing.assert_array_equal(found["mlp-then_SGD_loss"].values[:, 0], ends)
    np.testing.assert_array_equal(found["mlp-then_GD_loss"].values[:, 0], ends)


def test_the_arms_scales_are_a_variance_and_a_deviation():
    arms = noise.arms_of({"largest": 0.28, "batch_mean": 0.01}, 0.1, (0.1, 0.05))
    assert arms["variance 0.1"].deviation ** 2 == pytest.approx(0.028)
    assert arms["deviation 0.05"].deviation == pytest.approx(0.014)
    assert arms["matched"].deviation == pytest.approx(0.1)
    assert arms["GD"].deviation == 0 and arms["SGD"].stochastic


@pytest.mark.slow
def test_schedules_are_tuned_and_compared(root):
    assert call(root, "fig6") == 0
    rows = rows_of(root, "fig6")
    assert [row["schedule"] for row in rows] == list(rates.SCHEDULES)
    for row in rows:
        assert float(row["largest rate"]) > 0
        assert {f"{peak:g}" for peak in PLAN.peaks} <= set(
            row["of those tried"].split()
        )
    # The trapezoid rises as the first cycle does.
    from lrscape import schedules

    options = rates.options_of("trapezoid", 0.3, 100)
    trapezoid = schedules.trapezoid(options.pop("peak_value"), 100, **options)
    cycles = schedules.triangular(**rates.options_of("triangular", 0.3, 100))
    at = np.arange(10)
    np.testing.assert_allclose(trapezoid(at), cycles(at), rtol=1e-5)
    assert float(trapezoid(50)) == pytest.approx(0.3)


def test_all_schedules_end_at_the_same_rate():
    from lrscape import schedules

    ends = []
    for name in rates.SCHEDULES:
        options = rates.options_of(name, 0.5, 1000)
        if name != "triangular":
            options["total_steps"] = 1000
        ends.append(float(schedules.create(name, **options)(1000)))
    np.testing.assert_allclose(ends, 0.005, rtol=1e-5)


@pytest.mark.parametrize(("best", "peak"), [(4.0, 16.0), (-3.0, 0.125), (0.0, 1.0)])
def test_a_grid_grows_until_its_best_is_inside(best, peak):
    found = rates.tuned((1.0, 2.0, 4.0), lambda rate: abs(np.log2(rate) - best))
    assert found.inside and found.peak == peak
    assert min(found.errors) < peak < max(found.errors)


def test_a_grid_whose_best_stays_at_its_end_says_so():
    found = rates.tuned((1.0, 2.0), lambda rate: 1 / rate)
    assert not found.inside and len(found.errors) == 2 + rates.ADDED
    # A rate that fails is as bad as can be.
    found = rates.tuned((1.0, 2.0), lambda rate: np.inf if rate > 0.7 else 1 / rate)
    assert found.inside and found.peak == 0.5
    # A single rate is no grid.
    assert rates.tuned((0.3,), lambda rate: rate) == (0.3, {0.3: 0.3}, False)


def test_the_variance_of_an_example_is_that_of_batches_times_their_size(tmp_path):
    """Without batch norm, of batches of any size: C of Eq. 2 knows no batch."""
    import types

    def measured(size):
        def training_objective(count, batch_size):
            objective, *_ = regression(count, batch_size)
            return objective

        network = types.SimpleNamespace(
            config=types.SimpleNamespace(batch_size=size), num_examples=4000,
            training_objective=training_objective, initial_params=linear_point,
        )  # fmt: skip
        return noise.noise_scales(network, types.SimpleNamespace(num_examples=4000))

    one, ten = measured(1), measured(10)
    assert one["largest"] == pytest.approx(ten["largest"], rel=0.2)
    assert one["batch_mean"] == pytest.approx(10 * ten["batch_mean"], rel=0.2)


@pytest.mark.slow
def test_the_identity_holds_to_double_precision(root):
    assert call(root, "eq3") == 0
    for row in rows_of(root, "eq3"):
        assert float(row["identity's error"]) < 1e-9
        assert 0 <= float(row["overlap of top 2"].split()[0]) <= 1


@pytest.mark.slow
def test_networks_with_other_numbers_of_seeds(tiny, tmp_path, monkeypatch):
    """A table of two networks, as the presets have them; one fails to be trained."""
    small = dataclasses.replace(PLAN, seeds=1, updates=2, epochs=(1,))
    monkeypatch.setitem(PRESETS["quick"], "vgg11", small)
    flags = ["table1", "--dataset=digits", f"--run-dir={tmp_path}", "--examples=60"]
    assert walk_with_sgd.main([*flags, "--models", "mlp", "vgg11"]) == 0
    assert [row["network"] for row in rows_of(tmp_path, "table1")] == [
        "mlp", "mlp", "vgg11",
    ]  # fmt: skip


def test_missing_data_leave_nothing_behind(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    flags = ["table1", "--dataset=mnist", f"--data-dir={tmp_path}"]
    root = tmp_path / "run"
    assert walk_with_sgd.main([*flags, f"--run-dir={root}", "--models", "mlp"]) == 2
    assert "not prepared" in capsys.readouterr().err
    assert not list(root.rglob("config.json"))


def test_more_examples_than_there_are(tmp_path, capsys):
    assert call(tmp_path, "table1", "--examples=5000") == 2
    message = capsys.readouterr().err
    assert "examples=5000" in message and "has 1300" in message


def test_a_sample_is_clamped_to_what_there_is(tmp_path):
    """The paper's 25,000 examples, on digits."""
    lab = walk_with_sgd.lab_of(
        walk_with_sgd.Arguments(item="fig3", preset="paper", dataset="digits")
    )
    assert PRESETS["paper"]["mlp"].curvature.examples == 25_000
    assert lab.plan("mlp").curvature.examples is None
    with pytest.raises(InputError, match="of 1437"):
        digits = data_.load("digits")
        redrawn.RedrawnLoss(
            None, DeviceData.of(digits, "train", "scale"), num_examples=2000,
            batch_size=10, augment=(),
        )  # fmt: skip


@pytest.mark.slow
def test_a_peak_that_diverges_is_not_chosen(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(
        PRESETS["quick"], "mlp",
        dataclasses.replace(PLAN, seeds=1, trained=1, peaks=(1e30, 0.1)),
    )  # fmt: skip
    assert call(tmp_path, "fig6") == 0
    assert {row["largest rate"] for row in rows_of(tmp_path, "fig6")} == {"0.1"}


@pytest.mark.slow
def test_a_tenth_of_the_rate(root):
    assert call(root, "sec6") == 0
    assert {row["rate"] for row in rows_of(root, "sec6")} == {0.1, 0.01}


@pytest.mark.slow
def test_every_claim_is_judged(root):
    assert call(root, "claims") == 0
    rows = rows_of(root, "claims")
    numbers = {row["claim"].split()[0] for row in rows}
    assert numbers == {f"3.{n}" for n in range(1, 12)}
    assert {row["verdict"] for row in rows} <= {
        "supported", "contradicted", "undecided", "too few seeds", "not measured",
    }  # fmt: skip
    by_name = {row["claim"]: row for row in rows}
    assert by_name["3.9 identity"]["verdict"] == "supported"
    assert "no barrier was crossed" in by_name["3.2"]["measured"]
    # Six updates of an MLP tell nothing of walls and barriers, and are shown.
    for name in ("3.1", "3.3", "3.4", "3.9 minima", "3.11"):
        assert by_name[name]["verdict"] == "not measured"
        assert "out of regime" in by_name[name]["measured"]
    assert "no barrier at either rate" in by_name["3.11"]["measured"]
    assert len(PARTS) == 9


@pytest.mark.slow
def test_the_authors_way_of_measuring(tiny, tmp_path):
    """Redrawn at every point; pixels are not changed here, only the order is."""
    assert call(tmp_path, "table1", "--preset=authors") == 0
    row, *_ = rows_of(tmp_path, "table1")
    assert "redrawn" in row and "of these on the fixed sample" in row
    found = Records(tmp_path).load_result("table1")
    assert found["mlp-0.1-1_loss"].sizes["alpha"] == 11
    losses = found["mlp-0.1-1_redrawn_loss"].values[0]
    assert losses.shape == (6, 11)
    # A segment's end is the next one's beginning, on the same draw.
    np.testing.assert_array_equal(losses[:-1, -1], losses[1:, 0])
    config = json.loads(next(tmp_path.glob("mlp-*/config.json")).read_text())
    assert config["model_options"] == {"weight_init": "fan_out"}
    assert call(tmp_path, "fig1", "--preset=authors") == 0
    assert call(tmp_path, "fig3", "--preset=authors") == 0


@pytest.mark.slow
def test_redrawn_losses_are_of_the_whole_sample():
    digits = data_.load("digits")
    model = models.create("mlp", num_classes=10, features=(16,), batch_norm=False)
    params = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False)
    params = params["params"]
    data = DeviceData.of(digits, "train", "standardize")
    loss = redrawn.RedrawnLoss(model, data, num_examples=100, batch_size=25, augment=())
    objective = landscape.flax_objective(
        model,
        (data.normalize(jnp.asarray(digits.train.image[:100])),
         jnp.asarray(digits.train.label[:100])),
        norm="train", batch_size=100,
    )  # fmt: skip
    # Neither order nor batches matter without batch norm and augmentation.
    for seed in (0, 1):
        key = jax.random.key(seed)
        assert loss(params, key) == pytest.approx(
            float(objective.batch_loss(params, objective.batch(0))), rel=1e-5
        )
        slopes = loss.gradient(params, key), landscape.loss_gradient(objective, params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *slopes)
    exact = landscape.spectral_norm(
        objective, params, key=jax.random.key(0), tolerance=1e-6
    )
    measured = loss.spectral_norm(params, jax.random.key(1), iterations=60)
    assert measured == pytest.approx(exact.value, rel=1e-2)
    augmented = redrawn.RedrawnLoss(
        model, data, num_examples=100, batch_size=25, augment=("crop",)
    )
    first, again, other = (augmented(params, jax.random.key(s)) for s in (0, 0, 1))
    assert first == again != other


def test_minibatches_go_over_all_examples():
    objective, *_ = regression(10, 4)
    point = linear_point()
    gradient = minibatch_gradient(objective, batch_size=5, seed=0)
    halves = [gradient(point, step) for step in (1, 2)]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *halves)
    whole = landscape.loss_gradient(objective, point)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), mean, whole)
    other = gradient(point, 3)
    assert not np.allclose(other["w"], halves[0]["w"])


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_the_variance_of_gradients(batch_size):
    """A ragged last batch counts by its share."""
    objective, x, y = regression(10, batch_size)
    point = linear_point()
    slopes, weights = [], []
    for start in range(0, 10, batch_size):
        rows, wanted = x[start : start + batch_size], y[start : start + batch_size]
        residual = rows @ np.asarray(point["w"], float) + float(point["b"]) - wanted
        slopes.append(2 * rows.T @ residual / len(rows))
        weights.append(len(rows) / 10)
    slopes, weights = np.array(slopes), np.array(weights)
    mean = weights @ slopes
    expected = weights @ (slopes - mean) ** 2 / (1 - np.sum(weights**2))
    found = gradient_variance(objective, point)
    np.testing.assert_allclose(found["w"], expected, rtol=1e-4)


def test_a_single_batch_has_no_variance():
    objective, *_ = regression(10, 10)
    with pytest.raises(InputError, match="smaller batch_size"):
        gradient_variance(objective, linear_point())


def test_descent_on_a_quadratic_contracts_as_predicted(root):
    assert call(root, "fig28") == 0
    found = Records(root).load_result("fig28")["contraction"]
    for curvature in quadratic.CURVATURES:
        for rate in quadratic.RATES:
            measured = float(found.sel(curvature=curvature, rate=rate))
            assert measured == pytest.approx(1 - rate * curvature, abs=1e-6)


def test_isotropic_noise_has_its_variance():
    point = jnp.zeros(4000)
    tx = optax.chain(optax.add_noise(eta=0.04, gamma=0.0, key=0), optax.sgd(1.0))
    *_, (_, end, _) = descend(lambda w: jnp.sum(0 * w), point, tx, 9)
    assert float(jnp.var(end)) == pytest.approx(9 * 0.04, rel=0.1)


def test_intervals():
    interval = t_interval([1.0, 2.0, 6.0])
    # Of two degrees of freedom, 4.302653 standard errors.
    half = 4.302653 * (7 / 3) ** 0.5
    np.testing.assert_allclose(interval, (3, 3 - half, 3 + half), rtol=1e-6)
    assert np.isnan(t_interval([1.0]).low)
    assert statistics.mean_and_interval([]) == "-"


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_an_interval_covers_the_mean_as_often_as_it_says(count):
    drawn = np.random.default_rng(count).normal(1.0, 3.0, (4000, count))
    covered = [low <= 1 <= high for _, low, high in map(t_interval, drawn)]
    # Three standard errors of 4,000 draws are 1 %.
    assert np.mean(covered) == pytest.approx(0.95, abs=0.011)


def verdicts(*claims):
    made = [Claim(str(i), "", conditions) for i, conditions in enumerate(claims)]
    return [one.verdict for one in judge(made)]


def test_one_condition_that_fails_fails_the_claim():
    good, bad = Condition("a", [1.0, 1.1, 1.2]), Condition("b", [-1.0, 0.1, 1.0])
    against = Condition("c", [-1.0, -1.1, -0.9])
    assert verdicts([good], [good, bad], [good, against]) == [
        "supported", "undecided", "contradicted",
    ]  # fmt: skip


def test_holm_makes_a_weak_claim_undecided():
    """One of a hundred resampled means in 50 is below zero: not enough among 20."""
    weak = Condition("weak", [-0.3, 1.0, 1.0, 1.0, 1.0])
    assert verdicts([weak]) == ["supported"]
    assert verdicts(*[[weak]] * 200) == ["undecided"] * 200
    # Claims that come out the other way belong to the family too.
    down = Condition("down", [-1.0, -1.0, -1.0, -1.0, -1.0])
    assert verdicts([weak], *[[down]] * 199)[0] == "undecided"


def test_what_was_not_measured_supports_nothing():
    fine = Condition("a", [1.0, 1.0, 1.0])
    for bad in ([np.nan] * 3, [1.0, np.nan, 1.0], [np.inf, 1.0, 1.0]):
        assert verdicts([fine, Condition("b", bad)]) == ["not finite"]
    assert verdicts([Condition("b", [1.0, 1.0])], []) == [
        "too few seeds", "not measured",
    ]  # fmt: skip
    five = Claim("x", "", [fine], least=5)
    partly = Claim("x", "", [fine], missing="a single epoch")
    assert [one.verdict for one in judge([five, partly])] == [
        "too few seeds", "not measured",
    ]  # fmt: skip


@pytest.mark.slow
def test_both_readings_of_he_normal():
    """Variance 2 / fan_in everywhere, or 2 / fan_out and PyTorch's dense layers."""
    x = jnp.zeros((1, 8, 8, 3))
    for weight_init, fan in (("fan_in", 9 * 16), ("fan_out", 9 * 32)):
        model = models.ResNet(num_classes=10, depth=8, weight_init=weight_init)
        init = jax.jit(functools.partial(model.init, train=False))
        params = init(jax.random.key(0), x)["params"]
        wide = [
            leaf for leaf in jax.tree.leaves(params)
            if leaf.shape == (3, 3, 16, 32)
        ]  # fmt: skip
        assert float(jnp.var(wide[0])) == pytest.approx(2 / fan, rel=0.1)
    mlp = models.create("mlp", num_classes=10, weight_init="fan_out")
    init = jax.jit(functools.partial(mlp.init, train=False))
    kernel = init(jax.random.key(0), jnp.zeros((1, 784)))["params"]["Dense_0"]["kernel"]
    assert float(jnp.abs(kernel).max()) == pytest.approx(784**-0.5, rel=0.01)
    with pytest.raises(InputError, match="did you mean"):
        models.create("vgg11", num_classes=10, weight_init="fan_inn").init(
            jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False
        )
