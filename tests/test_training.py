"""The loop against plain Optax, and against itself on other numbers of devices."""

import flax.linen as nn
import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lrscape import data, models, schedules, transforms
from lrscape.errors import InputError
from lrscape.training import (
    Config,
    NonFiniteLossError,
    averages,
    create_optimizer,
    fit,
    initial_state,
    learning_rate,
    make_evaluate,
    optimizers,
)
from lrscape.training.feed import epoch_order


@pytest.fixture(scope="module")
def digits():
    """A tenth of the digits, so that an epoch is a few updates."""
    whole = data.load("digits")
    return data.Dataset(
        name="digits",
        num_classes=10,
        max_value=16,
        train=whole.train.take(np.arange(150)),
        test=whole.test.take(np.arange(101)),
        validation=whole.test.take(np.arange(101, 110)),
    )


@pytest.fixture(scope="module")
def mlp():
    return models.create("mlp", num_classes=10, features=(16,))


def config(**changes):
    return Config(**{"epochs": 2, "batch_size": 32, "num_devices": 1, **changes})


def tx_for(settings, digits):
    steps = settings.total_steps(digits)
    return optax.chain(
        optax.trace(0.9), transforms.scale_by_gaussian(0.3, steps, start_value=0.1)
    )


def run(model, digits, settings, **options):
    return list(fit(model, digits, tx_for(settings, digits), settings, **options))


def assert_trees(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def bits(state):
    """Everything in a state, with its key as numbers."""
    return state.replace(key=jax.random.key_data(state.key))


def test_equals_plain_optax(digits, mlp):
    """Three updates written out without any of the loop's code."""
    settings = config()
    tx = tx_for(settings, digits)
    state = initial_state(mlp, digits, tx, settings.seed)
    order = epoch_order(state.key, 0, 150)
    mean, scale = digits.normalization("standardize")
    params, batch_stats, opt_state = state.params, state.batch_stats, state.opt_state
    for n, trained in zip(range(3), fit(mlp, digits, tx, settings), strict=False):
        batch = order[32 * n : 32 * n + 32]
        x = jnp.asarray((digits.train.image[batch] - mean[None]) / scale[None])
        y = digits.train.label[batch]

        def loss(p, x=x, y=y, stats=batch_stats):
            logits, updated = mlp.apply(
                {"params": p, "batch_stats": stats}, x, train=True,
                mutable=["batch_stats"],
            )  # fmt: skip
            rows = jnp.arange(len(y))
            losses = jax.nn.logsumexp(logits, axis=1) - logits[rows, y]
            return losses.mean(), updated["batch_stats"]

        (value, batch_stats), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = tx.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        assert_trees(trained.params, params, rtol=2e-4, atol=1e-6)
        assert_trees(trained.batch_stats, batch_stats, rtol=1e-5, atol=1e-6)
        norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(gradient)))
        if n == 0:
            first_value, first_norm = value, norm
            np.testing.assert_allclose(averages(trained)["loss"], value, rtol=1e-5)
            np.testing.assert_allclose(
                averages(trained)["gradient_norm"], norm, rtol=1e-4
            )
        if n == 1:
            np.testing.assert_allclose(
                averages(trained)["loss"], (first_value + value) / 2, rtol=1e-4
            )
            np.testing.assert_allclose(
                averages(trained)["gradient_norm"], (first_norm + norm) / 2, rtol=1e-4
            )


@pytest.mark.parametrize("sync", [True, False], ids=["sync", "per-device"])
def test_states_are_counted_and_stay_valid(digits, mlp, sync):
    settings = config(sync_batch_norm=sync)
    states = run(mlp, digits, settings)
    assert [int(state.step) for state in states] == list(range(1, 9))
    again = run(mlp, digits, settings, yield_every=3)
    assert [int(state.step) for state in again] == [3, 6, 8]
    assert_same(bits(states[-1]), bits(again[-1]))
    assert_same(bits(states[2]), bits(again[0]))


