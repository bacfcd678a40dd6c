"""A PyTorch module and a sample as an objective, computed by PyTorch on its device."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from lrscape import checks
from lrscape.errors import InputError
from lrscape.landscape import tree
from lrscape.landscape.objective import Objective

if TYPE_CHECKING:
    import torch

NORMS = ("eval", "train")


class TorchObjective(Objective):
    """The mean loss of a PyTorch module over a sample; made by `from_torch`.

    Attributes:
        point: the module's trained weights when the objective was made, a dict of
            `jax.Array` by parameter name (``'layer1.0.weight'``).
        num_batches: how many batches the sample is held as.
        weights: (num_batches,), each batch's share of the examples.
        norm: whether batch norm normalises by its running averages, ``'eval'``, or by
            each batch's own statistics, ``'train'``.
        device: where the module computes.
    """

    is_traceable = False

    def __init__(
        self,
        module: torch.nn.Module,
        loss_fn: Callable[[Any, Any], Any],
        batches: list[tuple[Any, Any]],
        norm: str,
    ):
        """Takes what `from_torch` has checked."""
        self.norm = norm
        self._loss_fn = loss_fn
        self._batches = batches
        sizes = np.array([_length(inputs) for inputs, _ in batches], np.float64)
        self._weights = sizes / sizes.sum()
        self._sizes = sizes.astype(int)
        trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.device = next(iter(trained.values())).device
        self.point = {name: _to_jax(value) for name, value in trained.items()}
        self._trained = {n: (p.dtype, p.device) for n, p in trained.items()}
        # Its own module, so that no probe changes the caller's: the weights that are
        # not trained and the buffers as they are now.
        self._module = _without_randomness(module, norm)
        self._buffers = dict(self._module.named_buffers())
        self._frozen = {
            name: value
            for name, value in self._module.named_parameters()
            if name not in trained
        }
        self._has_forward_mode = True

    @property
    def num_batches(self) -> int:
        """The number of batches that the sample is held as."""
        return len(self._batches)

    @property
    def weights(self) -> np.ndarray:
        """(num_batches,), each batch's share of the examples."""
        return self._weights

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the numbers depend on, as JSON holds them."""
        return {
            "objective": type(self._module).__name__,
            "num_examples": int(self._sizes.sum()),
            "batch_size": int(self._sizes[0]),
            "norm": self.norm,
            "loss": getattr(self._loss_fn, "__name__", type(self._loss_fn).__name__),
            "dropout": "off",
            "computed_by": f"torch on {self.device}",
            "moves": f"{len(self.point)} trained arrays",
            "leaves": f"{len(self._frozen)} arrays that are not trained",
        }

    def batch(self, i: int) -> Any:
        """The i-th batch, ``(inputs, targets)`` as tensors."""
        if not 0 <= i < self.num_batches:
            raise InputError(f"batch {i} is none of the {self.num_batches}")
        return self._batches[i]

    def batch_loss(self, point: Any, batch: Any) -> jax.Array:
        """The mean loss over one batch, a scalar."""
        import torch

        with torch.no_grad(), _differentiable_attention():
            loss = self._loss(self._to_torch(point), batch)
        return _to_jax(loss)

    def batch_gradient(self, point: Any, batch: Any) -> Any:
        """The gradient of one batch's mean loss, a tree like the point."""
        import torch

        with _differentiable_attention():
            slope = torch.func.grad(lambda p: self._loss(p, batch))
            return self._like(point, slope(self._to_torch(point)))

    def batch_product(self, kind: str, point: Any, batch: Any, vector: Any) -> Any:
        """A batch's share of the product of a curvature matrix and a vector.

        Args:
            kind: ``'hessian'``, ``'ggn'``, ``'second_moment'`` or ``'residual'``.
            point: where the matrix is taken.
            batch: of `batch`.
            vector: a tree like the point.
        """
        products = {
            "hessian": self._hessian_product,
            "ggn": self._ggn_product,
            "second_moment": self._second_moment_product,
            "residual": self._residual_product,
        }
        checks.one_of("kind", kind, products)
        with _differentiable_attention():
            found = products[kind](self._to_torch(point), batch, self._to_torch(vector))
        return self._like(point, found)

    def outputs(self, point: Any, batch: Any) -> jax.Array:
        """The module's outputs for a batch."""
        import torch

        with torch.no_grad(), _differentiable_attention():
            return _to_jax(self._call(self._to_torch(point), batch[0]))

    def output_loss(self, outputs: Any, batch: Any) -> jax.Array:
        """The mean loss of outputs over one batch."""
        import torch

        with torch.no_grad():
            return _to_jax(self._loss_of(_to_tensor(outputs, self.device), batch))

    def example_losses(self, point: Any, batch: Any) -> jax.Array:
        """The loss of each example within its batch, (n,)."""
        import torch

        with torch.no_grad(), _differentiable_attention():
            return _to_jax(self._each(self._to_torch(point), batch))

    def with_float64_model(self) -> TorchObjective:
        """The same module and sample in double precision."""
        import torch

        def double(value: Any) -> Any:
            floating = isinstance(value, torch.Tensor) and value.is_floating_point()
            return value.double() if floating else value

        module = copy.deepcopy(self._module).double()
        batches = [
            (_map(double, inputs), _map(double, targets))
            for inputs, targets in self._batches
        ]
        return TorchObjective(module, self._loss_fn, batches, self.norm)

    # In PyTorch's terms: parameters are dicts of tensors.

    def _call(self, params: dict[str, Any], inputs: Any) -> Any:
        import torch

        everything = {**self._frozen, **self._buffers, **params}
        args: tuple = (inputs,)
        kwargs: dict[str, Any] = {}
        if isinstance(inputs, Mapping):
            args, kwargs = (), dict(inputs)
        elif isinstance(inputs, tuple | list):
            args = tuple(inputs)
        outputs = torch.func.functional_call(self._module, everything, args, kwargs)
        # What Hugging Face's models return.
        return getattr(outputs, "logits", outputs)

    def _loss_of(self, outputs: Any, batch: Any) -> Any:
        loss = self._loss_fn(outputs, batch[1])
        if getattr(loss, "shape", None) != ():
            shape = getattr(loss, "shape", None)
            what = f"has shape {tuple(shape)}" if shape is not None else "is no tensor"
            raise InputError(
                f"loss_fn: the loss of a batch {what}; it must be a scalar, the mean "
                "over the examples (reduction='mean')"
            )
        return loss

    def _loss(self, params: dict[str, Any], batch: Any) -> Any:
        return self._loss_of(self._call(params, batch[0]), batch)

    def _each(self, params: dict[str, Any], batch: Any) -> Any:
        import torch

        def one(output: Any, target: Any) -> Any:
            alone = _map(lambda leaf: leaf[None], (output, target))
            return self._loss_fn(*alone)

        return torch.func.vmap(one)(self._call(params, batch[0]), batch[1])

    def _hessian_product(self, params: Any, batch: Any, vector: Any) -> Any:
        import torch

        slope = torch.func.grad(lambda p: self._loss(p, batch))

        def by_reverse_mode() -> Any:
            _, pull = torch.func.vjp(slope, params)  # a Hessian is symmetric
            return pull(vector)[0]

        return self._along(slope, params, vector, by_reverse_mode)

    def _ggn_product(self, params: Any, batch: Any, vector: Any) -> Any:
        import torch

        def outputs_of(p: Any) -> Any:
            return self._call(p, batch[0])

        outputs, pull = torch.func.vjp(outputs_of, params)
        moved = self._moved(outputs_of, params, vector, outputs)
        slope = torch.func.grad(lambda o: self._loss_of(o, batch))
        # A Hessian is symmetric: reverse over reverse serves every loss.
        bent = torch.func.vjp(slope, outputs)[1](moved)[0]
        return pull(bent)[0]

    def _second_moment_product(self, params: Any, batch: Any, vector: Any) -> Any:
        import torch

        def losses_of(p: Any) -> Any:
            return self._each(p, batch)

        losses, pull = torch.func.vjp(losses_of, params)
        along = self._moved(losses_of, params, vector, losses)
        return pull(along / len(losses))[0]

    def _residual_product(self, params: Any, batch: Any, vector: Any) -> Any:
        import torch

        def ratio(p: Any) -> Any:
            losses = self._each(p, batch)
            # p_n / p_n, of which the numerator alone is differentiated.
            return -torch.exp(losses.detach() - losses).mean()

        _, pull = torch.func.vjp(torch.func.grad(ratio), params)
        return pull(vector)[0]

    def _moved(self, function: Any, params: Any, vector: Any, outputs: Any) -> Any:
        """The derivative of a function of the weights along a vector."""
        import torch

        def by_reverse_mode() -> Any:
            # Twice: u -> J^T u is linear, and its transpose is J.
            _, pull = torch.func.vjp(function, params)
            zeros = _map(torch.zeros_like, outputs)
            return torch.func.vjp(lambda u: pull(u)[0], zeros)[1](vector)[0]

        return self._along(function, params, vector, by_reverse_mode)

    def _along(self, function: Any, params: Any, vector: Any, by_reverse: Any) -> Any:
        """By forward mode, or by reverse mode where an operator has no forward one."""
        import torch

        if not self._has_forward_mode:
            return by_reverse()
        try:
            return torch.func.jvp(function, (params,), (vector,))[1]
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # NotImplementedError is one
            product = by_reverse()  # what else is wrong is raised here again
            self._has_forward_mode = False
            return product

    def _to_torch(self, point: Any) -> dict[str, Any]:
        if not isinstance(point, Mapping) or set(point) != set(self._trained):
            tree.check_alike({"the module's trained weights": self.point, "it": point})
        return {
            name: _to_tensor(point[name], device).to(dtype)
            for name, (dtype, device) in self._trained.items()
        }

    def _like(self, point: Any, found: Mapping[str, Any]) -> Any:
        return {
            name: _to_jax(found[name]).astype(tree.leaf_dtype(point[name]))
            for name in point
        }


