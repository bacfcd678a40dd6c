"""Paper 2 on digits: shared starts and orders, and both verdicts of each claim."""

import dataclasses
import itertools
import json

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.harness.statistics import Claim, Condition, judge
from experiments.loss_surfaces import __main__ as loss_surfaces
from experiments.loss_surfaces import (
    around,
    criteria,
    curvature,
    integrators,
    pairs,
    switching,
)
from experiments.loss_surfaces.alignment import aligned, chain
from experiments.loss_surfaces.drawing import surfaces_page
from experiments.loss_surfaces.lab import Lab
from experiments.loss_surfaces.methods import METHODS, Method
from experiments.loss_surfaces.networks import drawn
from experiments.loss_surfaces.presets import FIXED, PRESETS, Plan
from lrscape import landscape, models
from lrscape.errors import InputError
from lrscape.landscape import tree
from lrscape.training import learning_rate
from lrscape.training.fit import epoch_order

TINY = Plan(
    model="mlp", options={"features": (8,)}, dataset="digits", examples=128,
    validation=0, test=64, batch_size=64, epochs=4, seeds=2,
    optimizers=("sgd", "rk2"), rates=FIXED, scan_steps=2, checkpoint_every=4,
    sample=64, surface_sample=64, functional=64, batch=64, points=5, grid=3,
    curvature=(64, 1),
)  # fmt: skip
pytestmark = pytest.mark.usefixtures("_as_optax_has_it")


@pytest.fixture(scope="module")
def _as_optax_has_it():
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam is not strict
        yield


def lab_at(root, **changes):
    plan = dataclasses.replace(TINY, **changes)
    return Lab("quick", "mlp", {"mlp": plan}, root, None, "digits")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "quick", {**PRESETS["quick"], "mlp": TINY})
        yield tmp_path_factory.mktemp("lab")


def call(root, item, *flags):
    flags = (item, "--dataset=digits", f"--run-dir={root}", *flags)
    return loss_surfaces.main(list(flags))


def same(a, b):
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))


# Networks.


def test_optimizers_share_start_and_order(tmp_path):
    """Exactly; and the control shares the start alone."""
    lab = lab_at(tmp_path)
    states = [
        lab.network(lab.method(name), 3).initial_state() for name in METHODS
    ]  # fmt: skip
    for state in states[1:]:
        assert same(state.params, states[0].params)
        for epoch in (0, 3):
            orders = [epoch_order(s.key, epoch, 128) for s in (states[0], state)]
            np.testing.assert_array_equal(*orders)
    other = lab.network(lab.method("sgd"), 3, order=1).initial_state()
    assert same(other.params, states[0].params)
    orders = [epoch_order(s.key, 0, 128) for s in (states[0], other)]
    assert (orders[0] != orders[1]).any()
    another = lab.network(lab.method("sgd"), 4).initial_state()
    assert not same(another.params, states[0].params)


def test_reordered_is_the_same_until_then(tmp_path):
    lab = lab_at(tmp_path, epochs=5)
    method = lab.method("sgd")
    one = lab.network(method, 0)
    other = lab.network(method, 0, order=1, reordered=2)
    ours, theirs = one.history(), other.history()
    losses = [[row["train_loss"] for row in rows] for rows in (ours, theirs)]
    assert len(ours) == len(theirs) == 6
    np.testing.assert_array_equal(losses[0][:3], losses[1][:3])
    assert losses[0][3:] != losses[1][3:]
    assert [row["epoch"] for row in theirs] == list(range(6))
    assert ours[0]["distance"] == 0 < ours[1]["distance"]
    # Made once: what is there is taken.
    assert lab_at(tmp_path, epochs=5).network(method, 0).history() == ours