def test_donated_memory_gives_the_same(digits, mlp):
    kept = run(mlp, digits, config())[-1]
    for state in fit(mlp, digits, tx_for(config(), digits), config(), donate=True):
        last = state
    assert_same(bits(kept), bits(last))


@pytest.mark.parametrize(("scan", "num_devices"), [(3, 1), (100, 1), (3, 2)], ids=str)
@pytest.mark.parametrize("donate", [False, True], ids=["kept", "donated"])
def test_the_compiled_loop_equals_the_stepwise_one(
    digits, mlp, scan, num_devices, donate
):
    """Over epochs, ragged stretches and yields anywhere."""
    fields = {"augment": ("crop",), "log_every": 3, "num_devices": num_devices}
    steps = {bits(s).step.item(): bits(s) for s in run(mlp, digits, config(**fields))}
    yielded = []
    for state in fit(
        mlp, digits, tx_for(config(), digits), config(**fields, scan_steps=scan),
        yield_every=100, yield_at=lambda step: step in (2, 7), donate=donate,
    ):  # fmt: skip
        yielded.append(int(state.step))
        assert_trees(bits(state), steps[yielded[-1]], rtol=1e-6, atol=1e-7)
    assert yielded == [2, 7, 8]


def test_a_compiled_loop_ends_where_a_state_is_asked_for(digits, mlp):
    states = run(mlp, digits, config(scan_steps=100), yield_every=3)
    assert [int(state.step) for state in states] == [3, 6, 8]


def test_the_compiled_loop_finds_what_is_not_finite(digits, mlp):
    rates = jnp.array([0.1, 0.1, jnp.inf, 0.1, 0.1, 0.1, 0.1, 0.1])
    tx = transforms.scale_by_rate(lambda count: rates[count])
    with pytest.raises(NonFiniteLossError, match="at step 3"):
        list(fit(mlp, digits, tx, config(scan_steps=100), yield_every=100))


def test_donating_spares_the_callers_state(digits, mlp):
    tx = tx_for(config(), digits)
    start = initial_state(mlp, digits, tx, 0)
    for _ in fit(mlp, digits, tx, config(epochs=1), donate=True, state=start):
        pass
    assert all(not leaf.is_deleted() for leaf in jax.tree.leaves(bits(start)))


def test_goes_on_from_any_state(digits, mlp):
    settings = config(augment=("crop", "flip"), log_every=3)
    whole = run(mlp, digits, settings)
    resumed = run(mlp, digits, settings, state=whole[4])
    assert [int(state.step) for state in resumed] == [6, 7, 8]
    assert_same(bits(whole[-1]), bits(resumed[-1]))
    # A run that has ended yields nothing more.
    assert run(mlp, digits, settings, state=whole[-1]) == []