def from_torch(
    module: torch.nn.Module,
    loss_fn: Callable[[Any, Any], Any],
    data: Any,
    *,
    batch_size: int | None = None,
    norm: str | None = None,
) -> TorchObjective:
    r"""Makes an objective of a PyTorch module, its loss and a sample.

    .. math::

        L(\theta) = \sum_i \frac{n_i}{N} \ell(f(x_i, \theta), y_i)

    over batches :math:`(x_i, y_i)` of :math:`n_i` examples. Values, gradients and
    products with curvature matrices are PyTorch's own (``torch.func``), on the module's
    device; lines, surfaces, barriers, eigenvalues and directions are lrscape's. The
    module itself is not changed, and what happens to it later does not change the
    objective. Dropout is off, so that a probe sees the same network at every point.

    Args:
        module: called as ``module(inputs)``; with a tuple of inputs as
            ``module(*inputs)``, with a dict as ``module(**inputs)``. An output with an
            attribute ``logits`` stands for these.
        loss_fn: ``(outputs, targets) -> scalar tensor``, the mean over the examples,
            such as `torch.nn.functional.cross_entropy`.
        data: a tuple ``(inputs, targets)``, tensors or arrays with a leading example
            axis (tuples or dicts of these too); or a list or other iterable of such
            pairs, such as a ``DataLoader``, which is read once and kept.
        batch_size: examples a batch, where `data` is a single pair; None is all of
            them at once.
        norm: ``'eval'``: batch norm normalises by its running averages; ``'train'``: by
            each batch's own statistics, the averages left alone. None is as the module
            is: its ``training`` attribute.

    Returns:
        The objective. ``objective.point`` is the weights that the module has now: a
        dict of arrays by parameter name, of those that require a gradient.

    Raises:
        InputError: no module, no trained weights, no examples, inputs and targets of
            different lengths, or PyTorch is not installed.

    Example:
        >>> import pytest
        >>> torch = pytest.importorskip('torch')
        >>> module = torch.nn.Linear(3, 2)
        >>> data = torch.eye(3), torch.tensor([0, 1, 0])
        >>> objective = from_torch(module, torch.nn.functional.cross_entropy, data)
        >>> sorted(objective.point)
        ['bias', 'weight']
    """
    try:
        import torch
    except ImportError as error:
        raise InputError(
            "from_torch needs PyTorch, which is not installed: pip install torch"
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"module={checks.shown(module)} must be a torch.nn.Module")
    checks.function("loss_fn", loss_fn, takes="(outputs, targets)")
    if norm is None:
        norm = "train" if module.training else "eval"
    checks.one_of("norm", norm, NORMS)
    trained = [p for p in module.parameters() if p.requires_grad]
    if not trained:
        raise InputError(
            "module has no weights that are trained: set requires_grad_(True) on those "
            "that a probe may move"
        )
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and not parameter.is_floating_point():
            raise InputError(
                f"module: {name} has dtype {parameter.dtype}; a point holds real "
                "floating-point arrays alone: set requires_grad_(False) on it"
            )
    batches = _batches(data, batch_size, trained[0])
    return TorchObjective(module, loss_fn, batches, norm)