def test_methods():
    """Rates lie in the state; a switch starts the second at its epoch."""
    adam = Method(optimizer="adam", rate=0.001)
    method = Method(optimizer="sgd", rate=0.5, then=adam, after=2)
    tx, params = method.make(3), jnp.ones(2)
    state, rates = tx.init(params), []
    for _ in range(8):
        updates, state = tx.update(jnp.ones(2), state, params)
        rates.append(float(learning_rate(state)))
        if len(rates) <= 6:
            np.testing.assert_allclose(updates, -0.5)
    np.testing.assert_allclose(rates, [0.5] * 6 + [0.001] * 2, rtol=1e-6)
    np.testing.assert_allclose(updates, -0.001, rtol=1e-3)
    heun = Method(optimizer="sgd", rate=0.1, runge_kutta="heun").make(1)
    gradient_at = jax.grad(lambda w: jnp.sum(w**2) / 2)
    updates, _ = heun.update(params, heun.init(params), params, grad_fn=gradient_at)
    np.testing.assert_allclose(params + updates, 0.905, rtol=1e-6)
    shared = [optax.tree.get_all_with_path(
        Method(optimizer="adam", rate=r).make(1).init(params), "learning_rate")
        for r in (0.1, 0.2)]  # fmt: skip
    assert len(shared[0]) == 1 and shared[0] != shared[1]
    for bad, words in (
        ({"optimizer": "sdg", "rate": 0.1}, "did you mean 'sgd'"),
        ({"optimizer": "sgd", "rate": 0.0}, "rate=0.0 must be positive"),
        ({"optimizer": "sgd", "rate": 0.1, "after": 2}, "both the epoch and what"),
    ):
        with pytest.raises(InputError, match=words):
            Method(**bad)
    with pytest.raises(InputError, match="second gradient without it"):
        Method(optimizer="sgd", rate=0.1, runge_kutta="heun").make(1, 5e-4)


def test_rates_are_doubled_before_runge_kutta_and_tuned_otherwise(tmp_path):
    rates = {**FIXED, "sgd": (1e-6, 0.2)}
    lab = lab_at(tmp_path, rates=rates, seeds=1)
    assert lab.method("sgd").rate == 0.2  # the other one learns nothing
    assert lab.method("rk2") == Method(optimizer="sgd", rate=0.4, runge_kutta="heun")
    assert lab.method("adam_rk2").rate == 2 * lab.method("adam").rate
    assert "chosen on seed 0 by training errors" in lab.tuned_note(["sgd"])


def test_figure_7_goes_over_to_adam_at_its_captions_rate(tmp_path):
    rates = {**FIXED, "adam": (0.002,)}
    optimizers = ("sgd", "adam", "adadelta")
    lab = lab_at(tmp_path, rates=rates, seeds=1, optimizers=optimizers)
    over = {
        pair: switching.taking_over(lab, *pair).rate
        for pair in switching.directions(lab)
    }
    assert over.pop(("adadelta", "adam")) == 0.0001
    assert over[("sgd", "adam")] == 0.002 and over[("adam", "adadelta")] == 1
    assert len(over) == 5


def test_flags_change_rates_batches_and_panels(tmp_path):
    asked = loss_surfaces.Arguments(
        item="fig4", rates=("sgd=0.3,0.1", "adam=0.01"), batch_size=32, panel_seeds=2,
        dataset="digits", run_dir=tmp_path,
    )  # fmt: skip
    lab = loss_surfaces.lab_of(asked)
    assert lab.plan.rates["sgd"] == (0.3, 0.1) and lab.plan.rates["adam"] == (0.01,)
    assert lab.plan.rates["adadelta"] == (1.0,) and lab.plan.panel_seeds == 2
    network = lab.network(Method(optimizer="adam", rate=0.01), 0)
    assert (
        network.config.batch_size == 32 and "batch_size_32" in network.records.path.name
    )
    plain = loss_surfaces.lab_of(loss_surfaces.Arguments(item="fig4"))
    assert plain.plan.rates == PRESETS["quick"]["mlp"].rates


def test_a_network_without_batch_norm_has_options_of_its_own(tmp_path):
    lab = lab_at(tmp_path, plain={"features": (4,)})
    for batch_norm, width in ((True, 8), (False, 4)):
        network = lab.network(lab.method("sgd"), 0, batch_norm=batch_norm)
        assert network.initial["Dense_0"]["kernel"].shape == (64, width)
        assert ("BatchNorm_0" in network.initial) == batch_norm


def test_figure_5_is_of_both_of_the_papers_networks():
    lab = Lab("paper", None, PRESETS["paper"], None, None, "digits")
    assert [one.plan.model for one in lab.each()] == ["nin_bn", "vgg"]
    assert [one.model for one in lab.of("nin").each()] == ["nin"]


