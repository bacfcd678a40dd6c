"""Names of `lrscape.landscape` from before, for one more release.

Reading one warns and says what to write instead.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import jax

from lrscape.landscape.density import Quadrature
from lrscape.landscape.distance import Estimate, distances_with_errors
from lrscape.landscape.moments import Moments
from lrscape.landscape.operator import Operator

_HERE = "lrscape.landscape"

# Old name -> where the same object is now.
MOVED = {
    "Asymmetry": f"{_HERE}.asymmetry.Asymmetry",
    "Curves": f"{_HERE}.flatness.Curves",
    "DirectionSearch": f"{_HERE}.valleys.DirectionSearch",
    "Eigenpairs": f"{_HERE}.eigenpairs.Eigenpairs",
    "EquivalentPerturbation": f"{_HERE}.inputs.EquivalentPerturbation",
    "Estimate": f"{_HERE}.distance.Estimate",
    "Estimated": f"{_HERE}.moments.Estimated",
    "FlaxObjective": f"{_HERE}.model_objective.ModelObjective",
    "LineShift": f"{_HERE}.shift.LineShift",
    "ModelObjective": f"{_HERE}.model_objective.ModelObjective",
    "Moments": f"{_HERE}.moments.Moments",
    "Neighborhood": f"{_HERE}.valleys.Neighborhood",
    "NonFiniteProductError": f"{_HERE}.operator.NonFiniteProductError",
    "PCAPlane": f"{_HERE}.trajectory.PCAPlane",
    "Quadrature": f"{_HERE}.density.Quadrature",
    "ShiftGap": f"{_HERE}.shift.ShiftGap",
    "SlopeProfile": f"{_HERE}.slopes.SlopeProfile",
    "SpectralDensity": f"{_HERE}.density.SpectralDensity",
    "SpectralNorm": f"{_HERE}.eigenpairs.SpectralNorm",
    "Subspace": f"{_HERE}.subspace.Subspace",
    "Surface": f"{_HERE}.surface.Surface",
    "TextObjective": f"{_HERE}.text_objective.TextObjective",
    "TorchObjective": f"{_HERE}.torch_objective.TorchObjective",
    "all_but": f"{_HERE}.masks.all_but",
    "as_many_others": f"{_HERE}.masks.as_many_others",
    "as_mask": f"{_HERE}.masks.as_mask",
    "batch_losses": f"{_HERE}.accumulate.batch_losses",
    "batch_norm_only": f"{_HERE}.masks.batch_norm_only",
    "batch_norm_scales": f"{_HERE}.masks.batch_norm_scales",
    "best_shift": f"{_HERE}.shift.best_shift",
    "broadened": f"{_HERE}.density.broadened",
    "default_broadening": f"{_HERE}.density.default_broadening",
    "difference": f"{_HERE}.direction_between",
    "distance_objective": f"{_HERE}.distance.distance_objective",
    "equivalent_weight_perturbation": f"{_HERE}.inputs.equivalent_weight_perturbation",
    "first_layer": f"{_HERE}.masks.first_layer",
    "flipped_direction": f"{_HERE}.direction.flipped_direction",
    "gradient": f"{_HERE}.loss_gradient",
    "gradient_variance": f"{_HERE}.noise.gradient_variance",
    "grid": f"{_HERE}.grid_coordinates",
    "input_losses": f"{_HERE}.inputs.input_losses",
    "layer_only": f"{_HERE}.masks.layer_only",
    "layer_shares": f"{_HERE}.curvature.layer_shares",
    "layer_table": "lrscape.layers.table",
    "measure": f"{_HERE}.measure_surface",
    "nearby_asymmetry": f"{_HERE}.valleys.nearby_asymmetry",
    "neighbor_moves": f"{_HERE}.inputs.neighbor_moves",
    "noise_moves": f"{_HERE}.inputs.noise_moves",
    "normalized": f"{_HERE}.direction.normalized",
    "ones_direction": f"{_HERE}.direction.ones_direction",
    "residual_product": f"{_HERE}.products.residual_product",
    "second_moment_product": f"{_HERE}.products.second_moment_product",
    "shift_gap_search": f"{_HERE}.shift.shift_gap_search",
    "slope_objective": f"{_HERE}.slopes.slope_objective",
    "subspace_overlap": f"{_HERE}.curvature.subspace_overlap",
}


def _spectral_moments(
    objective: Any, point: Any, *, key: jax.Array, num_samples: int, **options: Any
) -> Moments:
    operator = Operator(objective, point, **options)
    return operator.spectral_moments(key=key, num_samples=num_samples)


def _spectral_quadrature(
    objective: Any,
    point: Any,
    *,
    key: jax.Array,
    num_matvecs: int,
    num_samples: int,
    compiled: bool | None = None,
    **options: Any,
) -> Quadrature:
    operator = Operator(objective, point, **options)
    return operator.spectral_quadrature(
        key=key, num_matvecs=num_matvecs, num_samples=num_samples, compiled=compiled
    )


def _functional_distance_estimate(*args: Any, **options: Any) -> Estimate:
    return distances_with_errors(*args, **options).functional_distance


def _disagreement_estimate(*args: Any, **options: Any) -> Estimate:
    return distances_with_errors(*args, **options).disagreement


# Old name -> a function that does the same, and what to write instead.
REPLACED: dict[str, tuple[Callable[..., Any], str]] = {
    "disagreement_estimate": (
        _disagreement_estimate,
        f"{_HERE}.distance.distances_with_errors(...).disagreement",
    ),
    "functional_distance_estimate": (
        _functional_distance_estimate,
        f"{_HERE}.distance.distances_with_errors(...).functional_distance",
    ),
    "spectral_moments": (
        _spectral_moments,
        f"{_HERE}.Operator(objective, point).spectral_moments",
    ),
    "spectral_quadrature": (
        _spectral_quadrature,
        f"{_HERE}.Operator(objective, point).spectral_quadrature",
    ),
}


def moved(name: str) -> Any:
    """Returns what an old name of `lrscape.landscape` stood for, with a warning.

    Args:
        name: the old name.

    Returns:
        The object.

    Raises:
        AttributeError: a name that there never was.
    """
    if name in REPLACED:
        found, place = REPLACED[name]
    elif name in MOVED:
        place = MOVED[name]
        module, _, attribute = place.rpartition(".")
        found = getattr(importlib.import_module(module), attribute)
    else:
        raise AttributeError(f"module {_HERE!r} has no attribute {name!r}")
    # To whoever reads the attribute: beyond this function and the module's own.
    warnings.warn(
        f"{_HERE}.{name} is deprecated and goes after one release: use {place}",
        DeprecationWarning,
        stacklevel=3,
    )
    return found
