"""Paper 1 on digits: trained once, resumed, and judged by what was measured."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.harness.rates import scale_by_rates
from experiments.harness.statistics import judge, mean_and_interval
from experiments.nonmonotonic import __main__ as nonmonotonic
from experiments.nonmonotonic import (
    bounds,
    claims,
    curves,
    deep,
    deep_plans,
    lines,
    quadratic,
    scatter,
    sweeps,
    tables,
)
from experiments.nonmonotonic.lab import Lab
from experiments.nonmonotonic.networks import PEAK
from experiments.nonmonotonic.plans import Plan, Survey, Sweep
from experiments.nonmonotonic.presets import BASELINES, PRESETS
from experiments.nonmonotonic.rules import Rule, optimizer_of
from lrscape import data, landscape, models, schedules
from lrscape.errors import InputError
from lrscape.landscape import masks, tree
from lrscape.training import learning_rate

ORIGINAL = dict(PRESETS)
SMALL = Plan(
    model="mlp", dataset="digits", examples=256, validation=64, test=100,
    batch_size=64, epochs=3, seeds=2, start=0.1, peak=0.3, rates=(0.3,),
    milestones=(0.5,),
    gradient_examples=64, looked_at=(1, 2),
)  # fmt: skip
SETTINGS = dataclasses.replace(
    PRESETS["quick"],
    plans={
        "small": SMALL,
        "large": dataclasses.replace(SMALL, seeds=1, epochs=1),
        "nin": dataclasses.replace(SMALL, seeds=1, epochs=1),
        "descent": dataclasses.replace(
            SMALL, momentum=0.0, seeds=1, gradient_examples=0
        ),
        "resnet110_cifar10": dataclasses.replace(SMALL, gradient_examples=0),
        "alexnet": dataclasses.replace(
            SMALL, gradient_examples=0, image_size=12, top5=True, epochs=1
        ),
    },
    survey=Survey(
        examples=64, points=3, directions=2, noise=5.0, weights=1.0, relative=0.3,
        fooling=2, curvature=32,
    ),
    sweep=Sweep(
        examples=128, seeds=2, totals=(1, 2), starts=(0.01,), peaks=(0.3, 0.4),
        epochs=1, random=1,
    ),
    ensemble=3,
    draws=50,
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "quick", SETTINGS)
        yield tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def lab(root):
    return Lab("quick", SETTINGS, root, None, "digits")


def call(root, item, *flags):
    return nonmonotonic.main([item, "--dataset=digits", f"--run-dir={root}", *flags])


def summary(root, item):
    return json.loads((root / "results" / f"{item}.json").read_text())


@pytest.mark.slow
def test_claims_come_from_what_was_measured(root):
    assert call(root, "all") == 0
    rows = summary(root, "claims")["rows"]
    names = {row["claim"] for row in rows}
    assert names == {f"1.{i}" for i in [*range(1, 11), 12]}
    assert rows[0]["verdict"] == "supported"
    for item in ("fig3", "fig4", "fig5", "fig6", "fig7", "eq11", "eq13", "eq15"):
        assert list(root.glob(f"figures/{item}*.png"))
    # Nothing is trained again.
    before = {path: path.stat().st_mtime_ns for path in root.glob("*/checkpoints/*")}
    assert call(root, "fig5") == 0
    after = {path: path.stat().st_mtime_ns for path in root.glob("*/checkpoints/*")}
    assert before == after


@pytest.mark.slow
def test_the_line_goes_from_the_last_weights_to_the_peaks(lab):
    network = lab.network("small", lab.rule("small", "gaussian"), 0)
    direction, length, size = lines.way_of(network)
    final = network.final.params
    peak = network.at(PEAK)
    # start / peak = 1/3: t0 = 0.327, so that the peak is at 0.257 of 12 updates.
    assert peak.step == 3
    back = tree.subtract(peak.params, tree.scale(length, direction))
    np.testing.assert_allclose(
        float(tree.norm(tree.subtract(back, final))), 0, atol=1e-5 * size
    )
    scales, found = lines.curves_of(lab, "line")
    assert scales[-1] == pytest.approx(lines.reach_of(lab)[0])
    objective = network.objective(64)
    moved = tree.combine([1.0, scales[1]], [final, direction])
    assert found["gaussian"][0, 0, 0] == pytest.approx(
        float(objective(final)), rel=1e-5
    )
    assert found["gaussian"][0, 0, 1] == pytest.approx(
        float(objective(moved)), rel=1e-4
    )


def test_rise_and_slope_by_hand():
    scales = np.array([0.0, 1.0, 2.0])
    losses = np.array([[[1.0, 2.0, 5.0], [1.0, 4.0, 7.0]]])
    # The mean curve rises by 0, 2, 5: its area is 1 + 3.5, over a length of 2.
    np.testing.assert_allclose(lines.excess(scales, losses), [2.25])
    np.testing.assert_allclose(lines.slope(scales, losses), [2.5])


@pytest.mark.slow
def test_perturbed_weights_are_those_that_are_said(lab):
    found = scatter.losses_of(lab, "first layer", "raw")
    network = lab.network("small", lab.rule("small", "gaussian"), 0)
    point, objective = network.final.params, network.objective(64)
    images, _ = network.examples("train", 1)
    mask = masks.first_layer(network.model, images)
    keys = jax.random.split(jax.random.key(0), 2)
    direction = landscape.gaussian_direction(
        keys[0], point, normalize="global", mask=mask
    )
    moved = tree.combine([1.0, 1.0], [point, direction])
    assert found["gaussian"][0, 0, 1] == pytest.approx(
        float(objective(moved)), rel=1e-4
    )
    made = {
        "gaussian": np.array([[[0, 1.0], [0, 3.0]]]),
        "step": np.array([[[0, 2.0], [0, 2.0]]]),
    }
    np.testing.assert_array_equal(scatter.shares_above(made), [0.5])


@pytest.mark.slow
def test_figure_5s_rows_are_the_histories(root, lab):
    assert call(root, "fig5") == 0
    rows = [r for r in summary(root, "fig5")["rows"] if "mlp" in r["network"]]
    assert [row["rule"].split(" (")[0] for row in rows[:5]] == [
        "gaussian", "step", "step, tuned", "rational, tuned", "rmsprop, tuned",
    ]  # fmt: skip
    found = [
        lab.network("small", lab.rule("small", "step"), seed).history()
        for seed in (0, 1)
    ]
    last = 100 * np.mean([history[-1]["test_error"] for history in found])
    assert rows[1]["test %, last epoch"].startswith(f"{last:.4g} (")
    assert "gradient_norm" in found[0][0]
    # Ten-fold lower after half of the run.
    assert [row["rate"] for row in found[0]] == pytest.approx([0.1, 0.1, 0.01, 0.01])


def test_errors_of_runs_that_fail_count_as_all():
    whole = [{"epoch": 0, "test_error": 0.9}, {"epoch": 1, "test_error": 0.2},
             {"epoch": 2, "test_error": 0.3}]  # fmt: skip
    failed = [*whole[:2], {"epoch": 2, "diverged": 7}]
    best, last = curves.errors_of([whole, failed])
    np.testing.assert_allclose(best, [20, 100])
    np.testing.assert_allclose(last, [30, 100])


def test_ensembles_average_softmax_outputs():
    random = np.random.default_rng(0)
    outputs = random.dirichlet(np.ones(3), (4, 20))
    labels = random.integers(0, 3, 20)
    errors = tables.ensemble_errors(outputs, labels, 2)
    assert len(errors) == 6
    mean = (outputs[1] + outputs[3]) / 2
    assert errors[4] == pytest.approx(100 * np.mean(mean.argmax(1) != labels))
    np.testing.assert_array_equal(
        tables.ensemble_errors(outputs, labels, 2, most=3).shape, (3,)
    )


def test_lemma_1_is_exact_and_its_bound_holds():
    found = bounds.draws_of(30)
    assert found["residual"].max() < 1e-12
    assert 0 < found["ratio"].max() <= 1 + 1e-12


def test_the_bound_on_the_largest_gradient(lab):
    network = lab.network("small", lab.rule("small", "gaussian"), 0)
    found = bounds.slopes_of(lab, network)
    objective = network.objective(64)
    start, end = network.at("initial").params, network.final.params
    fall = abs(float(objective(start)) - float(objective(end)))
    distance = float(tree.norm(tree.subtract(start, end)))
    assert found["bound"] == pytest.approx(fall / distance, rel=1e-4)
    # The mean slope cannot be above the steepest one.
    assert max(found["segment"]) > found["bound"]
    assert found["epochs"] == [0, 1, 2, 3]


def test_curvature_is_that_of_the_hessian(lab):
    network = lab.network("small", lab.rule("small", "step"), 0)
    rows = bounds.curvature_of(lab, network)
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    point, objective = network.at("epoch_2").params, network.objective(32)
    power = landscape.spectral_norm(objective, point, key=jax.random.key(3)).value
    assert abs(rows[2]["largest"]) == pytest.approx(float(power), rel=0.05)
    np.testing.assert_allclose(
        bounds.stability_of(rows), [r["rate"] * r["largest"] / 2 for r in rows]
    )


@pytest.mark.slow
def test_short_runs_are_of_the_size_that_is_asked_for(lab):
    rule = lab.rule("small", "laplacian")
    errors = sweeps.errors(lab, rule, 2)
    assert errors.shape == (2,)
    network = lab.network("small", rule, 0, epochs=2, examples=128)
    assert len(network.data.train) == 128 and len(network.history()) == 3
    assert "test_error" not in network.history()[1]


def test_baselines_are_tuned_over_as_many_trials():
    lab = Lab("quick", ORIGINAL["quick"], None, None, "digits")
    for task in ("small", "large"):
        tried = {name: lab.tried(task, name) for name in BASELINES}
        assert {len(rules) for rules in tried.values()} == {len(lab.rates_of(task))}
        names = [rule.name for rules in tried.values() for rule in rules]
        assert len(set(names)) == len(names)
        for name in BASELINES:
            assert lab.rule(task, name) in tried[name]


def test_settings_at_random_are_the_same_and_within_bounds():
    lab = Lab("paper", ORIGINAL["paper"], None, None, "digits")
    drawn = sweeps.drawn_of(lab)
    assert drawn == sweeps.drawn_of(lab) and len(set(drawn)) == 20
    for one in drawn:
        assert one.epochs in lab.settings.sweep.totals
        assert 0.0004 <= one.weight_decay <= 0.04 and 0.8 <= one.momentum <= 0.95
        assert 0.0003 < one.start <= 0.001 and 0.002 <= one.peak <= 0.015


@pytest.mark.slow
def test_descent_near_the_end_is_that_of_the_quadratic(lab):
    network = lab.network("descent", lab.rule("descent", "constant"), 0)
    found = quadratic.measured_of(lab, network)
    # The nearer, the more of a quadratic.
    ratios = found["ratios"]["steepest"]
    assert abs(ratios[1] - 1) < 0.1 < abs(ratios[3] - 1)
    run = found["0.5"]
    # A prediction without the Hessian would be half its own length off.
    assert run["apart"][0] < 1e-3 and run["apart"][1] < 0.45
    assert run["measured"][0] == pytest.approx(run["predicted"][0], rel=1e-3)


def test_flags_change_the_plans_and_the_networks_names(tmp_path):
    asked = nonmonotonic.Arguments(
        item="fig5", start=0.05, peak=0.25, momentum=0.5, weight_decay=0.002,
        batch_size=32, rule="laplacian", dataset="digits", run_dir=tmp_path,
    )  # fmt: skip
    lab = nonmonotonic.lab_of(asked)
    rule = lab.rule("small", "gaussian")
    assert rule == Rule(schedule="laplacian", start=0.05, peak=0.25)
    network = lab.network("small", rule, 0)
    config = network.config
    assert (config.momentum, config.weight_decay, config.batch_size) == (0.5, 0.002, 32)
    for part in ("momentum_0.5", "weight_decay_0.002", "batch_size_32", "laplacian"):
        assert part in network.records.path.name
    # Full-batch descent has neither momentum nor batches.
    descent = PRESETS["quick"].plans["descent"]
    assert lab.plans["descent"].momentum == 0
    assert lab.plans["descent"].peak == descent.peak
    plain = nonmonotonic.lab_of(
        nonmonotonic.Arguments(item="fig5", dataset="digits", run_dir=tmp_path)
    )
    name = plain.network("small", plain.rule("small", "gaussian"), 0).records.path.name
    assert "momentum" not in name and "batch_size" not in name


def test_the_tuned_step_rule_is_the_one_with_fewest_validation_errors(lab):
    found = {
        rate: lab.network(
            "small", Rule(schedule="step", start=rate, milestones=(0.5,)), 0
        ).history()[-1]["validation_error"]
        for rate in (0.1, 0.3)
    }  # fmt: skip
    assert lab.tuned("small", "step").start == min(found, key=found.get)


def test_a_failed_run_has_no_last_weights(lab):
    network = lab.network("small", Rule(schedule="constant", start=1e30), 0)
    assert network.failed()
    with pytest.raises(InputError, match="stopped being finite"):
        network.final  # noqa: B018


def test_rules_by_hand():
    gaussian = Rule(schedule="gaussian", start=0.1, peak=0.3).make(100, 10)
    expected = schedules.gaussian(0.3, 100, start_value=0.1)
    np.testing.assert_array_equal(gaussian, expected(jnp.arange(100)))
    discrete = Rule(schedule="gaussian", start=0.1, peak=0.3, per_epoch=True)
    assert discrete.make(100, 10)[17] == expected(10)
    assert Rule(schedule="constant", start=0.1, optimizer="rmsprop").name == (
        "rmsprop_0.1"
    )
    with pytest.raises(InputError, match="did you mean"):
        Rule(schedule="gausian", start=0.1)


def test_the_published_optimizer_by_hand():
    """Biases at twice the rate, decay of 0.004 on kernels and 1 on the dense layer."""
    params = {"kernel": jnp.full((1, 1, 1, 1), 2.0), "dense": jnp.full((1, 1), 3.0),
              "bias": jnp.ones(1)}  # fmt: skip
    rule = Rule(schedule="constant", start=0.1)
    tx = optimizer_of(
        "sgd", rule.make(10, 1), momentum=0.5, weight_decay=0.004, dense_decay=1.0,
        bias_rate=2.0,
    )  # fmt: skip
    state, slopes = tx.init(params), jax.tree.map(jnp.ones_like, params)
    for factor in (1.0, 1.5):
        updates, state = tx.update(slopes, state, params)
        np.testing.assert_allclose(updates["kernel"].ravel(), -0.1 * factor * 1.008)
        np.testing.assert_allclose(updates["dense"].ravel(), -0.1 * factor * 4)
        np.testing.assert_allclose(updates["bias"], -0.1 * factor * 2)
    assert optax.tree.get(state, "learning_rate") == pytest.approx(0.1)


def test_rates_that_are_data():
    tx = scale_by_rates([0.5, 0.25, 0.125])
    state, step = tx.init({"w": jnp.ones(2)}), jax.jit(tx.update)
    for rate in (0.5, 0.25, 0.125, 0.125, 0.125):
        updates, state = step({"w": jnp.ones(2)}, state)
        np.testing.assert_array_equal(updates["w"], [-rate, -rate])
        assert float(learning_rate(state)) == rate
    # Another schedule of as many updates is the same program.
    other = scale_by_rates([0.1, 0.1, 0.2])
    updates, _ = step({"w": jnp.ones(2)}, other.init({"w": jnp.ones(2)}))
    np.testing.assert_allclose(updates["w"], [-0.1, -0.1])


@pytest.mark.slow
def test_full_batch_descent_is_of_all_examples(lab):
    network = lab.network("descent", lab.rule("descent", "constant"), 0)
    assert network.steps_per_epoch == 1 and network.config.momentum == 0
    assert [row["rate"] for row in network.history()] == pytest.approx([0.3] * 4)
    # The Hessian too.
    assert [r["epoch"] for r in bounds.curvature_of(lab, network)] == [0, 1, 2, 3]
    assert list(network.records.path.glob("results/curvature-256-epoch_1.json"))


def test_gradients_are_looked_at_often_before_the_peak(lab):
    network = lab.network("small", lab.rule("small", "gaussian"), 0)
    steps, norms, peak = bounds.early_norms(lab, network)
    assert peak == 3 and steps.tolist() == [0, 1, 2, 3, 4, 8, 12]
    objective = network.objective(64)
    slope = landscape.loss_gradient(objective, network.at("step_2").params)
    assert norms[2] == pytest.approx(float(tree.norm(slope)), rel=1e-5)


@pytest.mark.slow
def test_table_3_is_what_its_networks_reached(root, lab):
    assert call(root, "table3", "--rows", "resnet110_cifar10") == 0
    found = summary(root, "table3")
    (row,) = found["rows"]
    assert row["network"] == "ResNet-110, CIFAR-10"
    assert (row["paper, step"], row["paper, gaussian"]) == ("6.41", "5.34")
    measured = deep.errors(lab, "resnet110_cifar10")
    for name in ("step", "gaussian"):
        for seed, value in enumerate(measured[name]["last"]):
            network = lab.network(
                "resnet110_cifar10", lab.rule("resnet110_cifar10", name), seed
            )
            assert value == 100 * network.history()[-1]["test_error"]
    difference = measured["gaussian"]["last"] - measured["step"]["last"]
    assert row["difference"] == mean_and_interval(difference)
    assert any("not measured: nin_cifar10" in note for note in found["notes"])


@pytest.mark.slow
def test_table_4_is_streamed_and_of_top_5(root, lab):
    assert call(root, "table4") == 0
    (row,) = summary(root, "table4")["rows"]
    network = lab.network("alexnet", lab.rule("alexnet", "step"), 0)
    assert isinstance(network.data, data.StreamedDataset)
    measured = deep.errors(lab, "alexnet")["step"]
    assert row["step, %"] == mean_and_interval(measured["top5"])
    assert (measured["top5"] <= measured["last"]).all()


@pytest.mark.parametrize(
    "preset", ["quick", pytest.param("paper", marks=pytest.mark.slow)]
)
def test_every_plan_can_be_made(preset):
    for plan in ORIGINAL[preset].plans.values():
        assert plan.normalize in data.NORMALIZATIONS
        side = plan.image_size or 32
        shape = (1, 28, 28, 1) if plan.dataset == "mnist" else (1, side, side, 3)
        model = models.create(plan.model, num_classes=10, **plan.model_options)
        init = functools.partial(model.init, train=False)
        jax.eval_shape(init, jax.random.key(0), jnp.ones(shape))
        rates = Rule(
            schedule="gaussian", start=plan.start, peak=plan.peak,
            variance=plan.variance,
        ).make(plan.epochs * 10, 10)  # fmt: skip
        assert rates.max() == pytest.approx(plan.peak, rel=0.02)


def test_the_naive_gaussian_is_the_papers():
    """Of variance 2 * 0.08^2, which ends at 3.3e-9 of its peak."""
    rates = Rule(schedule="gaussian", start=0.1, peak=0.3, variance=0.0128).make(999, 9)
    np.testing.assert_allclose(rates[0], 0.3 * np.exp(-0.25 / 0.0128), rtol=1e-4)


def test_step_networks_that_a_gaussian_one_is_worth():
    """Right outputs of one rule, and of the other such as five outvote."""
    labels = np.zeros(10, int)
    right = np.tile([0.9, 0.1], (10, 10, 1))
    # Each network is wrong on an image of its own, and sure of all others.
    erring = np.tile([0.9, 0.1], (10, 10, 1))
    for i in range(10):
        erring[i, i] = [0.2, 0.8]
    found = tables.worth({"gaussian": right, "step": erring}, labels, resamples=20)
    # Two average to (0.55, 0.45): as good as the Gaussian's.
    assert set(found) == {2}
    found = tables.worth({"gaussian": erring, "step": right}, labels, resamples=20)
    assert set(found) == {1}
    hopeless = np.tile([0.1, 0.9], (10, 10, 1))
    found = tables.worth({"gaussian": right, "step": hopeless}, labels, resamples=20)
    assert set(found) == {6}


class Made:
    """A lab whose networks need not be there."""

    def __init__(self, plans):
        self.plans, self.settings, self.preset = plans, SETTINGS, "quick"


def verdicts(part, monkeypatch, plans=SETTINGS.plans, **made):
    for name, value in made.items():
        module, function = name.split("__")
        monkeypatch.setattr(getattr(claims, module), function, value)
    monkeypatch.setattr(claims, "_gaussians_that_failed", lambda lab: "")
    found = part(Made(plans))
    judged = judge(found)
    return [(c.name, j.verdict) for c, j in zip(found, judged, strict=True)]


@pytest.mark.parametrize(("sign", "verdict"), [(1, "supported"), (-1, "contradicted")])
def test_flatness_is_judged_on_the_right_side(sign, verdict, monkeypatch):
    noise = np.random.default_rng(0).normal(0, 0.01, (5, 1, 3))
    rising = np.array([0.0, 1.0, 2.0])
    flat = {"gaussian": noise + rising, "step": noise + 2 * rising}
    low = {
        name: np.tile([0.1, loss], (5, 2, 1))
        for name, loss in (("gaussian", 1.0), ("step", 2.0))
    }
    if sign < 0:
        flat = dict(zip(flat, reversed(flat.values()), strict=True))
        low = dict(zip(low, reversed(low.values()), strict=True))
    found = verdicts(
        claims.flatness, monkeypatch,
        lines__curves_of=lambda lab, kind: (rising, flat),
        scatter__losses_of=lambda lab, kind, scale: low,
    )  # fmt: skip
    assert found == [(name, verdict) for name in ("1.3", "1.4", "1.5")]


def test_a_lower_loss_that_rises_as_much_is_no_flatness(monkeypatch):
    """The Gaussian's networks have learnt more, and their losses rise in parallel."""
    rising = np.array([0.0, 1.0, 2.0])
    curves = {"gaussian": np.zeros((5, 1, 3)) + rising}
    curves["step"] = curves["gaussian"] + 0.5
    # Beside them those that rise a little more from far lower down.
    points = {
        "gaussian": np.tile([0.1, 1.0], (5, 2, 1)), "step": np.tile([1, 1.8], (5, 2, 1))
    }  # fmt: skip
    found = verdicts(
        claims.flatness, monkeypatch,
        lines__curves_of=lambda lab, kind: (rising, curves),
        scatter__losses_of=lambda lab, kind, scale: points,
    )  # fmt: skip
    assert found[1:] == [("1.4", "not measured"), ("1.5", "not measured")]


