"""Paper 5 on digits: trained once, resumed, and judged by what was measured."""

import dataclasses
import itertools
import json
import signal

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.harness.signals import Signals
from experiments.lipschitz_rate import __main__ as lipschitz_rate
from experiments.lipschitz_rate import premise, tabular
from experiments.lipschitz_rate.lab import Lab
from experiments.lipschitz_rate.methods import Method
from experiments.lipschitz_rate.presets import PRESETS, Plan
from lrscape import data, models, training
from lrscape.records import Records
from lrscape.training import fit, initial_state

# Before they are cut down.
PAPER_PLANS = {preset: dict(plans) for preset, plans in PRESETS.items()}
PLAN = Plan(
    model="mlp", dataset="mnist", examples=256, validation=64, test=100, batch_size=64,
    epochs=2, seeds=3, feed="free", rates=(0.1, 0.3), augmented=False,
    looked_at=(0, 1, 2), curvature=(64, 2), premise=4,
)  # fmt: skip
PLANS = {
    "mnist": PLAN,
    "variants": dataclasses.replace(PLAN, model="mnist_cnn"),
    "cifar10": dataclasses.replace(PLAN, dataset="cifar10", weight_decay=1e-3),
    "cifar100": PLAN,
}


@pytest.fixture(scope="module")
def presets():
    with pytest.MonkeyPatch.context() as patch:
        for task, plan in PLANS.items():
            patch.setitem(PRESETS["quick"], task, plan)
            held = dataclasses.replace(plan, seeds=1, feed="inference")
            patch.setitem(PRESETS["authors"], task, held)
        yield


@pytest.fixture(scope="module")
def root(presets, tmp_path_factory):
    return tmp_path_factory.mktemp("lab")


def call(root, item, *flags):
    return lipschitz_rate.main([item, "--dataset=digits", f"--run-dir={root}", *flags])


def summary(root, item):
    return json.loads((root / "results" / f"{item}.json").read_text())


def lines_of(root, name):
    (path,) = root.glob(name)
    return Records(path).metrics()


def rows_of(root, name):
    """What was logged before the first update and after each epoch."""
    rows = [
        {**line, "rate": line["learning_rate"]}
        for line in lines_of(root, name)
        if line["epoch"].is_integer()
    ]
    return [{**rows[0], "rate": lines_of(root, name)[1]["learning_rate"]}, *rows[1:]]


@pytest.mark.slow
def test_claims_come_from_what_was_measured(root):
    assert call(root, "claims") == 0
    found = summary(root, "claims")["rows"]
    rows = {row["claim"]: row for row in found}
    assert set(rows) == {f"5.{i}" for i in range(1, 9)} | {"5.4 (added)"}
    assert rows["5.3"]["verdict"] == "supported"
    # A true bound, which nothing exceeds; three seeds are too few to say never.
    bounds = [row for row in found if "as true bounds" in row["sentence"]]
    assert {row["verdict"] for row in bounds} == {"too few seeds"} and len(bounds) == 4
    # The paper's own claim is of its prints, which one seed suffices to contradict.
    printed = [row for row in found if " as printed" in row["sentence"]]
    by_item = {row["sentence"].split(",")[0].split(":")[0]: row for row in printed}
    assert by_item["eq9"]["verdict"] == "contradicted"
    assert "not positive in 3 of 3" in by_item["eq9"]["measured"]
    # Networks at chance say nothing of trained ones.
    assert rows["5.7"]["verdict"] == "not measured"
    assert "out of regime" in rows["5.7"]["measured"]
    assert rows["5.6"]["verdict"] == "not measured"
    for item in ("eq1", "estimates", "stability", "variants", "cifar10-adaptive"):
        assert call(root, item) == 0
        assert list(root.glob(f"figures/{item}*.png"))
    rows = summary(root, "stability")["rows"]
    assert [row["epoch"] for row in rows[:3]] == [0, 1, 2]