def test_metrics_average_over_log_every(digits, mlp):
    single = [averages(s) for s in run(mlp, digits, config(log_every=1))]
    for every in (3, 4):
        for n, state in enumerate(run(mlp, digits, config(log_every=every)), start=1):
            window = single[(n - 1) // every * every : n]
            for name, value in averages(state).items():
                expected = np.mean([line[name] for line in window])
                np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("num_devices", [2, 4])
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_devices_change_nothing(digits, num_devices, name):
    """The same global batch, with synchronised batch norm: only rounding differs."""
    fields = {"features": (16,)} if name == "mlp" else {"features": (4,), "width": 8}
    model = models.create(name, num_classes=10, **fields)
    one = run(model, digits, config(epochs=1, augment=("crop",)))
    many = run(
        model, digits, config(epochs=1, augment=("crop",), num_devices=num_devices)
    )
    for a, b in zip(one, many, strict=True):
        # The loss, the error and the gradient are averaged over devices,
        assert_trees(averages(a), averages(b), rtol=1e-4)
        # and so is every update and every running average.
        assert_trees(a.batch_stats, b.batch_stats, rtol=1e-4, atol=1e-5)
        assert_trees(a.params, b.params, rtol=1e-3, atol=1e-4)
        rates = [float(learning_rate(state.opt_state)) for state in (a, b)]
        assert rates[0] == rates[1]
    # Every device holds the same, bit for bit.
    for leaf in jax.tree.leaves(bits(many[-1])):
        copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(copies) == num_devices
        assert all((copy == copies[0]).all() for copy in copies)


def test_unsynchronized_running_averages_are_averaged(digits, mlp):
    """Each device normalises by its share; the averages are those of all shares."""
    settings = config(num_devices=4, sync_batch_norm=False)
    start = initial_state(mlp, digits, tx_for(settings, digits), settings.seed)
    state = next(fit(mlp, digits, tx_for(settings, digits), settings))
    mean, scale = digits.normalization("standardize")
    shares = epoch_order(start.key, 0, 150)[:32].reshape(4, 8)
    updated = []
    for share in shares:
        x = jnp.asarray((digits.train.image[share] - mean[None]) / scale[None])
        _, new = mlp.apply(start.variables, x, train=True, mutable=["batch_stats"])
        updated.append(new["batch_stats"])
    expected = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *updated)
    assert_trees(state.batch_stats, expected, rtol=1e-5, atol=1e-6)
    synchronised = next(
        fit(mlp, digits, tx_for(settings, digits), config(num_devices=4))
    )
    variance = state.batch_stats["BatchNorm_0"]["var"]
    other = synchronised.batch_stats["BatchNorm_0"]["var"]
    assert np.abs(variance / other - 1).max() > 0.01


def test_the_step_compiles_once(digits, mlp):
    compiled = []

    def listen(event, duration, **details):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(details.get("fun_name"))

    settings = config(num_devices=2, epochs=3)
    tx = tx_for(settings, digits)
    start = initial_state(mlp, digits, tx, seed=5)
    epoch_order(start.key, 0, len(digits.train))  # a program of its own
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        states = fit(mlp, digits, tx, settings, state=start)
        jax.block_until_ready(next(states))
        assert len(compiled) == 1
        for state in states:
            jax.block_until_ready(state)
        assert int(state.step) == 12
        assert len(compiled) == 1
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_seeds_and_epochs_shuffle(digits):
    key = jax.random.key(0)
    orders = [epoch_order(key, epoch, 150) for epoch in range(3)]
    orders.append(epoch_order(jax.random.key(1), 0, 150))
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(150))
    assert len({order.tobytes() for order in orders}) == 4


def test_seeds_repeat_bit_for_bit(digits, mlp):
    a, b, other = (run(mlp, digits, config(epochs=1, seed=s))[-1] for s in (3, 3, 4))
    assert_same(bits(a), bits(b))
    assert (a.params["Dense_0"]["kernel"] != other.params["Dense_0"]["kernel"]).any()


@pytest.mark.parametrize("num_devices", [1, 4])
@pytest.mark.parametrize("batch_size", [7, 100, 500])
def test_evaluation_counts_every_example_once(digits, mlp, num_devices, batch_size):
    settings = config(num_devices=num_devices)
    tx = tx_for(settings, digits)
    state = initial_state(mlp, digits, tx, 0)
    evaluate = make_evaluate(mlp, digits, settings, batch_size=batch_size)
    mean, scale = digits.normalization("standardize")
    for part in ("train", "validation", "test"):
        examples = getattr(digits, part)
        x = jnp.asarray((examples.image - mean[None]) / scale[None])
        logits = np.asarray(mlp.apply(state.variables, x, train=False), np.float64)
        wrong = logits.argmax(axis=1) != examples.label
        rows = np.arange(len(examples))
        losses = np.log(np.exp(logits).sum(axis=1)) - logits[rows, examples.label]
        measured = evaluate(state, part)
        assert measured["error"] == wrong.mean()
        np.testing.assert_allclose(measured["loss"], losses.mean(), rtol=1e-5)