@pytest.mark.parametrize("sign", [1, -1])
def test_sweeps_are_judged_on_the_right_side(sign, monkeypatch):
    seeds = np.linspace(0.0, 0.2, 5)

    def shapes(lab):
        errors = {"gaussian": 20.0, "laplacian": 20.0 + 5 * sign}
        return {
            f"{shape}, {how}": dict.fromkeys((1, 2), errors[shape] + seeds + extra)
            for shape in errors
            for how, extra in (("continuous", 0), ("discrete", 2 - 2 * sign))
        }

    found = verdicts(
        claims.sweeping, monkeypatch,
        sweeps__shapes_of=shapes,
        sweeps__grid_of=lambda lab: {0.3: {1: 20 + seeds, 2: 18 + seeds}},
        sweeps__baselines_of=lambda lab: {
            0.1: {1: 20 + 5 * sign + seeds, 2: 18 + 5 * sign + seeds}
        },
        sweeps__starts_of=lambda lab: {
            0.01: 20 + 5 * sign + seeds, 0.1: 20 + seeds, 0.3: 20 + 3 * sign + seeds
        },
    )  # fmt: skip
    verdict = "supported" if sign > 0 else "contradicted"
    assert found == [(n, verdict) for n in ("1.8", "1.8", "1.9", "1.9", "1.12")]


