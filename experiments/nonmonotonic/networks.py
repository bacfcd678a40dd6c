"""Networks of paper 1, each trained once by one rule, and what is seen of them."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import network
from experiments.nonmonotonic.rules import Rule, optimizer_of, rates_of
from lrscape import landscape, training
from lrscape.landscape import tree
from lrscape.landscape.model_objective import ModelObjective
from lrscape.runs import RunConfig, peak_step

PEAK = "peak"
# Points on the way there whose weights are kept, ``step_0`` and on.
EARLY = 11
# Examples a forward pass.
CHUNK = 500
# And of a gradient: on CPU that of a convolution's weights takes three times as long
# an example by 500 at a time.
GRADIENT_CHUNK = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig(RunConfig):
    """How a network is trained: a run's settings and these.

    Attributes:
        dense_decay: of dense layers' weights, in place of `weight_decay`; None is the
            same.
        bias_rate: how many times the rate biases take.
        peak_of: weights are kept at the update at which this rule peaks, whatever rule
            the network itself follows; None: they are not.
        gradient_examples: training examples that the gradient is taken over after each
            epoch; 0: it is not.
        each_epoch: whether errors are measured after every epoch, or after the last.
    """

    dense_decay: float | None
    bias_rate: float
    peak_of: Rule | None
    gradient_examples: int
    each_epoch: bool


class Network(network.Network):
    """A network that one rule trains.

    Its history holds ``test_loss``, ``test_error``, ``validation_error`` where examples
    were held out, ``gradient_norm`` of the full gradient over a sample, and of each
    epoch ``train_loss`` and ``train_error`` as it was trained.
    """

    @functools.cached_property
    def tx(self) -> Any:
        """Its optimizer, whose rates are data."""
        config, total = self.config, self.config.total_steps(self.data)
        schedule = config.make_schedule(total, self.steps_per_epoch)
        return optimizer_of(
            config.optimizer,
            rates_of(schedule, total),
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            dense_decay=config.dense_decay,
            bias_rate=config.bias_rate,
        )

    @property
    def kept(self) -> dict[int, tuple[str, ...]]:
        """The updates after which weights are kept, and the names of those."""
        kept, rule = super().kept, self.config.peak_of
        if rule is not None:
            total = self.config.total_steps(self.data)
            rates = rule.make(total, self.steps_per_epoch)
            step = peak_step(lambda count: jnp.asarray(rates)[count], total)
            kept[step] = (*kept.get(step, ()), PEAK)
            for early in np.unique(np.linspace(0, step, EARLY).astype(int)).tolist():
                kept[early] = (*kept.get(early, ()), f"step_{early}")
        return kept

    @functools.cached_property
    def _gradient_of(self) -> ModelObjective:
        count = min(self.config.gradient_examples, len(self.data.train))
        return self.objective(count, batch_size=GRADIENT_CHUNK)

    def measure(self, state: training.TrainState) -> network.Row:
        """Errors, and the norm of the full gradient over a sample."""
        row: network.Row = {}
        if self.config.gradient_examples:
            slope = landscape.loss_gradient(self._gradient_of, state.params)
            row["full_gradient_norm"] = float(tree.norm(slope))
        last = int(state.step) == self.config.total_steps(self.data)
        if self.config.each_epoch or last:
            row |= super().measure(state)
        return row

    def row_of(self, line: network.Row) -> network.Row:
        """A line of the metrics, whose gradient is the full one here."""
        row = {k: v for k, v in line.items() if k != "gradient_norm"}
        if "full_gradient_norm" in row:
            row["gradient_norm"] = row.pop("full_gradient_norm")
        return row

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