def test_drawn_weights():
    params = {
        "Dense_0": {"bias": jnp.zeros(50), "kernel": jnp.zeros((40, 50))},
        "BatchNorm_0": {"bias": jnp.zeros(50), "scale": jnp.ones(50)},
    }
    made = drawn(jax.random.key(1), params, -1.0, 0.5)
    kernel = np.asarray(made["Dense_0"]["kernel"])
    np.testing.assert_allclose([kernel.mean(), kernel.std()], [-1, 0.5], atol=0.05)
    assert same(made["BatchNorm_0"], params["BatchNorm_0"])
    assert abs(made["Dense_0"]["bias"].mean() + 1) < 0.5


# Probes.


@pytest.mark.parametrize(("name", "fields"), [
    ("mlp", {"features": (12, 9)}), ("mlp", {"features": (12,), "batch_norm": False}),
    ("nin_bn", {"stages": ((3, (6, 5)), (3, (5,)), (1, (4,)))}),
])  # fmt: skip
def test_units_are_matched(name, fields):
    """A permuted network is put back, and computes the same all the while."""
    model = models.create(name, num_classes=3, **fields)
    x = jax.random.normal(jax.random.key(2), (4, 8, 8, 1))
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    params = jax.tree.map(
        lambda s: random.normal(size=s.shape).astype(np.float32), shapes["params"]
    )
    layers = chain(params)
    moved = {n: dict(module) for n, module in params.items()}
    for n, (layer, after) in enumerate(itertools.pairwise(layers)):
        order = random.permutation(moved[layer]["bias"].size)
        for owner in (layer, f"BatchNorm_{n}"):
            if owner in moved:
                moved[owner] = {k: v[..., order] for k, v in moved[owner].items()}
        moved[after]["kernel"] = moved[after]["kernel"][..., order, :]

    batch = x, jnp.zeros(4, jnp.int32)
    objective = landscape.flax_objective(model, batch, norm="train", batch_size=4)
    outputs = jax.jit(lambda p: objective.outputs(p, batch))
    np.testing.assert_allclose(outputs(moved), outputs(params), rtol=1e-3, atol=1e-3)
    back = aligned(moved, to=params)
    distance = landscape.parameter_distance
    assert distance(moved, params) > 0.5
    np.testing.assert_allclose(distance(back, params), 0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("densenet40", "Conv_2 takes 28 inputs and Conv_1 gives 12"),
        ("cnn", "units can be matched where each is one input"),
    ],
)
def test_units_that_are_not_matched(name, words):
    model = models.create(name, num_classes=3)
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)), train=False)
    )
    with pytest.raises(InputError, match=words):
        chain(shapes["params"])
    with pytest.raises(InputError, match="a chain of Conv and Dense"):
        chain({"Dense_0": {}, "Block_0": {}})


def test_widths_maxima_levels_and_slopes():
    at = np.array([0.0, 0.5, 1.0])
    # The limit is 2 * 0.1 + 0.1.
    assert around.width(np.array([0.1, 0.1, 0.5]), at) == pytest.approx(0.75)
    assert around.width(np.array([0.1, 0.2, 0.3]), at) == 1.0
    assert around.width(np.array([0.1, np.inf, 0.3]), at) == 0.0
    assert np.isnan(around.width(np.array([np.nan, 1, 2]), at))
    assert around.maxima(np.array([0, 2, 1, 3, 3, 0.0])) == 2
    level = switching.epochs_to_level
    assert level(np.array([0, 80, 89.2]), np.array([90.0]), 1) == 1
    assert level(np.array([0, 80, 85.0]), np.array([90.0]), 1) == 2  # never
    assert switching.slope_after(np.array([0, 9, 7, 5.0]), 1) == pytest.approx(-2)
    # Runs that failed, before the switch, after it, and the one that is compared with.
    for failed, new in (
        ([0.0], [90.0]),
        ([0, 80, np.nan], [90.0]),
        ([0, 90], [np.nan]),
    ):
        assert np.isnan(level(np.array(failed), np.array(new), 1))
    assert np.isnan(switching.slope_after(np.array([0.0]), 1))
    assert np.isnan(switching.slope_after(np.array([0, 1, np.nan]), 1))


