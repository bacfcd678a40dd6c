"""What was measured on several networks and seeds, and what walks have crossed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr


def barriers(walk: xr.Dataset, prefix: str = "") -> np.ndarray:
    """At which updates of a walk a barrier is crossed."""
    return walk[f"{prefix}crosses_barrier"].values.astype(bool)


def on_both(walk: xr.Dataset) -> np.ndarray:
    """At which updates one is crossed on both samples."""
    return barriers(walk) & barriers(walk, "second_")


def joined(found: Mapping[str, Sequence[xr.Dataset]], along: str = "step"):
    """Data sets of several networks and seeds as one.

    Args:
        found: name -> one a seed, each over the dimension `along`.
        along: renamed, since it may differ from one name to the next, as the number
            of seeds may.

    Returns:
        Variables ``NAME_VARIABLE`` over ``NAME_seed`` and ``NAME_step``.
    """
    variables = {}
    for name, several in found.items():
        both = xr.concat(
            list(several), "seed", combine_attrs="drop_conflicts", join="outer"
        )
        both = both.rename({along: f"{name}_{along}", "seed": f"{name}_seed"})
        variables.update({f"{name}_{k}": both[k] for k in both.data_vars})
    return xr.Dataset(variables)
