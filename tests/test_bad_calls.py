"""Bad calls of the public API: refused by name and value, before anything is compiled.

A row is a function, arguments that work, and values of one of them that do not; the
error has to be an `InputError` that says which argument, and what was given for it.
"""

import dataclasses
import functools
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lrscape import (
    data,
    figures,
    landscape,
    layers,
    models,
    records,
    report,
    runs,
    schedules,
    training,
    transforms,
)
from lrscape.errors import InputError
from lrscape.landscape import inputs, noise
from lrscape.landscape.accumulate import batch_losses
from tests.mapped import compilations

NAN, INF = float("nan"), float("inf")
HUGE = 10**30
HOST = np.array([1.0, 2.0])

# Values that will not do, by what an argument is. None is among them where it is no
# default.
COUNT = [0, -1, 1.5, "3", True, NAN, INF, HUGE, [1], 2j]
NEEDED_COUNT = [*COUNT, None]
WHOLE = [-1, 1.5, "3", True, NAN, HUGE]
STEPS = [0, -3, 1.5, "3", None, True, NAN, INF, HUGE, [10]]
POSITIVE = [0, -0.1, "0.1", True, NAN, INF, 1j, [0.1], 10**400]
NEEDED_POSITIVE = [*POSITIVE, None]
NOT_NEGATIVE = [-0.1, "0.1", True, NAN, INF, 1j, [0.1]]
FRACTION = [-0.1, 1.5, "0.5", True, NAN]
BELOW_ONE = [*FRACTION, 1.0]
FLAG = [1, "yes", None]
NAME = ["nosuch", 3, ["a"]]
NEEDED_NAME = [*NAME, None]
FUNCTION = [None, 3, "f"]
KEY = [0, None, "key", HOST, np.zeros((3, 2), np.uint32)]
DEVICES = [[], ["cpu"], "cpu", 3]
PATH = [3, "", b"x", "a\0b"]
NEEDED_PATH = [*PATH, None]

POINT = {"w": np.ones((3, 2), np.float32), "b": np.ones(2, np.float32)}
ANOTHER = {"w": np.ones((3, 2), np.float32), "c": np.ones(2, np.float32)}
LARGER = {"w": np.ones((4, 2), np.float32), "b": np.ones(2, np.float32)}
WHOLE_NUMBERS = {"w": np.ones((3, 2), np.int32), "b": np.ones(2, np.float32)}
NO_POINT = [None, {}, "point", {"w": "x"}, {"w": None}, WHOLE_NUMBERS]
NO_TREE = [*NO_POINT, ANOTHER, LARGER]
ZERO = jax.tree.map(np.zeros_like, POINT)
NAN_TREE = {"w": np.full((3, 2), NAN, np.float32), "b": POINT["b"]}
MASK = [
    3, "w", {"w": True}, {"w": 1, "b": 0}, {"w": False, "b": False}, lambda path: False
]  # fmt: skip


class AskedForLossError(Exception):
    """A loss was asked for before the arguments were looked at."""


def loss(point):
    raise AskedForLossError


def mean_loss(point, batch):
    raise AskedForLossError


def plain_loss(point, batch=None):
    return jnp.sum(point["w"] ** 2) + jnp.sum(point["b"] ** 2)


rows = []


def bad(function, good, /, *, by=None, **fields):
    """Adds a row for each value of each field.

    Args:
        function: what is called.
        good: the arguments that work, by name.
        by: what calls it, ``(**arguments)``, where arguments have no names.
        **fields: values that will not do, by argument; or the words of the message and
            the values.
    """
    name = getattr(function, "__name__", str(function))
    for field, values in fields.items():
        words, values = values if isinstance(values, tuple) else ([field], values)
        for value in values:
            arguments = {**good, field: value}
            rows.append((
                f"{name}({field}={_short(value)})",
                functools.partial(by or function, **arguments),
                words,
                _said(value),
            ))  # fmt: skip


def once(name, function, *words):
    """Adds a single row."""
    rows.append((name, function, words, None))


def _short(value):
    if isinstance(value, dict | list | tuple) and value:
        return type(value).__name__
    if hasattr(value, "shape"):
        return f"array{value.shape}"
    if callable(value):
        return "function"
    return " ".join(str(value).encode("unicode_escape").decode().split())[:20]


def _said(value):
    """The ways in which a message may repeat a value; None where it need not."""
    if isinstance(value, bool | None | str | complex):
        return [repr(value)]
    if isinstance(value, int | float):
        if abs(value) > 1e300 and value != INF:
            return ["1000000"]
        return [repr(value), repr(float(value))]
    return None


# Schedules.

for function, good in {
    schedules.gaussian: {"peak_value": 0.1, "total_steps": 10},
    schedules.laplacian: {"peak_value": 0.1, "total_steps": 10},
    schedules.rational: {"init_value": 0.1, "total_steps": 10, "decay": 2.0},
    schedules.step: {"init_value": 0.1, "total_steps": 10},
    schedules.triangular: {"peak_value": 0.1, "cycle_steps": 10, "base_value": 0.0},
    schedules.trapezoid: {
        "peak_value": 0.1, "total_steps": 10, "start_value": 0.0, "end_value": 0.0,
        "rise": 0.1, "fall": 0.1,
    },
    schedules.swa: {
        "init_value": 0.1, "total_steps": 10, "swa_value": 0.05, "start": 0.5,
        "end": 0.9,
    },
}.items():  # fmt: skip
    rate, length = list(good)[:2]
    bad(function, good, **{rate: NEEDED_POSITIVE, length: STEPS})