def _batches(data: Any, batch_size: int | None, like: Any) -> list[tuple[Any, Any]]:
    """The sample as pairs of tensors on the module's device."""
    if batch_size is not None:
        batch_size = checks.count("batch_size", batch_size)
    if isinstance(data, tuple):
        pairs: list[Any] = [data]
    elif hasattr(data, "__iter__") and not isinstance(data, Mapping | str):
        if batch_size is not None:
            raise InputError(
                f"batch_size={batch_size} is for a single pair (inputs, targets); "
                "batches that are handed over are kept as they are: leave it out"
            )
        pairs = list(data)
    else:
        raise InputError(
            f"data is a {type(data).__name__}; pass (inputs, targets), or an iterable "
            "of such pairs"
        )
    if not pairs:
        raise InputError("data is an empty sample: a mean needs at least one example")
    found: list[tuple[Any, Any]] = []
    for pair in pairs:
        if not _is_pair(pair):
            raise InputError(
                f"data holds a {type(pair).__name__}; every batch must be a pair "
                "(inputs, targets)"
            )
        inputs, targets = (_map(lambda x: _prepared(x, like), part) for part in pair)
        count = _length(inputs)
        if _length(targets) != count:
            raise InputError(
                f"data: {count} inputs and {_length(targets)} targets; they must be as "
                "many"
            )
        size = min(batch_size or count, count)
        for i in range(0, count, size):
            rows = slice(i, i + size)
            found.append((_rows(inputs, rows), _rows(targets, rows)))
    return found


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2


