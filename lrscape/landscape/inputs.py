"""Flatness to moved inputs: noise, the way to other images, and Lemma 1."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lrscape import checks
from lrscape.errors import InputError
from lrscape.landscape.flatness import Curves, check_scales, curves_of
from lrscape.landscape.objective import SampleObjective, as_batches
from lrscape.landscape.protocol import member
from lrscape.landscape.surface import measure_surface
from lrscape.landscape.tree import check_count, check_point


@dataclasses.dataclass(frozen=True, eq=False)
class InputObjective(SampleObjective):
    """An objective of how far every input is moved along its own direction.

    A point is ``{'point': ..., 'alpha': ...}``: the weights, and a scalar.

    Attributes:
        base: the objective whose inputs are moved; its own examples are not used.
    """

    base: Any = None

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the objective whose inputs are moved."""
        return {**self.base.settings, "moved": "inputs"}

    def batch_loss(self, point: Any, batch: Any) -> Any:
        """The mean loss over one batch of moved inputs."""
        inputs, labels, moves = batch
        moved = inputs + point["alpha"].astype(inputs.dtype) * moves
        return self.base.batch_loss(point["point"], (moved, labels))

    def at(self, point: Any) -> InputObjective:
        """Batch statistics are those of the inputs where they are."""
        return dataclasses.replace(self, base=self.base.at(point["point"]))


jax.tree_util.register_dataclass(
    InputObjective,
    data_fields=["whole", "tail", "base"],
    meta_fields=["counts"],
)


def input_losses(
    objective: SampleObjective, point: Any, moves: Any, scales: Any
) -> Curves:
    r"""The loss as every input is moved along a direction of its own.

    .. math:: \frac{1}{N} \sum_n \ell(f(x_n + \alpha\, d_n, w), y_n)

    Args:
        objective: made by `lrscape.landscape.flax_objective`, or by `mean_objective`
            over the data ``(inputs, labels)``.
        point: w; it stays where it is.
        moves: :math:`d_n`, an array like the inputs (n, ...), or several as
            (directions, n, ...).
        scales: (k,), :math:`\alpha`.

    Returns:
        A curve for each set of moves.

    Raises:
        InputError: moves of another shape, or examples that are no pair.

    Example:
        >>> from lrscape.landscape import mean_objective
        >>> objective = mean_objective(
        ...     lambda w, batch: jnp.mean((batch[0] @ w - batch[1]) ** 2),
        ...     (jnp.zeros((4, 2)), jnp.zeros(4)), batch_size=2)
        >>> curves = input_losses(
        ...     objective, jnp.ones(2), jnp.full((4, 2), 0.5), [0.0, 1.0, 2.0])
        >>> print(curves.losses)
        [[0. 1. 4.]]

    References:
        Seong et al., `Towards Flatter Loss Surface via Nonmonotonic Learning Rate
        Scheduling <http://auai.org/uai2018/proceedings/papers/363.pdf>`_, 2018,
        Sec. 6.2
    """
    scales = check_scales(scales)
    inputs, labels = _examples(objective)
    moves = jnp.asarray(checks.numbers("moves", moves))
    if moves.shape == inputs.shape:
        moves = moves[None]
    if moves.shape[1:] != inputs.shape:
        raise InputError(
            f"moves have shape {moves.shape}; the inputs have {inputs.shape}, and "
            "moves need that shape, or one axis of directions before it"
        )
    check_point("point", point)
    surfaces = []
    for one in moves:
        whole, tail, counts = as_batches((inputs, labels, one), objective.counts[1])
        moved = InputObjective(whole, tail, counts, objective)
        way = _Way(jnp.zeros([], inputs.dtype), point)
        surfaces.append(measure_surface(moved, way, scales, chunk_size=1))
    return curves_of(scales, surfaces)


@dataclasses.dataclass(frozen=True, eq=False)
class _Way:
    """``alpha -> {'point', 'alpha'}``: a point that stays, and a number that moves."""

    zero: Any
    point: Any
    kind = "inputs"
    num_coordinates = 1

    def __call__(self, alpha: Any) -> Any:
        return {"point": self.point, "alpha": self.zero + alpha.astype(self.zero.dtype)}