GAUSSIAN = {"peak_value": 0.1, "total_steps": 10}
bad(
    schedules.gaussian, GAUSSIAN,
    start_value=[0, -1, "x", 0.2, NAN, True], end_value=[0, -1, "x", 0.2, NAN],
    variance=[0, -1, "x", NAN, 1e-300],
)  # fmt: skip
bad(schedules.laplacian, GAUSSIAN, scale=[0, -1, "x", NAN, 1e-300])
bad(schedules.rational, {"init_value": 0.1, "total_steps": 10}, decay=NOT_NEGATIVE)
bad(
    schedules.step, {"init_value": 0.1, "total_steps": 10},
    factor=[0, -1, 2.0, "x", None, NAN, True],
    milestones=["x", None, 0.5, (0.5, 0.2), (0.0,), (2.0,), ("a",), (NAN,), (True,)],
)  # fmt: skip
bad(
    schedules.triangular, {"peak_value": 0.1, "cycle_steps": 10},
    base_value=[*NOT_NEGATIVE, 0.2],
)  # fmt: skip
TRAPEZOID = {
    "peak_value": 0.1, "total_steps": 10, "start_value": 0.0, "end_value": 0.0,
    "rise": 0.1, "fall": 0.1,
}  # fmt: skip
bad(
    schedules.trapezoid, TRAPEZOID, start_value=[*NOT_NEGATIVE, 0.2],
    end_value=[*NOT_NEGATIVE, 0.2], rise=[*NOT_NEGATIVE, 0.95],
    fall=[*NOT_NEGATIVE, 0.95],
)  # fmt: skip
SWA = {
    "init_value": 0.1, "total_steps": 10, "swa_value": 0.05, "start": 0.5, "end": 0.9,
}  # fmt: skip
bad(
    schedules.swa, SWA, swa_value=POSITIVE, start=[*NOT_NEGATIVE, 0.95],
    end=[*NOT_NEGATIVE, 0.3, 1.5],
)  # fmt: skip
bad(
    schedules.per_epoch,
    {"schedule": optax.constant_schedule(0.1), "steps_per_epoch": 2},
    schedule=FUNCTION, steps_per_epoch=STEPS,
)  # fmt: skip
bad(
    schedules.create, {**GAUSSIAN, "name": "gaussian"},
    name=(["schedule"], NEEDED_NAME), nosuch=[3], total_steps=STEPS[:3],
)  # fmt: skip
once(
    "create lacks", lambda: schedules.create("gaussian", peak_value=0.1), "total_steps"
)
for count in ("3", None, 1j, [None], {"a": 1}):
    once(
        f"schedule({count})",
        lambda count=count: schedules.gaussian(0.1, 10)(count),
        "count",
    )

# Transformations.

bad(transforms.scale_by_rate, {}, schedule=[None, 0.1, "x"])
bad(transforms.scale_by_gaussian, GAUSSIAN, peak_value=POSITIVE, total_steps=STEPS)
bad(
    transforms.runge_kutta, {"method": "heun", "learning_rate": 0.1},
    method=NEEDED_NAME, learning_rate=NEEDED_POSITIVE,
)  # fmt: skip
bad(
    transforms.switch,
    {"transforms": [optax.sgd(0.1), optax.adam(0.1)], "boundaries": [3]},
    transforms=[None, 3, [], [optax.sgd(0.1)], [optax.sgd(0.1), 3],
                [optax.sgd(0.1), lambda count: 0.1], "ab"],
    boundaries=[None, [], [0], [-1], [1.5], ["3"], [3, 4], [True], [NAN], [HUGE]],
)  # fmt: skip
bad(
    transforms.average_weights, {"start": 3}, start=[*WHOLE, None, [3]],
    every=NEEDED_COUNT, total_steps=[0, 2, 1.5, "x", True],
)  # fmt: skip
for value in MASK:
    once(
        f"average_weights(mask={_short(value)})",
        lambda value=value: transforms.average_weights(3, mask=value).init(POINT),
        "mask",
    )
AVERAGED = transforms.average_weights(1)
bad(transforms.averaged, {"params": POINT, "opt_state": None}, opt_state=[None, 3, ()])
once(
    "averaged(another)",
    lambda: transforms.averaged(
        AVERAGED.init(POINT)._replace(num_averaged=np.int32(1)), ANOTHER
    ),
    "params",
)
once(
    "averaged(larger)",
    lambda: transforms.averaged(
        AVERAGED.init(POINT)._replace(num_averaged=np.int32(1)), LARGER
    ),
    "params",
)
bad(
    transforms.averaged, {"opt_state": AVERAGED.init(POINT), "params": POINT},
    which=[1, -1, 1.5, "x", True],
)  # fmt: skip
LIPSCHITZ = {"num_classes": 10, "batch_size": 8}
CONSTANT = {**LIPSCHITZ, "activation_norm": 2.0}
for function, good in {
    transforms.lipschitz_constant: CONSTANT,
    transforms.scale_by_lipschitz: LIPSCHITZ,
    transforms.lipschitz_sgd: LIPSCHITZ,
    transforms.lipschitz_momentum: LIPSCHITZ,
    transforms.lipschitz_rmsprop: LIPSCHITZ,
    transforms.lipschitz_adam: LIPSCHITZ,
}.items():
    bad(
        function, good, num_classes=[*COUNT, 1, None], batch_size=NEEDED_COUNT,
        weight_decay=NOT_NEGATIVE, loss=NEEDED_NAME, form=NEEDED_NAME,
        norm=NEEDED_NAME, activation_norm=[-1.0, HOST, "x", True, 1j],
        weight_norm=[-1.0, "x", True, 1j],
    )  # fmt: skip
bad(transforms.lipschitz_constant, LIPSCHITZ, activation_norm=[None])
bad(
    transforms.lipschitz_constant, {**CONSTANT, "loss": "squared_error"},
    output_norm=[None, -1.0, "x", HOST],
)  # fmt: skip
bad(
    transforms.scale_by_lipschitz, LIPSCHITZ, window=NEEDED_COUNT,
    max_rate=NEEDED_POSITIVE, b1=BELOW_ONE, b2=BELOW_ONE, weight_norm=[1.0],
)  # fmt: skip
bad(transforms.lipschitz_momentum, LIPSCHITZ, momentum=[*BELOW_ONE, None])
bad(
    transforms.lipschitz_rmsprop, LIPSCHITZ, decay=[*BELOW_ONE, None],
    eps=[-1.0, "x", NAN, None],
)  # fmt: skip
bad(
    transforms.lipschitz_adam, LIPSCHITZ, b1=[*BELOW_ONE, None], b2=[*BELOW_ONE, None],
    eps=[-1.0, "x", NAN, None],
)  # fmt: skip
HELD = transforms.lipschitz_sgd(**CONSTANT)
bad(
    transforms.hold_norms, {"opt_state": HELD.init(POINT), "activation_norm": 1.0},
    activation_norm=[None, -1.0, "x", NAN, HOST, True], weight_norm=[-1.0, "x", NAN],
    opt_state=[None, 3, ()],
)  # fmt: skip
for value in (-1.0, "x", HOST, None, True):
    once(
        f"scale_by_lipschitz.update(activation_norm={_short(value)})",
        lambda value=value: transforms.scale_by_lipschitz(**LIPSCHITZ).update(
            POINT,
            transforms.scale_by_lipschitz(**LIPSCHITZ).init(POINT),
            POINT,
            activation_norm=value,
        ),
        "activation_norm",
    )
bad(transforms.activation_norms, {}, activations=[None, "x", {}])

# Subspaces and their points.

