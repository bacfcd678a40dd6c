"""The Lipschitz-adaptive rate: its formulas, its bounds, and what feeds it."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrscape import data, models, training
from lrscape.errors import InputError
from lrscape.training import (
    fit,
    initial_state,
    learning_rate,
    make_largest_activations,
)
from lrscape.training.device_data import DeviceData
from lrscape.training.feed import epoch_order
from lrscape.transforms import (
    activation_norms,
    hold_norms,
    lipschitz_adam,
    lipschitz_constant,
    lipschitz_momentum,
    lipschitz_rmsprop,
    lipschitz_sgd,
    scale_by_lipschitz,
)

CIFAR = {"num_classes": 10, "batch_size": 128, "weight_decay": 1e-3}


def test_the_papers_numbers_give_its_rate():
    constant = lipschitz_constant(206.695, weight_norm=43.257, **CIFAR)
    assert round(1 / float(constant), 3) == 0.668


def test_forms_by_hand():
    m = 16
    three = {"batch_size": m, "num_classes": 5}
    by_hand = {
        ("cross_entropy", "paper", "frobenius"): 4 / 5 * 8 / m,
        ("cross_entropy", "bound", "frobenius"): 8 / 4,
        ("cross_entropy", "bound", "max"): 8,
        ("binary_cross_entropy", "paper", "max"): 8 / (2 * m),
        ("binary_cross_entropy", "bound", "frobenius"): 8 / 4,
        ("squared_error", "paper", "frobenius"): (3 - 2) * 8 / m,
        ("squared_error", "bound", "frobenius"): (3 + 2) * 8 / m,
        ("squared_error", "bound", "max"): (3 + 2) * 8 / 4,
    }
    for (loss, form, norm), expected in by_hand.items():
        found = lipschitz_constant(
            8.0, loss=loss, form=form, norm=norm, output_norm=3.0, target_norm=2.0,
            **three,
        )  # fmt: skip
        assert float(found) == pytest.approx(expected, rel=1e-6), (loss, form, norm)


def batches(kind, random, m, features, scale):
    """Activations after a ReLU: random, or what drives the gradient up."""
    a = scale * np.maximum(random.normal(size=(m, features)), 0)
    if kind == "constant":
        a = np.full((m, features), scale)
    elif kind == "one example":
        a[1:] = 0
    return a


def largest_gradient(loss, a, kernel, labels):
    """Of the last layer's weights, in double precision."""
    outputs = a @ kernel
    m = len(a)
    if loss == "cross_entropy":
        shifted = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        delta = shifted / shifted.sum(axis=1, keepdims=True)
        delta[np.arange(m), labels] -= 1
    elif loss == "binary_cross_entropy":
        delta = 1 / (1 + np.exp(-outputs[:, :1])) - (labels % 2)[:, None]
    else:
        delta = outputs[:, :1] - labels[:, None]
    return np.abs(a.T @ delta / m).max(), outputs[:, 0]


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["random", "constant", "one example"]),
    one_class=st.booleans(),
    loss=st.sampled_from(["cross_entropy", "binary_cross_entropy", "squared_error"]),
    norm=st.sampled_from(["frobenius", "max"]),
    m=st.integers(1, 40),
    classes=st.integers(2, 12),
    scale=st.sampled_from([1e-2, 1.0, 50.0]),
    seed=st.integers(0, 10_000),
)
def test_the_bound_is_never_exceeded(
    kind, one_class, loss, norm, m, classes, scale, seed
):
    random = np.random.default_rng(seed)
    a = batches(kind, random, m, 7, scale)
    labels = random.integers(0, classes, m)
    if one_class:
        labels[:] = 0
    # Sure of a wrong class, or not at all.
    kernel = random.normal(size=(7, classes)) * random.choice([1e-3, 1.0, 30.0])
    with np.errstate(over="ignore"):
        gradient, outputs = largest_gradient(loss, a, kernel, labels)
    found = lipschitz_constant(
        np.linalg.norm(a) if norm == "frobenius" else np.abs(a).max(),
        loss=loss, num_classes=classes, batch_size=m, form="bound", norm=norm,
        output_norm=np.linalg.norm(outputs), target_norm=np.linalg.norm(labels),
    )  # fmt: skip
    assert gradient <= float(found) * (1 + 1e-5)


