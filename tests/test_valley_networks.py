"""Paper 4 on digits: networks trained once, averaged by masks, gone on from."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro

from experiments.asymmetric_valleys import __main__ as asymmetric_valleys
from experiments.asymmetric_valleys import (
    assumptions,
    claims,
    directions,
    lines,
    projections,
)
from experiments.asymmetric_valleys.averages import accuracy_of
from experiments.asymmetric_valleys.lab import Lab
from experiments.asymmetric_valleys.networks import ALL, AVERAGE, NORMS, OTHERS, merged
from experiments.asymmetric_valleys.presets import (
    AFTER,
    LARGE,
    PRESETS,
    SGD,
    SMALL,
    SWA,
    WITH,
    WITHOUT,
    Theory,
)
from experiments.harness.statistics import Claim, above
from lrscape import landscape, transforms
from lrscape.errors import InputError
from lrscape.landscape import tree
from lrscape.landscape.direction import ones_direction
from lrscape.records import Records

SETTINGS = dataclasses.replace(
    PRESETS["quick"],
    plan=dataclasses.replace(
        PRESETS["quick"].plan, examples=128, test=100, seeds=2, batch_size=64,
        small_batch=32, sgd_epochs=2, swa_epochs=4, swa_from=2, after_epochs=2,
        small_epochs=1, draws=2, measured_every=2, calibration=64,
    ),
    survey=dataclasses.replace(
        PRESETS["quick"].survey, examples=64, sloped=32, batch_size=64, slopes=2,
        tries=2, shifted=2, shift_points=2, neighbors=2, line=7, sides=2, widths=2,
        width_points=3, norms=2, epochs=2, curve=2,
    ),
    theory=Theory(runs=50, rounds=2, landscapes=20, toys=5, fresh=100),
    models=("mlp",),
)  # fmt: skip
PAIR = ("mlp", "digits")
POINT = {
    "BatchNorm_0": {"scale": jnp.ones(50), "bias": jnp.zeros(50)},
    "Dense_0": {"kernel": jnp.ones((60, 50)), "bias": jnp.zeros(50)},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "quick", SETTINGS)
        yield tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def lab(root):
    return Lab("quick", SETTINGS, root, None, "digits")


def call(root, item, *flags):
    return asymmetric_valleys.main(
        [item, "--dataset=digits", f"--run-dir={root}", *flags]
    )


def summary(root, item):
    return json.loads((root / "results" / f"{item}.json").read_text())


@pytest.mark.parametrize("item", ["theorem1", "theorem2", "toy"])
def test_theory_needs_no_network(root, item):
    assert call(root, item) == 0
    rows = summary(root, item)["rows"]
    assert rows and all("paper" in row for row in rows)
    assert list(root.glob(f"figures/{item}*.png"))
    if item == "theorem1":
        assert rows[0]["gain >= bound"] == "1" and rows[1]["gain > 0"] == "0"


def test_averages_of_one_run(lab):
    """By masks from the average of everything, as by averages with those masks."""
    network = lab.network(PAIR, SWA, 0)
    masks = network.masks(POINT)
    assert list(masks) == [ALL, NORMS, f"{OTHERS}_0", f"{OTHERS}_1"]
    selected = [
        sum(int(leaf.sum()) for leaf in jax.tree.leaves(masks[name]))
        for name in (NORMS, f"{OTHERS}_0", f"{OTHERS}_1")
    ]
    assert len(set(selected)) == 1
    both = jax.tree.map(
        lambda a, b: bool((a & b).any()), masks[NORMS], masks[f"{OTHERS}_0"]
    )
    assert not any(jax.tree.leaves(both))
    moves = [jax.tree.map(lambda x, k=k: 0.1 * k + 0 * x, POINT) for k in (1, 2)]
    for mask in masks.values():
        params = POINT
        plain = transforms.average_weights(1)
        masked = transforms.average_weights(1, mask=mask)
        states = [plain.init(params), masked.init(params)]
        for move in moves:
            states = [
                tx.update(move, s, params)[1]
                for tx, s in zip((plain, masked), states, strict=True)
            ]
            params = jax.tree.map(jnp.add, params, move)
        means, expected = (transforms.averaged(s, params) for s in states)
        found = means if mask is None else merged(mask, means, params)
        jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.slow
def test_sgd_goes_on_from_the_average(root, lab, monkeypatch):
    assert call(root, "table1") == 0
    after, swa = lab.network(PAIR, AFTER, 1), lab.network(PAIR, SWA, 1)
    average = swa.at(AVERAGE)
    start = after.at("initial")
    for a, b in ((start.params, average.params),
                 (start.batch_stats, average.batch_stats)):  # fmt: skip
        jax.tree.map(np.testing.assert_array_equal, a, b)
    jax.tree.map(
        np.testing.assert_array_equal, average.batch_stats,
        swa.recalibrated(average.params),
    )  # fmt: skip
    # What the table says is what the networks did.
    rows = summary(root, "table1")["rows"]
    accuracies = [
        100 * (1 - lines.average_of(lab, PAIR, seed)["test_error"]) for seed in (0, 1)
    ]
    assert rows[0]["test %"].split()[0] == f"{np.mean(accuracies):.4g}"
    losses = [row["train_loss"] for row in after.measured()[1:]]
    name, row = lines.chosen(lab, PAIR, 1)
    assert name == after.name_of(1 + int(np.argmin(losses)))
    assert row["train_loss"] == min(losses)
    # Nothing is trained again.
    monkeypatch.setattr("lrscape.training.fit", None)
    assert call(root, "table1") == 0 and summary(root, "table1")["rows"] == rows


def test_masks_are_measured_in_one_run(root, lab):
    assert call(root, "fig13") == 0
    rows = {row["averaged"]: row for row in summary(root, "fig13")["rows"]}
    assert set(rows) == {
        "SGD", "all weights averaged", "batch norm alone", "as many others"
    }  # fmt: skip
    history = lab.network(PAIR, SWA, 0).measured()
    assert [row["epoch"] for row in history] == [0, 2, 4]
    # After the first weights the average is those.
    for part in ("loss", "error"):
        values = {history[1][f"{p}test_{part}"] for p in ("", "all_", "others_1_")}
        assert max(values) - min(values) < 1e-5
    assert "all_test_loss" not in history[0]
    found = Records(root).load_result("fig13")
    draws = [history[2][f"others_{i}_test_error"] for i in (0, 1)]
    np.testing.assert_allclose(
        found["digits_mlp_others_test"][0, -1], 100 * (1 - np.mean(draws))
    )
    assert np.isnan(accuracy_of(history[0], OTHERS))


@pytest.mark.slow
def test_lines_begin_and_end_where_networks_are(root, lab):
    for kind, ends in {"batch": (SGD, SMALL), "control": (SGD, LARGE)}.items():
        found = lines.line_of(lab, PAIR, kind, 0)
        losses = []
        for end in ends:
            network = lab.network(PAIR, end, 0)
            losses.append(float(lab.objective(network, "train")(
                network.final.params)["loss"]))  # fmt: skip
        at = [found["alphas"].index(a) for a in (0.0, 1.0)]
        np.testing.assert_allclose(
            [found["train_loss"][i] for i in at], losses, rtol=1e-5
        )
        inside = found["train_loss"][at[0] + 1 : at[1]]
        np.testing.assert_allclose(found["bump"], max(inside) - max(losses), atol=1e-6)
        assert found["bump_error"] > 0 and found["distance"] > 0
    small, large = (lab.network(PAIR, kind, 0) for kind in (SMALL, LARGE))
    assert small.config.total_steps(small.data) == large.config.total_steps(large.data)


def test_the_test_loss_takes_training_statistics(lab):
    network = lab.network(PAIR, SGD, 0)
    params = network.final.params
    stats = landscape.recalibrate(
        network.model, params, network.examples("train", 64)[0], batch_size=64
    )
    expected = landscape.flax_objective(
        network.model, network.examples("test", 64), norm="eval", batch_size=64,
        batch_stats=stats,
    )  # fmt: skip
    found = lab.objective(network, "test")
    np.testing.assert_allclose(found(params)["loss"], expected(params), rtol=1e-5)
    assert found.settings["calibration_examples"] == 64
    with pytest.raises(InputError, match="calibration=.* is what norm='recalibrate'"):
        landscape.flax_objective(
            network.model, network.examples("test", 64), norm="train", batch_size=64,
            calibration=network.examples("train", 64)[0],
        )  # fmt: skip


def test_the_paired_error():
    def loss_fn(w, batch):
        return jnp.mean((batch["x"] - w) ** 2)

    class Each(
        type(landscape.mean_objective(loss_fn, {"x": jnp.ones(2)}, batch_size=2))
    ):
        def example_losses(self, w, batch):
            return (batch["x"] - w) ** 2

    x = jnp.asarray([1.0, 2.0, 4.0, 7.0, 9.0])
    plain = landscape.mean_objective(loss_fn, {"x": x}, batch_size=2)
    each = Each(plain.whole, plain.tail, plain.counts, plain.loss_fn)
    differences = (np.asarray(x) - 1) ** 2 - (np.asarray(x) - 3) ** 2
    expected = differences.std(ddof=1) / np.sqrt(5)
    found = lines.paired_error(each, jnp.float32(1), jnp.float32(3))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_which_epoch_is_looked_at():
    average = {"train_loss": 1.0, "test_loss": 2.0}
    rows = [
        {"epoch": e, "train_loss": a, "test_loss": b}
        for e, a, b in ((0, 0.1, 3), (1, 0.5, 1.9), (2, 0.9, 2.1), (3, 0.4, 1.8))
    ]
    assert lines.choose(rows, average, authors=False) == (3, False)
    assert lines.choose(rows, average, authors=True) == (2, True)
    assert lines.choose(rows[:2], average, authors=True) == (1, False)


def row(c, c_reversed, **more):
    return {"c": c, "c_reversed": c_reversed, "minimal": True, **more}


VALLEY = {
    "distances": [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0],
    "losses": [12.0, 6.0, 2.0, 1.0, 1.5, 2.0, 4.0],
    "slopes": [-6.0, -6.0, -1.0, 0.0, 1.0, 1.0, 2.0],
}


def test_c_by_where_it_begins():
    """Slopes nearer than zeta do not count, on either side."""
    near, far = (directions.read(VALLEY, zeta) for zeta in (0.5, 1.0))
    assert [near["c"], far["c"]] == [0.5, 3.0]
    assert [near["c_reversed"], far["c_reversed"]] == [1 / 6, 1 / 6]
    assert near["minimal"] and far["minimal"]


def test_a_point_from_which_the_loss_falls_has_no_asymmetric_direction():
    losses = [12.0, 6.0, 2.0, 1.0, 0.9, 0.8, 0.7]
    slopes = [-6.0, -6.0, -1.0, -0.2, -0.2, -0.1, -0.1]
    falls = directions.read({**VALLEY, "losses": losses, "slopes": slopes}, 1.0)
    assert falls["c"] == np.inf and not falls["minimal"]
    rises = directions.read(VALLEY, 1.0)
    asymmetric = directions.are_asymmetric([falls, rises], 2.0)
    assert asymmetric.tolist() == [False, True]
    np.testing.assert_allclose(directions.log_c([[falls, rises]]), [np.log(3.0)])
    assert directions.falling([[falls, rises], [falls]]) == "2 of 3"
    both = directions.superiority([[falls, rises]], [[falls]])
    assert np.isnan(both).all()
    # Within zeta it may fall: no solution is a minimiser to the last digit.
    dips = {**VALLEY, "losses": [12.0, 6.0, 2.0, 1.0, 0.9, 2.0, 4.0]}
    assert directions.read(dips, 1.0)["minimal"]
    assert not directions.read(dips, 0.5)["minimal"]


def loss_of(objective):
    return lambda point: objective(point)["loss"]


def test_gradients_say_how_near_a_minimiser_is(lab):
    """The loss's own, over that at the start; what is too large is refused in words."""
    shares = directions.gradient_shares(lab, PAIR)
    for network, share in zip(lab.all_of(PAIR, SGD), shares, strict=True):
        objective = lab.sloped(network)
        ends = (network.at("initial").params, network.final.params)
        first, last = (tree.norm(jax.grad(loss_of(objective))(end)) for end in ends)
        np.testing.assert_allclose(share, last / first, rtol=1e-4)

    def told(limit):
        survey = dataclasses.replace(SETTINGS.survey, minimum=limit)
        settings = dataclasses.replace(SETTINGS, survey=survey)
        return directions.no_minimum(dataclasses.replace(lab, settings=settings), PAIR)

    assert told(max(shares) * 1.01) == ""
    refused = told(max(shares) * 0.99)
    assert "which Definition 2 asks for" in refused and "raise sgd_epochs" in refused


