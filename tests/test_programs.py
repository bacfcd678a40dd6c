"""Compiled programs: reused where nothing differs, and not kept for good."""

import functools
import gc
import weakref

import flax.linen as nn
import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lrscape import data, landscape
from lrscape.landscape import Operator, programs
from lrscape.training import Config, fit
from lrscape.training.programs import reusing

DATA = jnp.linspace(-1.0, 1.0, 7)
A, B = jnp.float32(0.5), jnp.float32(2.0)


def new_loss(power):
    return lambda w, batch: jnp.mean((w - batch) ** power)


PROBES = {
    "mean": lambda o: o(A),
    "surface": lambda o: landscape.evaluate(o, landscape.line(A, B), np.arange(3.0)),
    "segment": lambda o: landscape.segment_losses(o, A, B, num_points=2),
    "gradient": lambda o: landscape.loss_gradient(o, A),
    "one call a batch": lambda o: landscape.loss_gradient(o, A, compiled=False),
    "hvp": lambda o: landscape.hvp(o, A, B),
}


@pytest.mark.parametrize("probe", PROBES)
def test_programs_go_with_their_loss_function(probe, monkeypatch):
    # Room for this test's, however many other tests have left.
    monkeypatch.setattr(programs, "MAX_PROGRAMS", programs.num_programs() + 100)
    gone = []
    for power in range(2, 5):
        loss = new_loss(power)
        gone.append(weakref.ref(loss))
        before = programs.num_programs()
        objective = landscape.mean_objective(loss, DATA, batch_size=3)
        PROBES[probe](objective)
        assert programs.num_programs() > before
        del loss, objective
    gc.collect()
    assert [reference() for reference in gone] == [None] * 3
    assert programs.num_programs() <= before


def test_a_bare_function_and_a_subspace_of_ones_own_go_too():
    loss, subspace = (lambda w: w**2), (lambda c: A + c)
    gone = weakref.ref(loss), weakref.ref(subspace)
    found = landscape.evaluate(loss, subspace, np.arange(3.0))
    np.testing.assert_allclose(found, [0.25, 2.25, 6.25])
    del loss, subspace
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_programs_of_objectives_that_stay_are_bounded(monkeypatch):
    monkeypatch.setattr(programs, "MAX_PROGRAMS", 3)
    kept = [
        landscape.mean_objective(new_loss(power), DATA, batch_size=3)
        for power in range(2, 8)
    ]
    for objective in [*kept, *kept]:
        power = 2 + next(i for i, one in enumerate(kept) if one is objective)
        np.testing.assert_allclose(objective(B), jnp.mean((B - DATA) ** power), 1e-5)
        assert programs.num_programs() <= 3


def test_one_loss_function_is_traced_once():
    traced = []

    def loss(w, batch):
        traced.append(w)
        return jnp.mean((w - batch) ** 2)

    surface, surfaces = PROBES["surface"], []
    for shift in range(4):
        objective = landscape.mean_objective(loss, DATA + shift, batch_size=7)
        surfaces.append(surface(objective))
        if shift == 0:
            count = len(traced)
    assert len(traced) == count
    np.testing.assert_allclose(
        surfaces[3], [jnp.mean((A + a * 1.5 - DATA - 3) ** 2) for a in range(3)], 1e-5
    )


def test_what_is_returned_holds_its_loss_function():
    operator = Operator(
        landscape.mean_objective(new_loss(2), DATA, batch_size=3), jnp.ones(1)
    )
    gc.collect()
    jax.clear_caches()
    np.testing.assert_allclose(operator(jnp.ones(1)), [2.0], rtol=1e-6)
    same = programs.jit_objectives(lambda objective: objective)
    objective = landscape.mean_objective(new_loss(2), DATA, batch_size=3)
    assert same(objective).loss_fn is objective.loss_fn


def test_bound_methods_that_are_equal_share_a_program():
    class Problem:
        traced = 0

        def loss(self, w):
            self.traced += 1
            return w**2

    problem = Problem()
    landscape.loss_gradient(problem.loss, A)
    count = problem.traced
    landscape.loss_gradient(problem.loss, B)
    assert problem.traced == count


# Training.


class Net(nn.Module):
    width: int = 4

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(10)(nn.relu(nn.Dense(self.width)(x.reshape(len(x), -1))))


RATE = 0.1


def reads_a_global(step):
    return jnp.asarray(RATE)


@pytest.fixture
def compiled():
    """The names of what is compiled."""
    names = []

    def listen(event, duration, **details):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(details.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


def few_digits():
    part = data.load("digits").train.take(np.arange(120))
    return data.Dataset(
        name="digits", num_classes=10, max_value=16, train=part, test=part,
        validation=part,
    )  # fmt: skip


def trained(model=None, tx=None, **settings):
    config = Config(**{"epochs": 1, "batch_size": 60, "num_devices": 1, **settings})
    tx = optax.sgd(0.1, momentum=0.9) if tx is None else tx
    *_, state = fit(model or Net(), few_digits(), tx, config)
    return np.asarray(state.params["Dense_1"]["kernel"])


def test_equal_training_compiles_nothing_and_other_training_does(compiled, monkeypatch):
    first = trained()
    compiled.clear()
    np.testing.assert_array_equal(trained(), first)
    assert not compiled
    schedule = optax.sgd(reads_a_global)
    before = trained(tx=schedule)
    # The same transformation, which now does something else.
    monkeypatch.setattr(f"{__name__}.RATE", 0.01)
    after = trained(tx=schedule)
    assert np.abs(before - after).max() > 1e-4
    others = [
        functools.partial(trained, model=Net(width=5)),
        functools.partial(trained, tx=optax.sgd(0.2, momentum=0.9)),
        functools.partial(trained, augment=("flip",)),
        functools.partial(trained, num_devices=2),
    ]
    for other in others:
        compiled.clear()
        found = other()
        assert compiled
        assert found.shape != first.shape or (found != first).any()


def scaled_within(factor):
    inner = jax.jit(lambda x: x * factor)
    return lambda x: jnp.sum(inner(x))


def called_back(factor):
    shape = jax.ShapeDtypeStruct((3,), jnp.float32)
    return lambda x: jnp.sum(
        jax.pure_callback(lambda y: np.float32(factor) * y, shape, x)
    )


@pytest.mark.parametrize(
    ("make", "factors"),
    [
        (scaled_within, (jnp.arange(3.0), jnp.arange(3.0) + 1)),
        (scaled_within, (np.ones(3, np.float32), np.zeros(3, np.float32))),
        (called_back, (2.0, 3.0)),
    ],
)
def test_what_the_text_of_a_trace_leaves_out_tells_programs_apart(make, factors):
    x = jnp.array([1.0, 2.0, 3.0])
    for factor in (*factors, *factors):
        found = reusing(make(factor), jax.jit)(x)
        np.testing.assert_allclose(found, np.sum(np.asarray(factor) * np.asarray(x)))


def test_equal_constants_within_an_inner_program_compile_once():
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: (
            compiled.append(name)
            if name == "/jax/core/compile/backend_compile_duration"
            else None
        )
    )
    x = jnp.array([1.0, 2.0, 3.0])
    for _ in range(2):
        before = len(compiled)
        reusing(scaled_within(np.full(3, 0.37, np.float32)), jax.jit)(x)
    assert len(compiled) == before
