"""The names of `lrscape.landscape`: which there are, and which were."""

import importlib
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrscape import landscape
from lrscape.landscape import deprecated

# Promised to users whatever moves.
PROMISED = [
    "mean_objective",
    "flax_objective",
    "line",
    "ray",
    "plane",
    "barycentric",
    "bilinear",
    "pca_plane",
    "evaluate",
    "segment_losses",
    "crosses_barrier",
    "barrier_height",
    "has_floor",
    "valley_floor",
    "height",
    "Walk",
    "hvp",
    "ggnvp",
    "spectral_norm",
    "top_eigenpairs",
    "trace",
    "spectral_density",
    "gaussian_direction",
    "uniform_direction",
    "fooling_direction",
    "is_asymmetric",
    "asymmetry",
    "find_asymmetric_direction",
    "shift_gap",
    "average_slope",
    "functional_distance",
    "disagreement",
    "nnx_objective",
    "equinox_objective",
    "from_torch",
]


def test_what_is_public():
    assert set(PROMISED) <= set(landscape.__all__)
    assert dir(landscape) == sorted(landscape.__all__)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in landscape.__all__:
            assert getattr(landscape, name) is not None


@pytest.mark.parametrize("name", deprecated.MOVED)
def test_an_old_name_is_the_same_object_and_says_where_it_is(name):
    place = deprecated.MOVED[name]
    module, _, attribute = place.rpartition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = getattr(importlib.import_module(module), attribute)
    with pytest.warns(DeprecationWarning, match=f"{name} is .*: use {place}$") as found:
        assert getattr(landscape, name) is expected
    assert found[0].filename == __file__
    assert name not in landscape.__all__


def test_old_functions_give_what_the_new_ones_give():
    def loss(w):
        return jnp.sum(w**4)

    point = jnp.arange(1.0, 4.0)
    options = {"key": jax.random.key(0), "num_samples": 2}
    operator = landscape.Operator(loss, point)
    with pytest.warns(DeprecationWarning, match=r"use .*Operator\(objective, point\)"):
        moments = landscape.spectral_moments(loss, point, **options)
    assert moments == operator.spectral_moments(**options)
    with pytest.warns(DeprecationWarning, match="spectral_quadrature is deprecated"):
        found = landscape.spectral_quadrature(loss, point, num_matvecs=2, **options)
    expected = operator.spectral_quadrature(num_matvecs=2, **options)
    np.testing.assert_array_equal(found.nodes, expected.nodes)
    args = (lambda w, x: x @ w, jnp.eye(2), -jnp.eye(2), jnp.ones((3, 2)))
    with pytest.warns(DeprecationWarning, match="distances_with_errors"):
        far = landscape.functional_distance_estimate(*args)
    assert far.value == landscape.functional_distance(*args)
    with pytest.warns(DeprecationWarning, match="distances_with_errors"):
        share = landscape.disagreement_estimate(*args)
    assert share.value == landscape.disagreement(*args)


def test_a_name_that_there_never_was():
    with pytest.raises(AttributeError, match="has no attribute 'spectral_nrom'"):
        landscape.spectral_nrom  # noqa: B018


def test_importing_all_of_the_library_warns_nowhere():
    code = """
import importlib, pkgutil, warnings
warnings.filterwarnings("error", message="lrscape")
for package in ("lrscape", "experiments"):
    for found in pkgutil.walk_packages(
        importlib.import_module(package).__path__, package + "."
    ):
        if not found.name.endswith("__main__") and ".bench" not in found.name:
            importlib.import_module(found.name)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_slow_test_that_is_listed_is_there():
    here = Path(__file__).parent
    lines = (here / "slow.txt").read_text().splitlines()
    for line in lines:
        if line and not line.startswith("#"):
            file, _, name = line.partition("::")
            source = (here.parent / file).read_text()
            assert f"def {name.partition('[')[0]}(" in source, line
