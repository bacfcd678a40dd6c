"""Eq. 9 and 15 on real tables: least squares, and a problem of two classes.

The paper derives both constants and tries neither. Here a hidden layer is trained by
each, as it is printed and as a true bound, on data that come with scikit-learn, beside
a constant rate that was tuned.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from matplotlib.figure import Figure

from experiments.harness.paper import Result
from experiments.harness.statistics import mean_and_interval
from experiments.lipschitz_rate.lab import Lab
from lrscape import models, transforms
from lrscape.figures.style import CYCLE, tidy
from lrscape.training.step import penultimate
from lrscape.transforms import activation_norms, lipschitz_constant
from lrscape.transforms.lipschitz import FORMS

# The text has no such experiment; all of these are ours.
WIDTH, BATCH_SIZE, EPOCHS = 64, 32, 60
RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
# Rows that are held out to choose the constant rate by, and as many to test on.
HELD_OUT = 80
# Outputs beyond it: the run has failed.
FAR = 1e6
# What is drawn from here up is shown as if it lay here.
TOP = 10.0

LOSSES = {"eq9": "squared_error", "eq15": "binary_cross_entropy"}
NAMES = {"eq9": "diabetes", "eq15": "breast cancer"}
# K_a, which Eq. 9 needs, is the 2-norm of a batch's outputs.
WORDS = {"paper": "as printed", "bound": "as a true bound"}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """A data set, its columns with mean 0 and deviation 1 over the training rows.

    Attributes:
        inputs: (rows, columns), by part.
        targets: (rows,), by part: standardised likewise, or 0 and 1.
    """

    inputs: dict[str, jax.Array]
    targets: dict[str, jax.Array]


@functools.lru_cache
def table_of(item: str, seed: int) -> Table:
    """The item's data, split at random."""
    from sklearn import datasets

    load = datasets.load_diabetes if item == "eq9" else datasets.load_breast_cancer
    inputs, targets = load(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(inputs))
    cuts = np.split(order, [len(order) - 2 * HELD_OUT, len(order) - HELD_OUT])
    rows = dict(zip(("train", "validation", "test"), cuts, strict=True))

    def scaled(values: np.ndarray) -> dict[str, jax.Array]:
        train = values[rows["train"]]
        every = (values - train.mean(axis=0)) / train.std(axis=0)
        return {part: jnp.asarray(every[at], jnp.float32) for part, at in rows.items()}

    if item == "eq9":
        return Table(scaled(inputs), scaled(targets))
    labels = {part: jnp.asarray(targets[at], jnp.float32) for part, at in rows.items()}
    return Table(scaled(inputs), labels)