bad(landscape.line, {"a": POINT, "b": POINT}, a=NO_POINT, b=NO_TREE)
bad(
    landscape.ray, {"origin": POINT, "direction": POINT}, origin=NO_POINT,
    direction=[*NO_TREE, ZERO, NAN_TREE], absolute=FLAG,
)  # fmt: skip
E1 = {"w": np.eye(3, 2, dtype=np.float32), "b": np.zeros(2, np.float32)}
TWICE = jax.tree.map(lambda leaf: 2 * leaf, E1)
bad(
    landscape.plane, {"origin": POINT, "u": E1, "v": POINT}, u=[*NO_TREE, ZERO],
    v=[*NO_TREE, ZERO, TWICE, NAN_TREE],
)  # fmt: skip
bad(
    landscape.barycentric, {"a": ZERO, "b": E1, "c": POINT}, b=NO_TREE,
    c=[*NO_TREE, TWICE],
)  # fmt: skip
once("barycentric(u, u, u)", lambda: landscape.barycentric(E1, E1, E1), "line")
once("span(o, u, 2 u)", lambda: landscape.span(ZERO, E1, TWICE), "dependent|parallel")
once("span(o)", lambda: landscape.span(ZERO), "directions")
for value in (*NO_TREE, ZERO):
    once(
        f"span(o, {_short(value)})",
        lambda value=value: landscape.span(ZERO, value),
        "direction",
    )
bad(
    landscape.bilinear, {"a": ZERO, "b": E1, "c": POINT, "d": ZERO}, b=NO_TREE,
    d=[None, LARGER],
)  # fmt: skip
for value in ("ab", ["a", "b"], np.ones((2, 2)), None, 3, [], [1j], [True], [NAN]):
    once(
        f"grid({_short(value)})",
        lambda value=value: landscape.grid_coordinates(value),
        "axes",
    )
once("grid()", landscape.grid_coordinates, "axes")
bad(
    landscape.pca_plane, {"points": [ZERO, E1, POINT]}, origin=NEEDED_NAME,
    points=(["point"], [
        None, 3, "abc", [], [ZERO, E1], [ZERO, E1, None], [ZERO, E1, ANOTHER],
        [ZERO, E1, NAN_TREE], [ZERO, ZERO, ZERO],
    ]),
)  # fmt: skip
LINE = landscape.line(ZERO, POINT)
for value in ("x", None, [0.1], 1j):
    once(f"line({_short(value)})", lambda value=value: LINE(value), "coordinates")
SURFACE = {"objective": loss, "subspace": LINE, "coordinates": [0.0, 1.0]}
for function in (landscape.evaluate, landscape.measure_surface):
    bad(
        function, SURFACE, objective=FUNCTION, subspace=[None, 3, "line", POINT],
        coordinates=["x", None, ["a"], [], [1j], [[0.1], [0.2, 0.3]], [None], [True]],
        chunk_size=COUNT, store=PATH, progress=FLAG, devices=DEVICES,
    )  # fmt: skip
PLANE = landscape.plane(ZERO, E1, POINT)
bad(
    landscape.evaluate, {**SURFACE, "subspace": PLANE},
    coordinates=[np.array(0.1), [0.1, 0.2, 0.3], np.ones((2, 3))],
)  # fmt: skip
for name, wrong in {
    "complex": lambda p: jax.lax.complex(p["w"], p["w"]).sum(),
    "vector": lambda p: p["b"],
    "None": lambda p: None,
    "text": lambda p: "x",
    "no key": lambda p: {"error": jnp.sum(p["w"])},
}.items():
    once(
        f"evaluate({name} loss)",
        lambda wrong=wrong: landscape.evaluate(wrong, LINE, [0.0, 1.0]),
        "loss",
    )
    once(
        f"gradient({name} loss)",
        lambda wrong=wrong: landscape.loss_gradient(wrong, POINT),
        "loss",
    )
MEASURED = landscape.surface.Surface(
    np.array([0.0, 1.0]), np.zeros(2), np.zeros(2), 0, 1, 1, 2, 0.1, {}
)
bad(
    MEASURED.to_dataset, {"axes": {"alpha": [0.0, 1.0]}},
    axes=[None, 3, "alpha", {}, {"alpha": [0.0]}, {"alpha": [10, 20]},
          {"a": [0.0], "b": [1.0]}, {"alpha": ["a", "b"]}, {"alpha": None}],
    units=[3, "nat", ["nat"]],
)  # fmt: skip
SEGMENT = {"objective": loss, "point": POINT, "next_point": E1}
bad(
    landscape.segment_losses, SEGMENT, objective=FUNCTION, point=NO_POINT,
    next_point=NO_TREE, num_points=NEEDED_COUNT,
)  # fmt: skip
for function in (
    landscape.barrier_height, landscape.crosses_barrier, landscape.has_floor,
    landscape.valley_floor, landscape.height,
):  # fmt: skip
    bad(
        function, {},
        losses=[None, "x", np.ones(()), [1.0, 2.0], ["a", "b", "c"], [1j, 1, 2]],
    )  # fmt: skip
WALK = {"objective": loss, "windows": [(0, 3)]}
bad(
    landscape.Walk, WALK, objective=FUNCTION, num_points=NEEDED_COUNT,
    chunk_size=COUNT, devices=DEVICES, second=(["objective"], [3, "x"]),
    reference=NO_POINT[1:],
    windows=[None, 3, "01", [], [(0, 1.5)], [(3, 0)], [(1, 1)], [(-1, 2)], [(0,)],
             [(0, 3), (2, 4)], [(0, "3")], [(0, None)], [3], [(0, NAN)], [(0, True)],
             (0, 3), [(0, 1, 2)]],
)  # fmt: skip


def walked(*steps):
    walk = landscape.Walk(plain_loss, windows=[(0, 5)], num_points=1)
    for step, point in steps:
        walk.record(step, point)


once("Walk twice", lambda: walked((2, POINT), (2, E1)), "step", "2")
once("Walk back", lambda: walked((3, POINT), (2, E1)), "step", "2")
for step in ("x", None, 1.5, -1, True, NAN, [1]):
    once(f"Walk.record({step})", lambda step=step: walked((step, POINT)), "step")
for point in NO_POINT:
    once(f"Walk.record(0, {_short(point)})", lambda p=point: walked((0, p)), "point")
for point in (ANOTHER, LARGER):
    once("Walk.record(another)", lambda p=point: walked((0, POINT), (1, p)), "point")
once(
    "Walk.record(gradient)",
    lambda: landscape.Walk(loss, windows=[(0, 5)]).record(0, POINT, gradient=ANOTHER),
    "gradient",
)
once("Walk empty", lambda: landscape.Walk(**WALK).to_dataset(), "segment")

# Directions and masks.

DIRECTION = {"key": jax.random.key(0), "point": POINT}
RESCALED = {
    "normalize": NAME, "mask": MASK, "keep_vectors": FLAG,
    "axes": [3, "nosuch", {"q": 0}],
}  # fmt: skip
for function in (landscape.gaussian_direction, landscape.uniform_direction):
    bad(
        function, {**DIRECTION, "normalize": "layer"}, key=KEY, point=NO_POINT,
        names=[3, "x"], **RESCALED,
    )  # fmt: skip