def test_other_distances_of_definition_1():
    survey = SETTINGS.survey.reaching(1.0, 0.1)
    assert (survey.r, survey.zeta, survey.zetas) == (1.0, 0.1, (0.1, 0.2, 0.8))
    np.testing.assert_allclose(
        survey.distances, [-1, -0.8, -0.2, -0.1, 0, 0.1, 0.2, 0.8, 1]
    )
    assert SETTINGS.survey.reaching(None, None) == SETTINGS.survey


def test_either_way_and_ranks():
    rows = [row(3.0, 0.1), row(0.2, 4.0), row(np.inf, 0.0), row(1.0, 0.5)]
    cs, sides = directions.either_way(rows)
    np.testing.assert_array_equal(cs, [3, 4, np.inf, 1])
    np.testing.assert_array_equal(sides, [1, -1, 1, 1])
    assert directions.share_above(rows, 2.0) == 0.75
    np.testing.assert_allclose(directions.log_c([rows]), [np.log(3.5)])
    one, other = [row(3.0, 0), row(np.inf, 0)], [row(1.0, 0), row(np.inf, 0)]
    np.testing.assert_allclose(directions.superiority([one], [other]), [0.625])
    unknown = directions.superiority([[row(np.nan, 0)]], [other])
    assert np.isnan(unknown).all()


