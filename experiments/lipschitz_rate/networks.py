"""Networks of paper 5, each trained once by one method, and what is seen of them."""

from __future__ import annotations

import dataclasses
import functools
import time
from typing import Any

import jax
import numpy as np
import optax

from experiments.harness import network
from experiments.lipschitz_rate.methods import Method
from lrscape import training, transforms
from lrscape.runs import RunConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig(RunConfig):
    """How a network is trained: a run's settings and these.

    Attributes:
        method: where the rate comes from.
        pass_batches: batches of the passes that measure K_z; None is all.
        kernel_l2: see `Method.optimizer`.
    """

    method: Method
    pass_batches: int | None
    kernel_l2: float | None = None


class Network(network.Network):
    """A network that one method trains.

    Its history holds ``activation_norm``, which the last update's rate was made of,
    ``weight_norm`` and with batch norm's averages ``weight_norm_all``; ``train_norm``,
    ``train_max``, ``inference_norm`` and ``inference_max`` of the passes at that point,
    with their seconds; ``train_loss``, ``train_error`` (over the epoch, as it was
    trained), ``test_loss``, ``test_error`` and, where examples are held out,
    ``validation_loss``, ``validation_error``: losses are mean cross-entropies in nats,
    without an L2 term.
    """

    @functools.cached_property
    def tx(self) -> Any:
        """Its optimizer."""
        return self.config.method.optimizer(
            num_classes=self.data.num_classes,
            batch_size=self.config.batch_size,
            weight_decay=self.config.weight_decay,
            steps_per_epoch=self.steps_per_epoch,
            kernel_l2=self.config.kernel_l2,
        )

    def adapt(self, state: training.TrainState, line: network.Row) -> Any:
        """The state with what a pass at this point measured, if that is the method."""
        method = self.config.method
        if method.feed not in ("train", "inference"):
            return None
        # As their authors do, batch norm's averages are among the weights.
        weights = line["weight_norm" if method.feed == "train" else "weight_norm_all"]
        return state.replace(
            opt_state=transforms.hold_norms(
                state.opt_state,
                activation_norm=line[method.measured_as(method.feed)],
                weight_norm=weights,
            )
        )

    def rate(self, state: training.TrainState) -> float:
        """The rate of the last update."""
        return super().rate(state) * float(self.config.method.decayed(state.step - 1))

    @functools.cached_property
    def _passes(self) -> dict[str, Any]:
        if not self.config.method.measured:
            return {}
        return {
            mode: training.make_largest_activations(
                self.model, self.data, self.config, mode=mode,
                num_batches=self.config.pass_batches,
            )
            for mode in ("train", "inference")
        }  # fmt: skip

    def measure(self, state: training.TrainState) -> network.Row:
        """Norms of weights and activations, and errors."""
        row: network.Row = {
            "weight_norm": _largest_norm(state.params),
            "weight_norm_all": _largest_norm(state.variables),
            **super().measure(state),
        }
        if int(state.step) and self.config.method.feed != "none":
            for name in ("activation_norm", "lipschitz_constant"):
                row[name] = float(optax.tree.get(state.opt_state, name))
        for mode, measure in self._passes.items():
            if int(state.step) == 0:
                measure(state)  # compiles, which is not the pass's time
            started = time.monotonic()
            found = measure(state)
            row[f"{mode}_seconds"] = time.monotonic() - started
            row[f"{mode}_norm"] = found["activation_norm"]
            row[f"{mode}_max"] = found["activation_max"]
        return row


def _largest_norm(tree: Any) -> float:
    """NaN among norms is the largest."""
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    return float(np.max([np.linalg.norm(leaf) for leaf in leaves]))
