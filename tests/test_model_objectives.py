"""One network in four libraries: the same losses, gradients and eigenvalues."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lrscape import landscape
from lrscape.errors import InputError

NORMS = ("train", "eval", "recalibrate", "interpolate")
MOMENTUM, EPSILON = 0.9, 1e-5
DRAW = np.random.default_rng(0)
INPUTS = DRAW.normal(size=(10, 4, 4, 2))
LABELS = np.arange(10) % 3
KERNEL, WEIGHT = DRAW.normal(size=(3, 3, 2, 4)), DRAW.normal(size=(4, 3))
SCALE, SHIFT, BIAS = (DRAW.normal(size=n) for n in (4, 4, 3))
MEAN, VAR = DRAW.normal(size=4), DRAW.uniform(0.5, 2, size=4)
# A direction in each array, in the order of KERNEL, SCALE, SHIFT, WEIGHT, BIAS.
WEIGHTS = (KERNEL, SCALE, SHIFT, WEIGHT, BIAS)
MOVES = tuple(DRAW.normal(size=array.shape) for array in WEIGHTS)


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(4, (3, 3), use_bias=False, param_dtype=float)(x)
        x = nn.BatchNorm(
            not train, momentum=MOMENTUM, epsilon=EPSILON, param_dtype=float
        )(x)
        x = jnp.mean(jnp.tanh(x), axis=(1, 2))
        return nn.Dense(3, param_dtype=float)(
            nn.Dropout(0.5, deterministic=not train)(x)
        )


class NNXNet(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(2, 4, (3, 3), use_bias=False, param_dtype=float, rngs=rngs)
        self.norm = nnx.BatchNorm(
            4, momentum=MOMENTUM, epsilon=EPSILON, param_dtype=float, rngs=rngs
        )
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.dense = nnx.Linear(4, 3, param_dtype=float, rngs=rngs)

    def __call__(self, x):
        x = jnp.mean(jnp.tanh(self.norm(self.conv(x))), axis=(1, 2))
        return self.dense(self.dropout(x))


def linen(norm):
    def tree(kernel, scale, shift, weight, bias):
        return {
            "Conv_0": {"kernel": jnp.asarray(kernel)},
            "BatchNorm_0": {"scale": jnp.asarray(scale), "bias": jnp.asarray(shift)},
            "Dense_0": {"kernel": jnp.asarray(weight), "bias": jnp.asarray(bias)},
        }

    stats = {"BatchNorm_0": {"mean": jnp.asarray(MEAN), "var": jnp.asarray(VAR)}}
    objective = landscape.flax_objective(
        LinenNet(), (INPUTS, LABELS), norm=norm, batch_size=4, batch_stats=stats
    )
    return objective, tree, stats, None


def of_nnx(norm):
    model = NNXNet()
    model.norm.mean = nnx.BatchStat(jnp.asarray(MEAN))
    model.norm.var = nnx.BatchStat(jnp.asarray(VAR))

    def tree(kernel, scale, shift, weight, bias):
        model.conv.kernel[...] = kernel
        model.norm.scale[...], model.norm.bias[...] = scale, shift
        model.dense.kernel[...], model.dense.bias[...] = weight, bias
        return jax.tree.map(jnp.array, nnx.state(model, nnx.Param))

    tree(*WEIGHTS)
    objective = landscape.nnx_objective(
        model, (INPUTS, LABELS), norm=norm, batch_size=4
    )
    return objective, tree, nnx.state(model, nnx.BatchStat), model


def of_equinox(norm):
    eqx = pytest.importorskip("equinox")

    class Net(eqx.Module):
        conv: eqx.nn.Conv2d
        norm: eqx.nn.BatchNorm
        dropout: eqx.nn.Dropout
        dense: eqx.nn.Linear

        def __init__(self, key):
            self.conv = eqx.nn.Conv2d(
                2, 4, 3, padding="SAME", use_bias=False, dtype=float, key=key
            )
            self.norm = eqx.nn.BatchNorm(
                4, "examples", eps=EPSILON, momentum=MOMENTUM, mode="batch", dtype=float
            )
            self.dropout = eqx.nn.Dropout(0.5)
            self.dense = eqx.nn.Linear(4, 3, dtype=float, key=key)

        def __call__(self, x, state, *, key=None):
            x, state = self.norm(self.conv(x), state)
            x = self.dropout(jnp.mean(jnp.tanh(x), axis=(1, 2)), key=key)
            return self.dense(x), state

    model, state = eqx.nn.make_with_state(Net)(jax.random.key(0))
    state = state.set(
        model.norm.batch_state_index, (jnp.asarray(MEAN), jnp.asarray(VAR))
    )

    def tree(kernel, scale, shift, weight, bias):
        params = eqx.filter(model, eqx.is_inexact_array)
        return eqx.tree_at(
            lambda m: (
                m.conv.weight, m.norm.weight, m.norm.bias, m.dense.weight, m.dense.bias
            ),
            params,
            tuple(
                map(
                    jnp.asarray,
                    (kernel.transpose(3, 2, 0, 1), scale, shift, weight.T, bias),
                )
            ),
        )  # fmt: skip

    objective = landscape.equinox_objective(
        model,
        (INPUTS.transpose(0, 3, 1, 2), LABELS),
        norm=norm,
        batch_size=4,
        state=state,
    )
    stats = {"norm": {"mean": jnp.asarray(MEAN), "var": jnp.asarray(VAR)}}
    return objective, tree, stats, None


def of_torch(norm):
    torch = pytest.importorskip("torch")
    if norm not in ("train", "eval"):
        pytest.skip("a policy of batch norm that PyTorch's modules do not have")
    module = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1, bias=False),
        torch.nn.BatchNorm2d(4, eps=EPSILON),
        torch.nn.Tanh(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Dropout(0.5),
        torch.nn.Linear(4, 3),
    ).double()
    module[1].running_mean.copy_(torch.tensor(MEAN))
    module[1].running_var.copy_(torch.tensor(VAR))

    def tree(kernel, scale, shift, weight, bias):
        return {
            "0.weight": jnp.asarray(kernel.transpose(3, 2, 0, 1)),
            "1.weight": jnp.asarray(scale),
            "1.bias": jnp.asarray(shift),
            "6.weight": jnp.asarray(weight.T),
            "6.bias": jnp.asarray(bias),
        }

    objective = landscape.from_torch(
        module,
        torch.nn.functional.cross_entropy,
        (torch.tensor(INPUTS.transpose(0, 3, 1, 2)), torch.tensor(LABELS)),
        batch_size=4,
        norm=norm,
    )
    return objective, tree, None, None


def measured(make, norm):
    objective, tree, stats, _ = make(norm)
    point, direction = tree(*WEIGHTS), tree(*MOVES)
    mask = None
    if norm == "interpolate":
        still = jax.tree.map(jnp.zeros_like, stats)
        point = {"params": point, "batch_stats": stats}
        direction = {"params": direction, "batch_stats": still}
    line = landscape.ray(point, direction)
    losses = landscape.evaluate(objective, line, np.linspace(-1, 1, 5))
    if make is of_nnx and norm == "recalibrate":
        with pytest.raises(InputError, match="not differentiated"):
            landscape.slope_profile(objective, point, direction, [0.3])
        slope = np.nan
    else:
        slope = landscape.slope_profile(objective, point, direction, [0.3]).slopes[0]
    pairs = landscape.top_eigenpairs(
        objective, point, 3, key=jax.random.key(0), mask=mask
    )
    return np.array([*losses, slope, *pairs.eigenvalues])


@pytest.fixture(autouse=True)
def promotion():
    """The libraries' own layers mix types: Linen's averages are in single precision."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def expected():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        return {norm: measured(linen, norm) for norm in NORMS}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("make", [of_nnx, of_equinox, of_torch])