def test_non_finite_training_stops_with_its_step(digits, mlp):
    rates = jnp.array([0.1, 0.1, jnp.inf, 0.1, 0.1, 0.1, 0.1, 0.1])
    tx = transforms.scale_by_rate(lambda count: rates[count])
    seen = []
    with pytest.raises(NonFiniteLossError, match="not finite at step 3") as caught:
        seen.extend(int(state.step) for state in fit(mlp, digits, tx, config()))
    # Update 2 takes the infinite rate; update 3 is the first to see what came of it.
    assert caught.value.step == 3
    assert seen[-1] <= 5
    # Found in the last update too, after which there is no other.
    late = jnp.array([0.1] * 6 + [jnp.inf, 0.1])
    with pytest.raises(NonFiniteLossError, match="step 7"):
        list(fit(mlp, digits, transforms.scale_by_rate(lambda n: late[n]), config()))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"epochs": 1.5}, "epochs=1.5"),
        ({"batch_size": -1}, "batch_size=-1"),
        ({"batch_size": 151}, "batch_size=151 is larger.*has 150 examples"),
        ({"batch_size": 30, "num_devices": 4}, "batch_size=30.*choose 28 or 32"),
        ({"batch_size": 3, "num_devices": 4}, "batch_size=3.*choose 4,"),
        ({"num_devices": 9}, "num_devices=9 is more than this process has: 4"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 0.5}, "seed=0.5"),
        ({"augment": ("flop",)}, "augment='flop'"),
        ({"normalize": "whitened"}, "normalize='whitened'.*did you mean 'whiten'"),
        ({"normalize": "whiten", "augment": ("crop", "jitter")}, "augment='jitter'"),
        ({"log_every": 0}, "log_every=0"),
        ({"scan_steps": 0}, "scan_steps=0"),
    ],
)  # fmt: skip
def test_bad_settings_fail_at_once(digits, mlp, changes, words):
    with pytest.raises(InputError, match=words):
        # Not iterated: nothing is compiled before it fails.
        fit(mlp, digits, optax.sgd(0.1), config(**changes))


def test_other_bad_input(digits, mlp):
    with pytest.raises(InputError, match="yield_every=0"):
        fit(mlp, digits, optax.sgd(0.1), config(), yield_every=0)
    state = run(mlp, digits, config())[-1]
    with pytest.raises(InputError, match=r"state\.opt_state is not of this tx"):
        fit(mlp, digits, optax.adam(0.1), config(), state=state)
    with pytest.raises(InputError, match=r"state\.step=8 lies beyond.*4 steps"):
        fit(mlp, digits, tx_for(config(), digits), config(epochs=1), state=state)