bad(
    landscape.uniform_direction, DIRECTION, low=["x", None, NAN, INF, 1.0, 2.0, True],
    high=["x", None, NAN, INF, 0.0, -1.0, HOST],
)  # fmt: skip
bad(
    landscape.direction.ones_direction, {"point": POINT}, point=NO_POINT,
    normalize=NAME, mask=MASK,
)  # fmt: skip
bad(
    landscape.direction.flipped_direction,
    {"key": jax.random.key(0), "direction": POINT}, key=KEY, direction=NO_POINT,
)  # fmt: skip
bad(
    landscape.direction_between, {"a": ZERO, "b": POINT}, a=NO_POINT, b=NO_TREE,
    normalize=NAME, mask=MASK,
)  # fmt: skip
bad(
    landscape.fooling_direction, {"objective": loss, "point": POINT},
    objective=FUNCTION, point=NO_POINT, method=NEEDED_NAME, normalize=NAME, mask=MASK,
    towards=FLAG,
)  # fmt: skip
bad(
    landscape.direction.normalized,
    {"direction": E1, "point": POINT, "normalize": "filter"},
    direction=NO_TREE, point=NO_TREE, normalize=NAME, keep_vectors=FLAG,
)  # fmt: skip
once(
    "normalized(zero)",
    lambda: landscape.direction.normalized(ZERO, POINT, "global"),
    "direction",
)
bad(landscape.masks.as_mask, {"point": POINT}, mask=MASK)
bad(landscape.masks.as_mask, {"mask": lambda path: True}, point=NO_POINT[:3])
bad(
    landscape.masks.as_many_others, {"mask": lambda p: p == "b", "point": POINT,
                               "key": jax.random.key(0)},
    key=KEY, mask=[*MASK, lambda p: True],
)  # fmt: skip
bad(landscape.masks.all_but, {}, mask=FUNCTION)
bad(landscape.masks.layer_only, {}, name=[None, 3, ""])
MODEL = models.create("mlp", num_classes=10, features=(4,))
IMAGES = np.zeros((6, 2, 2, 1), np.float32)
bad(
    landscape.masks.first_layer, {"model": MODEL, "inputs": IMAGES},
    model=[None, 3, "mlp", nn.Dense], inputs=[None, "x", 3],
)  # fmt: skip
bad(landscape.curvature.layer_shares, {}, vector=[None, {}, "x", ZERO, {"w": "x"}])

# Curvature and sampled quantities.

AT = {"objective": loss, "point": POINT}
VECTOR = {**AT, "vector": POINT}
for function in (
    landscape.hvp, landscape.ggnvp, landscape.products.residual_product,
    landscape.products.second_moment_product,
):  # fmt: skip
    good = VECTOR
    if function is not landscape.hvp:
        sample = landscape.mean_objective(mean_loss, np.ones((4, 2)), batch_size=2)
        good = {**VECTOR, "objective": sample}
    bad(function, good, objective=FUNCTION)
    if function is not landscape.ggnvp:
        bad(function, good, point=NO_POINT, vector=NO_TREE, mask=MASK)
once("ggnvp(no outputs)", lambda: landscape.ggnvp(plain_loss, POINT, POINT), "outputs")
MATRIX = {"mask": MASK, "kind": NEEDED_NAME, "reuse": [1, "x"]}
SAMPLED = {**AT, "key": jax.random.key(0)}
bad(landscape.Operator, AT, objective=FUNCTION, point=NO_POINT, **MATRIX)
bad(
    landscape.spectral_norm, SAMPLED, objective=FUNCTION, point=NO_POINT,
    key=[key for key in KEY if key is not None],
    tolerance=NEEDED_POSITIVE, max_products=NEEDED_COUNT, **MATRIX,
)  # fmt: skip
bad(landscape.spectral_norm, AT, start=[*NO_TREE[1:], ZERO, NAN_TREE])
bad(
    landscape.top_eigenpairs, {**SAMPLED, "k": 2}, objective=FUNCTION, point=NO_POINT,
    key=KEY, k=NEEDED_COUNT, tolerance=POSITIVE, max_products=COUNT,
    which=NEEDED_NAME, **MATRIX,
)  # fmt: skip
for function in (landscape.trace, landscape.frobenius_norm):
    bad(
        function, {**SAMPLED, "num_samples": 2}, objective=FUNCTION, point=NO_POINT,
        key=KEY, num_samples=NEEDED_COUNT, **MATRIX,
    )  # fmt: skip
bad(
    landscape.spectral_density, {**SAMPLED, "num_samples": 2, "num_matvecs": 3},
    objective=FUNCTION, point=NO_POINT, key=KEY, num_samples=NEEDED_COUNT,
    num_matvecs=NEEDED_COUNT, **MATRIX,
)  # fmt: skip
bad(
    landscape.Operator(**AT).spectral_quadrature,
    {"key": jax.random.key(0), "num_samples": 2, "num_matvecs": 3},
    key=KEY, num_samples=NEEDED_COUNT, num_matvecs=NEEDED_COUNT,
)  # fmt: skip
bad(
    landscape.spectral_density, {**SAMPLED, "num_samples": 2, "num_matvecs": 3},
    broadening=POSITIVE, grid_size=COUNT,
)  # fmt: skip
NODES = landscape.density.Quadrature(np.zeros((1, 2)), np.full((1, 2), 0.5))
bad(
    landscape.density.broadened, {"quadrature": NODES}, quadrature=[None, 3, "x"],
    broadening=POSITIVE, grid_size=COUNT,
)  # fmt: skip
STACKED = {"w": np.ones((2, 3), np.float32)}
bad(
    landscape.curvature.subspace_overlap, {"first": STACKED, "second": STACKED},
    first=[None, {}, "x"], second=[None, {"w": np.ones((2, 4), np.float32)}, ANOTHER],
)  # fmt: skip
bad(noise.gradient_variance, {"objective": plain_loss, "point": POINT},
    objective=[*FUNCTION, plain_loss])  # fmt: skip
TRACK = {"objective": loss, "key": jax.random.key(0)}
bad(
    landscape.CurvatureTrack, TRACK, objective=FUNCTION, key=KEY,
    tolerance=NEEDED_POSITIVE, max_products=NEEDED_COUNT, kind=NEEDED_NAME,
    reuse=[1, "x"],
)  # fmt: skip
TRACKED = {"step": 1, "point": POINT}
bad(
    landscape.CurvatureTrack(**TRACK).record, TRACKED, step=["x", None, -1, 1.5, True],
    point=NO_POINT, learning_rate=["x", -1.0, NAN, INF, True],
)  # fmt: skip
for function in (landscape.loss_gradient, batch_losses):
    bad(function, AT, objective=FUNCTION, point=NO_POINT)
bad(landscape.loss_gradient, {"objective": plain_loss, "point": POINT}, devices=DEVICES)
bad(
    landscape.accumulate, {"function": mean_loss, **AT},
    function=FUNCTION, objective=FUNCTION, devices=DEVICES, compiled=[1, "x"],
)  # fmt: skip
once("in_double", lambda: landscape.in_double(POINT), "double precision")

