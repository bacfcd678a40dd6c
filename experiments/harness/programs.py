"""What a command line calls itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence

COMPLETION = "--tyro-print-completion"


def program(module: str, arguments: Sequence[str] | None) -> str:
    """How a module is called: what ``--help`` shows.

    A shell completes what follows one word, so its completions go by the module's name,
    which the user makes an alias of the whole.

    Args:
        module: such as ``experiments.cifar``.
        arguments: of the command line; None is the process's own.

    Example:
        >>> program('experiments.cifar', [])
        'python -m experiments.cifar'
        >>> program('experiments.cifar', ['--tyro-print-completion', 'bash'])
        'experiments.cifar'
    """
    given = sys.argv[1:] if arguments is None else arguments
    asked = any(argument.startswith(COMPLETION) for argument in given)
    return module if asked else f"python -m {module}"
