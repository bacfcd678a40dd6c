"""Averaged weights: the mean to the last digit, and training left as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lrscape import data, models
from lrscape.errors import InputError
from lrscape.landscape import flax_objective, recalibrate
from lrscape.landscape.masks import as_many_others, as_mask, batch_norm_only
from lrscape.training import Config, fit, initial_state
from lrscape.training.checkpoint import Checkpoints
from lrscape.transforms import average_weights, averaged

PARAMS = {"bn_0": {"scale": jnp.ones(3), "bias": jnp.zeros(3)}, "k": jnp.ones((4, 5))}


def walk(tx, steps, *, jit=True, params=PARAMS, seed=0):
    """Random updates: the weights after each, and the optimizer's last state."""
    random = np.random.default_rng(seed)
    state, path = tx.init(params), []
    update = jax.jit(tx.update) if jit else tx.update
    for _ in range(steps):
        updates = jax.tree.map(
            lambda p: jnp.asarray(random.normal(size=p.shape), p.dtype), params
        )
        updates, state = update(updates, state, params)
        params = optax.apply_updates(params, updates)
        path.append(params)
    return path, state


def mean_of(points):
    return jax.tree.map(lambda *p: np.mean(np.float64(p), axis=0), *points)


def assert_close(found, expected, rtol=3e-7):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-7),
        found, expected,
    )  # fmt: skip


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("start", [0, 1, 4])
def test_which_weights_are_averaged(start, every):
    tx = optax.chain(optax.scale(-0.1), average_weights(start, every=every))
    path, state = walk(tx, 9)
    # path[n - 1] is after n updates.
    taken = [path[n - 1] for n in range(start or every, 10, every)]
    assert_close(averaged(state, path[-1]), mean_of(taken))
    assert int(state[1].num_averaged) == len(taken) and int(state[1].count) == 9


def test_the_mean_of_a_thousand_weights_is_exact():
    # Around a large value, where float32 sums lose digits.
    def step(carry, drift):
        params, state = carry
        updates, state = tx.update(drift, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    tx, params = average_weights(1), jnp.full(50, 123.0)
    drifts = jnp.asarray(np.random.default_rng(0).normal(size=(1000, 50)), jnp.float32)
    run = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), drifts))
    (params, state), path = run(params)
    exact = np.float64(path).mean(axis=0)
    ulp = np.spacing(np.abs(exact).astype(np.float32))
    assert (np.abs(averaged(state, params) - exact) <= ulp).all()
    naive = jax.lax.scan(lambda c, p: (c + p, None), jnp.zeros(50), path)[0] / 1000
    assert (np.abs(naive - exact) > 3 * ulp).any()


HALF = pytest.param(jnp.float16, marks=pytest.mark.float16)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, HALF])
def test_half_precision_is_added_up_in_single(dtype):
    # Sums of 300 times 300 overflow float16, and bfloat16 has 8 digits.
    params = {"w": jnp.full(4, 300.0, dtype)}
    tx = average_weights(1)
    state = tx.init(params)
    update = jax.jit(tx.update)
    for _ in range(300):
        _, state = update({"w": jnp.zeros(4, dtype)}, state, params)
    found = averaged(state, params)["w"]
    assert found.dtype == dtype and (found == 300).all()


def test_double_precision_is_kept(x64):
    params = {"w": jnp.full(4, 1 / 3, jnp.float64)}
    tx = average_weights(1)
    _, state = tx.update({"w": jnp.full(4, 1e-12)}, tx.init(params), params)
    np.testing.assert_allclose(averaged(state, params)["w"] - 1 / 3, 1e-12, rtol=1e-3)


# Masks.


def batch_norm_mask(params):
    return as_mask(batch_norm_only, params)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    "mask",
    [batch_norm_mask, {"bn_0": True, "k": False}],
    ids=["function", "upper part"],
)
def test_batch_norm_alone_is_averaged(mask, jit):
    tx = average_weights(2, mask=mask)
    init = jax.jit(tx.init) if jit else tx.init
    path, state = walk(optax.GradientTransformation(init, tx.update), 5)
    found, mean = averaged(state, path[-1]), mean_of(path[1:])
    assert_close(found["bn_0"], mean["bn_0"])
    np.testing.assert_array_equal(found["k"], path[-1]["k"])


def test_as_many_others_and_all_from_the_same_path():
    others = as_many_others(batch_norm_only, PARAMS, key=jax.random.key(0))
    tx = optax.chain(
        optax.scale(-1.0),
        average_weights(1, mask=batch_norm_mask),
        average_weights(1, mask=others),
        average_weights(1),
    )
    path, state = walk(tx, 4)
    mean, last = mean_of(path), path[-1]
    bn, some, everything = (averaged(state, last, which=i) for i in range(3))
    assert_close(everything, mean)
    assert_close(bn["bn_0"], mean["bn_0"])
    moved = np.asarray(some["k"] != last["k"])
    np.testing.assert_array_equal(moved, others["k"])
    assert moved.sum() == 6
    np.testing.assert_allclose(some["k"][moved], mean["k"][moved], rtol=1e-6)
    with pytest.raises(InputError, match=r"holds 3 averages: say which, 0 to 2"):
        averaged(state, last)
    with pytest.raises(InputError, match="which=3"):
        averaged(state, last, which=3)


def test_it_is_found_inside_other_states():
    inner = optax.chain(optax.trace(0.9), optax.scale(-0.1), average_weights(1))
    tx = optax.apply_if_finite(optax.chain(optax.clip(1.0), inner), 3)
    path, state = walk(tx, 3)
    assert_close(averaged(state, path[-1]), mean_of(path))