def test_a_batch_of_one_class_goes_beyond_the_papers_form():
    """All wrong, and all alike: the gradient is K_z / sqrt(m) itself."""
    m, classes = 100, 10
    a, labels = np.ones((m, 7)), np.zeros(m, int)
    kernel = np.zeros((7, classes))
    kernel[:, 1] = 10  # sure of class 1, where all are of class 0
    gradient, _ = largest_gradient("cross_entropy", a, kernel, labels)
    options = {"num_classes": classes, "batch_size": m}
    entry = lipschitz_constant(1.0, form="bound", norm="max", **options)
    assert gradient == pytest.approx(1.0, rel=1e-6)
    assert float(entry) == pytest.approx(1.0, rel=1e-6)
    # By the largest activation it is exceeded a hundredfold; by the Frobenius norm,
    # of the whole layer, not in each feature but over them.
    assert gradient > 50 * float(lipschitz_constant(1.0, **options))
    one = np.zeros((m, 7))
    one[:, 0] = 1
    kernel[0, 1] = 100
    gradient, _ = largest_gradient("cross_entropy", one, kernel, labels)
    paper = float(lipschitz_constant(np.linalg.norm(one), **options))
    assert gradient > 5 * paper


def test_binary_and_squared_forms_of_the_paper_are_exceeded_too():
    m = 64
    a, labels = np.ones((m, 1)), np.ones(m, int)
    gradient, _ = largest_gradient(
        "binary_cross_entropy", a, np.full((1, 1), -50.0), labels
    )
    paper = lipschitz_constant(8.0, loss="binary_cross_entropy", batch_size=m)
    assert gradient > float(paper)
    gradient, outputs = largest_gradient(
        "squared_error", a, np.full((1, 1), -2.0), labels
    )
    paper = lipschitz_constant(
        8.0, loss="squared_error", batch_size=m, target_norm=8.0,
        output_norm=np.linalg.norm(outputs),
    )  # fmt: skip
    assert gradient > float(paper)


def test_the_largest_of_a_window():
    tx = scale_by_lipschitz(num_classes=2, batch_size=1, window=3)
    state = tx.init(jnp.zeros(2))
    seen = []
    for norm in (1.0, 5.0, 2.0, 3.0, 1.0, 1.0, 1.0):
        _, state = tx.update(jnp.ones(2), state, None, activation_norm=norm)
        seen.append(float(state.activation_norm))
    assert seen == [1, 5, 5, 5, 3, 3, 1]
    assert float(state.lipschitz_rate) == 2.0


def test_no_activation_at_all_gives_the_cap():
    tx = scale_by_lipschitz(num_classes=10, batch_size=8, max_rate=3.0)
    state = tx.init(jnp.zeros(2))
    updates, state = tx.update(jnp.ones(2), state, None, activation_norm=0.0)
    np.testing.assert_array_equal(updates, [-3.0, -3.0])
    assert float(learning_rate(state)) == 3.0
    # Negative by the paper's form for small outputs: the cap again.
    tx = scale_by_lipschitz(loss="squared_error", batch_size=8, max_rate=3.0)
    updates, _ = tx.update(
        jnp.ones(2), tx.init(jnp.zeros(2)), None, activation_norm=1.0,
        output_norm=1.0, target_norm=2.0,
    )  # fmt: skip
    np.testing.assert_array_equal(updates, [-3.0, -3.0])


def test_what_is_not_a_number_stays_so():
    tx = scale_by_lipschitz(num_classes=10, batch_size=8)
    state = tx.init(jnp.zeros(2))
    updates, _ = tx.update(jnp.ones(2), state, None, activation_norm=jnp.nan)
    assert np.isnan(updates).all()


def test_weight_decay_takes_the_largest_norm():
    params = {"a": jnp.full((2, 2), 3.0), "b": jnp.ones(4)}
    tx = scale_by_lipschitz(num_classes=2, batch_size=2, weight_decay=0.5)
    state = tx.init(params)
    _, state = tx.update(params, state, params, activation_norm=4.0)
    assert float(state.lipschitz_constant) == pytest.approx(4 / 4 + 0.5 * 6)
    _, state = tx.update(params, state, params, activation_norm=4.0, weight_norm=1.0)
    assert float(state.lipschitz_constant) == pytest.approx(4 / 4 + 0.5 * 1)
    with pytest.raises(InputError, match="weight_norm"):
        tx.update(params, tx.init(params), None, activation_norm=1.0)


def test_sgd_adds_the_gradient_of_the_decay():
    params = jnp.array([2.0])
    tx = lipschitz_sgd(num_classes=2, batch_size=1, weight_decay=0.5)
    updates, _ = tx.update(
        jnp.array([1.0]), tx.init(params), params, activation_norm=0.0
    )
    # The constant is 0.5 * 2, the gradient 1 + 0.5 * 2.
    np.testing.assert_allclose(updates, [-2.0])


