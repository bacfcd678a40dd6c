"""Training on a text: against Optax written out, on devices, and going on."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lrscape import data, models, transforms
from lrscape.errors import InputError
from lrscape.training import (
    NonFiniteLossError,
    TextConfig,
    averages,
    fit_text,
    initial_state,
    initial_text_state,
    learning_rate,
    make_evaluate_text,
)
from lrscape.training.checkpoint import Checkpoints

VOCABULARY = 7


def text_of(train, test=None, vocabulary=VOCABULARY):
    test = train[:101] if test is None else test
    return data.Text(
        name="made", level="characters", vocabulary=tuple("abcdefghijk"[:vocabulary]),
        train=train, validation=test[: len(test) // 2], test=test,
    )  # fmt: skip


@pytest.fixture(scope="module")
def text():
    """Each token half decided by the one before the last."""
    rng = np.random.default_rng(0)
    tokens = list(rng.integers(0, VOCABULARY, 2))
    for draw, other in rng.random((125, 2)):
        by_chance = int(other * VOCABULARY)
        tokens.append((tokens[-2] + 1) % VOCABULARY if draw < 0.7 else by_chance)
    return text_of(np.array(tokens, np.int32))


def lstm(**fields):
    return models.create(
        "lstm", **{"num_classes": VOCABULARY, "features": 6, "layers": 1, **fields}
    )


class Tiny(nn.Module):
    """A recurrence that compiles in no time, with dropout."""

    num_classes: int = VOCABULARY
    dropout: float = 0.0

    @nn.compact
    def __call__(self, tokens, *, train, carry=None, return_carry=False):
        carry = self.initial_carry(len(tokens)) if carry is None else carry
        inputs = nn.Embed(self.num_classes, 5)(tokens)
        recur, steps = nn.Dense(5), []
        for step in range(tokens.shape[1]):
            carry = jnp.tanh(inputs[:, step] + recur(carry))
            steps.append(carry)
        x = nn.Dropout(self.dropout, deterministic=not train)(jnp.stack(steps, 1))
        logits = nn.Dense(self.num_classes)(x)
        return (logits, carry) if return_carry else logits

    def initial_carry(self, batch_size):
        return jnp.zeros((batch_size, 5))


def config(**changes):
    return TextConfig(
        **{"epochs": 2, "batch_size": 4, "window": 3, "num_devices": 1, **changes}
    )


def sgd(rate=0.5):
    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.trace(0.9),
        transforms.scale_by_rate(lambda count: rate / (1 + count).astype(jnp.float32)),
    )  # fmt: skip


def bits(state):
    return state.replace(key=jax.random.key_data(state.key))


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, bits(a), bits(b))


def assert_close(a, b, **tolerance):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, **tolerance), bits(a), bits(b)
    )


def run(text, settings, model=None, tx=None, **options):
    return list(fit_text(model or Tiny(), text, tx or sgd(), settings, **options))


def test_equals_plain_optax(text):
    """Written out: the carry goes on within an epoch, and begins anew with the next."""
    model, tx, settings = Tiny(), sgd(), config()
    inputs, targets = data.token_streams(text.train, 4, 3)
    state = initial_text_state(model, text, tx, settings)
    params, opt_state = state.params, state.opt_state

    @jax.jit
    def update(params, opt_state, carry, x, y):
        def loss(p):
            logits, ended = model.apply(
                {"params": p}, x, train=True, carry=carry, return_carry=True
            )
            chosen = jnp.take_along_axis(logits, y[..., None], axis=-1)[..., 0]
            wrong = (logits.argmax(-1) != y).mean()
            return (jax.nn.logsumexp(logits, -1) - chosen).mean(), (ended, wrong)

        (value, aux), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = tx.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value, *aux

    trained = run(text, settings, model)
    assert [int(state.step) for state in trained] == list(range(1, 21))
    losses, wrongs = [], []
    for n in range(13):
        if n % len(inputs) == 0:
            carry = model.initial_carry(4)
        params, opt_state, loss, carry, wrong = update(
            params, opt_state, carry, inputs[n % 10], targets[n % 10]
        )
        losses.append(loss)
        wrongs.append(wrong)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5),
            (trained[n].params, trained[n].carry), (params, carry),
        )  # fmt: skip
    np.testing.assert_allclose(averages(trained[9])["loss"], np.mean(losses[:10]), 1e-4)
    np.testing.assert_allclose(
        averages(trained[9])["error"], np.mean(wrongs[:10]), 1e-4
    )
    assert learning_rate(trained[9].opt_state) == np.float32(0.5) / np.float32(10)
    # It was clipped.
    norm = averages(trained[0])["gradient_norm"]
    assert norm > 0 and int(trained[0].first_bad_step) == -1


def test_a_scanned_stretch_equals_single_steps(text):
    single = run(text, config(scan_steps=1))
    found = run(text, config(scan_steps=3), yield_every=7,
                yield_at=lambda step: step == 12)  # fmt: skip
    assert [int(state.step) for state in found] == [7, 12, 14, 20]
    for state in found:
        assert_close(state, single[int(state.step) - 1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_devices", [2, 4])
def test_devices_change_nothing(text, num_devices):
    one, many = (
        run(text, config(num_devices=n), yield_every=10) for n in (1, num_devices)
    )
    for a, b in zip(one, many, strict=True):
        assert_close(a, b, rtol=1e-3, atol=1e-5)
    for leaf in jax.tree.leaves(bits(many[-1])):
        copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(copies) == num_devices
        assert all((copy == copies[0]).all() for copy in copies)
    measured = [
        make_evaluate_text(Tiny(), text, config(num_devices=n), streams=3)(one[-1])[
            "loss"
        ]
        for n in (1, num_devices)
    ]
    assert measured[0] == pytest.approx(measured[1], rel=1e-6)


@pytest.mark.parametrize("num_devices", [1, 4])
def test_resumes_bit_for_bit(text, tmp_path, num_devices):
    """From the middle of an epoch, with dropout and momentum, through a checkpoint."""
    settings, model = config(num_devices=num_devices, log_every=4), Tiny(dropout=0.3)
    options = {"yield_every": 20, "yield_at": lambda step: step == 13, "donate": True}
    whole, saved = None, tmp_path / "checkpoints"
    with Checkpoints(saved) as checkpoints:
        for state in fit_text(model, text, sgd(), settings, **options):
            if int(state.step) == 13:
                checkpoints.save(state, {})
            whole = bits(state)
    template = initial_text_state(model, text, sgd(), settings)
    with Checkpoints(saved) as checkpoints:
        restored, _, _ = checkpoints.restore(template)
    assert int(restored.step) == 13
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(restored.carry))
    options = {"yield_every": 20, "donate": True}
    (resumed,) = run(text, settings, model, **options, state=restored)
    jax.tree.map(np.testing.assert_array_equal, whole, bits(resumed))
    # The carry is what makes it the same.
    emptied = restored.replace(carry=model.initial_carry(4))
    (other,) = run(text, settings, model, **options, state=emptied)
    kernel = other.params["Dense_0"]["kernel"]
    assert (kernel != resumed.params["Dense_0"]["kernel"]).any()


def test_runge_kutta_and_switching(text):
    """The second gradient is of the same pieces, and averaged over devices."""
    model, rate, settings = Tiny(), 0.2, config(num_devices=2)
    heun = optax.chain(transforms.runge_kutta("heun", rate), optax.sgd(rate))
    tx = transforms.switch([heun, optax.sgd(0.0)], [5])
    start = initial_text_state(model, text, tx, settings)
    states = run(text, settings, model, tx, yield_every=5,
                 yield_at=lambda step: step == 1, state=start)  # fmt: skip
    inputs, targets = (part[0] for part in data.token_streams(text.train, 4, 3))

    @jax.jit
    def gradient(params):
        def loss(p):
            logits = model.apply({"params": p}, inputs, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(
                logits, targets
            ).mean()

        return jax.grad(loss)(params)

    first = gradient(start.params)
    second = gradient(jax.tree.map(lambda p, g: p - rate * g, start.params, first))
    jax.tree.map(
        lambda found, p, a, b: np.testing.assert_allclose(
            found, p - rate * (a + b) / 2, rtol=1e-4, atol=1e-6
        ),
        states[0].params, start.params, first, second,
    )  # fmt: skip
    # After the switch nothing moves any more.
    kernels = [state.params["Dense_0"]["kernel"] for state in states]
    assert (kernels[1] != kernels[0]).any() and (kernels[2] == kernels[1]).all()


# Perplexity.


class Table:
    """Bigrams as a network: the logits are a row of a table; nothing is remembered."""

    def initial_carry(self, batch_size):
        return jnp.zeros((batch_size, 1))

    def apply(self, variables, tokens, *, train, carry, return_carry):
        assert not train and return_carry
        return variables["params"][tokens], carry + tokens.shape[1]


@dataclasses.dataclass
class Point:
    params: jax.Array

    @property
    def variables(self):
        return {"params": self.params}


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("num_devices", [1, 4])
def test_perplexity_is_exact(text, streams, num_devices):
    """Every token but the first once, whatever the streams, windows and devices."""
    table = np.random.default_rng(1).normal(size=(7, 7)).astype(np.float32)
    settings = config(num_devices=num_devices, window=13)
    evaluate = make_evaluate_text(Table(), text, settings, streams=streams)
    for part in ("train", "validation", "test"):
        tokens = getattr(text, part)
        log_p = table - np.log(np.exp(np.float64(table)).sum(1, keepdims=True))
        found = evaluate(Point(jnp.asarray(table)), part)
        expected = -log_p[tokens[:-1], tokens[1:]].mean()
        assert found["loss"] == pytest.approx(expected, rel=1e-6)
        assert found["perplexity"] == pytest.approx(np.exp(expected), rel=1e-5)
        wrong = table.argmax(1)[tokens[:-1]] != tokens[1:]
        assert found["error"] == pytest.approx(wrong.mean(), rel=1e-6)
    # Of a network that knows nothing: the size of the vocabulary.
    uniform = evaluate(Point(jnp.zeros((7, 7))))
    assert uniform["perplexity"] == pytest.approx(7, rel=1e-6)


class Counter:
    """Tells apart by what came before: certain of 1 once it has read five tokens."""

    def initial_carry(self, batch_size):
        return jnp.zeros((batch_size,), jnp.int32)

    def apply(self, variables, tokens, *, train, carry, return_carry):
        read = carry[:, None] + jnp.arange(1, tokens.shape[1] + 1)[None]
        sure = (read >= 5).astype(jnp.float32) * 100.0
        logits = jnp.stack([jnp.zeros_like(sure), sure], axis=-1)
        return logits, carry + tokens.shape[1]


def test_the_carry_goes_on():
    """The first four tokens of a stream cost log 2, whatever the window; no others."""
    ones = text_of(np.ones(41, np.int32), np.ones(41, np.int32), vocabulary=2)
    point = Point(jnp.zeros(1))
    for window in (1, 7, 64):
        for streams in (1, 4):
            evaluate = make_evaluate_text(
                Counter(), ones, config(window=window), streams=streams
            )
            loss = evaluate(point)["loss"]
            assert loss == pytest.approx(streams * 4 * np.log(2) / 40, rel=1e-5)


def test_an_offset_is_another_order(text):
    settings = config(offset=5)
    np.testing.assert_array_equal(
        settings.starts(text)[0], 5 + np.arange(4) * ((len(text.train) - 6) // 4)
    )
    plain, moved = run(text, config())[0], run(text, settings)[0]
    assert averages(plain)["loss"] != averages(moved)["loss"]
    start, other = (
        initial_text_state(Tiny(), text, sgd(), c) for c in (config(), settings)
    )
    assert_same(start, other)


# What cannot be.


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"window": 0}, {}, "window=0 must be a whole number, 1 or more"),
        ({"offset": -1}, {}, "offset=-1 must be a whole number, 0 or more"),
        ({"epochs": 0}, {}, "epochs=0"),
        ({"window": 500}, {}, "too few for batch_size=4 streams of steps=500"),
        ({"offset": 125}, {}, "2 tokens are too few"),
        ({"num_devices": 3}, {}, "batch_size=4 cannot be split evenly over 3"),
        ({}, {"yield_every": 0}, "yield_every=0"),
        ({}, {"model": models.create("mlp", num_classes=7)}, "MLP has no initial_car"),
        ({}, {"tx": optax.adam(0.1), "state": "sgd"}, "not of this tx"),
        ({"batch_size": 2}, {"state": "sgd"}, r"of batch_size=2 streams.*initial_text"),
        ({"epochs": 1}, {"state": "late"}, "state.step=99 lies beyond the end"),
        ({}, {"state": "image"}, r"state.carry of shapes \[\] is not that of"),
    ],
)  # fmt: skip
def test_bad_input(text, changes, options, words):
    with pytest.raises(InputError, match=words):
        settings, options = config(**changes), dict(options)
        if (state := options.get("state")) == "image":
            options["state"] = initial_state(Tiny(), text, sgd(), 0)
        elif state:
            made = initial_text_state(Tiny(), text, sgd(), config())
            late = made.replace(step=jnp.int32(99))
            options["state"] = late if state == "late" else made
        run(text, settings, **options)


def test_bad_evaluations(text):
    with pytest.raises(InputError, match="streams=0"):
        make_evaluate_text(lstm(), text, config(), streams=0)
    evaluate = make_evaluate_text(lstm(), text, config(), streams=200)
    with pytest.raises(InputError, match="part='test' of text='made' has 101 tokens"):
        evaluate(Point(None))
    with pytest.raises(InputError, match="part='tset' is unknown; did you mean 'test'"):
        evaluate(Point(None), "tset")


def test_a_loss_that_is_not_finite(text):
    rates = jnp.array([0.1, 0.1, jnp.inf, *[0.1] * 30])
    tx = transforms.scale_by_rate(lambda count: rates[count])
    with pytest.raises(NonFiniteLossError, match="at step 3"):
        run(text, config(), tx=tx, yield_every=20)


def test_an_example_for_a_model_of_ones_own():
    digits = data.load("digits")
    state = initial_state(
        lstm(), digits, sgd(), 3, example=jnp.zeros((2, 5), jnp.int32)
    )
    assert set(state.params) == {"Embed_0", "OptimizedLSTMCell_0", "Dense_0"}
