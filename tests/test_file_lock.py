"""The one module that locks files, and every other one without it."""

import errno
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import lrscape
from lrscape import file_lock
from lrscape.errors import InputError

ROOT = str(Path(lrscape.__file__).parents[1])

# `experiments` are commands for Unix; what users import must do without `fcntl`.
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(lrscape.__path__, "lrscape.")
    if not module.name.endswith("__main__")
)

IMPORT_ALL = """
import importlib, sys
for absent in ('fcntl', 'resource', 'termios', 'pwd', 'grp'):
    sys.modules[absent] = None  # importing it fails, as it does on Windows
for name in sys.argv[1:]:
    importlib.import_module(name)
from lrscape import landscape
print(landscape.evaluate(lambda w: w * w, landscape.line(1.0, 2.0), [0.0, 1.0]))
landscape.evaluate(lambda w: w * w, landscape.line(1.0, 2.0), [0.0], store='kept')
"""


def test_every_module_is_imported_without_fcntl(tmp_path):
    found = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *MODULES],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ROOT},
        check=False,
    )
    assert found.stdout.strip() == "[1. 4.]", found.stderr
    assert "store='kept' cannot be locked: this system has no fcntl" in found.stderr


def test_a_second_lock_is_refused_until_the_first_is_closed(tmp_path):
    first, second = ((tmp_path / "file").open("a") for _ in range(2))
    with second:
        with first:
            assert file_lock.lock("store", first)
            assert not file_lock.lock("store", second)
        assert file_lock.lock("store", second)


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(file_lock.fcntl, "flock", flock)
    with (
        (tmp_path / "file").open("a") as file,
        pytest.raises(InputError, match="run_dir='a' cannot be locked: No locks"),
    ):
        file_lock.lock("run_dir='a'", file)