def test_accuracy_and_rates_beside_the_papers(root):
    assert call(root, "mnist", "--seeds=1") == 0
    row, authors = summary(root, "mnist")["rows"]
    assert authors["method"] == "adaptive, inference mode"
    assert row["method"] == "adaptive" and row["paper's 'validation'"] == "99.5"
    history = rows_of(root, "mnist-*-adaptive-seed_0")
    assert [one["epoch"] for one in history] == [0, 1, 2]
    # For nothing: the largest over the epoch's own batches, of the paper's form.
    last = history[-1]
    expected = 1 / (0.9 * last["activation_norm"] / 64)
    assert last["rate"] == pytest.approx(expected, rel=1e-5)
    assert row["last rate"] == f"{last['rate']:.4g}"
    assert row["test %, last epoch"] == f"{100 * (1 - last['test_error']):.4g}"
    assert row["test loss, last epoch"] == f"{last['test_loss']:.4g}"
    notes = " ".join(summary(root, "mnist")["notes"])
    assert "no rate is larger than 10, a cap that the paper does not have" in notes
    found = Records(root).load_result("mnist")
    losses = [one["test_loss"] for one in history]
    np.testing.assert_allclose(found["adaptive_test_loss"][0], losses)
    np.testing.assert_allclose(found["adaptive_rate"][0], [h["rate"] for h in history])


@pytest.mark.slow
def test_a_pass_at_each_epochs_start_sets_the_rate(root, tmp_path):
    assert call(tmp_path, "cifar10-adaptive", "--preset=authors") == 0
    history = rows_of(tmp_path, "cifar10-*-adaptive-seed_0")
    for before, after in itertools.pairwise(history):
        constant = 0.9 * before["inference_norm"] / 64 + (
            1e-3 * before["weight_norm_all"]
        )
        updates = 4 * after["epoch"]
        expected = min(1 / constant, 10.0) / (1 + 1e-3 * (updates - 1))
        assert after["rate"] == pytest.approx(expected, rel=1e-4)
    # One K_z, from the adaptive run's first epoch.
    fixed = rows_of(tmp_path, "cifar10-*-fixed-seed_0")
    row = history[1]
    constant = 0.9 * row["inference_norm"] / 64 + 1e-3 * row["weight_norm_all"]
    rates = [one["rate"] for one in fixed]
    for rate, step in zip(rates, (1, 4, 8), strict=True):
        expected = min(1 / constant, 10.0) / (1 + 1e-3 * (step - 1))
        assert rate == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_k_z_for_nothing_is_looked_at_whatever_feeds_the_rate(tmp_path, presets):
    for item in ("eq1", "estimates"):
        assert call(tmp_path, item, "--preset=authors") == 0
    (file,) = tmp_path.glob("variants-*-free-seed_0/results/premise-4.json")
    steps = json.loads(file.read_text())
    # The constant is that of the updates' own activations, not of a norm that is held.
    assert len(set(steps["paper, frobenius"])) == 4
    (row, *_) = rows_of(tmp_path, "variants-*-free-seed_0")[1:]
    assert row["rate"] == pytest.approx(
        min(1 / (0.9 * row["activation_norm"] / 64), 10.0), rel=1e-4
    )


def test_a_failure_in_an_epochs_last_update_is_no_finished_run(presets, tmp_path):
    """It is seen once the epoch's state is handed out, not one call later."""
    lab = Lab("quick", PRESETS["quick"], tmp_path, None, "digits")
    network = lab.network("mnist", Method(name="late", feed="none", rate=0.1), 0)
    kept = training.fit

    def fit(*args, **kwargs):
        for state in kept(*args, **kwargs):
            if int(state.step) == 8:  # the last
                state = state.replace(first_bad_step=jnp.int32(7))
            yield state

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.harness.kinds.fit", fit)
        history = network.history()
    assert [row["epoch"] for row in history] == [0, 1, 2]
    assert history[-1] == {"epoch": 2, "diverged": 7}


