"""Probes of the loss landscape: pure functions of an objective and a point.

A *point* is any pytree of floating-point arrays: Flax parameters, an NNX state, a dict,
a dataclass. An *objective* is a mean of a loss over a fixed sample: `mean_objective`
makes one of any loss, `flax_objective` of a Linen model; a bare function of a point
will do too.

Masks are in `lrscape.landscape.masks`. Less common probes, and the records that results
come as, are in modules of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lrscape.landscape import masks as masks
from lrscape.landscape.accumulate import accumulate as accumulate
from lrscape.landscape.accumulate import loss_gradient as loss_gradient
from lrscape.landscape.asymmetry import asymmetry as asymmetry
from lrscape.landscape.asymmetry import is_asymmetric as is_asymmetric
from lrscape.landscape.curvature import frobenius_norm as frobenius_norm
from lrscape.landscape.curvature import spectral_density as spectral_density
from lrscape.landscape.curvature import spectral_norm as spectral_norm
from lrscape.landscape.curvature import top_eigenpairs as top_eigenpairs
from lrscape.landscape.curvature import trace as trace
from lrscape.landscape.deprecated import moved as _moved
from lrscape.landscape.direction import direction_between as direction_between
from lrscape.landscape.direction import fooling_direction as fooling_direction
from lrscape.landscape.direction import gaussian_direction as gaussian_direction
from lrscape.landscape.direction import uniform_direction as uniform_direction
from lrscape.landscape.distance import disagreement as disagreement
from lrscape.landscape.distance import functional_distance as functional_distance
from lrscape.landscape.distance import parameter_distance as parameter_distance
from lrscape.landscape.equinox_objective import equinox_objective as equinox_objective
from lrscape.landscape.flatness import average_slope as average_slope
from lrscape.landscape.flatness import perturbation_losses as perturbation_losses
from lrscape.landscape.flax_objective import flax_objective as flax_objective
from lrscape.landscape.nnx_objective import nnx_objective as nnx_objective
from lrscape.landscape.objective import Objective as Objective
from lrscape.landscape.objective import mean_objective as mean_objective
from lrscape.landscape.operator import Operator as Operator
from lrscape.landscape.precision import in_double as in_double
from lrscape.landscape.products import ggnvp as ggnvp
from lrscape.landscape.products import hvp as hvp
from lrscape.landscape.recalibration import recalibrate as recalibrate
from lrscape.landscape.segment import barrier_height as barrier_height
from lrscape.landscape.segment import crosses_barrier as crosses_barrier
from lrscape.landscape.segment import has_floor as has_floor
from lrscape.landscape.segment import height as height
from lrscape.landscape.segment import segment_losses as segment_losses
from lrscape.landscape.segment import valley_floor as valley_floor
from lrscape.landscape.shift import shift_gap as shift_gap
from lrscape.landscape.slopes import slope_profile as slope_profile
from lrscape.landscape.subspace import barycentric as barycentric
from lrscape.landscape.subspace import bilinear as bilinear
from lrscape.landscape.subspace import grid_coordinates as grid_coordinates
from lrscape.landscape.subspace import line as line
from lrscape.landscape.subspace import plane as plane
from lrscape.landscape.subspace import ray as ray
from lrscape.landscape.subspace import span as span
from lrscape.landscape.surface import evaluate as evaluate
from lrscape.landscape.surface import measure_surface as measure_surface
from lrscape.landscape.text_objective import text_objective as text_objective
from lrscape.landscape.torch_objective import from_torch as from_torch
from lrscape.landscape.tracking import CurvatureTrack as CurvatureTrack
from lrscape.landscape.trajectory import pca_plane as pca_plane
from lrscape.landscape.valleys import (
    find_asymmetric_direction as find_asymmetric_direction,
)
from lrscape.landscape.walk import Walk as Walk

__all__ = [
    "CurvatureTrack",
    "Objective",
    "Operator",
    "Walk",
    "accumulate",
    "asymmetry",
    "average_slope",
    "barrier_height",
    "barycentric",
    "bilinear",
    "crosses_barrier",
    "direction_between",
    "disagreement",
    "equinox_objective",
    "evaluate",
    "find_asymmetric_direction",
    "flax_objective",
    "fooling_direction",
    "frobenius_norm",
    "from_torch",
    "functional_distance",
    "gaussian_direction",
    "ggnvp",
    "grid_coordinates",
    "has_floor",
    "height",
    "hvp",
    "in_double",
    "is_asymmetric",
    "line",
    "loss_gradient",
    "masks",
    "mean_objective",
    "measure_surface",
    "nnx_objective",
    "parameter_distance",
    "pca_plane",
    "perturbation_losses",
    "plane",
    "ray",
    "recalibrate",
    "segment_losses",
    "shift_gap",
    "slope_profile",
    "span",
    "spectral_density",
    "spectral_norm",
    "text_objective",
    "top_eigenpairs",
    "trace",
    "uniform_direction",
    "valley_floor",
]


# Type checkers see the imports above alone, so that they find a misspelt name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        return _moved(name)


def __dir__() -> list[str]:
    return list(__all__)
