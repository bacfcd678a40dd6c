"""Each kind of argument: what is taken, and what the error says."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrscape import checks
from lrscape.errors import InputError

HUGE = 10**5000


@pytest.mark.parametrize("value", [1, 1.0, np.float32(1), np.int16(1), jnp.ones(())])
def test_numbers(value):
    result = checks.number("rate", value)
    assert result == 1.0 and type(result) is float


@pytest.mark.parametrize(
    "value",
    [
        True,
        "1",
        None,
        [1.0],
        np.ones(1),
        1j,
        object(),
        pytest.param(HUGE, id="huge"),
        b"1",
    ],
)
def test_what_is_no_number(value):
    with pytest.raises(InputError, match="^rate="):
        checks.number("rate", value)


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (checks.finite, [-1.0, 0], [float("inf"), float("nan")]),
        (checks.positive, [1e-300], [0, -1, float("nan"), float("inf")]),
        (checks.not_negative, [0, 3], [-1e-30, float("nan"), float("inf")]),
        (checks.fraction, [0, 0.5, 1], [-0.1, 1.1, float("nan")]),
        (checks.whole, [0, np.uint8(7), jnp.int32(3)], [-1, 1.0, True, "1", 2**31]),
        (checks.count, [1], [0, -1, 1.5, None, HUGE, float("nan")]),
        (checks.flag, [True, np.False_], [0, 1, "x", None]),
    ],
)
def test_bounds(check, good, bad):
    for value in good:
        assert check("field", value) == value
    for value in bad:
        with pytest.raises(InputError, match="^field="):
            check("field", value)


def test_a_traced_number_is_returned_as_it_is():
    assert jax.jit(lambda x: checks.positive("x", x))(-1.0) == -1.0


def test_keys():
    for value in (jax.random.key(0), jax.random.PRNGKey(0)):
        assert checks.key("key", value) is value
    for value in (None, 0, "key", jax.random.split(jax.random.key(0)), jnp.ones(2)):
        with pytest.raises(InputError, match="^key"):
            checks.key("key", value)


def test_devices():
    assert checks.devices("devices", None) is None
    assert checks.devices("devices", jax.devices()) == jax.devices()
    for value in ([], ["cpu"], "cpu", 3, [jax.devices()[0]] * 2):
        with pytest.raises(InputError, match="^devices"):
            checks.devices("devices", value)


def test_paths(tmp_path):
    new, old, pipe = tmp_path / "new", tmp_path / "old", tmp_path / "pipe"
    old.write_text("x")
    os.mkfifo(pipe)
    link = tmp_path / "link"
    link.symlink_to(old)
    assert checks.path_to_write("out", str(new)) == new
    assert checks.path_to_write("out", old) == old
    assert checks.path_to_read("file", old) == old
    for value in (tmp_path, pipe, link, old / "below", "a\0b", "x" * 300, "", 3, None):
        with pytest.raises(InputError, match="^out="):
            checks.path_to_write("out", value)
    for value in (tmp_path, pipe, link, new, old / "below"):
        with pytest.raises(InputError, match="^file="):
            checks.path_to_read("file", value)


def test_a_message_stays_short_whatever_the_value():
    for value in ("x" * 10_000, HUGE, np.zeros((30, 30)), "a\nb", "\ud800"):
        text = checks.shown(value)
        assert len(text) < 80 and "\n" not in text
        text.encode()


def test_norms_and_arrays_of_numbers():
    assert checks.norm("norm", jnp.float32(2)) == 2 and np.isnan(
        checks.norm("n", np.nan)
    )
    for value in (-1.0, [1.0], "x", None, True, 1j):
        with pytest.raises(InputError, match="^norm="):
            checks.norm("norm", value)
    assert checks.numbers("x", [1, 2], axes=1).tolist() == [1, 2]
    for value in (1.0, [[1.0]], ["a"], [1j], [None], None, [True], [[1.0], [2.0, 3.0]]):
        with pytest.raises(InputError, match="^x="):
            checks.numbers("x", value, axes=1)
    traced = jax.jit(lambda x: checks.numbers("x", [x, checks.norm("x", x)]))
    assert traced(-1.0).shape == (2,)


def test_positions():
    assert checks.positions("at", np.array([0, 2]), 3).tolist() == [0, 2]
    assert checks.positions("at", [], 3).tolist() == []
    for value in ([-1], [3], [1.0], [[0]], "x", None, [True], [[0], [1, 2]]):
        with pytest.raises(InputError, match="^at"):
            checks.positions("at", value, 3)


def test_above():
    assert checks.above("c", 2, 1, meaning="a ratio") == 2.0
    for value in (1, 0.5, np.nan, np.inf, "2", None):
        with pytest.raises(InputError, match="^c="):
            checks.above("c", value, 1, meaning="a ratio")