# Training.


@pytest.fixture(scope="module")
def digits():
    whole = data.load("digits")
    return data.Dataset(
        name="digits", num_classes=10, max_value=16,
        train=whole.train.take(np.arange(96)), test=whole.test.take(np.arange(10)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def mlp():
    return models.create("mlp", num_classes=10, features=(16,))


PLAIN = optax.sgd(0.1, momentum=0.9)
AVERAGING = optax.chain(PLAIN, average_weights(3, every=2))


def bits(tree):
    return jax.tree.map(np.asarray, tree)


@pytest.mark.parametrize("fields", [
    {"num_devices": 1}, {"num_devices": 2}, {"num_devices": 1, "scan_steps": 4},
], ids=["one device", "two", "compiled loop"])  # fmt: skip
def test_training_is_the_same_with_it_and_without(digits, mlp, fields):
    config = Config(epochs=3, batch_size=32, **fields)
    plain = [bits(s.params) for s in fit(mlp, digits, PLAIN, config)]
    states = list(fit(mlp, digits, AVERAGING, config))
    jax.tree.map(np.testing.assert_array_equal, plain, [bits(s.params) for s in states])
    last = states[-1]
    assert int(last.step) == 9
    taken = [s.params for s in states if int(s.step) in (3, 5, 7, 9)]
    assert_close(averaged(last.opt_state, last.params), mean_of(taken))


def test_it_goes_on_after_a_restore(digits, mlp, tmp_path):
    config = Config(epochs=3, batch_size=32, num_devices=1)
    states = list(fit(mlp, digits, AVERAGING, config))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(states[4], {})
    template = initial_state(mlp, digits, AVERAGING, config.seed)
    with Checkpoints(tmp_path) as checkpoints:
        restored, _, _ = checkpoints.restore(template)
    *_, last = fit(mlp, digits, AVERAGING, config, state=restored)
    both = [averaged(s.opt_state, s.params) for s in (last, states[-1])]
    jax.tree.map(np.testing.assert_array_equal, *map(bits, both))


def test_recalibrated_statistics():
    model = models.create("mlp", num_classes=3, features=(4, 5))
    x = np.random.default_rng(0).normal(2, 3, size=(25, 6)).astype(np.float32)
    variables = model.init(jax.random.key(0), x, train=False)
    params = variables["params"]
    found = recalibrate(model, params, x, batch_size=10)
    jax.tree.map(lambda a, b: None, found, variables["batch_stats"])
    # Each batch's own, by its share of the examples.
    hidden = np.float64(x) @ np.float64(params["Dense_0"]["kernel"])
    batches = np.split(hidden + np.float64(params["Dense_0"]["bias"]), [10, 20])
    for name, moment in {"mean": np.mean, "var": np.var}.items():
        exact = np.average([moment(b, axis=0) for b in batches], 0, [0.4, 0.4, 0.2])
        np.testing.assert_allclose(found["BatchNorm_0"][name], exact, rtol=1e-4)
    # As the objective of that policy takes them.
    y = np.zeros(25, int)
    policies = [
        flax_objective(model, (x, y), batch_size=10, norm=norm, batch_stats=found)
        for norm in ("recalibrate", "eval")
    ]
    losses = [objective(params) for objective in policies]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


def test_a_model_without_batch_norm_has_no_statistics():
    model = models.create("mlp", num_classes=3, features=(4,), batch_norm=False)
    x = jnp.ones((4, 5))
    params = model.init(jax.random.key(0), x, train=False)["params"]
    assert recalibrate(model, params, x, batch_size=2) == {}


# Errors.


def begun(mask=None):
    tx = average_weights(1, mask=mask)
    return tx.update(PARAMS, tx.init(PARAMS), PARAMS)[1]


BAD = {
    "start": (lambda: average_weights(-1), "start=-1 must be a whole number"),
    "fraction": (lambda: average_weights(0.75), r"start=0\.75 must"),
    "every": (lambda: average_weights(1, every=0), "every=0 must be .* 1 or more"),
    "after the end": (
        lambda: average_weights(11, total_steps=10),
        "begin after 11 updates, and there are only total_steps=10",
    ),
    "no interval": (
        lambda: average_weights(0, every=11, total_steps=10), "begin after 11"
    ),
    "empty mask": (
        lambda: begun(jax.tree.map(lambda _: False, PARAMS)), "mask selects no entry"
    ),
    "numbers": (lambda: begun(jax.tree.map(jnp.zeros_like, PARAMS)), "not bool"),
    "structure": (lambda: begun({"bn_0": True}), "mask has another structure"),
    "shape": (
        lambda: begun({"bn_0": True, "k": np.ones((2, 5), bool)}),
        r"k has shape \(2, 5\), which does not broadcast against \(4, 5\)",
    ),
    "no params": (
        lambda: average_weights(1).update(PARAMS, average_weights(1).init(PARAMS)),
        "params=None",
    ),
    "none": (lambda: averaged(PLAIN.init(PARAMS), PARAMS), "holds no averaged weights"),
    "not begun": (
        lambda: averaged(AVERAGING.init(PARAMS), PARAMS),
        "averaging begins after update 3, and 0 are made",
    ),
    "other params": (
        lambda: averaged(begun(), {"k": jnp.ones(3)}), "params has another structure"
    ),
    "under jit": (
        lambda: jax.jit(lambda state: averaged(state, PARAMS))(begun()), "under jit"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(InputError, match=message):
        call()
