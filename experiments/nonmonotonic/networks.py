"""Networks of paper 1, each trained once by one rule, and what is seen of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import arms
from experiments.nonmonotonic.rules import Rule, optimizer_of
from lrscape import landscape, models, training
from lrscape.errors import InputError
from lrscape.landscape import tree
from lrscape.landscape.model_objective import ModelObjective
from lrscape.runs import Snapshot, peak_step

PEAK = "peak"
# Points on the way there whose weights are kept, ``step_0`` and on.
EARLY = 11
# Examples a forward pass.
CHUNK = 500
# And of a gradient: on CPU that of a convolution's weights takes three times as long
# an example by 500 at a time.
GRADIENT_CHUNK = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig(arms.ArmConfig):
    """How a network is trained.

    Attributes:
        model_options: the model's own fields.
        rule: how its rate goes.
        momentum: of SGD.
        weight_decay: of an L2 term on weights.
        dense_decay: of dense layers' weights instead; None is the same.
        bias_rate: how many times the rate biases take.
        peak_of: weights are kept at the update at which this rule peaks, whatever rule
            the network itself follows; None: they are not.
        gradient_examples: training examples that the gradient is taken over after each
            epoch; 0: it is not.
        each_epoch: whether errors are measured after every epoch, or after the last.
    """

    model_options: dict[str, Any]
    rule: Rule
    momentum: float
    weight_decay: float
    dense_decay: float | None
    bias_rate: float
    peak_of: Rule | None
    gradient_examples: int
    each_epoch: bool

    def make_model(self, num_classes: int) -> nn.Module:
        """The Linen module."""
        return models.create(
            self.model, num_classes=num_classes, **self.model_options
        )  # fmt: skip


class Network(arms.Arm):
    """A network that one rule trains.

    Its history holds ``test_loss``, ``test_error``, ``validation_error`` where examples
    were held out, ``gradient_norm`` of the full gradient over a sample, and of each
    epoch ``train_loss`` and ``train_error`` as it was trained.
    """

    @functools.cached_property
    def tx(self) -> Any:
        """Its optimizer."""
        config = self.config
        total = config.total_steps(self.data)
        return optimizer_of(
            config.rule,
            config.rule.make(total, self.steps_per_epoch),
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            dense_decay=config.dense_decay,
            bias_rate=config.bias_rate,
        )

    @property
    def kept(self) -> Mapping[int, tuple[str, ...]]:
        """The updates after which weights are kept, and the names of those."""
        kept, rule = dict(super().kept), self.config.peak_of
        if rule is not None:
            total = self.config.total_steps(self.data)
            rates = rule.make(total, self.steps_per_epoch)
            step = peak_step(lambda count: jnp.asarray(rates)[count], total)
            kept[step] = (*kept.get(step, ()), PEAK)
            for early in np.unique(np.linspace(0, step, EARLY).astype(int)).tolist():
                kept[early] = (*kept.get(early, ()), f"step_{early}")
        return kept

    def watch(self) -> arms.Watch:
        """Errors and gradients."""
        return _Watch(self)

    @functools.cached_property
    def final(self) -> Snapshot:
        """After the last epoch; trains what is missing."""
        return self.at(f"epoch_{self.config.epochs}")

    def at(self, name: str) -> Snapshot:
        """Weights that were kept; trains what is missing.

        Raises:
            InputError: the run failed before.
        """
        self.history()
        if name not in self.snapshots:
            raise InputError(
                f"{str(self.records.path)!r} has no {name!r}: its loss stopped being "
                "finite before; lower its rates, or look at other seeds"
            )
        return self.snapshots[name]

    def objective(
        self, count: int | None, *, part: str = "train", start: int = 0,
        batch_size: int = CHUNK, l2: float = 0.0,
    ) -> ModelObjective:  # fmt: skip
        """The mean loss over examples, dropout off; `l2` as `flax_objective` has it."""
        images, labels = self.examples(part, count, start)
        return landscape.flax_objective(
            self.model, (images, labels), norm="train",
            batch_size=min(batch_size, len(labels)), l2=l2,
        )  # fmt: skip

    def probabilities(self) -> tuple[np.ndarray, np.ndarray]:
        """Softmax outputs for the test images (n, classes), and their labels (n,)."""
        images, labels = self.examples("test", None)

        @jax.jit
        def predict(variables, images):
            logits = self.model.apply(variables, images, train=False)
            return jax.nn.softmax(jnp.asarray(logits))

        chunks = [
            np.asarray(predict(self.final.variables, images[i : i + CHUNK]))
            for i in range(0, len(labels), CHUNK)
        ]
        return np.concatenate(chunks), np.asarray(labels)


class _Watch:
    """Measures a network at one point of its training."""

    def __init__(self, network: Network):
        self._network, config = network, network.config
        self._evaluate = training.make_evaluate(
            network.model, network.data, config, top5=bool(config.top5)
        )
        self._objective: Any = None
        if config.gradient_examples:
            count = min(config.gradient_examples, len(network.data.train))
            self._objective = network.objective(count, batch_size=GRADIENT_CHUNK)

    def start(self, state: training.TrainState) -> arms.Row:
        """What can be measured before any update too."""
        row: arms.Row = {}
        if self._objective is not None:
            slope = landscape.loss_gradient(self._objective, state.params)
            row["gradient_norm"] = float(tree.norm(slope))
        config = self._network.config
        last = int(state.step) == config.total_steps(self._network.data)
        if config.each_epoch or last:
            row |= {f"test_{k}": v for k, v in self._evaluate(state, "test").items()}
            if self._network.data.validation is not None:
                found = self._evaluate(state, "validation")
                row["validation_error"] = found["error"]
        return row

    def epoch(self, state: training.TrainState) -> arms.Row:
        """What is measured after an epoch."""
        train = training.averages(state)
        row = {"train_loss": train["loss"], "train_error": train["error"]}
        return {**row, **self.start(state)}
