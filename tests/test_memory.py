"""Memory that was freed is there again, without the system's help."""

import os
import subprocess
import sys

import pytest

from experiments.harness.memory import keep_freed_memory

PAGES = """
import resource, sys
import numpy as np
from experiments.harness.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    before = faults()
    np.ones(2**24)  # 128 MiB, more than glibc keeps
print(faults() - before)
"""


def pages(how, **environment):
    """Pages that the system hands out where an array is made for the third time."""
    environment = {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0", **environment}
    found = subprocess.run(
        [sys.executable, "-c", PAGES, how], env=environment, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    return int(found.stdout)


@pytest.fixture
def untouched(monkeypatch):
    for name in [n for n in os.environ if n.startswith(("GLIBC_TUN", "MALLOC_"))]:
        monkeypatch.delenv(name)


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="glibc's settings are Linux's"
)
def test_what_was_freed_is_used_again(untouched):
    assert pages("given back") > 10_000
    assert pages("kept") < 100


@pytest.mark.parametrize("name", ["GLIBC_TUNABLES", "MALLOC_ARENA_MAX"])
def test_the_users_own_settings_stay(name, untouched, monkeypatch):
    monkeypatch.setenv(name, "1")
    assert not keep_freed_memory()