def test_the_same_network_gives_the_same_numbers(make, norm, expected, x64):
    found = measured(make, norm)
    known = ~np.isnan(found)
    np.testing.assert_allclose(
        found[:6][known[:6]], expected[norm][:6][known[:6]], rtol=1e-9
    )
    assert known.sum() >= 8
    np.testing.assert_allclose(found[6:], expected[norm][6:], rtol=1e-6)


@pytest.mark.parametrize("make", [of_nnx, of_equinox])
def test_the_point_is_the_models_weights(make, x64):
    objective, tree, _, _ = make("train")
    if make is of_nnx:
        jax.tree.map(np.testing.assert_array_equal, objective.point, tree(*WEIGHTS))
    shapes = [leaf.shape for leaf in jax.tree.leaves(objective.point)]
    assert sorted(shapes) == sorted(
        leaf.shape for leaf in jax.tree.leaves(tree(*WEIGHTS))
    )
    assert np.isfinite(objective(objective.point))


def test_an_nnx_model_is_left_as_it_is(x64):
    objective, _, _, model = of_nnx("train")
    before = jax.tree.map(np.array, nnx.state(model, (nnx.Param, nnx.BatchStat)))
    landscape.loss_gradient(objective, objective.point)
    after = nnx.state(model, (nnx.Param, nnx.BatchStat))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert not model.norm.use_running_average and not model.dropout.deterministic


