"""An objective: a mean of a loss over a fixed sample, held as batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import numpy as np

from lrscape import checks
from lrscape.errors import InputError
from lrscape.landscape.accumulate import mean_loss
from lrscape.landscape.programs import HoldsFunctions
from lrscape.landscape.tree import leaf_names, own
from lrscape.matmul import MEASURED


class Objective(HoldsFunctions):
    r"""A mean of a loss over a fixed sample, held as batches: what every probe takes.

    A bare function ``point -> loss`` will do wherever an objective is asked for; so
    does an object of one's own with this class's members, which need not derive from
    it.

    Required members: `num_batches`, `weights`, `batch` and `batch_loss`.

    Optional members are None, or absent, where an objective does not have them. A probe
    that needs one says so in its error.

    Attributes:
        num_batches: how many batches the sample is held as.
        weights: (num_batches,), each batch's share of the examples; they sum to 1.
        settings: what the numbers depend on besides point and examples, as JSON holds
            it; it is kept beside every result.
        is_traceable: whether `batch_loss` is made of JAX operations, so that it can be
            compiled and differentiated. One that is not is called with arrays whose
            values are known, a batch at a time; its gradients and products come from
            `batch_gradient` and `batch_product`, and probes that need neither work
            without them.
        at: ``at(point) -> objective``, with whatever has to be known about a point
            filled in once rather than for every batch, such as batch statistics that
            are estimated anew at each point.
        along: ``along(point, direction) -> (objective, point, direction)``, whose slope
            is that of the loss on a line, where `at` fills in what moves with the
            point.
        outputs: ``outputs(point, batch) -> outputs``, (n, outputs), which the
            Gauss-Newton matrix is made of, together with
        output_loss: ``output_loss(outputs, batch) -> scalar``, the mean loss of outputs
            over one batch, without the penalty.
        example_losses: ``example_losses(point, batch) -> (n,)``, the loss of each
            example within its batch, without the penalty. Without it a batch is taken
            apart and `batch_loss` called for each example.
        penalty: ``penalty(point) -> scalar``, a term of the loss that is the same for
            every batch, such as an L2 term; `batch_loss` includes it.
        batch_gradient: ``batch_gradient(point, batch) -> tree``, the gradient of
            `batch_loss`, where an objective computes it better than JAX does.
        batch_product: ``batch_product(kind, point, batch, vector) -> tree``, a batch's
            share of the product of a curvature matrix and a vector; ``NotImplemented``
            for a kind that it leaves to JAX. An objective of a large vocabulary can
            make its Gauss-Newton product in chunks here.
        with_float64_model: ``with_float64_model() -> objective`` whose computation is
            in double precision; see `lrscape.landscape.in_double`.
    """

    is_traceable: bool = True
    along: Any = None
    outputs: Any = None
    output_loss: Any = None
    example_losses: Any = None
    penalty: Any = None
    batch_gradient: Any = None
    batch_product: Any = None
    with_float64_model: Any = None

    @property
    def num_batches(self) -> int:
        """The number of batches that the sample is held as."""
        raise NotImplementedError

    @property
    def weights(self) -> np.ndarray:
        """(num_batches,), each batch's share of the examples."""
        return np.full(self.num_batches, 1 / self.num_batches)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the numbers depend on, as JSON holds them."""
        return {"objective": type(self).__name__, "matmul_precision": MEASURED}

    def batch(self, i: int) -> Any:
        """The i-th batch, a pytree of arrays."""
        raise NotImplementedError

    def batch_loss(self, point: Any, batch: Any) -> Any:
        """The mean loss over one batch: a scalar, or a dict with ``'loss'``."""
        raise NotImplementedError

    def at(self, point: Any) -> Objective:
        """The objective with whatever has to be known about a point filled in."""
        return self

    def __call__(self, point: Any) -> Any:
        """The mean loss over the whole sample: a scalar, or a dict of scalars."""
        return mean_loss(self, point)


@dataclasses.dataclass(frozen=True, eq=False)
class SampleObjective(Objective):
    """An objective whose whole sample is on the device; its loss is a subclass's.

    A subclass registers itself as a pytree whose data are the examples, so that a
    compiled probe takes them as an argument and serves every sample of the same shapes.

    Attributes:
        whole: the full batches, each leaf (batches, batch_size, ...); None without.
        tail: what is left for a smaller last batch, (rest, ...); None without.
        counts: how many full batches, examples in each, examples in the tail.
    """

    holds_sample: ClassVar[bool] = True

    whole: Any
    tail: Any
    counts: tuple[int, int, int]

    @property
    def num_batches(self) -> int:
        """The number of batches that the sample is held as."""
        return self.counts[0] + (self.counts[2] > 0)

    @property
    def num_examples(self) -> int:
        """The number of examples in the sample."""
        full, size, rest = self.counts
        return full * size + rest

    @property
    def weights(self) -> np.ndarray:
        """(num_batches,), each batch's share of the examples."""
        full, size, rest = self.counts
        sizes = np.array([size] * full + [rest] * (rest > 0), np.float64)
        return sizes / sizes.sum()

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the numbers depend on, as JSON holds them."""
        return {
            **super().settings,
            "num_examples": self.num_examples,
            "batch_size": self.counts[1],
        }

    def batch(self, i: int) -> Any:
        """The i-th batch, a pytree of arrays; a traced i reaches full ones alone."""
        if isinstance(i, int | np.integer):
            if not 0 <= i < self.num_batches:
                raise InputError(f"batch {i} is none of the {self.num_batches}")
            if i == self.counts[0]:
                return self.tail
        return jax.tree.map(lambda leaf: leaf[i], self.whole)


@dataclasses.dataclass(frozen=True, eq=False)
class MeanObjective(SampleObjective):
    """The mean of a loss function over a sample; made by `mean_objective`.

    Attributes:
        loss_fn: ``(point, batch) -> mean loss``.
    """

    loss_fn: Callable[[Any, Any], Any]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the numbers depend on, as JSON holds them."""
        name = getattr(self.loss_fn, "__qualname__", type(self.loss_fn).__name__)
        return {**super().settings, "objective": name}

    def batch_loss(self, point: Any, batch: Any) -> Any:
        """The mean loss over one batch."""
        return self.loss_fn(point, batch)