def test_time_decay_is_tried_where_the_preset_lacks_it(presets, tmp_path):
    found = {
        preset: Lab(preset, PRESETS[preset], tmp_path, None, "digits")
        for preset in ("quick", "authors")
    }
    ways = {name: lab.decayed_otherwise("cifar10") for name, lab in found.items()}
    assert (ways["quick"].name, ways["quick"].time_decay) == ("adaptive_decay", 1e-3)
    assert (ways["authors"].name, ways["authors"].time_decay) == ("adaptive_steady", 0)
    fixed = found["quick"].fixed("cifar10", 0, ways["quick"])
    assert (fixed.name, fixed.time_decay) == ("fixed_decay", 1e-3)
    # Of its own adaptive run's first epoch.
    history = rows_of(tmp_path, "cifar10-*-adaptive_decay-seed_0")
    assert fixed.activation_norm == history[1]["activation_norm"]


def test_what_stands_in_for_a_data_set(presets, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "experiments.harness.stand_ins.prepared", lambda _: iter(["cifar10", "mnist"])
    )
    plans = dict(PRESETS["quick"])
    plans["cifar100"] = dataclasses.replace(plans["cifar100"], dataset="cifar100")
    lab = Lab("quick", plans, tmp_path, None, None)
    assert lab.dataset_of("cifar100") == "cifar10"
    assert lab.dataset_of("mnist") == "mnist"


@pytest.mark.slow
def test_interrupted_between_epochs_it_goes_on(presets, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    assert call(whole, "mnist", "--seeds=1") == 0

    class Stopping(Signals):
        left = 4  # updates of the first epoch

        def asked(self):
            self.left -= 1
            return None if self.left else signal.SIGTERM

    with monkeypatch.context() as patch:
        patch.setattr("experiments.harness.trainer.noted_signals", Stopping)
        stopped = call(tmp_path / "cut", "mnist", "--seeds=1")
    assert stopped == 128 + signal.SIGTERM
    logged = lines_of(tmp_path / "cut", "mnist-*-adaptive-seed_0")
    assert [line["step"] for line in logged] == [0, 1, 4]
    assert call(tmp_path / "cut", "mnist", "--seeds=1") == 0
    histories = [
        [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]
        for rows in (
            lines_of(whole, "mnist-*-adaptive-seed_0"),
            lines_of(tmp_path / "cut", "mnist-*-adaptive-seed_0"),
        )
    ]  # fmt: skip
    assert histories[0] == histories[1]


def test_a_run_that_fails_is_said_to_and_counts_as_nothing_right(
    presets, tmp_path, monkeypatch
):
    lab = Lab("quick", PRESETS["quick"], tmp_path, None, "digits")
    network = lab.network("mnist", Method(name="far", feed="none", rate=1e30), 0)
    history = network.history()
    assert "diverged" in history[-1] and network.history() == history
    from experiments.lipschitz_rate.variants import last_accuracy

    np.testing.assert_array_equal(last_accuracy([history]), [0.0])


def test_the_limit_of_stability_is_compared_with_the_constant_itself(presets, tmp_path):
    """Neither with a rate that was cut, nor with one that time has decayed."""
    from experiments.lipschitz_rate import claims, curves, stability

    lab = Lab("authors", PRESETS["authors"], tmp_path, None, "digits")
    history = lab.network("cifar10", lab.adaptive("cifar10"), 0).history()
    rows = stability.curvature_of(lab, "cifar10", 0)
    for row, seen in zip(rows, history, strict=True):
        norms = seen["inference_norm"], seen["weight_norm_all"]
        constant = 0.9 * norms[0] / 64 + 1e-3 * norms[1]
        assert row["rate"] == pytest.approx(1 / constant, rel=1e-4)
    assert curves.inverse(0.0) == np.inf
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stability, "ratios_of", lambda rows: np.array([0.5]))
        assert claims._least_stable(lab, "cifar10", 0) == 0.5
        patch.setattr(stability, "failed", lambda *_: True)
        assert claims._least_stable(lab, "cifar10", 0) == 2.0


def test_no_activations_are_below_every_constant():
    steps = {"last": [0.0, 1.0], "other": [0.0, 4.0], "K": [0.0, 2.0]}
    assert premise.ratio_of(steps, "K") == 0.5