class Noisy(nnx.Module):
    """Attention with dropout, and noise of its own."""

    def __init__(self):
        self.rngs = nnx.Rngs(0)
        self.attention = nnx.MultiHeadAttention(
            2, 4, dropout_rate=0.5, decode=False, rngs=self.rngs
        )

    def __call__(self, x):
        x = jnp.mean(self.attention(x), axis=1)
        return x + jax.random.normal(self.rngs.noise(), x.shape)


@pytest.mark.parametrize("norm", ["train", "eval"])
def test_attention_and_a_modules_own_noise_are_the_same_at_every_call(norm):
    data = jnp.asarray(INPUTS.reshape(10, 8, 4), jnp.float32), LABELS
    objective = landscape.nnx_objective(Noisy(), data, norm=norm, batch_size=4)
    once, again = objective(objective.point), objective(objective.point)
    assert once == again
    assert objective.settings["random_streams"] == "restarted at every call"
    landscape.hvp(objective, objective.point, objective.point)


def test_only_what_is_trained_moves():
    model = nnx.Sequential(
        nnx.Linear(2, 4, rngs=nnx.Rngs(0)),
        nnx.LoRA(4, 1, 3, rngs=nnx.Rngs(1)),
    )
    data = jnp.eye(2), jnp.array([0, 1])
    objective = landscape.nnx_objective(
        model, data, norm="eval", batch_size=2, wrt=nnx.LoRAParam
    )
    assert len(jax.tree.leaves(objective.point)) == 2
    gradient = landscape.loss_gradient(objective, objective.point)
    assert jax.tree.structure(gradient) == jax.tree.structure(objective.point)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": LinenNet()}, "use flax_objective"),
        ({"norm": "off"}, "norm='off'"),
        ({"loss": "hinge"}, "loss='hinge'"),
        ({"l2": -1}, "l2=-1"),
        ({"wrt": nnx.LoRAParam}, "selects no variable"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"call": 3}, "call=3"),
        ({"call": lambda model, x: (x, x)}, "a tuple"),
        ({"calibration": INPUTS}, "calibration"),
    ],
)
def test_bad_input(change, message):
    arguments = {
        "model": nnx.Linear(2, 3, rngs=nnx.Rngs(0)),
        "data": (jnp.eye(2), jnp.array([0, 1])),
        "norm": "eval",
        "batch_size": 2,
        **change,
    }
    with pytest.raises(InputError, match=message):
        landscape.nnx_objective(
            arguments.pop("model"), arguments.pop("data"), **arguments
        )