# Flatness, asymmetry, shifts and distances.

bad(
    landscape.average_slope, {"objective": loss, "minimum": ZERO, "entrance": POINT},
    objective=FUNCTION, minimum=NO_POINT, entrance=[*NO_TREE, ZERO],
)  # fmt: skip
SCALES = [None, "x", 1.0, [], [[1.0]], ["a"], [1j], [None]]
bad(
    landscape.perturbation_losses, {**SAMPLED, "scales": [0.0, 1.0]},
    objective=FUNCTION, point=NO_POINT, scales=SCALES,
    key=[key for key in KEY if key is not None], num_directions=NEEDED_COUNT,
    normalize=NAME, mask=MASK, progress=FLAG,
)  # fmt: skip
bad(
    landscape.perturbation_losses, {**AT, "scales": [0.0, 1.0]},
    directions=[3, [], "ab", [None], [ANOTHER], [ZERO]],
)  # fmt: skip
bad(
    landscape.slope_profile, {**AT, "direction": E1, "distances": [0.0, 1.0]},
    objective=FUNCTION, point=NO_POINT, direction=[*NO_TREE, ZERO], distances=SCALES,
    progress=FLAG,
)  # fmt: skip
bad(landscape.slopes.slope_objective, {}, objective=FUNCTION)
INTERVAL = {**AT, "direction": E1, "r": 1.0, "zeta": 0.1}
ENDS = {
    "r": NEEDED_POSITIVE, "zeta": [*NOT_NEGATIVE, None, 1.0, 2.0],
    "num_points": [*NEEDED_COUNT, 1],
}  # fmt: skip
bad(
    landscape.asymmetry, INTERVAL, objective=FUNCTION, point=NO_POINT,
    direction=[*NO_TREE, ZERO], **ENDS,
)  # fmt: skip
C = [0, 1.0, -2.0, "2", None, True, NAN, INF, [2.0]]
bad(
    landscape.is_asymmetric, {**INTERVAL, "p": 0.1, "c": 2.0}, p=NEEDED_POSITIVE, c=C,
    objective=FUNCTION, direction=[None, ZERO], **ENDS,
)  # fmt: skip
bad(
    landscape.find_asymmetric_direction,
    {**SAMPLED, "r": 1.0, "zeta": 0.1, "c": 2.0, "num_tries": 3}, key=KEY,
    objective=FUNCTION, point=NO_POINT, c=C, num_tries=NEEDED_COUNT, sampler=FUNCTION,
    stop_early=FLAG, progress=FLAG, **ENDS,
)  # fmt: skip
bad(
    landscape.valleys.nearby_asymmetry,
    {**INTERVAL, "key": jax.random.key(0), "radius": 0.5},
    key=KEY, objective=FUNCTION, point=NO_POINT, direction=[*NO_TREE, ZERO],
    radius=NEEDED_POSITIVE, num_neighbors=NEEDED_COUNT, mask=MASK, **ENDS,
)  # fmt: skip
GAP = {
    "train_objective": loss, "test_objective": loss, "point": POINT, "shift": ZERO,
    "radius": 0.5, "key": jax.random.key(0),
}  # fmt: skip
for function in (landscape.shift_gap, landscape.shift.shift_gap_search):
    bad(
        function, GAP, train_objective=(["objective"], FUNCTION),
        test_objective=(["objective"], FUNCTION), point=NO_POINT, shift=NO_TREE,
        radius=NEEDED_POSITIVE, key=KEY, num_draws=NEEDED_COUNT,
        num_steps=NEEDED_COUNT, train_min=["x", NAN, True], test_min=["x", INF, True],
    )  # fmt: skip
bad(
    landscape.shift.best_shift,
    {"train_objective": loss, "test_objective": loss, "point": POINT, "direction": E1,
     "radius": 1.0, "max_shift": 0.5},
    train_objective=(["objective"], FUNCTION), point=NO_POINT,
    direction=[*NO_TREE, ZERO], radius=NEEDED_POSITIVE,
    max_shift=[*NEEDED_POSITIVE, 0.001], num_points=NEEDED_COUNT, progress=FLAG,
)  # fmt: skip
DISTANCE = {"apply_fn": mean_loss, "a": POINT, "b": E1, "inputs": IMAGES}
for function in (
    landscape.functional_distance, landscape.disagreement,
    landscape.distance.distances_with_errors,
):  # fmt: skip
    bad(
        function, DISTANCE, apply_fn=FUNCTION, a=NO_POINT, b=NO_TREE,
        inputs=(["data|inputs"], [None, "x", 3, IMAGES[:0], {}]),
        batch_size=NEEDED_COUNT,
    )  # fmt: skip
bad(landscape.functional_distance, DISTANCE, softmax=FLAG)
bad(
    landscape.distance.distance_objective, {"apply_fn": mean_loss, "inputs": IMAGES},
    apply_fn=FUNCTION, softmax=FLAG, batch_size=NEEDED_COUNT,
)  # fmt: skip
bad(landscape.parameter_distance, {"a": POINT, "b": POINT}, a=NO_POINT, b=NO_TREE)
PAIR = landscape.mean_objective(mean_loss, (IMAGES, np.zeros(6)), batch_size=3)
bad(
    inputs.input_losses,
    {"objective": PAIR, "point": POINT, "moves": IMAGES, "scales": [0.0, 1.0]},
    objective=[*FUNCTION, loss], moves=[None, "x", np.ones(()), IMAGES[:2]],
    scales=SCALES, point=NO_POINT[:4],
)  # fmt: skip
bad(
    inputs.noise_moves, {"key": jax.random.key(0), "inputs": IMAGES}, key=KEY,
    inputs=[None, "x", np.ones(())], num_directions=NEEDED_COUNT,
)  # fmt: skip
bad(
    inputs.neighbor_moves,
    {"key": jax.random.key(0), "inputs": IMAGES, "candidates": IMAGES,
     "num_neighbors": 2},
    key=KEY, inputs=[None, "x"], candidates=[None, "x", IMAGES[:, :1]],
    num_neighbors=[*NEEDED_COUNT, 7], num_directions=NEEDED_COUNT,
)  # fmt: skip
bad(
    inputs.equivalent_weight_perturbation,
    {"kernel": np.ones((2, 3), np.float32), "inputs": np.ones(2, np.float32),
     "moves": np.ones(2, np.float32)},
    kernel=[None, "x", HOST], inputs=[None, "x", np.ones(3), np.zeros(2, np.float32)],
    moves=[None, "x", np.ones(3)],
)  # fmt: skip

# Objectives.

