"""Models of a user's own on a command line: ``package.module:factory``."""

from __future__ import annotations

import importlib

from lrscape import models
from lrscape.errors import InputError, unknown_name


def stands_in(field: str, name: str) -> str:
    """The name of a model of images that stands in for a paper's own.

    It takes none of the options of the paper's own. What it names is imported, if it
    has to be.

    Args:
        field: the flag, for messages.
        name: one of `lrscape.models.NAMES`, or ``package.module:factory``: something in
            a module that Python finds, called with ``num_classes=``.

    Raises:
        InputError: an unknown name, nothing to import, or a model of text.

    Example:
        >>> stands_in('models', 'lrscape.models.plain:MLP')
        'lrscape.models.plain:MLP'
        >>> stands_in('models', 'lrscape.models.plain:MPL')
        Traceback (most recent call last):
        lrscape.errors.InputError: models='lrscape.models.plain:MPL': \
module 'lrscape.models.plain' has no 'MPL'
    """
    if name not in models.NAMES:
        _register(field, name)
    if "embedding" in models.fields_of(name):
        raise InputError(f"{field}={name!r} reads text, and not images; choose another")
    return name


def _register(field: str, name: str) -> None:
    """Imports a model, and makes it known by its name."""
    module, colon, factory = name.partition(":")
    if not colon:
        raise unknown_name(field, name, models.NAMES)
    try:
        found = importlib.import_module(module)
    except (ImportError, ValueError) as error:  # an empty or a relative name
        raise InputError(
            f"{field}={name!r}: {error}; it is imported as Python finds it, from the "
            "working directory or from what is installed"
        ) from error
    if not hasattr(found, factory):
        raise InputError(f"{field}={name!r}: module {module!r} has no {factory!r}")
    models.register(name, getattr(found, factory))
