"""Surveying: pure probes of the ground, functions of an objective and a point.

A *point* is any pytree of floating-point arrays: Flax parameters, an NNX state, a dict,
a dataclass. An *objective* is a mean of a loss over a fixed sample: `mean_objective`
makes one of any loss, `flax_objective` of a Linen model; a bare function of a point
will do too.
"""

from lrscape.landscape.accumulate import accumulate as accumulate
from lrscape.landscape.accumulate import batch_losses as batch_losses
from lrscape.landscape.accumulate import gradient as gradient
from lrscape.landscape.asymmetry import Asymmetry as Asymmetry
from lrscape.landscape.asymmetry import asymmetry as asymmetry
from lrscape.landscape.asymmetry import is_asymmetric as is_asymmetric
from lrscape.landscape.curvature import frobenius_norm as frobenius_norm
from lrscape.landscape.curvature import layer_shares as layer_shares
from lrscape.landscape.curvature import spectral_density as spectral_density
from lrscape.landscape.curvature import spectral_norm as spectral_norm
from lrscape.landscape.curvature import subspace_overlap as subspace_overlap
from lrscape.landscape.curvature import top_eigenpairs as top_eigenpairs
from lrscape.landscape.curvature import trace as trace
from lrscape.landscape.density import Quadrature as Quadrature
from lrscape.landscape.density import SpectralDensity as SpectralDensity
from lrscape.landscape.density import broadened as broadened
from lrscape.landscape.density import default_broadening as default_broadening
from lrscape.landscape.direction import difference as difference
from lrscape.landscape.direction import flipped_direction as flipped_direction
from lrscape.landscape.direction import fooling_direction as fooling_direction
from lrscape.landscape.direction import gaussian_direction as gaussian_direction
from lrscape.landscape.direction import normalized as normalized
from lrscape.landscape.direction import ones_direction as ones_direction
from lrscape.landscape.direction import uniform_direction as uniform_direction
from lrscape.landscape.distance import Estimate as Estimate
from lrscape.landscape.distance import disagreement as disagreement
from lrscape.landscape.distance import disagreement_estimate as disagreement_estimate
from lrscape.landscape.distance import distance_objective as distance_objective
from lrscape.landscape.distance import functional_distance as functional_distance
from lrscape.landscape.distance import (
    functional_distance_estimate as functional_distance_estimate,
)
from lrscape.landscape.distance import parameter_distance as parameter_distance
from lrscape.landscape.eigenpairs import Eigenpairs as Eigenpairs
from lrscape.landscape.eigenpairs import SpectralNorm as SpectralNorm
from lrscape.landscape.equinox_objective import (
    equinox_objective as equinox_objective,
)
from lrscape.landscape.flatness import Curves as Curves
from lrscape.landscape.flatness import average_slope as average_slope
from lrscape.landscape.flatness import perturbation_losses as perturbation_losses
from lrscape.landscape.flax_objective import flax_objective as flax_objective
from lrscape.landscape.inputs import EquivalentPerturbation as EquivalentPerturbation
from lrscape.landscape.inputs import (
    equivalent_weight_perturbation as equivalent_weight_perturbation,
)
from lrscape.landscape.inputs import input_losses as input_losses
from lrscape.landscape.inputs import neighbor_moves as neighbor_moves
from lrscape.landscape.inputs import noise_moves as noise_moves
from lrscape.landscape.mask import all_but as all_but
from lrscape.landscape.mask import as_many_others as as_many_others
from lrscape.landscape.mask import as_mask as as_mask
from lrscape.landscape.mask import batch_norm_only as batch_norm_only
from lrscape.landscape.mask import batch_norm_scales as batch_norm_scales
from lrscape.landscape.mask import first_layer as first_layer
from lrscape.landscape.mask import layer_only as layer_only
from lrscape.landscape.model_objective import ModelObjective as ModelObjective
from lrscape.landscape.moments import Estimated as Estimated
from lrscape.landscape.moments import Moments as Moments
from lrscape.landscape.nnx_objective import nnx_objective as nnx_objective
from lrscape.landscape.noise import gradient_variance as gradient_variance
from lrscape.landscape.objective import Objective as Objective
from lrscape.landscape.objective import mean_objective as mean_objective
from lrscape.landscape.operator import NonFiniteProductError as NonFiniteProductError
from lrscape.landscape.operator import Operator as Operator
from lrscape.landscape.precision import in_double as in_double
from lrscape.landscape.products import ggnvp as ggnvp
from lrscape.landscape.products import hvp as hvp
from lrscape.landscape.products import residual_product as residual_product
from lrscape.landscape.products import second_moment_product as second_moment_product
from lrscape.landscape.recalibration import recalibrate as recalibrate
from lrscape.landscape.segment import barrier_height as barrier_height
from lrscape.landscape.segment import crosses_barrier as crosses_barrier
from lrscape.landscape.segment import has_floor as has_floor
from lrscape.landscape.segment import height as height
from lrscape.landscape.segment import segment_losses as segment_losses
from lrscape.landscape.segment import valley_floor as valley_floor
from lrscape.landscape.shift import LineShift as LineShift
from lrscape.landscape.shift import ShiftGap as ShiftGap
from lrscape.landscape.shift import best_shift as best_shift
from lrscape.landscape.shift import shift_gap as shift_gap
from lrscape.landscape.shift import shift_gap_search as shift_gap_search
from lrscape.landscape.slopes import SlopeProfile as SlopeProfile
from lrscape.landscape.slopes import slope_objective as slope_objective
from lrscape.landscape.slopes import slope_profile as slope_profile
from lrscape.landscape.subspace import Subspace as Subspace
from lrscape.landscape.subspace import barycentric as barycentric
from lrscape.landscape.subspace import bilinear as bilinear
from lrscape.landscape.subspace import grid as grid
from lrscape.landscape.subspace import line as line
from lrscape.landscape.subspace import plane as plane
from lrscape.landscape.subspace import ray as ray
from lrscape.landscape.subspace import span as span
from lrscape.landscape.surface import Surface as Surface
from lrscape.landscape.surface import evaluate as evaluate
from lrscape.landscape.surface import measure as measure
from lrscape.landscape.text_objective import TextObjective as TextObjective
from lrscape.landscape.text_objective import text_objective as text_objective
from lrscape.landscape.torch_objective import TorchObjective as TorchObjective
from lrscape.landscape.torch_objective import from_torch as from_torch
from lrscape.landscape.tracking import CurvatureTrack as CurvatureTrack
from lrscape.landscape.trajectory import PCAPlane as PCAPlane
from lrscape.landscape.trajectory import pca_plane as pca_plane
from lrscape.landscape.valleys import DirectionSearch as DirectionSearch
from lrscape.landscape.valleys import Neighborhood as Neighborhood
from lrscape.landscape.valleys import (
    find_asymmetric_direction as find_asymmetric_direction,
)
from lrscape.landscape.valleys import nearby_asymmetry as nearby_asymmetry
from lrscape.landscape.walk import Walk as Walk
from lrscape.layers import table as layer_table  # noqa: F401

FlaxObjective = ModelObjective  # the name from when it was of Linen models alone