bad(
    landscape.mean_objective,
    {"loss_fn": mean_loss, "data": IMAGES, "batch_size": 3},
    loss_fn=FUNCTION, batch_size=NEEDED_COUNT,
    data=[None, {}, "x", 3, IMAGES[:0], (IMAGES, IMAGES[:2]), {"x": "y"}, [object()]],
)  # fmt: skip
LABELS = np.arange(6, dtype=np.int32)
FLAX = {"model": MODEL, "data": (IMAGES, LABELS), "norm": "train", "batch_size": 3}
NO_DATA = [
    None, 3, "x", IMAGES, (IMAGES,), (IMAGES, None), (None, LABELS), {"image": IMAGES},
    (IMAGES[:0], LABELS[:0]), (IMAGES, LABELS[:2]), (IMAGES, LABELS - 1),
    (IMAGES, LABELS + 9), (IMAGES, LABELS / 2), (IMAGES.astype(np.uint8), LABELS),
]  # fmt: skip
bad(
    landscape.flax_objective, FLAX, model=[None, 3, "mlp", nn.Dense],
    norm=NEEDED_NAME, batch_size=NEEDED_COUNT, loss=NEEDED_NAME, l2=NOT_NEGATIVE,
    error=FLAG, calibration=[IMAGES, 3], rngs=[3, {"noise": 0}, {"noise": None}],
    data=NO_DATA,
)  # fmt: skip
bad(
    landscape.flax_objective, {**FLAX, "norm": "eval"},
    batch_stats=[None, {}, "x", ANOTHER],
)  # fmt: skip
bad(
    landscape.flax_objective, {**FLAX, "norm": "recalibrate"},
    calibration=[3, "x", IMAGES[:0], LABELS],
)  # fmt: skip
OF_MODEL = landscape.flax_objective(**FLAX)
for point in (POINT, {}, None, {"Dense_0": {"kernel": np.ones((4, 3), np.float32)}}):
    once(
        f"objective of a model({_short(point)})",
        lambda point=point: OF_MODEL(point),
        "point",
    )
once("relabelled", lambda: OF_MODEL.relabelled(3), "key", "3")
LINEAR = nnx.Linear(4, 10, rngs=nnx.Rngs(0))
ROWS = np.zeros((6, 4), np.float32)
bad(
    landscape.nnx_objective,
    {"model": LINEAR, "data": (ROWS, LABELS), "norm": "eval", "batch_size": 3},
    model=[None, 3, MODEL, nnx.Linear], norm=NEEDED_NAME, batch_size=NEEDED_COUNT,
    loss=NEEDED_NAME, l2=NOT_NEGATIVE, error=FLAG, call=[3, "x"], wrt=[nnx.BatchStat],
    data=[None, 3, "x", ROWS, (ROWS, LABELS - 1), (ROWS, LABELS[:2])],
)  # fmt: skip
WINDOWS = data.token_windows(np.arange(41) % 5, 8)
LSTM = models.create("lstm", num_classes=5, features=4, layers=1)
bad(
    landscape.text_objective, {"model": LSTM, "windows": WINDOWS, "batch_size": 2},
    model=[None, 3, "lstm", nn.Dense], batch_size=NEEDED_COUNT, l2=NOT_NEGATIVE,
    error=FLAG,
    windows=[None, 3, "ab", (ROWS, ROWS), (WINDOWS.inputs, WINDOWS.targets[:2]),
             (WINDOWS.inputs, WINDOWS.targets + 5)],
)  # fmt: skip
bad(
    landscape.recalibrate,
    {"model": MODEL, "params": {}, "inputs": IMAGES, "batch_size": 3},
    model=[None, 3], inputs=(["inputs"], [None, 3, "x", IMAGES[:0], LABELS]),
    batch_size=NEEDED_COUNT, params=[None, {}, POINT],
)  # fmt: skip

# Layers.

bad(layers.table, {"point": POINT}, axes=[3, "nosuch", {"q": 0}, {"w": 7}, {"w": "x"}])
bad(layers.Axes, {}, outputs=["x", 1.5, None, (0, "x")], stacked=["x", 1.5], role=NAME)
bad(layers.of_role, {}, role=NEEDED_NAME)

# Models.

bad(
    models.create, {"name": "mlp", "num_classes": 10}, name=(["model"], NEEDED_NAME),
    num_classes=NEEDED_COUNT,
    features=[3, "x", None, (-3,), (0,), (1.5,), ("a",), (True,), (NAN,)],
    batch_norm=FLAG, weight_init=NAME, axis_name=[3], nosuch=[3],
)  # fmt: skip
bad(
    models.create, {"name": "cnn", "num_classes": 10}, features=[(-3,), (0, 3), 3, "x"],
    width=NEEDED_COUNT,
)  # fmt: skip
RATE = [5, -0.1, "x", None, NAN, True, 1.0]
for name in ("densenet40", "wrn28_10", "lstm"):
    bad(models.create, {"name": name, "num_classes": 10}, dropout=RATE)
bad(
    models.create, {"name": "lstm", "num_classes": 10}, features=NEEDED_COUNT,
    layers=NEEDED_COUNT, embedding=COUNT, tie_weights=FLAG,
)  # fmt: skip
bad(
    models.create, {"name": "resnet20", "num_classes": 10},
    depth=[21, 0, -4, 20.5, "20", None, True], dtype=NEEDED_NAME, shortcut=NEEDED_NAME,
    weight_init=NAME, batch_norm=FLAG,
)  # fmt: skip
bad(
    models.create, {"name": "preresnet20", "num_classes": 10}, block=NEEDED_NAME,
    depth=[21, "20"],
)  # fmt: skip
bad(
    models.create, {"name": "densenet40", "num_classes": 10}, depth=[41, 0, "40", None],
    growth=NEEDED_COUNT, bottleneck=FLAG,
)  # fmt: skip
bad(
    models.create, {"name": "wrn28_10", "num_classes": 10}, depth=[27, 0, "28"],
    widen=NEEDED_COUNT,
)  # fmt: skip
bad(
    models.create, {"name": "vgg11", "num_classes": 10},
    stages=[3, "x", ((-3,),), (3,), ((1.5,),)], dense=[3, (-3,), ("x",)],
)  # fmt: skip
bad(
    models.create, {"name": "vgg", "num_classes": 10}, dense=NEEDED_COUNT,
    dropout=[(5.0,), 0.3, (0.3,), (-0.1, 0.4, 0.4, 0.4, 0.4)],
)  # fmt: skip
bad(models.create, {"name": "small", "num_classes": 10}, initializer=NEEDED_NAME)
bad(models.create, {"name": "large", "num_classes": 10}, weight_init=NEEDED_NAME,
    final_relu=FLAG)  # fmt: skip
bad(models.create, {"name": "nin", "num_classes": 10}, second_pool=NEEDED_NAME,
    initializer=NEEDED_NAME, batch_norm=FLAG)  # fmt: skip
bad(models.create, {"name": "alexnet", "num_classes": 10}, dense=[(-1, 2), 3, "x"],
    dtype=NEEDED_NAME)  # fmt: skip