def test_on_whose_flat_side_the_average_lies():
    seeds = [
        {"u": [row(3.0, 0.1, towards=1.0), row(0.1, 3.0, towards=1.0),
               row(1.0, 1.0, towards=1.0)]},
        {"u": [row(1.0, 0.5, towards=1.0)]},
    ]  # fmt: skip
    shares, counts = projections.flat_shares(seeds, "u", 2.0)
    assert shares.tolist() == [0.5] and counts.tolist() == [2, 0]


@pytest.mark.slow
def test_where_the_average_lies(lab):
    """Ahead along u + v, whatever was measured; signed draws are independent."""
    found = projections.sides_of(lab, PAIR, 0)
    assert all(row["towards"] > 0 for row in found["sum"])
    point = lab.network(PAIR, AFTER, 0).at(lines.chosen(lab, PAIR, 0)[0]).params
    drawn = [directions.direction_of("signed", point, 0, 1000 + i) for i in (0, 1)]
    assert abs(float(tree.dot(*drawn))) < 0.05
    way = tree.subtract(lab.network(PAIR, SWA, 0).at(AVERAGE).params, point)
    expected = [float(tree.dot(way, direction)) for direction in drawn]
    towards = [one["towards"] for one in found["signed"]]
    np.testing.assert_allclose(towards, expected, rtol=1e-4, atol=1e-7)


