"""Detects operations that are slow within a compiled loop on CPU."""

from __future__ import annotations

import jax

from lrscape.jaxprs import convolutions
from lrscape.landscape.programs import once_a_shape
from lrscape.landscape.protocol import filled_in


def loops_slowly(function, objective, point, args) -> bool:
    """Whether a compiled loop over batches around `function` would be slow here."""
    if objective.num_batches == 1:
        return False
    return sums_over_examples(function, objective, point, args)


def sums_over_examples(function, objective, point, args) -> bool:
    """Whether `function` has what a compiled loop on CPU must not contain.

    That is a convolution's weight gradient, which runs tens of times slower there. In
    JAX it is the convolution that sums over the examples: the one whose first axis is
    not its input's batch.
    """
    if jax.default_backend() != "cpu":
        return False
    return _has_such_a_convolution(
        jax.tree_util.Partial(function), objective, point, args
    )


@once_a_shape
def _has_such_a_convolution(function, objective, point, args) -> bool:
    jaxpr = jax.make_jaxpr(
        lambda o, p, a: function(filled_in(o, p), p, o.batch(0), *a),
    )(objective, point, args)
    return any(
        equation.params["dimension_numbers"].lhs_spec[0] != 0
        for equation in convolutions(jaxpr.jaxpr)
    )