bad(models.create, {"name": "googlenet", "num_classes": 10}, dtype=NEEDED_NAME,
    auxiliary_weight=NOT_NEGATIVE)  # fmt: skip

# Training.

PARTS = data.Examples(np.zeros((8, 2, 2, 1), np.uint8), np.zeros(8, np.int32))
SET = data.Dataset(name="tiny", num_classes=10, max_value=255, train=PARTS, test=PARTS)
LOOP = {
    "epochs": NEEDED_COUNT, "batch_size": NEEDED_COUNT, "seed": [*WHOLE, None, 2**32],
    "log_every": COUNT, "num_devices": COUNT, "scan_steps": COUNT,
    "mapping": NEEDED_NAME,
}  # fmt: skip
bad(
    training.Config, {"epochs": 1}, augment=["crop", None, 3, ("nosuch",), (3,)],
    normalize=NEEDED_NAME, sync_batch_norm=["x", 1, None], **LOOP,
)  # fmt: skip
bad(
    training.TextConfig, {"epochs": 1}, window=NEEDED_COUNT, offset=[*WHOLE, None],
    **LOOP,
)  # fmt: skip
CONFIG = training.Config(epochs=1, batch_size=4)
FIT = {"model": MODEL, "data": SET, "tx": optax.sgd(0.1), "config": CONFIG}
NO_MODEL = [None, 3, "mlp", nn.Dense, LINEAR]
NO_SET = [None, 3, "digits", {}, (IMAGES, LABELS), PARTS]
NO_TX = [None, 3, "sgd", optax.constant_schedule(0.1), optax.sgd]
NO_CONFIG = [None, 3, {"epochs": 1}, training.TextConfig(epochs=1), training.Config]
LOOPED = {
    "yield_every": NEEDED_COUNT, "yield_at": FUNCTION, "donate": FLAG,
}  # fmt: skip
bad(
    training.fit, FIT, model=NO_MODEL, data=NO_SET, tx=NO_TX, config=NO_CONFIG,
    state=[3, "x", {}, POINT], **LOOPED,
)  # fmt: skip


@functools.cache
def state(kind="mlp"):
    """A state of another model, made by hand."""
    params = {"mlp": POINT, "other": ANOTHER}[kind]
    return training.TrainState(
        step=np.int32(0), params=params, batch_stats={},
        opt_state=optax.sgd(0.1).init(params), key=jax.random.key(0), metrics={},
        first_bad_step=np.int32(-1),
    )  # fmt: skip


once("fit(another model's state)", lambda: training.fit(**FIT, state=state()), "state")
once(
    "fit(too large batch)",
    lambda: training.fit(**{**FIT, "config": training.Config(epochs=1, batch_size=9)}),
    "batch_size", "9",
)  # fmt: skip
once(
    "fit(labels)",
    lambda: training.fit(**{**FIT, "data": dataclasses.replace(
        SET, train=data.Examples(PARTS.image, PARTS.label - 1))}),
    "label", "-1",
)  # fmt: skip
bad(
    training.fit_seeds, {**FIT, "seeds": [0, 1]}, model=NO_MODEL, data=NO_SET, tx=NO_TX,
    config=NO_CONFIG, state=[3, "x", {}],
    seeds=(["seed"], [None, 3, "ab", [], [0, 0], [-1], [1.5], ["x"], [True]]), **LOOPED,
)  # fmt: skip
bad(
    training.initial_state,
    {"model": MODEL, "data": SET, "tx": optax.sgd(0.1), "seed": 0}, model=NO_MODEL,
    data=NO_SET, tx=NO_TX, seed=[*WHOLE, None, 2**32], example=["x", 3],
)  # fmt: skip
bad(
    training.initial_states,
    {"model": MODEL, "data": SET, "tx": optax.sgd(0.1), "seeds": [0]}, model=NO_MODEL,
    data=NO_SET, tx=NO_TX, seeds=(["seed"], [None, 3, "ab", [], [-1], [1.5], [0, 0]]),
)  # fmt: skip
bad(training.stacked, {}, states=[None, 3, [], "ab", [3], [state(), state("other")]])
bad(training.unstacked, {}, state=[None, 3, state()])
bad(training.averages, {}, state=[None, 3, "x", {}])
TOKENS = np.arange(40, dtype=np.int32) % 5
TEXT = data.Text(
    name="t", level="words", vocabulary=tuple("abcde"), train=TOKENS,
    validation=TOKENS, test=TOKENS,
)  # fmt: skip
TEXT_CONFIG = training.TextConfig(epochs=1, batch_size=4, window=5)
NO_TEXT = [None, 3, "ab", SET, TOKENS]
NO_TEXT_CONFIG = [None, 3, {"epochs": 1}, CONFIG]
READ = {"model": LSTM, "text": TEXT, "tx": optax.sgd(0.1), "config": TEXT_CONFIG}
bad(
    training.fit_text, READ, model=[*NO_MODEL, MODEL], text=NO_TEXT, tx=NO_TX,
    config=NO_TEXT_CONFIG, state=[3, "x", state()], **LOOPED,
)  # fmt: skip
bad(
    training.initial_text_state, READ, model=[*NO_MODEL, MODEL], text=NO_TEXT, tx=NO_TX,
    config=NO_TEXT_CONFIG,
)  # fmt: skip
EVALUATED = {"model": MODEL, "data": SET, "config": CONFIG}
bad(
    training.make_evaluate, EVALUATED, model=NO_MODEL, data=NO_SET, config=NO_CONFIG,
    batch_size=NEEDED_COUNT, top5=FLAG,
)  # fmt: skip
bad(
    training.make_evaluate_text, {"model": LSTM, "text": TEXT, "config": TEXT_CONFIG},
    model=[*NO_MODEL, MODEL], text=NO_TEXT, config=NO_TEXT_CONFIG, streams=NEEDED_COUNT,
)  # fmt: skip
bad(
    training.make_largest_activations, EVALUATED, model=NO_MODEL, data=NO_SET,
    config=NO_CONFIG, mode=NEEDED_NAME, num_batches=COUNT,
)  # fmt: skip
bad(
    training.make_evaluate(MODEL, SET, CONFIG), {"state": state(), "part": "test"},
    state=[None, 3, POINT], part=["nosuch", 3, None, "validation"],
)  # fmt: skip
bad(
    training.create_optimizer,
    {"name": "sgd", "schedule": optax.constant_schedule(0.1)},
    name=(["optimizer"], NEEDED_NAME), schedule=[None, 0.1, "x"], momentum=BELOW_ONE,
    nesterov=FLAG, weight_decay=NOT_NEGATIVE, decay_all=FLAG, nosuch=[3],
)  # fmt: skip

# Data.

