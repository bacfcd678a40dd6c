"""A PyTorch module as an objective: its own numbers, and the module left alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrscape import landscape
from lrscape.errors import InputError
from lrscape.landscape.products import residual_product, second_moment_product

torch = pytest.importorskip("torch")
# PyTorch's own forward mode still compiles some rules by what it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
cross_entropy = torch.nn.functional.cross_entropy


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3, padding=1),
        torch.nn.BatchNorm2d(3),
        torch.nn.Tanh(),
        torch.nn.Dropout(0.5),
        torch.nn.Flatten(),
        torch.nn.Linear(48, 3),
    ).double()


def sample(count=10):
    torch.manual_seed(1)
    return torch.randn(count, 1, 4, 4).double(), torch.randint(0, 3, (count,))


def like(point, seed=0):
    draw = np.random.default_rng(seed).normal
    return {k: jnp.asarray(draw(size=v.shape), v.dtype) for k, v in point.items()}


def flat(tree):
    return np.concatenate([np.ravel(tree[k]) for k in sorted(tree)])


@pytest.fixture(params=["eval", "train"])
def made(request, x64):
    module = network()
    objective = landscape.from_torch(
        module, cross_entropy, sample(), batch_size=4, norm=request.param
    )
    return module, objective


def by_hand(module, objective, point):
    """The loss as PyTorch computes it, batch by batch, of a copy of the module."""
    total = 0.0
    for i, weight in enumerate(objective.weights):
        copy = network()
        copy.train(objective.norm == "train")
        copy[3].eval()
        copy.load_state_dict(
            {
                **module.state_dict(),
                **{k: torch.tensor(np.array(v)) for k, v in point.items()},
            }
        )
        inputs, targets = objective.batch(i)
        with torch.no_grad():
            total += weight * float(cross_entropy(copy(inputs), targets))
    return total


def test_values_and_the_modules_state(made):
    module, objective = made
    before = {k: v.clone() for k, v in module.state_dict().items()}
    moved = jax.tree.map(
        lambda p, d: p + 0.1 * d, objective.point, like(objective.point)
    )
    np.testing.assert_allclose(
        objective(moved), by_hand(module, objective, moved), rtol=1e-12
    )
    landscape.loss_gradient(objective, moved)
    landscape.hvp(objective, moved, like(objective.point))
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_gradient_and_hessian_are_the_derivatives(made):
    _, objective = made
    point, v = objective.point, like(objective.point)
    step = 1e-5

    def at(t):
        return jax.tree.map(lambda p, d: p + t * d, point, v)

    slope = (objective(at(step)) - objective(at(-step))) / (2 * step)
    gradient = landscape.loss_gradient(objective, point)
    np.testing.assert_allclose(flat(gradient) @ flat(v), slope, rtol=1e-6)
    change = [flat(landscape.loss_gradient(objective, at(t))) for t in (step, -step)]
    np.testing.assert_allclose(
        flat(landscape.hvp(objective, point, v)),
        (change[0] - change[1]) / (2 * step),
        rtol=1e-4,
        atol=1e-6,
    )


def test_the_second_moment_less_the_residual_is_the_hessian(made):
    # Of a loss -log p: xing et al., Eq. 3, each term computed by itself.
    _, objective = made
    point, v = objective.point, like(objective.point)
    found = {
        name: flat(function(objective, point, v))
        for name, function in {
            "hessian": landscape.hvp,
            "second_moment": second_moment_product,
            "residual": residual_product,
        }.items()
    }
    np.testing.assert_allclose(
        found["second_moment"] + found["residual"], found["hessian"], atol=1e-9
    )


def test_reverse_mode_twice_gives_the_same_products(made):
    _, objective = made
    point, v = objective.point, like(objective.point)
    products = (landscape.hvp, landscape.ggnvp, second_moment_product)
    found = [flat(product(objective, point, v)) for product in products]
    objective._has_forward_mode = False
    for product, expected in zip(products, found, strict=True):
        np.testing.assert_allclose(
            flat(product(objective, point, v)), expected, atol=1e-12
        )


def test_of_a_linear_model_the_gauss_newton_matrix_is_the_hessian(x64):
    torch.manual_seed(0)
    module = torch.nn.Linear(4, 3).double()
    data = torch.randn(9, 4).double(), torch.randint(0, 3, (9,))
    objective = landscape.from_torch(module, cross_entropy, data, batch_size=4)
    v = like(objective.point)
    np.testing.assert_allclose(
        flat(landscape.ggnvp(objective, objective.point, v)),
        flat(landscape.hvp(objective, objective.point, v)),
        atol=1e-12,
    )
    # The same model in JAX: eigenvalues, and losses on a line.
    inputs, labels = (jnp.asarray(part.numpy()) for part in data)

    def loss_fn(point, batch):
        logits = batch[0] @ point["weight"].T + point["bias"][None]
        each = jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(
            logits, batch[1][:, None], axis=-1
        ).squeeze(-1)
        return jnp.mean(each)

    twin = landscape.mean_objective(loss_fn, (inputs, labels), batch_size=4)
    for one in (objective, twin):
        one_line = landscape.line(objective.point, v)
        losses = landscape.evaluate(one, one_line, np.linspace(0, 1, 4))
        pairs = landscape.top_eigenpairs(one, objective.point, 3, key=jax.random.key(0))
        if one is objective:
            expected = losses, pairs.eigenvalues
    np.testing.assert_allclose(losses, expected[0], rtol=1e-12)
    np.testing.assert_allclose(pairs.eigenvalues, expected[1], rtol=1e-8)


def test_every_probe_takes_it(made, tmp_path):
    _, objective = made
    point, key = objective.point, jax.random.key(0)
    direction = like(point)
    end = jax.tree.map(jnp.add, point, direction)
    losses = landscape.segment_losses(objective, point, end, num_points=2)
    line = landscape.line(point, end)
    store = tmp_path / "store"
    kept = landscape.evaluate(objective, line, np.arange(4) / 3, store=store)
    np.testing.assert_allclose(kept, losses, rtol=1e-12)
    again = landscape.measure_surface(objective, line, np.arange(4) / 3, store=store)
    assert again.num_measured == 0
    np.testing.assert_allclose(
        landscape.slope_profile(objective, point, direction, [0.0]).slopes[0],
        flat(landscape.loss_gradient(objective, point))
        @ flat(direction)
        / np.linalg.norm(flat(direction)),
        rtol=1e-10,
    )
    for kind in ("hessian", "ggn"):
        norm = landscape.spectral_norm(objective, point, key=key, kind=kind)
        assert np.isfinite(float(norm))
    assert np.isfinite(landscape.trace(objective, point, key=key, num_samples=2).mean)
    landscape.spectral_density(objective, point, key=key, num_matvecs=3, num_samples=1)
    landscape.fooling_direction(objective, point)
    landscape.average_slope(objective, point, end)
    landscape.is_asymmetric(objective, point, direction, r=1.0, zeta=0.1, p=0.1, c=2)


def test_frozen_weights_stay_and_tied_ones_move_together(x64):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(3, 3).double()
            self.second = torch.nn.Linear(3, 3).double()
            self.second.weight = self.first.weight
            self.second.bias.requires_grad_(False)

        def forward(self, x):
            return self.second(self.first(x))

    module = Tied()
    data = torch.eye(3).double(), torch.arange(3)
    objective = landscape.from_torch(module, cross_entropy, data)
    assert set(objective.point) == {"first.weight", "first.bias"}
    moved = {k: 2 * v for k, v in objective.point.items()}
    with torch.no_grad():
        weight, bias = 2 * module.first.weight, 2 * module.first.bias
        logits = (data[0] @ weight.T + bias) @ weight.T + module.second.bias
    np.testing.assert_allclose(
        objective(moved), float(cross_entropy(logits, data[1])), rtol=1e-12
    )


def test_attention_with_dropout_is_the_same_each_time_and_has_products(x64):
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(
        8, 2, 16, dropout=0.5, batch_first=True, dtype=torch.float64
    )
    data = torch.randn(4, 5, 8).double(), torch.randn(4, 5, 8).double()
    loss = torch.nn.functional.mse_loss
    objective = landscape.from_torch(layer, loss, data, norm="train")
    point, v = objective.point, like(objective.point)
    assert float(objective(point)) == float(objective(point))
    step = 1e-5
    ends = [
        flat(
            landscape.loss_gradient(
                objective, jax.tree.map(lambda p, d, s=s: p + s * d, point, v)
            )
        )
        for s in (step, -step)
    ]
    np.testing.assert_allclose(
        flat(landscape.hvp(objective, point, v)),
        (ends[0] - ends[1]) / (2 * step),
        rtol=1e-4,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"module": "net"}, "module='net'"),
        ({"loss_fn": 3}, "loss_fn=3"),
        ({"norm": "recalibrate"}, "norm='recalibrate'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"data": (torch.ones(3, 4), torch.ones(2))}, "3 inputs and 2 targets"),
        ({"data": []}, "empty"),
        ({"data": (torch.ones(0, 4), torch.ones(0))}, "empty"),
        ({"data": 3}, "data is a int"),
        ({"module": torch.nn.ReLU()}, "no weights"),
    ],
)
def test_bad_input(change, message):
    arguments = {
        "module": torch.nn.Linear(4, 2),
        "loss_fn": cross_entropy,
        "data": (torch.ones(3, 4), torch.zeros(3, dtype=torch.long)),
        **change,
    }
    module, loss_fn, data = (arguments.pop(k) for k in ("module", "loss_fn", "data"))
    with pytest.raises(InputError, match=message):
        landscape.from_torch(module, loss_fn, data, **arguments)


def test_a_loss_that_is_no_mean_and_tracing_are_refused():
    data = torch.ones(3, 4), torch.zeros(3, dtype=torch.long)

    def each(outputs, targets):
        return cross_entropy(outputs, targets, reduction="none")

    objective = landscape.from_torch(torch.nn.Linear(4, 2), each, data)
    with pytest.raises(InputError, match=r"shape \(3,\)"):
        objective(objective.point)
    objective = landscape.from_torch(torch.nn.Linear(4, 2), cross_entropy, data)
    with pytest.raises(InputError, match="cannot be traced"):
        jax.grad(objective)(objective.point)
