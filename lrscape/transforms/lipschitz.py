"""A rate from the Lipschitz constant of the loss: the inverse of its largest gradient.

`lipschitz_constant` is the bare formula; `scale_by_lipschitz` divides updates by it,
fed with the activations of the last hidden layer at every update. Momentum, RMSprop and
Adam with that rate are of the authors' later, longer text: where an optimizer averages
gradients, K is averaged like them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lrscape import checks, layers
from lrscape.errors import InputError

LOSSES = ("cross_entropy", "binary_cross_entropy", "squared_error")
FORMS = ("paper", "bound")
NORMS = ("frobenius", "max")

# Rates of 1.9 to 3 were seen on MNIST.
MAX_RATE = 10.0


def lipschitz_constant(
    activation_norm: Any,
    *,
    loss: str = "cross_entropy",
    num_classes: int | None = None,
    batch_size: int,
    weight_decay: float = 0.0,
    weight_norm: Any = 0.0,
    form: str = "paper",
    norm: str = "frobenius",
    output_norm: Any = None,
    target_norm: Any = None,
) -> jax.Array:
    r"""The largest gradient that a mean loss can have in the last layer's weights.

    With :math:`K_z` of the activations that enter the last dense layer, m examples a
    batch and k classes:

    ======================== ============================= ============================
    loss                     ``form='paper'``              ``form='bound'``
    ======================== ============================= ============================
    ``cross_entropy``        :math:`\frac{k-1}{km} K_z`    :math:`K_z / \sqrt{m}`
    ``binary_cross_entropy`` :math:`\frac{1}{2m} K_z`      :math:`K_z / \sqrt{m}`
    ``squared_error``        :math:`(K_a - |y|) K_z / m`   :math:`(K_a + |y|) K_z / m`
    ======================== ============================= ============================

    and with weight decay :math:`\lambda \max \|w\|` is added to each.

    The last layer's gradient is :math:`\frac{1}{m} \sum_n \delta_n a_n` with
    :math:`|\delta_n| < 1` for both cross-entropies, so that no entry exceeds the
    right column where :math:`K_z` is the Frobenius norm of the batch's activations, by
    the inequality of Cauchy and Schwarz. Where it is the largest activation
    (``norm='max'``), the bounds are :math:`K_z` and :math:`(K_a + |y|) K_z / \sqrt{m}`.
    The paper's own forms are values at uniform outputs: a batch of a single class goes
    beyond them.

    Args:
        activation_norm: :math:`K_z`. The paper calls it the largest activation; its
            numbers, and its authors' code, are of the Frobenius norm of a whole batch's
            activations, the largest over an epoch's batches.
        loss: a name in the table; means over the batch, the squared error halved.
        num_classes: k; needed by the paper's form of ``cross_entropy``.
        batch_size: m.
        weight_decay: :math:`\lambda` of an L2 term :math:`\frac{\lambda}{2} |w|^2`.
        weight_norm: the largest Frobenius norm among the weights' arrays.
        form: ``'paper'`` or ``'bound'``.
        norm: how :math:`K_z` was read, ``'frobenius'`` or ``'max'``; the paper's form
            does not depend on it.
        output_norm: :math:`K_a`, the 2-norm of a batch's outputs; for
            ``squared_error``, of one output.
        target_norm: :math:`|y|`, the 2-norm of a batch's targets.

    Returns:
        A scalar, in nats (or the loss's unit) a unit of weight.

    Raises:
        InputError: an unknown name, fewer than two classes, a batch of none, a
            negative decay, or a norm that the loss needs and was not given.

    Example:
        The paper's numbers for CIFAR-10; the rate is the inverse.

        >>> constant = lipschitz_constant(
        ...     206.695, num_classes=10, batch_size=128, weight_decay=1e-3,
        ...     weight_norm=43.257)
        >>> print(f'{1 / constant:.3f}')
        0.668

    References:
        Yedida and Saha, `A novel adaptive learning rate scheduler for deep neural
        networks <https://arxiv.org/abs/1902.07399>`_, 2019, Eq. 9, 15 and 20, Sec. 7.2
    """
    _check_settings(num_classes, batch_size, weight_decay, loss, form, norm)
    checks.norm("activation_norm", activation_norm)
    checks.norm("weight_norm", weight_norm)
    return _constant(
        activation_norm,
        loss=loss, num_classes=num_classes, batch_size=batch_size,
        weight_decay=weight_decay, weight_norm=weight_norm, form=form, norm=norm,
        output_norm=output_norm, target_norm=target_norm,
    )  # fmt: skip


def _constant(
    activation_norm, *, loss, num_classes, batch_size, weight_decay, weight_norm, form,
    norm, output_norm, target_norm,
) -> jax.Array:  # fmt: skip
    """`lipschitz_constant` of settings that were looked at."""
    if loss == "squared_error":
        for name, value in (("output_norm", output_norm), ("target_norm", target_norm)):
            if value is None:
                raise InputError(
                    f"{name}=None: loss='squared_error' needs the 2-norms of a batch's "
                    "outputs and targets"
                )
            checks.norm(name, value)
    dtype = jnp.result_type(float)
    activation_norm = jnp.asarray(activation_norm, dtype)
    # The bound's factor for K_z as the largest of all entries.
    spread = math.sqrt(batch_size) if norm == "max" else 1.0
    if loss == "squared_error":
        sign = 1.0 if form == "bound" else -1.0
        outputs = jnp.asarray(output_norm, dtype)
        targets = jnp.asarray(target_norm, dtype)
        factor = (outputs + sign * targets) / batch_size
        factor = factor * spread if form == "bound" else factor
    elif form == "bound":
        factor = jnp.asarray(spread / math.sqrt(batch_size), dtype)
    elif loss == "binary_cross_entropy":
        factor = jnp.asarray(1 / (2 * batch_size), dtype)
    else:
        assert num_classes is not None
        factor = jnp.asarray((num_classes - 1) / (num_classes * batch_size), dtype)
    return factor * activation_norm + weight_decay * jnp.asarray(weight_norm, dtype)


def _check_settings(num_classes, batch_size, weight_decay, loss, form, norm) -> None:
    checks.one_of("loss", loss, LOSSES)
    checks.one_of("form", form, FORMS)
    checks.one_of("norm", norm, NORMS)
    if num_classes is None:
        if loss == "cross_entropy" and form == "paper":
            raise InputError(
                "num_classes=None: the paper's form of loss='cross_entropy' needs the "
                "number of classes"
            )
    else:
        checks.whole("num_classes", num_classes, least=2)
    checks.count("batch_size", batch_size)
    checks.not_negative("weight_decay", weight_decay)


class ScaleByLipschitzState(NamedTuple):
    """State of `scale_by_lipschitz`.

    Attributes:
        lipschitz_rate: the rate that the last update used; 0 before any.
        lipschitz_constant: K of the last update; infinite before any.
        activation_norm: :math:`K_z` of the last update: the largest of the window, or
            the one that is held.
        weight_norm: the one that is held; -1 where it is taken from the parameters.
        recent: (window,), those handed over at the last updates; zeros before any, and
            where :math:`K_z` is held.
        held: whether it is.
        moments: (2,), the averages of K and of its square; zeros before any.
        count: updates made so far.
    """

    lipschitz_rate: jax.Array
    lipschitz_constant: jax.Array
    activation_norm: jax.Array
    weight_norm: jax.Array
    recent: jax.Array
    held: jax.Array
    moments: jax.Array
    count: jax.Array  # type: ignore[assignment]


def scale_by_lipschitz(
    *,
    num_classes: int | None = None,
    batch_size: int,
    weight_decay: float = 0.0,
    loss: str = "cross_entropy",
    form: str = "paper",
    norm: str = "frobenius",
    window: int = 1,
    max_rate: float = MAX_RATE,
    activation_norm: float | None = None,
    weight_norm: float | None = None,
    b1: float = 0.0,
    b2: float | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Divides updates by the Lipschitz constant: SGD without a rate to choose.

    .. math:: u \leftarrow -\min(1 / K,\ \gamma_{\max})\, u

    :math:`K_z` of `lipschitz_constant` comes in one of four ways:

    - At every update, ``update(updates, state, params, activation_norm=K_z)``.
      `lrscape.training.fit` hands over that of the update's own batch, from its forward
      pass, for nothing; with a `window` of an epoch's updates the rate follows the
      largest of the last epoch.
    - Once, as the argument `activation_norm`, and with it `weight_norm`: the rate is
      fixed.
    - At each epoch's start, by `hold_norms`, from a pass in train mode or in inference
      mode, `lrscape.training.make_largest_activations`.

    The gradient of an L2 term is not added: chain `optax.add_decayed_weights` before
    it. Dropout between those activations and the last layer makes that layer's input
    larger than :math:`K_z`, by up to 1 / (1 - its rate), and so the bound.

    Args:
        num_classes: k.
        batch_size: m, over all devices.
        weight_decay: :math:`\lambda` of the L2 term that the loss has, or that was
            chained.
        loss: see `lipschitz_constant`; likewise `form`.
        form: ``'paper'`` or ``'bound'``.
        norm: which of the norms that are handed over is :math:`K_z`: ``'frobenius'``
            is ``activation_norm``, ``'max'`` is ``activation_max``.
        window: updates over which the largest :math:`K_z` is taken.
        max_rate: the rate is never larger, whatever the activations: all zeros have an
            infinite one.
        activation_norm: :math:`K_z`, held: what updates are handed is not looked at.
        weight_norm: held likewise; only together with `activation_norm`.
        b1: K is averaged like this, as a momentum's gradients are; 0 is K alone.
        b2: the rate is multiplied by the root of the average of K's square, averaged
            like this; see `lrscape.transforms.lipschitz_adam`.

    Returns:
        The transformation, to be chained last. Its update also takes ``weight_norm``
        (where none is held; without it, the largest Frobenius norm among the arrays of
        `params`), and for
        ``squared_error`` ``output_norm`` and ``target_norm``.

    Raises:
        InputError: settings that cannot work; at the first update, a norm that it
            needs and was not handed.

    Example:
        >>> tx = scale_by_lipschitz(num_classes=2, batch_size=4)
        >>> state = tx.init(jnp.zeros(2))
        >>> updates, state = tx.update(
        ...     jnp.ones(2), state, jnp.zeros(2), activation_norm=16.0)
        >>> print(updates, state.lipschitz_constant)
        [-0.5 -0.5] 2.0

    References:
        Yedida and Saha, `A novel adaptive learning rate scheduler for deep neural
        networks <https://arxiv.org/abs/1902.07399>`_, 2019
    """
    _check_settings(num_classes, batch_size, weight_decay, loss, form, norm)
    window = checks.count("window", window)
    checks.positive("max_rate", max_rate)
    checks.fraction("b1", b1, below_one=True)
    if b2 is not None:
        checks.fraction("b2", b2, below_one=True)
    _check_norms(activation_norm, weight_norm)
    if activation_norm is None and weight_norm is not None:
        raise InputError(
            f"weight_norm={weight_norm!r} is held only with activation_norm; pass it "
            "to update instead"
        )
    held = activation_norm is not None
    wanted = "activation_norm" if norm == "frobenius" else "activation_max"

    def init_fn(params):
        del params
        dtype = jnp.result_type(float)
        return ScaleByLipschitzState(
            lipschitz_rate=jnp.zeros([], dtype),
            lipschitz_constant=jnp.full([], jnp.inf, dtype),
            activation_norm=jnp.asarray(activation_norm or 0.0, dtype),
            weight_norm=jnp.asarray(
                -1.0 if weight_norm is None else weight_norm, dtype
            ),
            recent=jnp.zeros(window, dtype),
            held=jnp.asarray(held),
            moments=jnp.zeros(2, dtype),
            count=jnp.zeros([], jnp.int32),
        )

    def handed(state, extra_args):
        if held:
            return state.recent, state.activation_norm
        if extra_args.get(wanted) is None:
            raise InputError(
                f"{wanted}=None: scale_by_lipschitz needs the norm of the activations "
                "that enter the last layer at every update; lrscape.training.fit hands "
                "it over for models that sow 'penultimate', as those of "
                "lrscape.models do; in a loop of your own pass "
                f"tx.update(gradient, state, params, {wanted}="
                + ("jnp.linalg.norm(activations))" if norm == "frobenius"
                   else "jnp.abs(activations).max())")
            )  # fmt: skip
        given = checks.norm(wanted, extra_args[wanted])
        given = jnp.asarray(given, state.recent.dtype)
        place = jnp.arange(window) == state.count % window
        recent = jnp.where(place, given, state.recent)
        return recent, recent.max()

    def update_fn(updates, state, params=None, **extra_args):
        recent, activations = handed(state, extra_args)
        weights = state.weight_norm
        if extra_args.get("weight_norm") is not None:
            given = checks.norm("weight_norm", extra_args["weight_norm"])
            given = jnp.asarray(given, weights.dtype)
            weights = jnp.where(weights < 0, given, weights)
        elif weight_decay:
            own = _largest_norm(params).astype(weights.dtype)
            weights = jnp.where(weights < 0, own, weights)
        constant = _constant(
            activations,
            loss=loss, num_classes=num_classes, batch_size=batch_size,
            weight_decay=weight_decay, weight_norm=weights, form=form, norm=norm,
            output_norm=extra_args.get("output_norm"),
            target_norm=extra_args.get("target_norm"),
        )  # fmt: skip
        count = optax.safe_increment(state.count)
        moments, inverse = _averaged(constant, state.moments, count, b1, b2)
        # The paper's form for the squared error is negative where outputs are small.
        largest = jnp.asarray(max_rate, inverse.dtype)
        tiny = jnp.finfo(inverse.dtype).tiny
        rate = jnp.where(
            inverse > tiny, jnp.minimum(1 / jnp.maximum(inverse, tiny), largest),
            jnp.where(jnp.isnan(inverse), jnp.nan, largest),
        )  # fmt: skip
        updates = jax.tree.map(lambda u: -rate.astype(jnp.result_type(u)) * u, updates)
        return updates, ScaleByLipschitzState(
            rate,
            constant,
            activations,
            state.weight_norm,
            recent,
            state.held,
            moments,
            count,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _averaged(constant, moments, count, b1: float, b2: float | None):
    """The new averages of K and its square, and the inverse of the rate."""
    if not b1 and b2 is None:
        return moments, constant
    decays = jnp.array([b1, b2 or 0.0], moments.dtype)
    moments = decays * moments + (1 - decays) * jnp.stack([constant, constant**2])
    # Corrected for their start at zero, as Adam's are.
    mean, square = moments / (1 - decays ** count.astype(moments.dtype))
    if b2 is None:
        return moments, mean
    root = jnp.sqrt(square)
    return moments, mean / jnp.where(root > 0, root, 1.0)


def _check_norms(activation_norm: float | None, weight_norm: float | None) -> None:
    for field, value in (
        ("activation_norm", activation_norm), ("weight_norm", weight_norm)
    ):  # fmt: skip
        if value is not None:
            checks.not_negative(field, value)


def hold_norms(
    opt_state: optax.OptState,
    *,
    activation_norm: float,
    weight_norm: float | None = None,
) -> optax.OptState:
    r"""Sets :math:`K_z`, and with it the rate, of an optimizer that holds it.

    Args:
        opt_state: with a state of `scale_by_lipschitz` that was told an
            ``activation_norm``.
        activation_norm: :math:`K_z` from now on.
        weight_norm: the largest norm among the weights from now on; None takes it from
            the parameters at every update.

    Returns:
        The same with both set.

    Raises:
        InputError: a state that holds no norms, or norms that are not finite.

    Example:
        >>> tx = lipschitz_sgd(num_classes=2, batch_size=4, activation_norm=16.0)
        >>> state = hold_norms(tx.init(jnp.zeros(2)), activation_norm=8.0)
        >>> updates, state = tx.update(jnp.ones(2), state, jnp.zeros(2))
        >>> print(updates)
        [-1. -1.]
    """
    checks.not_negative("activation_norm", activation_norm)
    _check_norms(None, weight_norm)
    if not any(held for _, held in optax.tree.get_all_with_path(opt_state, "held")):
        raise InputError(
            f"opt_state={checks.shown(opt_state)} holds no activation_norm; make the "
            "optimizer by lipschitz_sgd(..., activation_norm=...)"
        )
    dtype = optax.tree.get(opt_state, "activation_norm").dtype
    return optax.tree.set(
        opt_state,
        activation_norm=jnp.asarray(activation_norm, dtype),
        weight_norm=jnp.asarray(-1.0 if weight_norm is None else weight_norm, dtype),
    )


def _largest_norm(params: Any) -> jax.Array:
    """The largest Frobenius norm among the layers' arrays."""
    leaves = jax.tree.leaves(params)
    if not leaves:
        raise InputError(
            "params=None: with weight_decay, scale_by_lipschitz takes the largest norm "
            "of the weights; pass tx.update(gradient, state, params, ...) or "
            "weight_norm="
        )
    return layers.largest_layer_norm(params)


def lipschitz_sgd(
    *,
    num_classes: int | None = None,
    batch_size: int,
    weight_decay: float = 0.0,
    **options: Any,
) -> optax.GradientTransformationExtraArgs:
    r"""SGD whose rate is the inverse of the loss's Lipschitz constant.

    The gradient of the L2 term :math:`\frac{\lambda}{2} |w|^2` is added, then
    `scale_by_lipschitz`.

    Args:
        num_classes: k.
        batch_size: m, over all devices.
        weight_decay: :math:`\lambda`, on all parameters.
        **options: of `scale_by_lipschitz`.

    Returns:
        The optimizer; its update takes ``activation_norm``.

    Example:
        >>> from lrscape import data, models, training
        >>> digits = data.load('digits')
        >>> config = training.Config(epochs=1, batch_size=128)
        >>> tx = lipschitz_sgd(num_classes=10, batch_size=128,
        ...     window=config.steps_per_epoch(digits))
        >>> model = models.create('mlp', num_classes=10, features=(32,))
        >>> *_, state = training.fit(model, digits, tx, config)
        >>> rate = optax.tree.get(state.opt_state, 'lipschitz_rate')
        >>> print(0 < float(rate) <= 10)
        True
    """
    scale = scale_by_lipschitz(
        num_classes=num_classes, batch_size=batch_size, weight_decay=weight_decay,
        **options,
    )  # fmt: skip
    decay = optax.add_decayed_weights(weight_decay) if weight_decay else None
    parts = [scale] if decay is None else [decay, scale]
    return optax.with_extra_args_support(optax.chain(*parts))


def lipschitz_momentum(
    *, momentum: float = 0.9, weight_decay: float = 0.0, **options: Any
) -> optax.GradientTransformationExtraArgs:
    r"""Averaged gradients, divided by the equally averaged Lipschitz constant.

    .. math::

        v &\leftarrow \beta v + (1 - \beta) g, \quad
        \bar K \leftarrow \beta \bar K + (1 - \beta) K \\
        w &\leftarrow w - \hat v / \hat K

    with both averages corrected for their start at zero.

    Args:
        momentum: :math:`\beta`, in [0, 1).
        weight_decay: of an L2 term, on all parameters.
        **options: of `lrscape.transforms.scale_by_lipschitz`.

    Returns:
        The optimizer; its update takes ``activation_norm``.

    Raises:
        InputError: settings that cannot work.

    Example:
        >>> import jax.numpy as jnp
        >>> tx = lipschitz_momentum(num_classes=2, batch_size=4)
        >>> updates, _ = tx.update(
        ...     jnp.ones(1), tx.init(jnp.ones(1)), jnp.ones(1), activation_norm=16.0)
        >>> print(updates.round(3))
        [-0.5]

    References:
        Yedida, Saha and Prashanth, `LipschitzLR: Using theoretically computed adaptive
        learning rates for fast convergence <https://arxiv.org/abs/1902.07399>`_, 2020
    """
    checks.fraction("momentum", momentum, below_one=True)
    return _chained(optax.ema(momentum), weight_decay, b1=momentum, **options)


def lipschitz_rmsprop(
    *,
    decay: float = 0.9,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    **options: Any,
) -> optax.GradientTransformationExtraArgs:
    r"""RMSprop with the rate :math:`\sqrt{\hat K_2} / K`.

    :math:`K_2` is the average of :math:`K^2`, as the gradients' squares are averaged:
    the rate that makes up for dividing by the gradients' own root mean square. As long
    as K stays, it is 1.

    Args:
        decay: of both averages, in [0, 1).
        eps: added to the root of the averaged squares.
        weight_decay: of an L2 term, on all parameters.
        **options: of `lrscape.transforms.scale_by_lipschitz`.

    Returns:
        The optimizer; its update takes ``activation_norm``.

    Raises:
        InputError: settings that cannot work.

    Example:
        >>> import jax.numpy as jnp
        >>> tx = lipschitz_rmsprop(num_classes=2, batch_size=4)
        >>> updates, _ = tx.update(
        ...     jnp.ones(1), tx.init(jnp.ones(1)), jnp.ones(1), activation_norm=16.0)
        >>> print(updates.round(3))
        [-1.]

    References:
        Yedida, Saha and Prashanth, `LipschitzLR: Using theoretically computed adaptive
        learning rates for fast convergence <https://arxiv.org/abs/1902.07399>`_, 2020
    """
    checks.fraction("decay", decay, below_one=True)
    checks.not_negative("eps", eps)
    scale = optax.scale_by_rms(decay=decay, eps=eps, bias_correction=True)
    return _chained(scale, weight_decay, b2=decay, **options)


def lipschitz_adam(
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    **options: Any,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam with the rate :math:`\sqrt{\hat K_2} / \hat K_1`.

    :math:`K_1` and :math:`K_2` are the averages of K and :math:`K^2`, with Adam's own
    decays. As long as K stays, that rate is 1, a thousand times what Adam is used with.

    Args:
        b1: decay of the gradients' average, and of K's, in [0, 1).
        b2: decay of their squares' averages, in [0, 1).
        eps: added to the root of the averaged squares.
        weight_decay: of an L2 term, on all parameters.
        **options: of `lrscape.transforms.scale_by_lipschitz`.

    Returns:
        The optimizer; its update takes ``activation_norm``.

    Raises:
        InputError: settings that cannot work.

    Example:
        >>> import jax.numpy as jnp
        >>> tx = lipschitz_adam(num_classes=2, batch_size=4)
        >>> updates, _ = tx.update(
        ...     jnp.ones(1), tx.init(jnp.ones(1)), jnp.ones(1), activation_norm=16.0)
        >>> print(updates.round(3))
        [-1.]

    References:
        Yedida, Saha and Prashanth, `LipschitzLR: Using theoretically computed adaptive
        learning rates for fast convergence <https://arxiv.org/abs/1902.07399>`_, 2020
    """
    checks.fraction("b1", b1, below_one=True)
    checks.fraction("b2", b2, below_one=True)
    checks.not_negative("eps", eps)
    scale = optax.scale_by_adam(b1=b1, b2=b2, eps=eps)
    return _chained(scale, weight_decay, b1=b1, b2=b2, **options)


def _chained(scale, weight_decay: float, **options: Any):
    last = scale_by_lipschitz(weight_decay=weight_decay, **options)  # checks first
    decay = [optax.add_decayed_weights(weight_decay)] if weight_decay else []
    chain = optax.chain(*decay, _promoting(scale), last)
    return optax.with_extra_args_support(chain)


def _promoting(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Optax's own under any rules: it raises a float to an integer's power.

    Strict promotion forbids that; and its state's weak types change at the first
    update, so that the second one compiles again.
    """

    def firm(state):
        return jax.tree.map(lambda leaf: leaf.astype(leaf.dtype), state)

    def update(updates, state, params=None):
        with jax.numpy_dtype_promotion("standard"):
            updates, state = tx.update(updates, state, params)
        return updates, firm(state)

    return optax.GradientTransformation(lambda params: firm(tx.init(params)), update)