def _prepared(value: Any, like: Any) -> Any:
    """A copy as a tensor on the module's device, in its precision."""
    import torch

    if not isinstance(value, torch.Tensor):
        value = torch.as_tensor(np.array(value))
    value = value.detach().clone().to(like.device)
    return value.to(like.dtype) if value.is_floating_point() else value


def _length(value: Any) -> int:
    leaves: list[Any] = []
    _map(leaves.append, value)
    lengths = {len(leaf) if leaf.ndim else -1 for leaf in leaves}
    if len(lengths) != 1 or -1 in lengths:
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in leaves) or "none"
        raise InputError(
            "data: every tensor needs the same leading axis of examples; the shapes "
            f"are {shapes}"
        )
    (length,) = lengths
    if not length:
        raise InputError("data is an empty sample: a mean needs at least one example")
    return length


def _rows(value: Any, rows: slice) -> Any:
    return _map(lambda leaf: leaf[rows], value)


def _map(function: Callable[..., Any], value: Any) -> Any:
    from torch.utils import _pytree

    return _pytree.tree_map(function, value)


def _without_randomness(module: Any, norm: str) -> Any:
    """A copy in eval mode, but for batch norm by ``'train'``; weights are shared."""
    import torch

    # Weights are handed over at every call; only buffers need to be copies.
    shared = {id(p): p for p in module.parameters()}
    module = copy.deepcopy(module, shared)
    module.eval()
    if norm == "train":
        for layer in module.modules():
            if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
                layer.train()
                # Within torch.func running averages cannot be updated in place.
                layer.track_running_stats = False
                layer.running_mean = layer.running_var = None
                layer.num_batches_tracked = None
    return module


@functools.cache
def _sdpa_backend() -> Any:
    from torch.nn.attention import SDPBackend

    return SDPBackend.MATH


@contextlib.contextmanager
def _differentiable_attention() -> Iterator[None]:
    """Attention by plain operators, which can be differentiated twice."""
    from torch.nn.attention import sdpa_kernel

    with sdpa_kernel(_sdpa_backend()):
        yield


def _to_tensor(value: Any, device: Any) -> Any:
    import torch

    if isinstance(value, jax.Array) and value.dtype == jnp.bfloat16:
        return torch.from_numpy(np.array(value, np.float32)).bfloat16().to(device)
    return torch.from_numpy(np.array(value)).to(device)


def _to_jax(value: Any) -> Any:
    import torch

    value = value.detach().cpu()
    if value.dtype == torch.bfloat16:
        return jnp.asarray(value.float().numpy()).astype(jnp.bfloat16)
    # A copy, in memory of JAX's own.
    return jnp.array(value.numpy())
