"""A rate does not depend on the dtype that its count comes in."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from lrscape import schedules
from lrscape.errors import InputError
from lrscape.transforms import average_weights, switch
from tests.test_schedules import ARGUMENTS

DTYPES = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
TOTALS = (3, 100, 200, 40_000, 3_000_000_000, 5_000_000_000, 10**13)
LENGTHS = {"triangular": "cycle_steps"}
schedule_names = st.sampled_from([*schedules.NAMES, "per_epoch"])


def made(name, total):
    if name == "per_epoch":
        return schedules.per_epoch(made("rational", total), max(1, total // 3))
    arguments = {**ARGUMENTS[name], LENGTHS.get(name, "total_steps"): total}
    return schedules.create(name, **arguments)


@settings(max_examples=60, phases=[Phase.explicit, Phase.generate])
@given(
    schedule_names,
    st.sampled_from(TOTALS),
    st.sampled_from(DTYPES),
    st.floats(-0.05, 1.2),
    st.booleans(),
)
def test_every_schedule_at_every_integer_dtype(name, total, dtype, share, x64):
    limits = np.iinfo(dtype)
    wanted = int(np.clip(share * min(total, limits.max), limits.min, limits.max))
    for count in {wanted, int(limits.max)}:
        with jax.enable_x64(x64):
            schedule = made(name, total)
            expected = np.asarray(schedule(count))
            given_as = [np.array([count], dtype), np.dtype(dtype).type(count)]
            if x64 or limits.bits < 64:
                array = jnp.asarray(np.array(count, dtype))
                given_as += [array, array[None]]
            for value in given_as:
                rate = np.asarray(schedule(value)).reshape(())
                np.testing.assert_allclose(rate, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", [*schedules.NAMES, "per_epoch"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float32"])
def test_under_jit_and_vmap(name, dtype):
    schedule = made(name, 3_000_000_000 if dtype == "uint32" else 100)
    counts = np.array([0, 7, 99, 100, 126], dtype)
    if dtype == "uint32":
        counts = counts * np.uint32(30_000_000)
    expected = [np.asarray(schedule(int(n))) for n in counts]
    for way in (jax.jit(schedule), jax.vmap(schedule)):
        np.testing.assert_allclose(way(jnp.asarray(counts)), expected, rtol=2e-6)


def test_exact_values_beyond_32_bits():
    # 0.4 * 1/2, 1 / (1 + 1/2) and a triangle's quarter, in exact arithmetic.
    total = 8_000_000_000
    falling = schedules.trapezoid(
        1.0, total, start_value=1.0, end_value=0.0, rise=0.0, fall=1.0
    )
    assert falling(6_000_000_000) == 0.25
    assert falling(np.int64(6_000_000_000)) == 0.25
    assert falling(np.float64(6_000_000_000)) == 0.25
    assert schedules.rational(1.0, total, decay=1.0)(10**30) == 0.5
    assert schedules.triangular(1.0, total, base_value=0.0)(10**9) == 0.25
    assert schedules.triangular(1.0, 8, base_value=0.0)(8 * 10**30 + 1) == 0.25
    dropping = schedules.step(1.0, total, milestones=(0.5,), factor=0.5)
    assert [dropping(4 * 10**9 - 1), dropping(4 * 10**9)] == [1.0, 0.5]
    assert schedules.gaussian(0.1, total)(total // 2) == np.float32(0.1)


@pytest.mark.parametrize("bad", ["3", None, 1j, [1, "a"], jnp.array(1j)])
def test_what_is_no_count(bad):
    for name in schedules.NAMES:
        with pytest.raises(InputError, match="count="):
            made(name, 100)(bad)


@pytest.mark.parametrize("bad", [10**400, 2**63, float("inf"), float("nan"), "9"])
def test_lengths_that_no_schedule_has(bad):
    for name in schedules.NAMES:
        with pytest.raises(InputError, match="_steps="):
            made(name, bad)


def test_a_rate_that_would_be_nan_at_its_peak():
    with pytest.raises(InputError, match="variance=1e-300"):
        schedules.gaussian(0.1, 10, variance=1e-300)


def test_a_switch_that_lies_beyond_32_bits_is_not_reached():
    tx = switch([optax.sgd(0.5), optax.sgd(0.1)], boundaries=[np.int64(5_000_000_000)])
    state = tx.init(jnp.ones(1))
    state = state._replace(count=jnp.asarray(2**31 - 1, jnp.int32))
    updates, state = tx.update(jnp.ones(1), state, jnp.ones(1))
    assert updates == -0.5 and state.active == 0


def test_an_average_that_cannot_begin():
    for settings_of_it in ({"start": 3 * 10**9}, {"start": 1, "every": 2**31}):
        with pytest.raises(InputError, match=r"less than 2\*\*31"):
            average_weights(**settings_of_it)
