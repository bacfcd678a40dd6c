"""Every schedule against its closed form, written out in NumPy's double precision."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lrscape import schedules
from lrscape.errors import InputError


def gaussian(n, peak, total, start=None, end=None, variance=None):
    end = peak / 10_000 if end is None else end
    variance = -0.25 / math.log(end / peak) if variance is None else variance
    offset = 0.0
    if start is not None:
        offset = 0.5 - math.sqrt(-variance * math.log(start / peak))
    t = offset + (1 - offset) * np.clip(n, 0, total) / total
    return peak * np.exp(-((t - 0.5) ** 2) / variance)


def laplacian(n, peak, total, start=None, end=None, scale=None):
    end = peak / 10_000 if end is None else end
    scale = -0.5 / math.log(end / peak) if scale is None else scale
    offset = 0.0 if start is None else 0.5 + scale * math.log(start / peak)
    t = offset + (1 - offset) * np.clip(n, 0, total) / total
    return peak * np.exp(-np.abs(t - 0.5) / scale)


def rational(n, init, total, decay):
    return init / (1 + decay * np.clip(n, 0, total) / total)


def step(n, init, total, milestones, factor):
    passed = sum(n / total >= m for m in milestones)
    return init * factor**passed


def triangular(n, peak, cycle, base):
    return base + (peak - base) * (1 - np.abs(2 * (n % cycle) / cycle - 1))


def trapezoid(n, peak, total, start, end, rise, fall):
    t = np.clip(n, 0, total) / total
    points, values = [0.0, rise, 1 - fall, 1.0], [start, peak, peak, end]
    return np.interp(t, points, values)


def swa(n, init, total, last, start, end):
    return np.interp(n / total, [start, end], [init, last])


# Peaks, fractions of the peak, and lengths as people use them, and a good way beyond.
rates = st.floats(1e-5, 10.0)
shares = st.floats(1e-6, 0.95)
lengths = st.integers(2, 2_000_000)
fractions = st.floats(0.05, 0.95)


def counts_of(total):
    """The start, the end, beyond it, and what lies around the middle and between."""
    some = np.linspace(0, total, 41).astype(np.int64)
    return np.concatenate([some, [total // 2, total - 1, total + 7]])


def assert_closed_form(schedule, closed_form, total, absolute=0.0):
    """1e-6 relative under x64, 1e-5 in float32; and the same under jit and vmap."""
    counts = counts_of(total)
    expected = closed_form(counts)
    single = jnp.asarray(counts, jnp.int32)
    eager = schedule(single)
    assert eager.dtype == jnp.float32
    np.testing.assert_allclose(eager, expected, rtol=1e-5, atol=absolute)
    for rates in (
        jax.jit(schedule)(single),
        jax.vmap(schedule)(single),
        jnp.array([schedule(int(n)) for n in counts]) if total < 10 else eager,
    ):
        np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=absolute)
    with jax.enable_x64(True):
        double = schedule(jnp.asarray(counts, jnp.int32))
        assert double.dtype == jnp.float64
        np.testing.assert_allclose(double, expected, rtol=1e-6, atol=absolute)


@given(rates, lengths, st.none() | shares, st.none() | shares)
@example(0.03, 100, 1 / 3, 1e-4)
@example(0.3, 1, None, None)
def test_gaussian(peak, total, start, end):
    start = start and start * peak
    end = end and end * peak
    schedule = schedules.gaussian(peak, total, start_value=start, end_value=end)
    assert_closed_form(schedule, lambda n: gaussian(n, peak, total, start, end), total)
    last = peak / 10_000 if end is None else end
    np.testing.assert_allclose(schedule(total), last, rtol=1e-5)
    np.testing.assert_allclose(schedule(0), start or last, rtol=1e-5)


@given(rates, lengths, st.none() | shares, st.floats(0.01, 1.0))
@example(0.3, 1000, None, 2 * 0.08**2)
def test_gaussian_with_variance(peak, total, start, variance):
    start = start and start * peak
    schedule = schedules.gaussian(peak, total, start_value=start, variance=variance)
    assert_closed_form(
        schedule, lambda n: gaussian(n, peak, total, start, None, variance), total
    )


@given(rates, lengths, st.none() | shares, st.none() | shares)
def test_laplacian(peak, total, start, end):
    start = start and start * peak
    end = end and end * peak
    schedule = schedules.laplacian(peak, total, start_value=start, end_value=end)
    assert_closed_form(schedule, lambda n: laplacian(n, peak, total, start, end), total)
    np.testing.assert_allclose(schedule(total), end or peak / 10_000, rtol=1e-5)
    np.testing.assert_allclose(schedule(0), start or end or peak / 10_000, rtol=1e-5)


@given(rates, lengths, st.none() | shares, st.floats(0.03, 1.0))
def test_laplacian_with_scale(peak, total, start, scale):
    start = start and start * peak
    schedule = schedules.laplacian(peak, total, start_value=start, scale=scale)
    assert_closed_form(
        schedule, lambda n: laplacian(n, peak, total, start, None, scale), total
    )


@pytest.mark.parametrize("factory", [schedules.gaussian, schedules.laplacian])
@pytest.mark.parametrize("total", [2, 100, 46_800])
def test_the_peak_is_exact_where_a_step_falls_on_it(factory, total):
    assert factory(0.03, total)(total // 2) == np.float32(0.03)
    # Starting at the peak itself puts it on count 0.
    assert factory(0.03, total, start_value=0.03)(0) == np.float32(0.03)


def test_the_papers_naive_variance_ends_at_3e_9_of_the_peak():
    schedule = schedules.gaussian(1.0, 270, variance=0.0128)
    np.testing.assert_allclose(schedule(270), math.exp(-0.25 / 0.0128), rtol=1e-5)
    assert 3.2e-9 < float(schedule(270)) < 3.4e-9


@given(rates, lengths, st.floats(0.0, 1e4))
def test_rational(init, total, decay):
    schedule = schedules.rational(init, total, decay=decay)
    assert_closed_form(schedule, lambda n: rational(n, init, total, decay), total)


@given(rates, lengths, st.sets(fractions, max_size=4), st.floats(0.01, 1.0))
@example(0.1, 100, {0.07, 0.29}, 0.1)
def test_step(init, total, milestones, factor):
    milestones = tuple(sorted(milestones))
    # A milestone within rounding of a count may fall on either side of it.
    assume(
        all(abs(m * total - round(m * total)) > 1e-5 for m in milestones)
        or total == 100
    )
    schedule = schedules.step(init, total, milestones=milestones, factor=factor)
    assert_closed_form(
        schedule, lambda n: step(n, init, total, milestones, factor), total
    )


def test_step_drops_on_the_milestone_itself():
    for total in (10, 100, 270, 39_100):
        schedule = schedules.step(1.0, total, milestones=(0.07, 0.5), factor=0.5)
        first = math.ceil(total * 7 / 100)
        np.testing.assert_array_equal(
            schedule(jnp.array([first - 1, first, total // 2 - 1, total // 2])),
            [1.0, 0.5, 0.5, 0.25],
        )


@given(rates, lengths, st.floats(0.0, 1.0))
def test_triangular(peak, cycle, base):
    schedule = schedules.triangular(peak, cycle, base_value=base * peak)
    assert_closed_form(
        schedule,
        lambda n: triangular(n, peak, cycle, base * peak),
        5 * cycle,
        absolute=1e-9 * peak,
    )


@given(rates, lengths, shares, shares, fractions, fractions)
def test_trapezoid(peak, total, start, end, rise, fall):
    assume(rise + fall <= 1)
    start, end = start * peak, end * peak
    schedule = schedules.trapezoid(
        peak, total, start_value=start, end_value=end, rise=rise, fall=fall
    )
    assert_closed_form(
        schedule, lambda n: trapezoid(n, peak, total, start, end, rise, fall), total
    )


@given(rates, lengths, st.floats(1e-4, 100.0), fractions, fractions)
@example(0.1, 225, 0.5, 0.28, 0.504)
def test_swa(init, total, ratio, start, end):
    assume(start + 0.01 < end)
    last = ratio * init
    schedule = schedules.swa(init, total, swa_value=last, start=start, end=end)
    assert_closed_form(schedule, lambda n: swa(n, init, total, last, start, end), total)


def test_a_ramp_of_no_length_is_a_jump():
    schedule = schedules.swa(1.0, 10, swa_value=0.5, start=0.5, end=0.5)
    np.testing.assert_array_equal(schedule(jnp.array([4, 5, 6])), [1.0, 0.5, 0.5])
    schedule = schedules.trapezoid(
        1.0, 10, start_value=0.0, end_value=0.0, rise=0.0, fall=0.5
    )
    np.testing.assert_allclose(schedule(jnp.array([0, 5, 10])), [1.0, 1.0, 0.0])


def test_per_epoch_holds_the_rate_within_an_epoch():
    smooth = schedules.gaussian(0.3, 100)
    held = schedules.per_epoch(smooth, 10)
    counts = jnp.arange(120)
    np.testing.assert_array_equal(held(counts), smooth(counts // 10 * 10))


ARGUMENTS = {
    "gaussian": {"peak_value": 0.3, "total_steps": 20, "start_value": 0.1},
    "laplacian": {"peak_value": 0.3, "total_steps": 20, "end_value": 0.01},
    "rational": {"init_value": 0.3, "total_steps": 20, "decay": 9.0},
    "step": {"init_value": 0.3, "total_steps": 20},
    "triangular": {"peak_value": 0.3, "cycle_steps": 6, "base_value": 0.03},
    "trapezoid": {
        "peak_value": 0.3, "total_steps": 20, "start_value": 0.1, "end_value": 0.01,
        "rise": 0.2, "fall": 0.4,
    },
    "swa": {
        "init_value": 0.3, "total_steps": 20, "swa_value": 0.1,
        "start": 0.5, "end": 0.8,
    },
}  # fmt: skip


def test_every_schedule_is_tried_here():
    assert set(ARGUMENTS) == set(schedules.NAMES)


@pytest.mark.parametrize("name", schedules.NAMES)
def test_under_inject_hyperparams(name):
    # Both ways that people use it: the schedule as a hyperparameter, and the
    # schedule's own arguments as hyperparameters that may change while it runs.
    schedule = schedules.create(name, **ARGUMENTS[name])
    tx = optax.inject_hyperparams(optax.sgd)(learning_rate=schedule)
    state = tx.init(jnp.ones(2))
    update = jax.jit(tx.update)
    for n in range(4):
        updates, state = update(jnp.ones(2), state)
        np.testing.assert_allclose(updates, -schedule(n) * jnp.ones(2), rtol=1e-6)
        np.testing.assert_allclose(
            state.hyperparams["learning_rate"], schedule(n), rtol=1e-6
        )


@pytest.mark.parametrize("name", schedules.NAMES)
def test_arguments_may_be_traced(name):
    arguments = ARGUMENTS[name]
    numbers = {k: jnp.asarray(v) for k, v in arguments.items() if np.ndim(v) == 0}
    counts = jnp.arange(23)
    traced = jax.jit(lambda **kw: schedules.create(name, **kw)(counts))(**numbers)
    np.testing.assert_allclose(
        traced, schedules.create(name, **arguments)(counts), rtol=2e-5
    )


def test_vmap_over_peaks():
    peaks = jnp.array([0.1, 0.2, 0.4])
    rates = jax.vmap(lambda peak: schedules.gaussian(peak, 10)(5))(peaks)
    np.testing.assert_allclose(rates, peaks, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("gaussian", {"peak_value": -0.3}, ["peak_value=-0.3", "positive"]),
        ("gaussian", {"peak_value": 0}, ["peak_value=0", "positive"]),
        ("gaussian", {"peak_value": math.nan}, ["peak_value=nan", "finite"]),
        ("gaussian", {"peak_value": "0.3"}, ["peak_value='0.3'", "number"]),
        ("gaussian", {"start_value": 0.5}, ["start_value=0.5", "above peak_value=0.3"]),
        ("gaussian", {"start_value": 0.0}, ["start_value=0.0", "positive"]),
        ("gaussian", {"end_value": 0.4}, ["end_value=0.4", "below peak_value=0.3"]),
        ("gaussian", {"end_value": 0.3}, ["end_value=0.3", "below peak_value=0.3"]),
        ("gaussian", {"variance": 0.01, "end_value": 0.1}, ["variance=0.01",
                                                            "end_value=0.1"]),
        ("gaussian", {"variance": -1.0}, ["variance=-1.0", "positive"]),
        ("gaussian", {"total_steps": 0}, ["total_steps=0", "at least 1"]),
        ("gaussian", {"total_steps": 2.5}, ["total_steps=2.5", "whole"]),
        ("gaussian", {"total_steps": True}, ["total_steps=True", "whole"]),
        ("laplacian", {"end_value": 0.4}, ["end_value=0.4", "below"]),
        ("laplacian", {"start_value": 0.5}, ["start_value=0.5", "above"]),
        ("laplacian", {"scale": 0.1}, ["scale=0.1", "end_value=0.01"]),
        ("rational", {"decay": -1.0}, ["decay=-1.0", "negative"]),
        ("step", {"milestones": (0.75, 0.5)}, ["milestones=(0.75, 0.5)", "increase"]),
        ("step", {"milestones": (0.5, 30)}, ["milestones=(0.5, 30)", "fractions"]),
        ("step", {"factor": 1.5}, ["factor=1.5", "(0, 1]"]),
        ("triangular", {"base_value": 0.4}, ["base_value=0.4", "above"]),
        ("triangular", {"cycle_steps": 0}, ["cycle_steps=0", "at least 1"]),
        ("trapezoid", {"rise": 0.7}, ["rise=0.7", "fall=0.4", "exceed 1"]),
        ("trapezoid", {"start_value": 0.4}, ["start_value=0.4", "above"]),
        ("swa", {"start": 0.9}, ["start=0.9", "end=0.8"]),
        ("swa", {"swa_value": 0.0}, ["swa_value=0.0", "positive"]),
    ],
)  # fmt: skip
def test_bad_arguments(name, changes, words):
    with pytest.raises(InputError) as caught:
        schedules.create(name, **{**ARGUMENTS[name], **changes})
    for word in [name, *words]:
        assert word in str(caught.value)


def test_names():
    with pytest.raises(InputError, match="did you mean 'gaussian'"):
        schedules.create("gausian", peak_value=0.1, total_steps=10)
    with pytest.raises(
        InputError, match=r"variance=0\.1 is not taken by schedule='step'"
    ):
        schedules.create("step", init_value=0.1, total_steps=10, variance=0.1)
    with pytest.raises(InputError, match="schedule='rational' needs decay"):
        schedules.create("rational", init_value=0.1, total_steps=10)
    for name in schedules.NAMES:
        factory = getattr(schedules, name)
        assert factory.__doc__
        assert inspect.signature(factory).return_annotation == "optax.Schedule"