jax.tree_util.register_dataclass(_Way, data_fields=["zero", "point"], meta_fields=[])


def noise_moves(key: jax.Array, inputs: Any, *, num_directions: int = 1) -> jax.Array:
    """Gaussian noise of norm 1 for each input.

    Args:
        key: a PRNG key.
        inputs: (n, ...).
        num_directions: how many for each input.

    Returns:
        (num_directions, n, ...), of the inputs' dtype.

    Example:
        >>> noise = noise_moves(jax.random.key(0), jnp.ones((3, 8, 8, 1)))
        >>> print(noise.shape, jnp.linalg.norm(noise.reshape(3, -1), axis=1).round(4))
        (1, 3, 8, 8, 1) [1. 1. 1.]

    References:
        Seong et al., 2018, Sec. 6.2
    """
    key = checks.key("key", key)
    inputs = jnp.asarray(checks.numbers("inputs", inputs))
    if not inputs.ndim:
        raise InputError(f"inputs={checks.shown(inputs)} must be (n, ...)")
    count = check_count("num_directions", num_directions)
    noise = jax.random.normal(key, (count, *inputs.shape), inputs.dtype)
    axes = tuple(range(2, noise.ndim))
    return noise / jnp.sqrt(jnp.sum(noise**2, axis=axes, keepdims=True))


def neighbor_moves(
    key: jax.Array,
    inputs: Any,
    candidates: Any,
    *,
    num_neighbors: int = 10,
    num_directions: int = 1,
) -> np.ndarray:
    """The way from each input to one of its nearest among other images.

    Args:
        key: a PRNG key, to choose among the nearest.
        inputs: (n, ...).
        candidates: (m, ...), such as validation images.
        num_neighbors: how many nearest ones are chosen from, by Euclidean distance.
        num_directions: how many choices for each input.

    Returns:
        (num_directions, n, ...): at alpha 1 an input has become its neighbour.

    Raises:
        InputError: fewer candidates than neighbours, or images of another shape.

    Example:
        >>> moves = neighbor_moves(
        ...     jax.random.key(0), np.zeros((2, 1)), np.array([[1.0], [5.0]]),
        ...     num_neighbors=1)
        >>> print(moves.ravel())
        [1. 1.]

    References:
        Seong et al., 2018, Sec. 6.2 and Fig. 3c
    """
    from sklearn.neighbors import NearestNeighbors

    key = checks.key("key", key)
    inputs = np.asarray(checks.numbers("inputs", inputs))
    candidates = np.asarray(checks.numbers("candidates", candidates))
    if inputs.shape[1:] != candidates.shape[1:]:
        raise InputError(
            f"candidates have shape {candidates.shape}; each needs the shape of an "
            f"input, {inputs.shape[1:]}"
        )
    if check_count("num_neighbors", num_neighbors) > len(candidates):
        raise InputError(
            f"num_neighbors={num_neighbors!r} must lie between 1 and the number of "
            f"candidates, {len(candidates)}"
        )
    count = check_count("num_directions", num_directions)
    search = NearestNeighbors(n_neighbors=num_neighbors, algorithm="brute")
    search.fit(candidates.reshape(len(candidates), -1))
    nearest = search.kneighbors(inputs.reshape(len(inputs), -1), return_distance=False)
    shape = (count, len(inputs))
    chosen = np.asarray(jax.random.randint(key, shape, 0, num_neighbors))
    return candidates[nearest[np.arange(len(inputs)), chosen]] - inputs


class EquivalentPerturbation(NamedTuple):
    """A move of the weights in place of one of the inputs.

    Attributes:
        kernel: like the layer's kernel, what is added to it.
        residual: how much of the layer's response it misses, relative to that
            response: 0 where it is exact.
    """

    kernel: jax.Array
    residual: jax.Array