def test_directions_of_every_kind():
    ones = ones_direction(POINT)
    for kind in (*directions.KINDS, *directions.NORM_KINDS):
        found = directions.direction_of(kind, POINT, 0, 3)
        np.testing.assert_allclose(tree.norm(found), 1, rtol=1e-5)
        along = float(tree.dot(found, ones))
        if kind == "uniform":
            np.testing.assert_allclose(along, 0.866, atol=0.02)
        if kind in ("apart", "signed"):
            assert abs(along) < 0.05
    uniform = directions.direction_of("uniform", POINT, 0, 3)
    signed = directions.direction_of("signed", POINT, 0, 3)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, abs(b), rtol=1e-6), uniform, signed
    )


def test_networks_of_figure_14(lab):
    pair = ("resnet8", "digits")
    kinds = [lab.network(pair, kind, 0) for kind in (WITH, WITHOUT)]
    assert [n.model.batch_norm for n in kinds] == [True, False]
    # With batch norm it is the run that all figures share.
    assert kinds[0] is lab.network(pair, SWA, 0)
    rates = [n.config.schedule_options["init_value"] for n in kinds]
    assert rates[0] == rates[1]


def test_verdicts_that_hang_on_zeta_are_named(lab, monkeypatch):
    def part(lab):
        sign = 1 if lab.survey.zeta > 0.5 else -1
        values = sign * np.array([1.0, 1.1, 1.2])
        return [
            Claim("4.1", "one", [above("x", values)]),
            Claim("4.3", "other", [above("x", [1.0, 1.1, 1.2])]),
        ]

    monkeypatch.setitem(claims.PARTS, part, ("4.1", "4.3"))
    told = claims.hanging(lab, {part: part(lab)})
    assert "by zeta = 0.2 / 0.8 / 1.4" in told
    assert "4.1, one: contradicted / supported / supported" in told
    assert "4.3" not in told


def lab_by(*flags):
    arguments = tyro.cli(asymmetric_valleys.Arguments, args=["fig2", *flags])
    return asymmetric_valleys.lab_of(arguments)


