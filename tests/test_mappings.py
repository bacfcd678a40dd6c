"""Programs that go where a process has many memory mappings."""

import gc
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from experiments.harness.mappings import few_mappings

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/maps").exists(), reason="Linux alone tells mappings"
)


def test_programs_go_at_the_limit_and_come_back():
    constant = jnp.arange(3.0) + 1
    traced = []

    @jax.jit
    def double(x):
        traced.append(x)
        return 2 * x * constant

    double(jnp.ones(3))
    few_mappings(limit=10**9)
    double(jnp.ones(3))
    assert len(traced) == 1
    few_mappings(limit=0)
    assert double(jnp.ones(3)).tolist() == [2, 4, 6]
    assert len(traced) == 2


def test_nothing_holds_what_went():
    class Held:
        pass

    held = Held()
    seen = weakref.ref(held)
    held.itself = held
    del held
    gc.disable()
    few_mappings(limit=0)
    gc.enable()
    assert seen() is None