def loss_of(item: str, outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Eq. 7 or Eq. 10: the mean over rows."""
    if item == "eq9":
        return jnp.mean((outputs - targets) ** 2) / 2
    return optax.sigmoid_binary_cross_entropy(outputs, targets).mean()


@dataclasses.dataclass(frozen=True)
class Rule:
    """Where the rate comes from.

    Attributes:
        form: of the constant; None: the rate is given.
        rate: the constant rate, where it is.
        max_rate: no rate that is made of a constant is larger.
    """

    form: str | None = None
    rate: float | None = None
    max_rate: float = 10.0


@functools.cache
def _program(item: str, form: str | None, max_rate: float) -> tuple[Any, Any, Any]:
    """The network, its optimizer and a compiled epoch, which all seeds share."""
    model = models.create("mlp", num_classes=1, features=(WIDTH,), batch_norm=False)
    tx: Any = optax.identity()
    if form is not None:
        tx = transforms.scale_by_lipschitz(
            batch_size=BATCH_SIZE, loss=LOSSES[item], form=form,
            window=_per_epoch(table_of(item, 0)), max_rate=max_rate,
        )  # fmt: skip
    tx = optax.with_extra_args_support(tx)

    def outputs_of(params, rows):
        outputs, sown = model.apply(
            {"params": params}, rows, train=True, mutable=["intermediates"]
        )
        return outputs[:, 0], penultimate(sown["intermediates"])

    def update(table, rate, state, rows):
        params, opt_state = state
        inputs, targets = table.inputs["train"][rows], table.targets["train"][rows]

        def loss(params):
            outputs, features = outputs_of(params, inputs)
            return loss_of(item, outputs, targets), (outputs, features)

        (_, (outputs, features)), slope = jax.value_and_grad(loss, has_aux=True)(params)
        norms = activation_norms(features)
        sizes = {
            "output_norm": jnp.linalg.norm(outputs),
            "target_norm": jnp.linalg.norm(targets),
        }
        constants = {
            form: lipschitz_constant(
                norms["activation_norm"], batch_size=BATCH_SIZE, loss=LOSSES[item],
                form=form, **(sizes if item == "eq9" else {}),
            )
            for form in FORMS
        }  # fmt: skip
        updates, opt_state = tx.update(slope, opt_state, params, **norms, **sizes)
        if form is None:
            updates = jax.tree.map(lambda leaf: -rate * leaf, updates)
        else:
            rate = optax.tree.get(opt_state, "lipschitz_rate")
        largest = jnp.abs(slope["Dense_1"]["kernel"]).max()
        found = {"rate": rate, "gradient": largest, **constants}
        return (optax.apply_updates(params, updates), opt_state), found

    @jax.jit
    def epoch(table, rate, state, key):
        order = jax.random.permutation(key, len(table.inputs["train"]))
        batches = order[: _per_epoch(table) * BATCH_SIZE].reshape(-1, BATCH_SIZE)
        step = functools.partial(update, table, rate)
        state, found = jax.lax.scan(step, state, batches)
        losses = {
            part: loss_of(
                item, outputs_of(state[0], table.inputs[part])[0], table.targets[part]
            )
            for part in table.inputs
        }
        return state, found, losses

    return model, tx, epoch


def _per_epoch(table: Table) -> int:
    return len(table.inputs["train"]) // BATCH_SIZE


@functools.cache
def trained(item: str, rule: Rule, seed: int) -> dict[str, np.ndarray]:
    """Trains a network.

    Returns:
        By update: ``rate``, ``gradient`` (the largest entry of the last layer's), and
        its constant by form; by epoch: ``train``, ``validation`` and ``test``, the
        losses after it; infinite from where they have gone too far.
    """
    table = table_of(item, seed)
    model, tx, epoch = _program(item, rule.form, rule.max_rate)
    key, rate = jax.random.key(seed), jnp.float32(rule.rate or 0.0)
    params = model.init(key, table.inputs["train"][:1], train=False)["params"]
    state, steps, epochs = (params, tx.init(params)), [], []
    for number in range(EPOCHS):
        state, found, losses = epoch(
            table, rate, state, jax.random.fold_in(key, number)
        )
        if not all(float(loss) < FAR for loss in losses.values()):
            break
        steps.append(jax.tree.map(np.asarray, found))
        epochs.append({part: float(loss) for part, loss in losses.items()})
    far = dict.fromkeys(table.inputs, np.inf)
    epochs += [far] * (EPOCHS - len(epochs))
    whole = {part: np.array([one[part] for one in epochs]) for part in far}
    # Of a run that failed in its first epoch nothing is left to look at.
    for name in ("rate", "gradient", *FORMS):
        parts = [np.ravel(one[name]) for one in steps]
        whole[name] = np.concatenate(parts) if parts else np.array([])
    return whole


def tuned(item: str, seeds: Sequence[int]) -> Rule:
    """The constant rate with the least mean validation loss at the end."""

    def error_of(rule: Rule) -> float:
        return float(np.mean([trained(item, rule, s)["validation"][-1] for s in seeds]))

    return min((Rule(rate=rate) for rate in RATES), key=error_of)


def rules_of(lab: Lab, item: str) -> dict[str, Rule]:
    """What is compared, by name."""
    plan = lab.plans["variants"]
    cap, constant = plan.max_rate, tuned(item, range(plan.seeds))
    return {
        **{f"1 / K, {WORDS[form]}": Rule(form=form, max_rate=cap) for form in FORMS},
        f"constant {constant.rate:g}, tuned": constant,
    }


def runs_of(lab: Lab, item: str) -> dict[str, list[dict[str, np.ndarray]]]:
    """One run a seed, by what is compared."""
    seeds = range(lab.plans["variants"].seeds)
    return {
        name: [trained(item, rule, seed) for seed in seeds]
        for name, rule in rules_of(lab, item).items()
    }


def beyond(runs: Sequence[Mapping[str, np.ndarray]], form: str) -> np.ndarray:
    """(seeds,), the largest gradient over the constant; infinite where that is not > 0.

    Example:
        >>> run = {'gradient': np.array([1.0, 2.0]), 'bound': np.array([2.0, 5.0])}
        >>> beyond([run], 'bound').tolist()
        [0.5]
    """
    found = []
    for run in runs:
        positive = run[form] > 0
        constant = np.where(positive, run[form], 1.0)
        ratios = np.where(positive, run["gradient"] / constant, np.inf)
        ratios = np.where(run["gradient"] == 0, 0.0, ratios)
        found.append(ratios.max(initial=0.0))
    return np.array(found)


def _made(lab: Lab, item: str) -> Result:
    found, cap = runs_of(lab, item), lab.plans["variants"].max_rate
    rows, variables = [], {}
    for name, runs in found.items():
        ends = {part: [run[part][-1] for run in runs] for part in ("train", "test")}
        failed = sum(not np.isfinite(end) for end in ends["train"])
        rates = [run["rate"] for run in runs]
        rows.append(
            {
                "rate": name,
                "data": NAMES[item],
                "train loss": _finite(ends["train"]),
                "test loss": _finite(ends["test"]),
                "failed": f"{failed} of {len(runs)}",
                "median rate": _finite([np.median(r) for r in rates if len(r)]),
                "updates at the cap": "-"
                if name.startswith("constant")
                else _share([np.mean(r >= cap) for r in rates if len(r)]),
                **{
                    f"gradient / K, {WORDS[form]}": _finite(beyond(runs, form))
                    for form in FORMS
                },
            }
        )
        label = name.replace(" ", "_").replace(",", "").replace("/", "over")
        for part in ("train", "test"):
            values = np.array([run[part] for run in runs])
            variables[f"{label}_{part}"] = (("seed", "epoch"), values)
    constants = found[f"1 / K, {WORDS['bound']}"]
    negative = [np.mean(run["paper"] <= 0) for run in constants]
    notes = [
        (
            f"a hidden layer of {WIDTH}, batches of {BATCH_SIZE}, {EPOCHS} epochs, "
            f"{len(constants)} seeds, each with another split of the rows; K_z and K_a "
            "are of the update's own batch, the largest K_z of an epoch counts; the "
            f"constant rate is the best of {len(RATES)} on rows that all seeds hold out"
        ),
        (
            "gradient / K: the largest entry of the last layer's gradient over the "
            "constant, the largest of all updates: at most 1 if K bounds it, infinite "
            "where K is not positive"
        ),
        (
            f"no rate is larger than {cap:g}, which is ours; a failed run's loss is "
            "left out of its mean"
        ),
    ]
    if item == "eq9":
        notes.append(
            "Eq. 9 as printed, (K_a - |y|) K_z / m, is not positive in "
            f"{mean_and_interval([100 * share for share in negative])} % of the "
            "updates of the run by the true bound: where outputs are smaller than "
            "targets; the rate is then the cap"
        )
    figure = _figure(found, f"{NAMES[item]}, {LOSSES[item].replace('_', ' ')}")
    dataset = xr.Dataset(variables, {"epoch": np.arange(1, EPOCHS + 1)})
    return Result(rows, dataset, {"": figure}, notes)


def _finite(values: Sequence[float] | np.ndarray) -> str:
    kept = [value for value in values if np.isfinite(value)]
    return mean_and_interval(kept) if kept else "infinite" if len(values) else "-"


def _share(values: Sequence[Any]) -> str:
    return f"{100 * np.mean(values):.3g} %" if values else "-"


def _figure(
    found: Mapping[str, Sequence[Mapping[str, np.ndarray]]], title: str
) -> Figure:
    figure = Figure(figsize=(7.2, 6), layout="constrained")
    losses, rates = figure.subplots(2, 1)
    for color, (name, runs) in zip(CYCLE, found.items(), strict=False):
        epochs = np.arange(1, EPOCHS + 1)
        for part, style in (("train", "--"), ("test", "-")):
            mean = np.mean([run[part] for run in runs], axis=0)
            losses.plot(
                epochs, np.minimum(mean, TOP), style, color=color,
                label=name if part == "test" else None,
            )  # fmt: skip
        first = runs[0]["rate"]
        updates = np.arange(1, len(first) + 1) / max(1, len(first) / EPOCHS)
        if np.isfinite(runs[0]["train"]).all():
            rates.plot(updates, first, color=color)
    losses.set_yscale("log")
    losses.set_ylabel("loss (solid: test; dashed: training)")
    losses.set_xlabel("epoch")
    losses.legend(frameon=False, fontsize="small")
    rates.set_yscale("log")
    rates.set_ylabel("learning rate, seed 0")
    rates.set_xlabel("epoch")
    for axes in (losses, rates):
        tidy(axes)
    count = len(next(iter(found.values())))
    figure.suptitle(f"{title}: mean of {count} seeds; at the top edge: {TOP:g} or more")
    return figure


def eq9(lab: Lab) -> Result:
    """Eq. 9: least squares on the diabetes data, by its constant and the true bound."""
    return _made(lab, "eq9")


def eq15(lab: Lab) -> Result:
    """Eq. 15: two classes, of the breast-cancer data, by its constant and the bound."""
    return _made(lab, "eq15")