jax.tree_util.register_dataclass(
    MeanObjective, data_fields=["whole", "tail"], meta_fields=["counts", "loss_fn"]
)


def mean_objective(
    loss_fn: Callable[[Any, Any], Any], data: Any, *, batch_size: int
) -> MeanObjective:
    r"""Makes an objective of a loss and a sample.

    .. math::

        L(\theta) = \sum_i \frac{n_i}{N} \ell(\theta, B_i),

    the batches :math:`B_i` of :math:`n_i` examples covering all N of them once, in
    their order; a ragged last batch counts by what it holds.

    Args:
        loss_fn: ``(point, batch) -> loss``, the mean over the batch, as a scalar or a
            dict of scalars with the key ``'loss'``. The point is any pytree of
            floating-point arrays.
        data: a pytree of arrays with a leading example axis. The sample is fixed: every
            point is measured on the same examples, in the same batches.
        batch_size: examples a batch, cut to the size of the sample.

    Returns:
        The objective: ``objective(point)`` is the mean loss, under ``jit``, ``grad``
        and ``vmap`` too. For the gradient over a whole sample
        `lrscape.landscape.loss_gradient` chooses the faster loop.

    Raises:
        InputError: no examples, leaves of different lengths, or no batch size.

    Example:
        >>> import jax.numpy as jnp
        >>> def loss_fn(w, batch):
        ...     return jnp.mean((batch['x'] @ w - batch['y']) ** 2)
        >>> data = {'x': jnp.eye(5, 2), 'y': jnp.ones(5)}
        >>> objective = mean_objective(loss_fn, data, batch_size=2)
        >>> print(objective.num_batches, f"{objective(jnp.array([1.0, 0.0])):.3f}")
        3 0.800
    """
    checks.function("loss_fn", loss_fn, takes="(point, batch)")
    whole, tail, counts = as_batches(data, batch_size)
    return MeanObjective(whole, tail, counts, loss_fn)


def as_batches(data: Any, batch_size: int) -> tuple[Any, Any, tuple[int, int, int]]:
    """Puts examples on the device as full batches and a tail.

    Returns:
        What `SampleObjective` calls ``whole``, ``tail`` and ``counts``.

    Raises:
        InputError: as `mean_objective`.
    """
    # A batch is cut to the size of the sample, so that a large one is all of it.
    batch_size = checks.count("batch_size", batch_size)
    leaves = jax.tree.leaves(data)
    if not leaves:
        raise InputError(
            f"data={checks.shown(data)} holds no arrays, so there is no sample"
        )
    for path, leaf in zip(leaf_names(data), leaves, strict=True):
        kind = getattr(leaf, "dtype", None)
        if not isinstance(leaf, jax.Array) and getattr(kind, "kind", "O") in "OSUMmV":
            raise InputError(
                f"data: {path} is {checks.shown(leaf)}; a sample holds arrays of "
                "numbers alone"
            )
    lengths = {np.shape(leaf)[:1] for leaf in leaves}
    if () in lengths or len(lengths) > 1:
        shapes = ", ".join(str(np.shape(leaf)) for leaf in leaves)
        raise InputError(
            "data: every array needs the same leading axis of examples; their shapes "
            f"are {shapes}"
        )
    count = lengths.pop()[0]
    if not count:
        raise InputError("data is an empty sample: a mean needs at least one example")
    size = min(int(batch_size), count)
    full, rest = divmod(count, size)
    whole = jax.tree.map(
        # A copy: on CPU an array might otherwise stay the caller's own.
        lambda leaf: own(leaf[: full * size].reshape(full, size, *np.shape(leaf)[1:])),
        data,
    )
    tail = jax.tree.map(lambda leaf: own(leaf[full * size :]), data)
    return whole, (tail if rest else None), (full, size, rest)