def test_composes_with_clipping_and_momentum():
    tx = optax.chain(
        optax.clip(0.5), optax.trace(0.9),
        scale_by_lipschitz(num_classes=2, batch_size=1),
    )  # fmt: skip
    state = tx.init(jnp.zeros(1))
    for expected in (0.5, 0.95):
        updates, state = tx.update(
            jnp.ones(1), state, jnp.zeros(1), activation_norm=2.0
        )
        np.testing.assert_allclose(updates, [-expected], rtol=1e-6)


@pytest.mark.parametrize("devices", [1, 4])
def test_fit_hands_over_the_norm_of_the_whole_batch(devices):
    """K_z of an update is that of its own batch at the weights before it."""
    digits = data.load("digits")
    model = models.create("mlp", num_classes=10, features=(16,), batch_norm=False)
    config = training.Config(epochs=1, batch_size=64, num_devices=devices)
    tx = lipschitz_sgd(num_classes=10, batch_size=64)
    before = initial_state(model, digits, tx, config.seed)
    dataset = DeviceData.of(digits, "train", config.normalize)
    order = epoch_order(before.key, 0, len(digits.train))
    inputs = dataset.normalize(jnp.asarray(digits.train.image[order[:64]]))
    _, sown = model.apply(
        before.variables, inputs, train=True, mutable=["intermediates"]
    )
    expected = activation_norms(sown["intermediates"]["penultimate"][0])
    after = next(fit(model, digits, tx, config))
    found = optax.tree.get(after.opt_state, "activation_norm")
    assert float(found) == pytest.approx(float(expected["activation_norm"]), rel=1e-5)
    rate = 1 / (9 / 10 * float(expected["activation_norm"]) / 64)
    assert float(learning_rate(after.opt_state)) == pytest.approx(rate, rel=1e-5)


def test_norms_that_are_given_once_fix_the_rate():
    params = {"a": jnp.full((2, 2), 3.0)}
    tx = lipschitz_sgd(
        num_classes=10, batch_size=128, weight_decay=1e-3, activation_norm=206.695,
        weight_norm=43.257,
    )  # fmt: skip
    state = tx.init(params)
    for _ in range(2):
        # What an update is handed is not looked at.
        _, state = tx.update(
            params, state, params, activation_norm=1.0, weight_norm=0.0
        )
        assert round(float(learning_rate(state)), 3) == 0.668
    state = hold_norms(state, activation_norm=100.0)
    _, state = tx.update(params, state, params)
    expected = 1 / (0.9 * 100 / 128 + 1e-3 * 6)
    assert float(learning_rate(state)) == pytest.approx(expected)
    with pytest.raises(InputError, match="holds no activation_norm"):
        hold_norms(
            lipschitz_sgd(num_classes=10, batch_size=1).init(params),
            activation_norm=1.0,
        )
    with pytest.raises(InputError, match="activation_norm=nan"):
        hold_norms(state, activation_norm=float("nan"))


def test_momentum_averages_the_constant_as_it_does_gradients():
    """With K = 4, 2: averages 4, then (0.9 * 0.4 + 0.1 * 2) / 0.19."""
    tx = lipschitz_momentum(num_classes=2, batch_size=1)
    state, constants, gradients = tx.init(jnp.zeros(1)), (4.0, 2.0), (1.0, 3.0)
    mean, velocity = 0.0, 0.0
    for n, (constant, gradient) in enumerate(zip(constants, gradients, strict=True), 1):
        updates, state = tx.update(
            jnp.full(1, gradient), state, jnp.zeros(1), activation_norm=2 * constant
        )
        mean = 0.9 * mean + 0.1 * constant
        velocity = 0.9 * velocity + 0.1 * gradient
        correction = 1 - 0.9**n
        assert float(learning_rate(state)) == pytest.approx(correction / mean)
        np.testing.assert_allclose(updates, [-velocity / mean], rtol=1e-5)


def test_adam_and_rmsprop_divide_by_what_they_multiply():
    """Rates are ratios of averages of K, by hand; 1 as long as K stays."""
    adam = lipschitz_adam(num_classes=2, batch_size=1)
    rmsprop = lipschitz_rmsprop(num_classes=2, batch_size=1)
    states = [tx.init(jnp.zeros(1)) for tx in (adam, rmsprop)]
    first = second = squares = 0.0
    for n, constant in enumerate((4.0, 4.0, 1.0), 1):
        for i, tx in enumerate((adam, rmsprop)):
            _, states[i] = tx.update(
                jnp.ones(1), states[i], jnp.zeros(1), activation_norm=2 * constant
            )
        first = 0.9 * first + 0.1 * constant
        second = 0.999 * second + 0.001 * constant**2
        squares = 0.9 * squares + 0.1 * constant**2
        expected = np.sqrt(second / (1 - 0.999**n)) / (first / (1 - 0.9**n))
        assert float(learning_rate(states[0])) == pytest.approx(expected, rel=1e-4)
        expected = np.sqrt(squares / (1 - 0.9**n)) / constant
        assert float(learning_rate(states[1])) == pytest.approx(expected, rel=1e-4)
        if n < 3:
            for state in states:
                assert float(learning_rate(state)) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("devices", [1, 4])
