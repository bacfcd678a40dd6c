"""Hessians in PyTorch by PyHessian, hessian-eigenthings and curvlinops.

Each package is handed the same network in inference mode and the same batches, and does
what its own documentation shows.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from experiments.bench.torch_surface import make_batches, make_model

PACKAGES = {
    "PyHessian": "pyhessian",
    "hessian-eigenthings": "hessian_eigenthings",
    "curvlinops": "curvlinops",
}


@dataclasses.dataclass(frozen=True)
class Peer:
    """What a package offers.

    Attributes:
        product: the Hessian times a list of arrays like the parameters.
        eigenvalues: ``(k, tolerance, most) -> (k,)``, the largest first; PyHessian's
            are the largest by magnitude.
        trace: ``num_samples -> (mean, standard error)``; NaN where none is given.
        products: how many products a call of a function makes.
        density: ``(num_matvecs, num_samples, (lowest, highest)) -> (grid, density)``,
            or None. The ends of the spectrum are given, since one package would spend
            some twenty more products on them.
    """

    product: Callable[[list[Any]], list[Any]]
    eigenvalues: Callable[[int, float, int], np.ndarray]
    trace: Callable[[int], tuple[float, float]]
    products: Callable[[Callable[[], Any]], int]
    density: Callable[[int, int, tuple[float, float]], Any] | None = None


def make_peers(variables: Any, images: Any, labels: Any) -> dict[str, Peer]:
    """The packages that are installed, by name; prints which are not.

    Args:
        variables: of the network in JAX.
        images: (batches, size, height, width, channels).
        labels: (batches, size).
    """
    # Of all the machine's cores, this process may not have every one.
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    makers = {
        "PyHessian": _pyhessian,
        "hessian-eigenthings": _eigenthings,
        "curvlinops": _curvlinops,
    }
    batches = make_batches(images, labels, channels_last=False)
    peers = {}
    for name, package in PACKAGES.items():
        if importlib.util.find_spec(package) is None:
            print(f"{name} is not installed: left out")
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peers[name] = makers[name](make_model(variables), batches)
    return peers


def double_backward(
    variables: Any, images: Any, labels: Any
) -> Callable[[list[Any]], list[Any]]:
    """The Hessian of the mean loss times a list of arrays, by PyTorch alone.

    The gradient of the product of gradient and vector; each batch's graph is made
    anew, as it has to be where batches do not all fit.

    Args:
        variables: of the network in JAX.
        images: (batches, size, height, width, channels).
        labels: (batches, size).
    """
    model, loss = make_model(variables), nn.CrossEntropyLoss()
    batches = make_batches(images, labels, channels_last=False)
    params = list(model.parameters())

    def product(vector: list[Any]) -> list[Any]:
        total = [torch.zeros_like(parameter) for parameter in params]
        for x, y in batches:
            gradient = torch.autograd.grad(loss(model(x), y), params, create_graph=True)
            slope = sum((g * v).sum() for g, v in zip(gradient, vector, strict=True))
            for sums, part in zip(
                total, torch.autograd.grad(slope, params), strict=True
            ):
                sums += part
        _wait()
        return [sums / len(batches) for sums in total]

    return product


def as_parameters(tree: Any, variables: Any) -> list[Any]:
    """A tree like the parameters in JAX as a list like those in PyTorch."""
    twin = make_model({**variables, "params": tree})
    return [parameter.detach().clone() for parameter in twin.parameters()]


def _pyhessian(model: nn.Module, batches: list) -> Peer:
    from pyhessian import hessian
    from pyhessian.utils import hessian_vector_product

    # A single batch keeps its graph for all products; several are gone through anew.
    several = len(batches) > 1
    data = {"dataloader": batches} if several else {"data": batches[0]}
    cuda = torch.cuda.is_available()
    made = hessian(model, nn.CrossEntropyLoss(), cuda=cuda, **data)

    def product(vector: list[Any]) -> list[Any]:
        if several:
            found = made.dataloader_hv_product(vector)[1]
        else:
            found = hessian_vector_product(made.gradsH, made.params, vector)
        _wait()
        return list(found)

    def eigenvalues(k: int, tolerance: float, most: int) -> np.ndarray:
        found = made.eigenvalues(maxIter=most, tol=tolerance, top_n=k)[0]
        return np.array(found)

    def trace(num_samples: int) -> tuple[float, float]:
        # It would stop early where two means happen to be close, and at a tolerance of
        # 0 too: what it compares is negative where a mean is.
        return _mean(made.trace(maxIter=num_samples, tol=-np.inf))

    if several:
        count = _counting(hessian, "dataloader_hv_product")
    else:
        count = _counting(sys.modules[hessian.__module__], "hessian_vector_product")
    return Peer(product, eigenvalues, trace, count)


def _eigenthings(model: nn.Module, batches: list) -> Peer:
    from hessian_eigenthings import (
        HessianOperator,
        hutchinson,
        lanczos,
        spectral_density,
    )
    from hessian_eigenthings.loss_fns import supervised_loss

    operator = HessianOperator(model, batches, supervised_loss(nn.CrossEntropyLoss()))
    split = _splitter(model)

    def product(vector: list[Any]) -> list[Any]:
        found = operator.matvec(torch.cat([part.reshape(-1) for part in vector]))
        _wait()
        return split(found)

    def eigenvalues(k: int, tolerance: float, most: int) -> np.ndarray:
        # It has no rule to stop by: `most` products are made.
        found = lanczos(
            operator, k=k, max_iter=most, tol=tolerance, which="LA",
            reorthogonalize=True, seed=0,
        )  # fmt: skip
        return found.eigenvalues.cpu().numpy()

    def trace(num_samples: int) -> tuple[float, float]:
        found = hutchinson(operator, num_samples=num_samples, seed=0)
        return float(found.estimate), float(found.stderr)

    def density(num_matvecs: int, num_samples: int, _: Any) -> Any:
        found = spectral_density(
            operator, num_runs=num_samples, lanczos_steps=num_matvecs, seed=0
        )
        return found.grid, found.density

    count = _counting(HessianOperator, "matvec")
    return Peer(product, eigenvalues, trace, count, density)


def _curvlinops(model: nn.Module, batches: list) -> Peer:
    from curvlinops import (
        HessianLinearOperator,
        hutchinson_trace,
        lanczos_approximate_spectrum,
    )
    from scipy.sparse.linalg import eigsh

    operator = HessianLinearOperator(
        model, nn.CrossEntropyLoss(), list(model.parameters()), batches
    )

    def product(vector: list[Any]) -> list[Any]:
        found = operator @ vector
        _wait()
        return list(found)

    def eigenvalues(k: int, tolerance: float, most: int) -> np.ndarray:
        found = eigsh(
            operator.to_scipy(), k=k, which="LA", tol=tolerance, maxiter=most,
            return_eigenvectors=False,
        )  # fmt: skip
        return np.sort(found)[::-1]

    def trace(num_samples: int) -> tuple[float, float]:
        return float(hutchinson_trace(operator, num_samples)), np.nan

    def density(num_matvecs: int, num_samples: int, ends: tuple[float, float]) -> Any:
        return lanczos_approximate_spectrum(
            operator, num_matvecs, num_repeats=num_samples, boundaries=ends
        )

    # It multiplies a matrix: as many products as there are columns.
    count = _counting(HessianLinearOperator, "_matmat", lambda x: x[0].shape[-1])
    return Peer(product, eigenvalues, trace, count, density)


def _counting(
    owner: Any, name: str, size: Callable[[Any], int] = lambda _: 1
) -> Callable[[Callable[[], Any]], int]:
    """Counts the products that a package makes, by the function that makes them."""
    original = getattr(owner, name)

    def count(function: Callable[[], Any]) -> int:
        made = 0

        def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal made
            made += size(arguments[-1])
            return original(*arguments, **options)

        with mock.patch.object(owner, name, counted):
            function()
        return made

    return count


def _splitter(model: nn.Module) -> Callable[[Any], list[Any]]:
    shapes = [parameter.shape for parameter in model.parameters()]

    def parts(vector: Any) -> Iterator[Any]:
        start = 0
        for shape in shapes:
            yield vector[start : start + shape.numel()].reshape(shape)
            start += shape.numel()

    return lambda vector: list(parts(vector))


def _mean(samples: list[float]) -> tuple[float, float]:
    count = len(samples)
    error = np.std(samples, ddof=1) / np.sqrt(count) if count > 1 else np.nan
    return float(np.mean(samples)), float(error)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