def equivalent_weight_perturbation(
    kernel: Any,
    inputs: Any,
    moves: Any,
    *,
    strides: tuple[int, int] = (1, 1),
    padding: Any = "SAME",
) -> EquivalentPerturbation:
    r"""The move of a first layer's weights that answers as a move of its input does.

    .. math::

        (W + \delta^W) x = W (x + \delta^x), \quad
        \delta^W = \frac{W \delta^x x^T}{\|x\|^2}

    For one input of a dense layer this is exact. Over several inputs, and for a
    convolution, whose weights are shared between places, an exact one rarely exists:
    what is returned then is the least-squares answer of least norm.

    Args:
        kernel: (inputs, outputs) of a dense layer, or (height, width, inputs, outputs)
            of a convolution, as Flax lays them out (the transpose of the paper's W).
        inputs: x: (inputs,) or (n, inputs); (n, height, width, channels) for a
            convolution.
        moves: :math:`\delta^x`, like the inputs.
        strides: of the convolution.
        padding: of the convolution.

    Returns:
        What is added to the kernel, and the share of the response that is missed.

    Raises:
        InputError: inputs that are all zero, or shapes that do not fit.

    Example:
        >>> W = jnp.array([[1.0, 2.0], [3.0, 4.0]])
        >>> x, dx = jnp.array([1.0, 1.0]), jnp.array([0.5, 0.0])
        >>> dW = equivalent_weight_perturbation(W, x, dx).kernel
        >>> print(x @ (W + dW), (x + dx) @ W)
        [4.5 7. ] [4.5 7. ]

    References:
        Seong et al., `Towards Flatter Loss Surface via Nonmonotonic Learning Rate
        Scheduling <http://auai.org/uai2018/proceedings/papers/363.pdf>`_, 2018,
        Lemma 1, Eq. 2
    """
    kernel = jnp.asarray(checks.numbers("kernel", kernel))
    inputs = jnp.asarray(checks.numbers("inputs", inputs))
    moves = jnp.asarray(checks.numbers("moves", moves))
    if inputs.shape != moves.shape:
        raise InputError(
            f"moves have shape {moves.shape}; they need that of the inputs, "
            f"{inputs.shape}"
        )
    if kernel.ndim == 2 and inputs.shape[-1:] == kernel.shape[:1]:
        rows = inputs.reshape(-1, kernel.shape[0])
        moved = moves.reshape(-1, kernel.shape[0])
    elif kernel.ndim == 4 and inputs.ndim == 4 and inputs.shape[-1] == kernel.shape[2]:
        rows = _patches(inputs, kernel, strides, padding)
        moved = _patches(moves, kernel, strides, padding)
    else:
        raise InputError(
            f"inputs of shape {inputs.shape} do not fit a kernel of shape "
            f"{kernel.shape}: (n, inputs) for (inputs, outputs), (n, height, width, "
            "inputs) for (height, width, inputs, outputs)"
        )
    if not isinstance(rows, jax.core.Tracer) and not bool(jnp.any(rows)):
        raise InputError(
            "inputs are all zero: no weights can answer for a move of them"
        )
    flat = kernel.reshape(-1, kernel.shape[-1])
    response = moved @ flat
    change = jnp.linalg.lstsq(rows, response)[0]
    missed = jnp.linalg.norm(rows @ change - response)
    size = jnp.linalg.norm(response)
    residual = jnp.where(size > 0, missed / jnp.where(size > 0, size, 1), 0)
    return EquivalentPerturbation(change.reshape(kernel.shape), residual)


def _patches(images, kernel, strides, padding):
    """What each place of a convolution sees, as rows that multiply a flat kernel."""
    height, width, channels, _ = kernel.shape
    patches = lax.conv_general_dilated_patches(
        images,
        (height, width),
        strides,
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )
    # JAX puts channels before places; a kernel has them behind.
    patches = patches.reshape(-1, channels, height * width).swapaxes(1, 2)
    return patches.reshape(len(patches), -1)


def _examples(objective: Any) -> tuple[jax.Array, jax.Array]:
    """All inputs and labels of an objective, in order."""
    whole = member(objective, "whole")
    if not (isinstance(whole, tuple | list) and len(tuple(whole)) == 2):
        raise InputError(
            f"objective={checks.shown(objective)} must hold (inputs, labels): make it "
            "by flax_objective, or by mean_objective over such a pair"
        )
    parts = []
    for i in range(2):
        leaf = whole[i].reshape(-1, *whole[i].shape[2:])
        if objective.tail is not None:
            leaf = jnp.concatenate([leaf, objective.tail[i]])
        parts.append(leaf)
    return parts[0], parts[1]