def test_a_pass_finds_the_largest_activations(devices):
    digits = data.load("digits")
    model = models.create("mlp", num_classes=10, features=(16,))
    config = training.Config(epochs=1, batch_size=480, num_devices=devices)
    state = initial_state(model, digits, lipschitz_sgd(
        num_classes=10, batch_size=480), 0)  # fmt: skip
    dataset = DeviceData.of(digits, "train", config.normalize)
    for mode in ("train", "inference"):
        norms = []
        for start in (0, 480):  # and 477 more, which are no whole batch
            inputs = dataset.normalize(dataset.image[start : start + 480])
            _, sown = model.apply(
                state.variables, inputs, train=mode == "train",
                mutable=["intermediates", "batch_stats"],
            )  # fmt: skip
            norms.append(activation_norms(sown["intermediates"]["penultimate"][0]))
        measure = make_largest_activations(model, digits, config, mode=mode)
        for name, value in measure(state).items():
            largest = max(float(one[name]) for one in norms)
            assert value == pytest.approx(largest, rel=1e-4), (mode, name)


def test_a_pass_says_what_it_lacks():
    digits = data.load("digits")
    config = training.Config(epochs=1)
    model = models.create("mlp", num_classes=10, features=(4,))
    with pytest.raises(InputError, match="mode='trains'"):
        make_largest_activations(model, digits, config, mode="trains")
    with pytest.raises(InputError, match="num_batches=0"):
        make_largest_activations(model, digits, config, num_batches=0)

    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            return nn.Dense(10)(x.reshape(len(x), -1))

    state = initial_state(Plain(), digits, optax.sgd(0.1), 0)
    with pytest.raises(InputError, match="sows no 'penultimate'"):
        make_largest_activations(Plain(), digits, config)(state)


BAD = {
    "b1": ({"num_classes": 10, "batch_size": 8, "b1": 1.0}, "b1=1.0"),
    "activation_norm": (
        {"num_classes": 10, "batch_size": 8, "activation_norm": -1.0},
        "activation_norm=-1.0",
    ),
    "weight_norm": (
        {"num_classes": 10, "batch_size": 8, "weight_norm": 1.0},
        "weight_norm=1.0",
    ),
    "num_classes": ({"num_classes": 1, "batch_size": 8}, "num_classes=1"),
    "classes": ({"batch_size": 8}, "num_classes=None"),
    "batch_size": ({"num_classes": 10, "batch_size": 0}, "batch_size=0"),
    "weight_decay": (
        {"num_classes": 10, "batch_size": 8, "weight_decay": -1e-4},
        "weight_decay=-0.0001",
    ),
    "form": ({"num_classes": 10, "batch_size": 8, "form": "papers"}, "did you mean"),
    "loss": ({"num_classes": 10, "batch_size": 8, "loss": "hinge"}, "loss='hinge'"),
    "window": ({"num_classes": 10, "batch_size": 8, "window": 0}, "window=0"),
    "max_rate": ({"num_classes": 10, "batch_size": 8, "max_rate": 0}, "max_rate=0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings(name):
    options, message = BAD[name]
    with pytest.raises(InputError) as error:
        scale_by_lipschitz(**options)
    assert message in str(error.value)


def test_variants_name_their_own_field():
    with pytest.raises(InputError, match=r"momentum=1\.0"):
        lipschitz_momentum(momentum=1.0, num_classes=10, batch_size=8)
    with pytest.raises(InputError, match=r"decay=-0\.1"):
        lipschitz_rmsprop(decay=-0.1, num_classes=10, batch_size=8)


def test_no_activations_handed_over_says_how_to_get_them():
    tx = scale_by_lipschitz(num_classes=10, batch_size=8)
    with pytest.raises(InputError, match=r"jnp\.linalg\.norm\(activations\)"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2))
    tx = scale_by_lipschitz(num_classes=10, batch_size=8, norm="max")
    with pytest.raises(InputError, match="activation_max"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), None, activation_norm=1.0)
    with pytest.raises(InputError, match="output_norm"):
        lipschitz_constant(1.0, loss="squared_error", batch_size=8)