SIZES = {
    "validation": [*WHOLE, None, 5000], "split_seed": [*WHOLE, None],
    "examples": [*COUNT, 5000], "test_examples": [*COUNT, 5000],
}  # fmt: skip
bad(
    data.load, {"name": "digits"},
    name=(["dataset"], [
        None, 3, "", "a b", "../x", ["digits"], "nosuch_set", "folder",
    ]),
    data_dir=[3, b"x", "a\0b"], **SIZES,
)  # fmt: skip
bad(
    data.open_stream, {"name": "digits", "image_size": 8},
    name=(["dataset"], [None, 3, "", "a b", ["digits"], "nosuch_set"]),
    image_size=[*NEEDED_COUNT, 5000], crop=NEEDED_NAME,
    min_area=[0, -0.1, 1.5, "x", None, NAN, True], threads=COUNT,
    data_dir=[3, b"x", "a\0b"], **SIZES,
)  # fmt: skip


@functools.cache
def stream():
    return data.open_stream("digits", image_size=8).train


for value in ([-1], [5000], [1.5], ["x"], None, "x", [[0]], [NAN], [True]):
    once(f"Stream.take({value})", lambda value=value: stream().take(value), "indices")
    once(f"Examples.take({value})", lambda value=value: PARTS.take(value), "indices")
for value in (-1, 5000, 1.5, "x", None, True):
    once(f"Stream.read({value})", lambda value=value: stream().read(value), "index")
bad(SET.normalization, {}, kind=(["normalize"], ["nosuch", 3, None, "whiten"]))
bad(
    data.load_text, {"name": "nosuch.txt", "level": "words"}, level=NEEDED_NAME,
    name=(["text"], [None, 3, "", "nosuch.txt", "a\0b.txt"]), max_words=[*COUNT, 1],
    held_out=[0, -0.1, 0.5, 1.5, "x", None, NAN, True], data_dir=[3, b"x", "a\0b"],
)  # fmt: skip
STREAMS = {"tokens": TOKENS, "batch_size": 2, "steps": 4}
NO_TOKENS = [None, 3, "ab", TOKENS[:0], np.ones((2, 3)), [0.5] * 20]
bad(
    data.token_streams, STREAMS, tokens=NO_TOKENS, batch_size=NEEDED_COUNT,
    steps=[*NEEDED_COUNT, 50],
)  # fmt: skip
bad(
    data.token_windows, {"tokens": TOKENS, "steps": 4}, tokens=NO_TOKENS,
    steps=[*NEEDED_COUNT, 50],
)  # fmt: skip
bad(
    data.stream_starts, {"num_tokens": 40, "batch_size": 2, "steps": 4},
    num_tokens=[-1, 1.5, "x", None], batch_size=NEEDED_COUNT, steps=NEEDED_COUNT,
)  # fmt: skip
bad(data.perplexity, {}, loss=["x", None, 1j])
bad(
    data.unigram_perplexity,
    {"train": TOKENS, "test": TOKENS, "vocabulary_size": 5}, train=NO_TOKENS[:3],
    test=[*NO_TOKENS[:3], TOKENS + 5, TOKENS - 1], vocabulary_size=NEEDED_COUNT,
)  # fmt: skip
bad(
    data.augment_batch,
    {"key": jax.random.key(0), "epoch": 0, "indices": np.arange(2),
     "images": np.zeros((2, 8, 8, 1), np.uint8), "names": ("flip",)},
    key=KEY, names=(["augment|names"], ["flip", None, 3, ("nosuch",), (3,)]),
    images=[None, "x", np.zeros((2, 8))], indices=[None, "x", np.arange(3)],
    epoch=["x", None, 1.5], max_value=[0, -1, "x", NAN],
)  # fmt: skip
bad(
    data.global_contrast_normalize, {"images": np.ones((2, 4, 4, 1))},
    images=[None, "x", np.ones(())], scale=NEEDED_POSITIVE, sqrt_bias=NOT_NEGATIVE,
)  # fmt: skip

# Runs, records, figures and reports.

NO_RUN = [*NEEDED_PATH, "/nonexistent/run", ["run"]]
bad(runs.open_run, {}, path=(["path|run_dir"], NO_RUN))
bad(runs.Run, {}, path=(["path|run_dir"], NO_RUN))
bad(records.Records, {}, path=(["path|run_dir"], NEEDED_PATH))
bad(runs.config_of, {}, fields=(["config|fields"], [None, 3, "x", {}, {"window": 3}]))
bad(runs.peak_step, {"schedule": optax.constant_schedule(0.1), "total_steps": 10},
    schedule=FUNCTION, total_steps=STEPS)  # fmt: skip
bad(
    report.write_report, {"paths": ["/nonexistent/run"]}, seconds=NEEDED_POSITIVE,
    paths=(["paths|run="], [None, 3, [], "/nonexistent/run", [3],
                                    ["/nonexistent/run"]]),
)  # fmt: skip
bad(report.render, {"paths": ["/nonexistent/run"]}, seconds=NEEDED_POSITIVE)
bad(figures.line_figure, {}, results=[None, 3, "x", {}, {"a": 3}])
for function in (
    figures.contour_figure, figures.surface_figure,
    figures.walk_figure, figures.interactive_line, figures.interactive_surface,
    figures.layer_shares_figure,
):  # fmt: skip
    bad(
        function, {},
        result=(["result"], [None, 3, "x"]),
    )  # fmt: skip
bad(figures.learning_curves, {}, metrics=[None, 3, "x", [3]])
bad(figures.compared_curves, {}, runs=[None, 3, "x", {"a": 3}])
bad(figures.density_figure, {}, densities=[None, 3, "x", {}])

FUNCTIONS = {}
for name, call, words, said in rows:
    FUNCTIONS.setdefault(name.partition("(")[0], []).append((name, call, words, said))


def complaint(call, words, said):
    """What is wrong with how a call is refused; None where nothing is."""
    try:
        found = call()
    except InputError as error:
        message = str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    else:
        return f"accepted, and gives a {type(found).__name__}"
    for word in words:
        if not any(one in message for one in word.split("|")):
            return f"does not say {word}: {message}"
    if said is not None and not any(one in message for one in said):
        return f"does not say {' or '.join(said)}: {message}"
    return None if len(message) < 1000 else f"is long: {message}"


def _is_own(name):
    """Whether a program is the library's: single operations are programs too."""
    name = name.removeprefix("jit(").removesuffix(")")
    if hasattr(jnp, name) or hasattr(jnp.linalg, name):
        return False
    modules = [sys.modules[m] for m in sys.modules if m.startswith("lrscape.")]
    found = (getattr(module, name, None) for module in modules)
    return any(getattr(f, "__module__", "").startswith("lrscape") for f in found)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_bad_calls_are_refused(function):
    with compilations() as compiled:
        found = {name: complaint(*row) for name, *row in FUNCTIONS[function]}
    assert not {name: what for name, what in found.items() if what is not None}
    assert not list(filter(_is_own, compiled))


def test_there_are_many():
    assert len(rows) > 3000