def test_areas_by_gradients():
    curve = np.array([0.0, 100.0, 100.0])
    area = integrators.area
    assert area(curve, 1, "epochs") == area(curve, 1, "gradients") == 75
    assert area(curve, 2, "epochs") == 75 and area(curve, 2, "gradients") == 50
    odd = np.array([0.0, 30.0, 60.0, 90.0])  # three epochs are one and a half
    assert area(odd, 2, "gradients") == pytest.approx(45 / 2)


@pytest.mark.slow
def test_table_1(root, monkeypatch):
    assert call(root, "table1") == 0
    found = json.loads((root / "results" / "table1.json").read_text())
    rows = {row["pair"]: row for row in found["rows"]}
    assert set(rows) == {
        "SGD, RK2", "SGD, another order", "RK2, another order", "paper, all pairs",
    }  # fmt: skip
    assert "0.16" in rows["paper, all pairs"]["distance"]
    for suffix in ("png", "html"):
        assert (root / "figures" / f"table1.{suffix}").stat().st_size > 10_000
    lab = lab_at(root)
    a, b = pairs.both(lab, ("sgd", "rk2"), 0)
    # By hand: losses in the middle, and the distance of probabilities.
    x, y = a.examples("train", 64)
    ends = a.final.params, b.final.params

    def loss(p):
        logits, _ = a.model.apply({"params": p}, x, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    along = [
        float(loss(tree.combine([jnp.float32(1 - t), jnp.float32(t)], list(ends))))
        for t in np.linspace(0, 1, 5)
    ]
    expected = max(along[1:-1]) - max(along[0], along[-1])
    np.testing.assert_allclose(pairs.barriers(lab)[0, 0], expected, atol=1e-5)
    assert pairs.differences(lab)["distance"].shape == (1, 2)
    (apart,) = pairs.differences(lab)["distance"][:, 0]
    stats = [landscape.recalibrate(a.model, p, x, batch_size=64) for p in ends]
    test, _ = a.examples("test", 64)
    probabilities = [
        jax.nn.softmax(
            a.model.apply({"params": p, "batch_stats": s}, test, train=False)
        )
        for p, s in zip(ends, stats, strict=True)
    ]
    squared = ((probabilities[0] - probabilities[1]) ** 2).sum(axis=-1).mean()
    np.testing.assert_allclose(apart, np.sqrt(squared), rtol=1e-4)


@pytest.mark.slow
def test_all(tmp_path, monkeypatch):
    plan = dataclasses.replace(
        TINY, optimizers=("sgd", "adam", "adadelta", "rk2"), grid=3
    )
    monkeypatch.setitem(PRESETS, "quick", {"mlp": plan})
    assert call(tmp_path, "all") == 0
    kept = json.loads((tmp_path / "results" / "claims.json").read_text())
    judged = {row["claim"] for row in kept["rows"]}
    assert judged == {f"2.{n}" for n in range(1, 12)}
    for item in loss_surfaces.ITEMS:
        assert (tmp_path / "results" / f"{item}.nc").exists()
        if item not in ("table3", "claims"):
            assert list((tmp_path / "figures").glob(f"{item}*.png")), item
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*/metrics.jsonl")}
    assert call(tmp_path, "claims") == 0
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_table_3_measures_the_orders():
    rows = integrators.table3(None).rows
    orders = [float(row["order of a step's error"]) for row in rows]
    np.testing.assert_allclose(orders, [2, 3, 3, 3], atol=0.1)


def test_pages_hold_what_is_not_finite():
    x, y = np.meshgrid([0.0, 1.0], [0.0, 1.0])
    losses = np.array([[1.0, np.nan], [10.0, np.inf]])
    page = surfaces_page({"a": (x, y, losses), "b": (x, y, 2 * losses)}, "title")
    assert [trace.visible for trace in page.data] == [True, False]
    np.testing.assert_allclose(page.data[0].z, [[0, np.nan], [1, np.nan]])


# Claims, on made-up data.


def verdict(claim: Claim) -> str:
    return judge([claim])[0].verdict


def noisy(mean, count=5, spread=0.1, seed=0):
    random = np.random.default_rng(seed)
    return mean + spread * random.normal(size=count)


ANY = np.array([-1.0, 2.0, 0.5, -2.0, 1.0])


def test_2_1_barriers():
    control = np.full((3, 5), 0.1)
    barriers = np.stack([noisy(1.0, seed=s) for s in range(3)])
    assert verdict(*criteria.separated(barriers, control)) == "supported"
    assert verdict(*criteria.separated(barriers, control + 5)) == "contradicted"
    # No more than noise makes is none of the optimizers'.
    assert verdict(*criteria.separated(-barriers, control)) == "contradicted"
    # Of each pair, and not of all in the mean.
    high, noisier = barriers.copy(), control.copy()
    high[0], noisier[2] = 100.0, 1.5
    assert verdict(*criteria.separated(high, noisier)) == "contradicted"
    one = barriers.copy()
    one[0, 0] = -0.1  # a single pair of a single start
    assert verdict(*criteria.separated(one, control)) == "undecided"
    one[0, 0] = np.nan
    assert verdict(*criteria.separated(one, control)) == "not finite"
    few = criteria.separated(barriers[:, :2], control[:, :2])
    assert verdict(*few) == "too few seeds"


def test_2_2_functions():
    ratios = np.full((10, 5), 0.5)
    matched = np.full((10, 5), 0.2)
    both = criteria.different(ratios, matched)
    assert [verdict(c) for c in both] == ["supported", "supported"]
    ratios[0], matched[0] = 0.1, -0.1  # nine of ten pairs
    both = criteria.different(ratios, matched)
    assert [verdict(c) for c in both] == ["supported", "contradicted"]
    ratios[1] = 0.1
    assert verdict(criteria.different(ratios, None)[0]) == "contradicted"
    assert verdict(criteria.different(ratios, None)[1]) == "not measured"
    ratios[1, 0] = 0.5
    assert verdict(criteria.different(ratios, None)[0]) == "contradicted"
    ratios[1, :] = 0.5
    ratios[2:4, 0], ratios[0, 1:3] = 0.1, 0.5
    assert verdict(criteria.different(ratios, None)[0]) == "undecided"


def test_2_3_accuracies():
    low, high = noisy(95, seed=1), noisy(99, seed=2)
    test = {"sgd": noisy(90, seed=3), "adam": noisy(90, seed=4)}
    claims = criteria.accuracies({"sgd": low, "adam": high}, test)
    assert [verdict(c) for c in claims] == ["supported", "supported"]
    claims = criteria.accuracies(
        {"sgd": high, "adam": low}, {**test, "adam": test["adam"] + 5}
    )
    assert [verdict(c) for c in claims] == ["contradicted", "contradicted"]
    claims = criteria.accuracies(
        {"sgd": 95 + ANY, "adam": 95.2 - ANY},
        {"sgd": 90 + ANY, "adam": 90 - ANY},
    )
    assert [verdict(c) for c in claims] == ["undecided", "undecided"]
    lone = criteria.accuracies({"sgd": low[:1]}, {"sgd": low[:1]})
    assert [verdict(c) for c in lone] == ["not measured", "not measured"]


def test_2_4_shapes():
    line = np.linspace(1, 0, 6)

    def curves(own):
        random = np.random.default_rng(0)
        return {
            str(k): line + own * 0.2 * k * np.sin(3 * line)
            + 0.02 * random.normal(size=(5, 6))
            for k in range(5)
        }  # fmt: skip

    assert verdict(*criteria.alike(curves(1.0))) == "supported"
    assert verdict(*criteria.alike(curves(0.0))) == "undecided"
    # Each start has a shape of its own, none of them twice in an optimizer.
    apart = {
        str(k): line + np.eye(5)[np.arange(5)][:, [*range(5), 0]] for k in range(5)
    }
    assert verdict(*criteria.alike(apart)) == "contradicted"
    few = {name: found[:3] for name, found in curves(1.0).items()}
    assert verdict(*criteria.alike(few)) == "not measured"


def outcomes(make):
    """The verdicts where a difference is positive, negative, and of either sign."""
    return [verdict(make(values)) for values in (noisy(1), noisy(-1), ANY)]


THREE = ["supported", "contradicted", "undecided"]
REVERSED = ["contradicted", "supported", "undecided"]


def test_2_5_basins():
    def claim(values):
        small = noisy(2, seed=7)
        found = {"sgd": small, "adam": small + values, "rk2": small,
                 "adam_rk2": small + values}  # fmt: skip
        claims = criteria.basins(
            dict.fromkeys(("alpha", "distance", "relative"), found)
        )
        assert len(claims) == 3
        return claims[1]

    assert outcomes(claim) == THREE
    assert verdict(criteria.basins({"alpha": {"sgd": ANY}})[0]) == "not measured"


def test_2_6_and_2_7_switches():
    def moved(values):
        return criteria.switching_moves({0.25: noisy(1), 0.75: values})[0]

    assert outcomes(moved) == THREE

    def jumps(epochs, left=10):
        return verdict(criteria.switching_jumps(np.array(epochs), left, 0.0)[0])

    assert jumps([[1, 2, 3, 2, 5], [0, 0, 1, 5, 1]]) == "supported"
    assert jumps([[1, 2, 3, 2, 5], [7, 8, 7, 9, 8]]) == "contradicted"
    assert jumps([[1, 9, 3, 2, 9]]) == "undecided"
    assert jumps([[1, 1, 1, 1, 1]], left=4) == "not measured"
    assert jumps([[0, 0, 0, 0, 6]]) == "undecided"  # all of them, not their mean
    there = criteria.switching_jumps(np.zeros((2, 5)), 10, 0.9)
    assert verdict(*there) == "undecided"  # nothing jumps

    def falls(values):
        claims = criteria.distance_falls({0.0: np.stack([values, values - 0.1])})
        return claims[0]

    assert outcomes(falls) == REVERSED


def test_2_8_batch_norm():
    tight = {n: noisy(0.1, spread=0.001, seed=s) for s, n in enumerate("ab")}
    loose = {n: noisy(0.5, spread=0.3, seed=s) for s, n in enumerate("ab")}
    one, several = np.ones(5), np.array([3.0, 3, 2, 3, 4])
    claims = criteria.batch_norm((tight, loose), (one, several))
    assert [verdict(c) for c in claims] == ["supported", "supported"]
    claims = criteria.batch_norm((loose, tight), (several, one))
    assert [verdict(c) for c in claims] == ["contradicted", "contradicted"]
    claims = criteria.batch_norm((tight, tight), (one, np.array([1.0, 1, 2, 1, 1])))
    assert [verdict(c) for c in claims] == ["undecided", "undecided"]


def test_2_9_integrators():
    names = [f"{base} {kind}" for base in ("SGD", "ADAM") for kind in integrators.KINDS]

    def claims(better, midpoint, adam):
        base = noisy(80, seed=5)
        found = {"SGD": base, "SGD x2": base, "ADAM": base}
        found |= {n: base + (adam if "ADAM" in n else better) for n in names}
        found["SGD midpoint"] = base + midpoint
        return criteria.integrators({"epochs": found}, "")

    good = claims(noisy(1), noisy(-1), noisy(-1))
    bad = claims(noisy(-1), noisy(1), noisy(1))
    either = claims(ANY, ANY, ANY)
    for made, wanted in ((good, THREE[0]), (bad, THREE[1]), (either, THREE[2])):
        assert [verdict(c) for c in made] == [wanted] * 3


def test_2_10_minima():
    def rising(values):
        return criteria.are_minima(values, values, np.ones(5))[0]

    def convex(values):
        return criteria.are_minima(values, values, np.ones(5))[1]

    assert outcomes(rising) == outcomes(convex) == THREE
    # Of every seed, and not of their mean.
    most = np.array([5.0, 5, 5, 5, -0.1])
    assert verdict(rising(most)) == verdict(convex(most)) == "undecided"
    # What is flat to a hundredth of the largest eigenvalue is no saddle.
    assert verdict(convex(np.full(5, -0.009))) == "supported"


def test_a_hessian_without_what_batch_norm_hides():
    """Against the dense matrix; the weights' own direction is what was negative."""
    model = models.create("mlp", num_classes=3, features=(4,))
    inputs = jax.random.normal(jax.random.key(0), (32, 5))
    labels = jnp.argmax(inputs[:, :3], axis=1)
    params = model.init(jax.random.key(1), inputs, train=False)["params"]
    objective = landscape.flax_objective(
        model, (inputs, labels), norm="train", batch_size=32
    )
    vector, back = jax.flatten_util.ravel_pytree(params)
    dense = np.asarray(jax.hessian(lambda v: objective(back(v)))(vector), float)
    unit = jax.tree.map(jnp.zeros_like, params)
    unit["Dense_0"]["kernel"] = params["Dense_0"]["kernel"]
    along = np.asarray(jax.flatten_util.ravel_pytree(unit)[0], float)
    assert abs(along @ dense @ along) < 1e-3 < abs(dense).max()
    assert np.linalg.eigvalsh(dense)[0] < 0

    def project(v):
        moved = curvature.without_scales(params, back(v))
        return jax.flatten_util.ravel_pytree(moved)[0]

    p = np.asarray(jax.jacobian(project)(vector), float)
    np.testing.assert_allclose(p, p.T, atol=1e-6)
    np.testing.assert_allclose(p @ p, p, atol=1e-6)
    np.testing.assert_allclose(p @ along, 0, atol=1e-6)
    assert round(np.trace(p)) == len(vector) - 8  # four units' scales and biases
    values = np.linalg.eigvalsh(p @ dense @ p)
    found = curvature.ends_of(objective, params)
    assert found["largest"] == pytest.approx(values[-1], rel=2e-3)
    assert found["least"] == pytest.approx(values[0], abs=2e-3 * values[-1])
    assert found["ratio"] == found["least"] / found["largest"]


def test_2_11_extremes():
    log10 = np.log(10)

    def claims(**changes):
        given = {
            "plain": (np.full(5, 40.0), np.full(5, log10)), "gradients": np.zeros(5),
            "normal_gradients": np.ones(5), "normed": noisy(1),
            "normal": noisy(0.1, spread=0.01), "chance": log10, **changes,
        }  # fmt: skip
        return [verdict(c) for c in criteria.extremes("N", **given)]

    assert claims() == ["supported", "supported"]
    # Its own start's loss will do as well as chance.
    assert claims(plain=(np.full(5, 40.0), np.full(5, 40.1)))[0] == "supported"
    assert claims(plain=(np.full(5, 40.0), noisy(1)))[0] == "contradicted"
    assert claims(gradients=np.full(5, 0.5))[0] == "contradicted"
    assert claims(normed=noisy(3))[1] == "contradicted"
    assert claims(normed=0.1 + 0.1 * ANY)[1] == "undecided"
    failed = np.array([np.nan, 2, 2, 2, 2])
    assert claims(plain=(failed, failed)) == ["not finite", "not finite"]


def test_p_values_of_other_tests():
    def judged(p_values):
        condition = Condition("a", [1.0, 1.0, 1.0], "", p_values)
        return judge([Claim("1", "", [condition])])[0].verdict

    found = [judged(p) for p in ((0.001, 1.0), (1.0, 0.001), (0.3, 0.7))]
    assert found == THREE


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["tabel1"], "item='tabel1' is unknown; did you mean 'table1'"),
        (["fig4", "--model=vg"], "model='vg' is unknown"),
        (["fig4", "--optimizers", "sgd", "adm"], "optimizers='adm' is unknown"),
        (["fig4", "--optimizers", "sgd", "sgd"], "'sgd sgd' repeats"),
        (["fig4", "--rates", "sdg=0.1"], "rates='sdg' is unknown"),
        (["fig4", "--rates", "sgd=fast"], "must be an optimizer and its rates"),
        (["fig4", "--rates", "sgd=0"], "rates=0"),
        (["fig4", "--rates", "sgd=1", "sgd=2"], "names sgd again"),
        (["fig4", "--epochs=3"], "epochs=3 must be 4 or more"),
        (["fig4", "--grid=2"], "grid=2 must be 3 or more"),
        (["fig4", "--examples=5"], "examples=5 must be at least one batch"),
        (["table1", "--optimizers", "sgd"], "a pair needs two"),
        (["fig3", "--optimizers", "sgd", "adam"], "lies between four"),
        (["fig2", "--seeds=1"], "lies between two starts"),
    ],
)
def test_bad_input(flags, words, tmp_path, capsys):
    assert loss_surfaces.main([*flags, f"--run-dir={tmp_path}"]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.glob("mlp*"))
