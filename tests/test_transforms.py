"""One matrix over all transformations: what every Optax part must do."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lrscape import schedules, transforms
from lrscape.errors import InputError
from lrscape.training import learning_rate

STEPS = 120


def fed(tx):
    """A transformation that gets what it asks for besides the gradient."""

    def update(updates, state, params=None, **extra):
        given = {"activation_norm": 10.0, "grad_fn": jax.grad(loss), **extra}
        return tx.update(updates, state, params, **given)

    return optax.GradientTransformationExtraArgs(tx.init, update)


# Each as an optimizer that converges on a parabola in STEPS updates.
TRANSFORMATIONS = {
    "average_weights": lambda: optax.chain(
        transforms.scale_by_rate(lambda count: 0.1), transforms.average_weights(3)
    ),
    "keep_gradient": lambda: optax.chain(
        transforms.keep_gradient(), transforms.scale_by_rate(lambda count: 0.1)
    ),
    # As long as K stays, their rate is 1, here the largest allowed.
    "lipschitz_adam": lambda: fed(
        transforms.lipschitz_adam(num_classes=2, batch_size=1, max_rate=0.05)
    ),
    "lipschitz_rmsprop": lambda: fed(
        transforms.lipschitz_rmsprop(num_classes=2, batch_size=1, max_rate=0.05)
    ),
    "lipschitz_momentum": lambda: fed(
        transforms.lipschitz_momentum(num_classes=2, batch_size=1)
    ),
    "lipschitz_sgd": lambda: fed(
        transforms.lipschitz_sgd(num_classes=2, batch_size=1, window=4)
    ),
    "runge_kutta": lambda: fed(
        optax.chain(
            transforms.runge_kutta("heun", 0.1),
            transforms.scale_by_rate(lambda count: 0.1),
        )
    ),
    "scale_by_lipschitz": lambda: fed(
        transforms.scale_by_lipschitz(num_classes=2, batch_size=1)
    ),
    "scale_by_rate": lambda: transforms.scale_by_rate(lambda count: 0.1),
    "scale_by_gaussian": lambda: transforms.scale_by_gaussian(
        0.3, STEPS, start_value=0.1
    ),
    "scale_by_laplacian": lambda: transforms.scale_by_laplacian(0.3, STEPS),
    "scale_by_rational": lambda: transforms.scale_by_rational(0.3, STEPS, decay=9.0),
    "scale_by_step": lambda: transforms.scale_by_step(0.3, STEPS),
    "scale_by_triangular": lambda: transforms.scale_by_triangular(
        0.3, 20, base_value=0.03
    ),
    "scale_by_trapezoid": lambda: transforms.scale_by_trapezoid(
        0.3, STEPS, start_value=0.1, end_value=0.0, rise=0.2, fall=0.4
    ),
    "scale_by_swa": lambda: transforms.scale_by_swa(
        0.3, STEPS, swa_value=0.1, start=0.5, end=0.8
    ),
    "switch": lambda: transforms.switch(
        [
            transforms.scale_by_gaussian(0.3, 40, start_value=0.1),
            optax.chain(optax.trace(0.5), transforms.scale_by_rate(lambda count: 0.1)),
        ],
        boundaries=[40],
    ),
}

PARAMS = {"a": jnp.array([1.0, -2.0]), "b": {"c": jnp.array(3.0)}}


def loss(params):
    return sum(jnp.sum(jnp.square(leaf - 0.5)) for leaf in jax.tree.leaves(params))


# Their steps are as long as the rate, however small the gradient.
LONG_STEPS = {"lipschitz_adam", "lipschitz_rmsprop"}


@pytest.fixture(params=TRANSFORMATIONS)
def tx(request):
    return TRANSFORMATIONS[request.param]()


def test_every_transformation_is_in_the_matrix():
    public = {
        n for n in transforms.__all__ if inspect.isfunction(getattr(transforms, n))
    }
    # Of numbers and states, not of updates.
    public -= {"activation_norms", "averaged", "hold_norms", "lipschitz_constant"}
    assert public == set(TRANSFORMATIONS)
    aliases = {f"scale_by_{name}" for name in schedules.NAMES}
    assert aliases == {n for n in public if hasattr(schedules, n[len("scale_by_") :])}


def test_converges_on_a_parabola_inside_scan(tx, request):
    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), loss(params)

    run = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), None, length=STEPS))
    (params, _), losses = run(PARAMS)
    name = request.node.callspec.params["tx"]
    assert loss(params) < (1e-2 if name in LONG_STEPS else 1e-6) * losses[0]


def test_ignores_extra_arguments(tx):
    gradient = jax.tree.map(jnp.ones_like, PARAMS)
    updates, _ = tx.update(gradient, tx.init(PARAMS), PARAMS)
    extra, _ = tx.update(gradient, tx.init(PARAMS), PARAMS, value=1.0, anything=None)
    jax.tree.map(np.testing.assert_array_equal, updates, extra)


HALF = pytest.param(jnp.float16, marks=pytest.mark.float16)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, HALF])
def test_keeps_dtype(tx, dtype):
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), PARAMS)
    updates, _ = tx.update(params, tx.init(params), params)
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(updates))


def test_does_not_recompile_on_the_second_call(tx):
    compilations = 0

    @jax.jit
    def update(gradient, state):
        nonlocal compilations
        compilations += 1
        return tx.update(gradient, state, PARAMS)

    state = tx.init(PARAMS)
    for _ in range(3):
        _, state = update(PARAMS, state)
    assert compilations == 1


def test_state_holds_the_rate_that_was_used(tx):
    chained = optax.chain(optax.trace(0.9), tx)
    state = chained.init(PARAMS)
    for count in range(4):
        gradient = {"a": jnp.array([1.0, 0.0]), "b": {"c": jnp.array(0.0)}}
        updates, state = tx.update(
            gradient, state[1] if count == 0 else state, PARAMS,
            grad_fn=lambda params, gradient=gradient: gradient,
        )  # fmt: skip
        counts = [int(n) for _, n in optax.tree.get_all_with_path(state, "count")]
        # 0 where a switch is still to come.
        assert set(counts) <= {count + 1, 0} and count + 1 in counts
        rate = learning_rate(state)
        assert rate.shape == () and rate > 0
        np.testing.assert_allclose(updates["a"][0], -rate, rtol=1e-4)


def test_masked_leaves_pass():
    tx = optax.masked(transforms.scale_by_step(0.5, 10), {"a": True, "b": False})
    updates, _ = tx.update(PARAMS, tx.init(PARAMS))
    np.testing.assert_array_equal(updates["a"], -0.5 * PARAMS["a"])
    np.testing.assert_array_equal(updates["b"]["c"], PARAMS["b"]["c"])


def test_survives_inject_hyperparams():
    tx = optax.inject_hyperparams(transforms.scale_by_gaussian)(
        peak_value=0.3, total_steps=10, start_value=0.1
    )
    state = tx.init(PARAMS)
    update = jax.jit(tx.update)
    for count in range(3):
        updates, state = update(PARAMS, state)
        expected = schedules.gaussian(0.3, 10, start_value=0.1)(count)
        np.testing.assert_allclose(updates["b"]["c"], -3 * expected, rtol=1e-5)
    # A hyperparameter can be changed while training goes on.
    state.hyperparams["peak_value"] = jnp.asarray(0.6)
    updates, _ = update(PARAMS, state)
    expected = schedules.gaussian(0.6, 10, start_value=0.1)(3)
    np.testing.assert_allclose(updates["b"]["c"], -3 * expected, rtol=1e-5)


@jax.numpy_dtype_promotion("standard")  # Optax's Adam is not strict
def test_equals_optax_with_the_same_schedule():
    schedule = schedules.gaussian(0.3, 20)
    ours = optax.chain(optax.scale_by_adam(), transforms.scale_by_rate(schedule))
    theirs = optax.adam(schedule)
    params, other = PARAMS, PARAMS
    state, other_state = ours.init(params), theirs.init(other)
    for _ in range(5):
        updates, state = ours.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        updates, other_state = theirs.update(jax.grad(loss)(other), other_state, other)
        other = optax.apply_updates(other, updates)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), params, other
    )


def test_float64_under_x64(x64):
    tx = transforms.scale_by_gaussian(0.3, 10, start_value=0.1)
    updates, state = tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
    assert updates.dtype == state.learning_rate.dtype == jnp.float64
    np.testing.assert_allclose(updates, -0.1, rtol=1e-12)


def test_aliases_look_like_functions_of_their_own():
    alias = transforms.scale_by_gaussian
    assert alias.__name__ == "scale_by_gaussian"
    assert list(inspect.signature(alias).parameters) == list(
        inspect.signature(schedules.gaussian).parameters
    )
    with pytest.raises(InputError, match=r"gaussian: peak_value=-1\.0"):
        alias(-1, 10)


def test_a_number_is_no_schedule():
    with pytest.raises(InputError, match=r"schedule=0\.1 must be a function"):
        transforms.scale_by_rate(0.1)


def test_learning_rate_of_a_users_own_optimizer():
    injected = optax.inject_hyperparams(optax.sgd)(
        learning_rate=schedules.step(0.5, 10)
    )
    assert learning_rate(injected.init(PARAMS)) == 0.5
    plain = optax.inject_hyperparams(optax.adam)(learning_rate=0.25)
    assert learning_rate(plain.init(PARAMS)) == 0.25
    assert learning_rate(optax.sgd(schedules.step(0.5, 10)).init(PARAMS)) is None


def test_keep_gradient_keeps_what_came_in():
    tx = optax.chain(
        optax.scale(2.0), transforms.keep_gradient(), optax.trace(decay=0.9)
    )
    state = tx.init(PARAMS)
    for factor in (1.0, 3.0):
        gradient = jax.tree.map(lambda leaf, f=factor: f * leaf, PARAMS)
        _, state = tx.update(gradient, state, PARAMS)
    kept = optax.tree.get(state, "gradient")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, 6 * b, rtol=1e-6), kept, PARAMS
    )