class OwnNorm(nn.Module):
    """A user's model whose batch norm cannot be synchronised."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dense(10)(x.reshape(x.shape[0], -1))
        return nn.BatchNorm(use_running_average=not train)(x)


def test_a_users_model(digits):
    states = run(OwnNorm(), digits, config(epochs=1))
    assert int(states[-1].step) == 4
    with pytest.raises(InputError, match="OwnNorm has batch statistics and no field"):
        fit(OwnNorm(), digits, optax.sgd(0.1), config(num_devices=2))
    states = run(
        OwnNorm(), digits, config(epochs=1, num_devices=2, sync_batch_norm=False)
    )
    assert int(states[-1].step) == 4


class Counter(nn.Module):
    """A model with a collection that nobody would train."""

    @nn.compact
    def __call__(self, x, *, train):
        self.variable("counts", "calls", lambda: jnp.zeros(()))
        return nn.Dense(10)(x.reshape(x.shape[0], -1))


def test_other_collections_are_refused(digits):
    with pytest.raises(InputError, match=r"Counter has the collections \['counts'\]"):
        fit(Counter(), digits, optax.sgd(0.1), config())


# Optimizers by name.


@pytest.mark.parametrize("name", sorted({*optimizers.NAMES} - {"sgdm"}))
@jax.numpy_dtype_promotion("standard")  # some of Optax's own are not strict
def test_optimizers_equal_optax(name):
    """At a constant rate ours is the Optax function of that name."""
    params = {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([0.5])}
    ours = create_optimizer(name, lambda count: 0.05)
    theirs = getattr(optax, name)(learning_rate=0.05)
    if name in ("adamw", "lamb", "lion", "nadamw"):
        ours = create_optimizer(name, lambda count: 0.05, weight_decay=1e-3)
        theirs = getattr(optax, name)(
            learning_rate=0.05, weight_decay=1e-3, mask=optimizers.weights_only
        )
    a, b, state, other = params, params, ours.init(params), theirs.init(params)
    for n in range(4):
        gradient = jax.tree.map(lambda p, n=n: jnp.sin(p + n), params)
        updates, state = ours.update(gradient, state, a)
        a = optax.apply_updates(a, updates)
        updates, other = theirs.update(gradient, other, b)
        b = optax.apply_updates(b, updates)
    assert_trees(a, b, rtol=1e-5)
    np.testing.assert_allclose(learning_rate(state), 0.05)


@pytest.mark.parametrize("momentum", [None, 0.5, 0.0])
def test_sgdm_averages_gradients(momentum):
    """1 - momentum times the step of the usual one, and of another convention."""
    alpha = 0.9 if momentum is None else momentum
    ours = create_optimizer("sgdm", lambda count: 0.2, momentum=momentum)
    usual = create_optimizer("sgd", lambda count: 0.2, momentum=alpha)
    w, average = {"kernel": jnp.ones((1, 2))}, 0.0
    state, other = ours.init(w), usual.init(w)
    for n in range(5):
        gradient = {"kernel": jnp.array([[float(n), -1.0]])}
        average = (1 - alpha) * gradient["kernel"] + alpha * average
        updates, state = ours.update(gradient, state, w)
        np.testing.assert_allclose(updates["kernel"], -0.2 * average, rtol=1e-5)
        theirs, other = usual.update(gradient, other, w)
        np.testing.assert_allclose(
            updates["kernel"], (1 - alpha) * theirs["kernel"], rtol=1e-5
        )
    np.testing.assert_allclose(learning_rate(state), 0.2)


def test_weight_decay_leaves_out_biases_and_norms_unless_asked():
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    zero = jax.tree.map(jnp.zeros_like, params)
    for decay_all, bias in ((False, 1.0), (True, 1 - 0.5 * 0.1)):
        tx = create_optimizer(
            "sgd", schedules.step(0.5, 10), weight_decay=0.1, decay_all=decay_all
        )
        updates, _ = tx.update(zero, tx.init(params), params)
        moved = optax.apply_updates(params, updates)
        np.testing.assert_allclose(moved["kernel"], 1 - 0.5 * 0.1)
        np.testing.assert_allclose(moved["bias"], bias)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "sdg"}, "optimizer='sdg' is unknown; did you mean 'sgd'"),
        ({"name": "sgd", "momentum": 1.0}, r"momentum=1\.0 must lie in \[0, 1\)"),
        ({"name": "adam", "momentum": 0.9}, r"momentum=0\.9 is not taken by .*'adam'"),
        ({"name": "sgd", "weight_decay": -1e-4}, "weight_decay=-0.0001"),
        ({"name": "sgd", "rho": 0.9}, r"rho=0\.9 is not taken"),
    ],
)
def test_bad_optimizers(arguments, words):
    with pytest.raises(InputError, match=words):
        create_optimizer(schedule=lambda count: 0.1, **arguments)


def test_a_state_that_is_sent_back_is_gone_on_from(digits):
    """Its weights and its optimizer's state take the place of the run's own."""
    model = models.create("mlp", num_classes=10, features=(8,), batch_norm=False)
    tx = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)
    config = Config(epochs=1, batch_size=48)
    states = fit(model, digits, tx, config)
    first = next(states)
    still = first.replace(
        opt_state=optax.tree.set(first.opt_state, learning_rate=jnp.float32(0.0))
    )
    second = states.send(still)
    jax.tree.map(np.testing.assert_array_equal, second.params, first.params)
    assert int(second.step) == 2
    undisturbed = list(fit(model, digits, tx, config))
    changed = jax.tree.leaves(
        jax.tree.map(lambda a, b: bool((a != b).any()), undisturbed[1], second)
    )
    assert any(changed)