def test_peaks_are_compared_after_as_many_epochs(monkeypatch):
    """Short runs are worse than long ones by either rule, and that is no failure."""
    seeds = np.linspace(0.0, 0.2, 5)
    grid = {p: {1: 40 + 9 * p + seeds, 2: 20 + 9 * p + seeds} for p in (0.1, 0.2)}
    assert sweeps.worst_of(grid, 2)[0] == 0.2
    steps = {0.1: {1: 45 + seeds, 2: 25 + seeds}, 0.3: {1: 43 + seeds, 2: 27 + seeds}}
    found = {total: sweeps.tuned_of(steps, total)[0] for total in (1, 2)}
    assert found == {1: 0.3, 2: 0.1}
    shapes = {f"{s}, {h}": {1: seeds, 2: seeds} for s in ("gaussian", "laplacian")
              for h in ("continuous", "discrete")}  # fmt: skip

    def judged(steps):
        return verdicts(
            claims.sweeping, monkeypatch, sweeps__shapes_of=lambda lab: shapes,
            sweeps__grid_of=lambda lab: grid, sweeps__baselines_of=lambda lab: steps,
            sweeps__starts_of=lambda lab: dict.fromkeys((0.01, 0.1, 0.3), seeds),
        )[2:4]  # fmt: skip

    assert judged(steps) == [("1.9", "supported")] * 2
    # Better than the worst after two epochs, though not than that after one.
    steps[0.1][2] = 20 + seeds
    assert judged(steps) == [("1.9", "contradicted")] * 2