def test_knobs_reach_the_networks(tmp_path):
    """Of each kind of network the rate, the epochs and the batch that flags name."""
    lab = lab_by(
        "--preset=paper", "--dataset=digits", "--models", "mlp",
        f"--run-dir={tmp_path}", "--swa-epochs=8", "--swa-from=4", "--swa-rate=0.04",
        "--rate=0.2",
        "--after-epochs=3", "--after-rate=0.003", "--small-batch=16",
        "--small-epochs=2", "--small-rate=0.02", "--zeta=0.3", "--r=3", "--seeds=1",
    )  # fmt: skip
    plan = lab.plan
    assert (plan.rate, plan.swa_rate, plan.after_rate, plan.small_rate) == (
        0.2, 0.04, 0.003, 0.02
    )  # fmt: skip
    assert (plan.swa_epochs, plan.swa_from, plan.after_epochs) == (8, 4, 3)
    assert (plan.small_batch, plan.small_epochs) == (16, 2)
    assert (lab.survey.r, lab.survey.zeta) == (3.0, 0.3)
    config = lab.network(PAIR, SWA, 0).config
    assert (config.schedule_options["init_value"], config.averaged_from) == (0.2, 4)
    np.testing.assert_allclose(config.schedule_options["swa_value"], 0.04)


def test_figures_of_the_appendix_are_of_its_networks(tmp_path):
    lab = lab_by("--preset=paper", f"--run-dir={tmp_path}")
    named = {
        "fig25": ("preresnet110", "cifar10"), "fig27": ("densenet100", "cifar10"),
        "fig28": ("preresnet110", "cifar100"), "fig29": ("preresnet164", "cifar100"),
        "fig30": ("preresnet110", "cifar10"),
    }  # fmt: skip
    for item, pair in named.items():
        assert lab.pairs(item) == [pair]
    for item in ("appendix_c", "appendix_i"):
        assert len(lab.pairs(item)) == 5 and ("preresnet110", "cifar10") not in (
            lab.pairs(item)
        )
    titles = {item: make.__doc__ for item, make in asymmetric_valleys.ITEMS.items()}
    assert titles["fig30"].startswith("Figure 30: figure 9")
    assert "30" not in titles["fig11"]


def test_a_shift_of_zero_is_drawn_once(lab, monkeypatch):
    row = {
        "shift": 0.0, "ratio": 1.0, "shifts": [-1.0, 0.0, 1.0], "gaps": [2.0, 1.0, 2.0],
        "distances": [-2.0, -1.0, 0.0, 1.0, 2.0], "train": [2.0, 1.0, 0.0, 1.0, 2.0],
        "test": [3.0, 2.0, 1.0, 2.0, 3.0],
    }  # fmt: skip
    networks = [lab.network(PAIR, SGD, 0)]
    labels = {}
    for shift in (0.0, 0.5):
        moved = [{**row, "shift": shift}]
        monkeypatch.setattr(assumptions, "shifts_of", lambda *_, moved=moved: moved)
        axes = assumptions._figure3(lab, PAIR, networks).axes[1]
        labels[shift] = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[0.0] == ["training", "test, less its minimum (best unmoved)"]
    assert labels[0.5][1:] == ["test, less its minimum", "the same, moved by 0.5"]


BAD = {
    "item": (["fig1"], "item='fig1'"),
    "preset": (["fig2", "--preset=quik"], "did you mean 'quick'"),
    "averaging": (["fig13", "--swa-from=9"], "swa_from=9: averaging would begin"),
    "small batch": (["fig10", "--small-batch=128"], "must be no larger than"),
    "zeta": (["fig2", "--zeta=2.0"], "zeta=2.0 must be 0 or more and below r=2.0"),
    "r": (["fig2", "--r=0"], "r=0.0 must be positive"),
    "examples": (["fig2", "--examples=10"], "examples=10 must be at least one batch"),
    "models": (["fig2", "--models", "resnet9"], "models='resnet9' is unknown"),
    "text": (["fig2", "--models", "lstm"], "reads text"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(root, name, capsys, tmp_path):
    flags, message = BAD[name]
    assert call(tmp_path, *flags) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_everything(root, capsys):
    assert call(root, "all", "--seeds=1") == 0
    rows = summary(root, "claims")["rows"]
    numbers = {row["claim"].split()[0] for row in rows}
    assert numbers == {f"4.{i}" for i in range(1, 12)}
    # One seed is too few for whatever is judged by seeds.
    verdicts = {row["claim"]: row["verdict"] for row in rows}
    assert verdicts["4.4"] == "supported"
    assert verdicts["4.6"] == "too few seeds"
    assert verdicts["4.10"] == "not measured"
    for item in ("fig2", "fig3", "fig4", "fig7", "fig8", "fig9", "fig10", "fig11",
                 "fig12", "fig13", "fig14", "appendix_h"):  # fmt: skip
        assert list(root.glob(f"figures/{item}-*.png")), item
        assert Records(root).load_result(item).data_vars
    # Their networks are those of figures of the text here.
    assert not [*root.glob("results/fig28*"), *root.glob("results/appendix_c*")]
    assert "paper" in capsys.readouterr().out