def test_largest_entries_by_hand():
    gradient = {
        "a": jnp.array([[1.0, -7.0]]), "b": jnp.array([9.0]),
        "c": jnp.array([[0.5, 2.0, -3.0]]),
    }  # fmt: skip
    assert premise.largest_entries(gradient, 3) == (3.0, 7.0)


def test_the_last_layers_gradient_is_that_of_the_loss():
    digits = data.load("digits")
    model = models.create("mlp", num_classes=10, features=(16,))
    state = initial_state(model, digits, optax.sgd(0.1), 0)
    images = jnp.asarray(digits.train.image[:50], jnp.float32)
    labels = jnp.asarray(digits.train.label[:50])

    def loss(params):
        logits = model.apply({**state.variables, "params": params}, images, train=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    import jax

    expected, _ = premise.largest_entries(jax.grad(loss)(state.params), 10)
    found, norm, largest = premise._last_gradient(
        model, state.variables, images, labels
    )
    assert found == pytest.approx(expected, rel=1e-4)
    assert largest < norm


def test_methods_are_what_their_names_say():
    digits = data.load("digits")
    model = models.create("mlp", num_classes=10, features=(16,))
    config = training.Config(epochs=1, batch_size=128, num_devices=1)

    def rate_of(method):
        tx = method.optimizer(
            num_classes=10, batch_size=128, weight_decay=0.0, steps_per_epoch=11
        )
        return float(
            training.learning_rate(next(fit(model, digits, tx, config)).opt_state)
        )

    assert rate_of(Method(name="c", feed="none", rate=0.25)) == 0.25
    fixed = Method(name="f", feed="fixed", activation_norm=128.0, weight_norm=0.0)
    assert rate_of(fixed) == pytest.approx(1 / 0.9)
    assert rate_of(Method(name="adam", variant="adam")) == pytest.approx(1, rel=1e-4)
    assert Method(name="t", time_decay=0.5).decayed(2) == 0.5


def test_the_authors_l2_term_is_of_convolutions_alone():
    """Its gradient is 2 lambda w; the constant has a lambda of its own."""
    params = {
        "Conv_0": {"kernel": jnp.full((3, 3, 1, 2), 2.0), "bias": jnp.ones(2)},
        "Dense_0": {"kernel": jnp.full((2, 5), 2.0), "bias": jnp.ones(5)},
    }
    method = Method(
        name="a", feed="fixed", activation_norm=64.0, weight_norm=10.0
    )  # fmt: skip
    tx = method.optimizer(
        num_classes=2, batch_size=16, weight_decay=0.2, steps_per_epoch=1,
        kernel_l2=0.05,
    )  # fmt: skip
    zeros = optax.tree.zeros_like(params)
    updates, _ = tx.update(zeros, tx.init(params), params)
    rate = 1 / (0.5 * 64 / 16 + 0.2 * 10)
    np.testing.assert_allclose(
        updates["Conv_0"]["kernel"], -rate * 2 * 0.05 * 2.0, rtol=1e-6
    )
    for name in ("Conv_0", "Dense_0"):
        assert not updates[name]["bias"].any()
    assert not updates["Dense_0"]["kernel"].any()


def test_the_authors_batch_norm_is_that_of_keras():
    for task in ("cifar10", "cifar100"):
        plan, paper = (PAPER_PLANS[name][task] for name in ("authors", "paper"))
        assert paper.model_options == plan.model_options  # of which the text is silent
        model = models.create(plan.model, num_classes=10, **plan.model_options)
        assert (model.norm_momentum, model.norm_epsilon) == (0.99, 1e-3)
        assert plan.kernel_l2 == 1e-4 and paper.kernel_l2 is None
        # The constant's lambda is the text's in both.
        assert plan.weight_decay == paper.weight_decay


def test_every_task_has_an_arm_in_inference_mode(presets, tmp_path):
    lab = Lab("quick", PRESETS["quick"], tmp_path, None, "digits")
    for task in ("mnist", "variants", "cifar10", "cifar100"):
        method = lab.inference(task)
        assert (method.name, method.feed) == ("inference", "inference")
        assert lab.fed_otherwise(task) == method
    for preset, other in (("paper", "train"), ("authors", None)):
        lab = Lab(preset, PAPER_PLANS[preset], tmp_path, None, "digits")
        for task in PAPER_PLANS[preset]:
            assert lab.adaptive(task).feed == "inference"
            beside = lab.fed_otherwise(task)
            assert (beside and beside.feed) == other


def test_flags_change_the_rule_and_the_networks_name(presets, tmp_path):
    asked = lipschitz_rate.Arguments(
        item="mnist", dataset="digits", run_dir=tmp_path, norm="max", max_rate=0.5,
        batch_size=32, weight_decay=0.01, rates=(0.2,), seeds=1,
    )  # fmt: skip
    lab = lipschitz_rate.lab_of(asked)
    network = lab.network("mnist", lab.adaptive("mnist"), 0)
    assert (network.config.batch_size, network.config.weight_decay) == (32, 0.01)
    history = network.history()
    # K_z is the largest activation, and the rate is never above the cap.
    for row in history[1:]:
        constant = 0.9 * row["activation_norm"] / 32
        assert row["lipschitz_constant"] > constant
        assert row["rate"] == pytest.approx(min(1 / row["lipschitz_constant"], 0.5))
    assert history[-1]["activation_norm"] < history[-1]["train_norm"] / 2
    assert "norm_max" in network.records.path.name and "batch_size_32" in (
        network.records.path.name
    )


def test_the_cap_is_said_where_it_is_reached(presets, tmp_path):
    flags = ["--seeds=1", "--max-rate=0.001"]
    assert call(tmp_path, "mnist", *flags) == 0
    (file,) = tmp_path.glob("results/mnist*.json")
    (note,) = [n for n in json.loads(file.read_text())["notes"] if "no rate is" in n]
    assert "reached by adaptive at 2 of 2 epochs' ends" in note


def test_a_true_bound_of_each_loss_is_never_exceeded():
    """Of least squares and of two classes, at every update of a short run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tabular, "EPOCHS", 2)
        tabular.trained.cache_clear()
        for item in ("eq9", "eq15"):
            run = tabular.trained(item, tabular.Rule(form="bound"), 0)
            assert (run["gradient"] <= run["bound"]).all() and len(run["rate"]) >= 16
            np.testing.assert_allclose(run["rate"][0], 1 / run["bound"][0], rtol=1e-5)
            assert run["train"][1] < run["train"][0]
        # Eq. 9 as printed is negative where outputs are smaller than targets.
        least = tabular.trained("eq9", tabular.Rule(form="bound"), 0)
        assert least["paper"].min() < 0 and np.isinf(tabular.beyond([least], "paper"))
        assert tabular.beyond([run], "paper")[0] < 1.5
        tabular.trained.cache_clear()


BAD = {
    "norm": (["mnist", "--norm=largest"], "norm='largest'"),
    "max_rate": (["mnist", "--max-rate=0"], "max_rate=0"),
    "item": (["mnits"], "did you mean"),
    "preset": (["mnist", "--preset=full"], "preset='full'"),
    "feed": (["mnist", "--feed=freely"], "feed='freely'"),
    "dataset": (["mnist", "--dataset=svhn"], "dataset='svhn'"),
    "epochs": (["mnist", "--epochs=0"], "epochs=0"),
    "examples": (["mnist", "--examples=3"], "examples=3"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, capsys):
    flags, message = BAD[name]
    assert lipschitz_rate.main(flags) == 2
    assert message in capsys.readouterr().err


def test_a_directory_of_another_network_is_left_alone(presets, tmp_path, capsys):
    flags = ["--dataset=digits", f"--run-dir={tmp_path}", "--seeds=1"]
    assert lipschitz_rate.main(["mnist", *flags]) == 0
    assert lipschitz_rate.main(["mnist", *flags, "--examples=128"]) == 2
    assert "was trained otherwise" in capsys.readouterr().err
