"""Four virtual devices, strict dtypes and shapes, and a compilation cache."""

import contextlib
import ctypes
import functools
import os
from pathlib import Path

# Before JAX starts: a backend takes its number of devices once.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
CACHE = Path(__file__).parents[1] / ".cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
# Tests compile more than they compute: without LLVM's costly passes the suite takes
# two thirds of the time. JAX_DISABLE_MOST_OPTIMIZATIONS=0 compiles as users do.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import hypothesis
import jax
import pytest

from experiments.harness.mappings import few_mappings
from tests import processes

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# JAX compiles in the first example, which is no flaw of the test.
hypothesis.settings.register_profile(
    "lrscape", deadline=None, derandomize=True, max_examples=25
)
hypothesis.settings.load_profile("lrscape")


# Bytes of memory from which on a test process lets go of compiled programs.
MEMORY = 1_200_000_000
_PAGES = Path("/proc/self/statm")


@pytest.fixture(autouse=True)
def memory_goes():
    """Lets go of compiled programs and freed memory where they are large."""
    yield
    if _PAGES.exists() and _resident() > MEMORY:
        few_mappings(limit=0)
        with contextlib.suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def _resident() -> int:
    """Bytes of memory that this process has."""
    return int(_PAGES.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks as slow what ``slow.txt`` lists."""
    text = (Path(__file__).parent / "slow.txt").read_text()
    listed = {line for line in text.splitlines() if not line.startswith("#")}
    for item in items:
        if not listed.isdisjoint(names_of(item.nodeid)):
            item.add_marker(pytest.mark.slow)


def pytest_runtest_setup(item):
    """Passes over float16 where XLA cannot convert it: processors without F16C."""
    if item.get_closest_marker("float16") and not float16_compiles():
        pytest.skip("XLA compiles no conversion to float16 for this processor")


@functools.cache
def float16_compiles():
    try:
        jax.jit(lambda x: x.astype(jax.numpy.float16))(jax.numpy.ones(3))
    except jax.errors.JaxRuntimeError as error:
        assert "Failed to materialize symbols" in str(error)
        return False
    return True


def names_of(nodeid):
    """The id of a test, and that of its function with any parameters."""
    return nodeid, nodeid.partition("[")[0]


def pytest_runtest_logreport(report):
    """Tells of a failure at once, to whoever watches a long run."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.nodeid}, {report.when}:\n{report.longreprtext[-3000:]}")


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """A run of `processes.FLAGS` that nothing happened to."""
    run_dir = tmp_path_factory.mktemp("runs") / "undisturbed"
    processes.finish(processes.start(run_dir, *processes.FLAGS))
    return run_dir


def data_dir(name: str) -> Path | None:
    """Where `TFDS_DATA_DIR` holds the data set `name`, if it does."""
    root = os.environ.get("TFDS_DATA_DIR")
    if root and (Path(root) / name).is_dir():
        return Path(root)
    return None


@pytest.fixture(scope="session")
def cifar10_dir():
    if (found := data_dir("cifar10")) is None:
        pytest.skip("TFDS_DATA_DIR does not hold cifar10")
    return found


@pytest.fixture(scope="session")
def mnist_dir():
    if (found := data_dir("mnist")) is None:
        pytest.skip("TFDS_DATA_DIR does not hold mnist")
    return found


@pytest.fixture(scope="session")
def tiny_shakespeare_dir():
    if (found := data_dir("tiny_shakespeare")) is None:
        pytest.skip("TFDS_DATA_DIR does not hold tiny_shakespeare")
    return found
