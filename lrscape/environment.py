"""The versions, devices and cores that a run depends on to repeat bit for bit."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from lrscape import __version__

# Pillow decodes what is streamed.
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")

# Of what `describe` gives, the part that bits depend on.
_DECISIVE = ("versions", "device", "device_count", "cores", "machine")


def describe(devices: Sequence[jax.Device]) -> dict[str, Any]:
    """Versions, device, cores, source commit and command line of this process.

    Args:
        devices: the devices that are worked on.

    Returns:
        A dict that JSON can hold.
    """
    return {
        "versions": {
            "python": platform.python_version(),
            "lrscape": __version__,
            **{package: _version(package) for package in PACKAGES},
        },
        "device": devices[0].device_kind,
        "device_count": len(devices),
        "cores": available_cores(),
        "machine": platform.machine(),
        "commit": _commit(),
        "command": shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]]),
    }


def available_cores() -> int:
    """The cores that this process may use.

    Example:
        >>> available_cores() >= 1
        True
    """
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def differences(stored: Mapping[str, Any], devices: Sequence[jax.Device]) -> list[str]:
    """The changes since `describe` that a run's bits depend on."""
    now = describe(devices)
    # A package that was not written down then cannot be said to differ.
    versions = stored.get("versions", {})
    now["versions"] = {k: v for k, v in now["versions"].items() if k in versions}
    return [
        f"{name} was {stored.get(name)} and is {now[name]}"
        for name in _DECISIVE
        if stored.get(name) != now[name]
    ]


def _commit() -> str | None:
    """The commit of the source, + where it was changed since; None without git."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words],
            cwd=Path(__file__).parent,
            check=True,
            capture_output=True,
            text=True,
            timeout=10,
        ).stdout.strip()

    try:
        # An installed package may lie inside somebody else's repository.
        if not git("ls-files", Path(__file__).name):
            return None
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