@pytest.mark.parametrize(("size", "verdict"), [(4, "contradicted"), (5, "supported")])
def test_one_gaussian_network_is_worth_five(size, verdict, monkeypatch):
    outputs = dict.fromkeys(("step", "gaussian"), np.zeros((10, 1, 2)))
    found = verdicts(
        claims.ensembles, monkeypatch, tables__outputs_of=lambda lab: (outputs, None),
        tables__worth=lambda outputs, labels: np.full(9, size),
    )  # fmt: skip
    assert found == [("1.10", verdict)]


@pytest.mark.parametrize(("sign", "verdict"), [(1, "supported"), (-1, "contradicted")])
def test_tables_are_judged_on_the_right_side(sign, verdict, monkeypatch):
    seeds = np.array([0.0, 0.1, 0.2])

    def errors(lab, task):
        found = {"step": 20 + 5 * sign + seeds, "gaussian": 20 + 2 * seeds}
        return {k: {"last": v, "best": v, "top5": v} for k, v in found.items()}

    few = [deep.TABLE3[0], deep.TABLE4[0], deep.TABLE4[3]]
    plans = {**deep_plans.QUICK, "nin": SETTINGS.plans["nin"]}
    # By a sign test four rows on one side are no more than chance.
    for rows, over in ((few, "undecided"), (3 * few, verdict)):
        found = verdicts(
            claims.tables_of, monkeypatch, plans, deep__errors=errors,
            deep__chosen=lambda lab, table, rows=rows: (
                [row for row in rows if row in table]
            ),
        )  # fmt: skip
        assert found == [("1.11", verdict)] * (len(rows) + 1) + [("1.11", over)]


def test_verdicts_have_their_sides():
    assert claims.above("a", [3.0], 2.0).values == pytest.approx([1.0])
    assert claims.below("a", [3.0], 2.0).values == pytest.approx([-1.0])
    sides = [
        claims.interval("a", *ends, 4.0).values for ends in ((5, 6), (3, 5), (1, 2))
    ]
    assert sides == [[1.0], [0.0], [-2.0]]
    # Of an effect of 8, a quarter: 6 is what it has to reach.
    assert claims.interval("a", 3, 5, 4.0, effect=8.0).values == [-1.0]


def test_a_quarter_of_the_papers_effect():
    """An effect that is there, and too small to be the paper's."""
    small = claims.above("a", [0.1, -0.1, 0.12, -0.08, 0.02, 0.03])
    for effect, verdict in (
        (0.0, "undecided"),
        (0.1, "undecided"),
        (4, "contradicted"),
    ):
        claim = claims.Claim("1", "", [small._replace(effect=effect)])
        assert judge([claim])[0].verdict == verdict


BAD = {
    "item": (["fig33"], "did you mean"),
    "preset": (["fig3", "--preset=full"], "preset='full'"),
    "dataset": (["fig3", "--dataset=svhn"], "dataset='svhn'"),
    "epochs": (["fig3", "--epochs=0"], "epochs=0"),
    "examples": (["fig3", "--examples=3"], "examples=3"),
    "ensemble": (["table1", "--ensemble=0"], "ensemble=0"),
    "rows": (["table3", "--rows", "resnet110_cifar"], "resnet110_cifar10"),
    "start": (["fig5", "--start=0.5"], "start=0.5 is above peak="),
    "rule": (["fig6", "--rule=laplacian"], "about the Gaussian all the same"),
    "momentum": (["fig5", "--momentum=2"], "momentum=2"),
    "rows of paper": (["table3", "--rows", "densenet190_cifar100"], "preset='quick'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, capsys):
    flags, message = BAD[name]
    assert nonmonotonic.main(flags) == 2
    assert message in capsys.readouterr().err
