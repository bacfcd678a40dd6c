"""Losses over subspaces: exact, in any chunks, on any devices, killed and resumed."""

import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrscape import models
from lrscape.errors import InputError
from lrscape.landscape import (
    barycentric,
    bilinear,
    evaluate,
    flax_objective,
    grid_coordinates,
    line,
    mean_objective,
    measure_surface,
    plane,
    span,
)
from lrscape.landscape.points import PointLosses, mean_and_error
from tests.points import Weights, linear_point, quadratic, regression
from tests.processes import ROOT, wait_until
from tests.surface_process import AXIS


def test_quadratics_along_lines_and_planes():
    matrix, b, loss = quadratic()
    random = np.random.default_rng(1)
    w, u, v = random.normal(size=(3, 6))

    def exact(point):
        return point @ matrix @ point / 2 + b @ point

    points = [jnp.asarray(x, jnp.float32) for x in (w, u, v)]
    alphas = np.linspace(-1, 2, 13)
    found = evaluate(loss, line(*points[:2]), alphas)
    expected = [exact((1 - a) * w + a * u) for a in alphas]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5)
    axes = np.linspace(-1, 1, 5), np.linspace(0, 2, 4)
    found = evaluate(loss, plane(*points), grid_coordinates(*axes))
    expected = [[exact(w + x * u + y * v) for y in axes[1]] for x in axes[0]]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5)


def test_quadratics_in_double_precision(x64):
    matrix, _, _ = quadratic()

    def loss(w):
        return w @ jnp.asarray(matrix) @ w / 2

    a, b = (jnp.asarray(np.random.default_rng(s).normal(size=6)) for s in (1, 2))
    alphas = np.linspace(0, 1, 7)
    points = [(1 - t) * np.asarray(a) + t * np.asarray(b) for t in alphas]
    np.testing.assert_allclose(
        evaluate(loss, line(a, b), alphas), [p @ matrix @ p / 2 for p in points],
        rtol=1e-13,
    )  # fmt: skip


def test_corners_of_surfaces_between_points():
    values = [jnp.float32(x) for x in (1, 2, 5, 7)]
    corners = grid_coordinates([0.0, 1.0], [0.0, 1.0])
    found = evaluate(jnp.square, bilinear(*values), corners)
    np.testing.assert_allclose(found, [[49, 4], [25, 1]])
    found = evaluate(jnp.square, barycentric(*values[:3]), corners)
    np.testing.assert_allclose(found, [[1, 1], [25, 4]])


def test_grids_of_any_rank():
    axes = [np.arange(n, dtype=float) for n in (2, 3, 4)]
    cube = span(jnp.zeros(3), *jnp.eye(3))
    found = evaluate(
        lambda w: w @ jnp.array([1.0, 10.0, 100.0]), cube, grid_coordinates(*axes)
    )
    np.testing.assert_allclose(
        found, np.add.outer(np.add.outer(axes[0], 10 * axes[1]), 100 * axes[2])
    )
    alphas = np.linspace(0, 1, 6).reshape(2, 3)
    found = evaluate(jnp.sum, line(jnp.zeros(2), jnp.ones(2)), alphas)
    np.testing.assert_allclose(found, 2 * alphas, rtol=1e-6)
    assert evaluate(jnp.sum, line(jnp.zeros(2), jnp.ones(2)), 0.5).shape == ()


def test_a_function_as_a_subspace():
    u, v = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    assert evaluate(jnp.sum, lambda t: t * u, [1.0, 2.0]).tolist() == [1, 2]
    found = evaluate(
        jnp.sum, lambda c: c[0] * u + c[1] * v, grid_coordinates([1.0], [2.0, 3.0])
    )
    assert found.tolist() == [[3, 4]]


@pytest.fixture(scope="module")
def network():
    model = models.create("mlp", num_classes=5, features=(16,))
    random = np.random.default_rng(0)
    x = random.normal(size=(50, 12)).astype(np.float32)
    y = random.integers(0, 5, 50).astype(np.int32)
    params = [
        model.init(jax.random.key(seed), x, train=False)["params"] for seed in (0, 1)
    ]
    return flax_objective(model, (x, y), norm="train", batch_size=20), *params


@pytest.mark.parametrize("num_devices", [1, 4])
@pytest.mark.parametrize("chunk_size", [1, 3, 11, None])
def test_chunks_and_devices_change_rounding_alone(network, chunk_size, num_devices):
    objective, a, b = network
    alphas = np.linspace(-0.2, 1.2, 11)
    surface = measure_surface(
        objective, line(a, b), alphas, chunk_size=chunk_size,
        devices=jax.local_devices()[:num_devices],
    )  # fmt: skip
    one_by_one = [objective(line(a, b)(alpha)) for alpha in alphas]
    np.testing.assert_allclose(surface.losses, one_by_one, rtol=2e-6)
    assert surface.num_devices == num_devices
    assert surface.chunk_size == (chunk_size or 1)  # too little to do to measure
    assert surface.settings["norm"] == "train"


def test_a_chunk_is_chosen_by_measurement(network, monkeypatch):
    objective, a, b = network
    engine = PointLosses(objective, line(a, b), devices=jax.local_devices()[:1])
    seconds = {1: 1.0, 2: 1.2, 4: 2.0, 8: 4.0}
    monkeypatch.setattr(engine, "_seconds", lambda c: seconds[len(c)])
    # 1, 0.6, 0.5, and no more to be had.
    assert engine.choose_chunk(np.zeros(100)) == 4
    assert engine.choose_chunk(np.zeros(3)) == 2
    assert engine.choose_chunk(np.zeros(1)) == 1
    assert PointLosses(objective, line(a, b))._seconds(np.zeros(2)) > 0


def test_convolutions_are_never_side_by_side_on_cpu():
    model = models.create("cnn", num_classes=2, features=(2,), width=3)
    x = np.zeros((4, 4, 4, 1), np.float32)
    params = model.init(jax.random.key(0), x, train=False)["params"]
    objective = flax_objective(model, (x, np.zeros(4, int)), norm="train", batch_size=4)
    engine = PointLosses(objective, line(params, params))
    engine._seconds = None  # not even timed
    assert engine.choose_chunk(np.zeros(10**6)) == 1


def test_dicts_and_standard_errors():
    random = np.random.default_rng(0)
    values = random.normal(size=2000).astype(np.float32)

    def loss_fn(w, x):
        return {"loss": jnp.mean(w * x), "square": jnp.mean((w * x) ** 2)}

    objective = mean_objective(loss_fn, values, batch_size=10)
    way = line(jnp.float32(0), jnp.float32(2))
    surface = measure_surface(objective, way, [0.0, 1.0])
    np.testing.assert_allclose(
        surface.losses["loss"], [0, 2 * values.mean()], rtol=1e-5
    )
    error = 2 * values.std() / np.sqrt(2000)
    np.testing.assert_allclose(surface.standard_errors["loss"], [0, error], rtol=0.15)
    labelled = surface.to_dataset({"alpha": [0.0, 1.0]}, units={"alpha": "1"})
    assert labelled["loss"].dims == ("alpha",)
    assert labelled["loss_standard_error"].attrs["units"] == "nat"
    assert labelled.attrs["chunk_size"] == 1


def test_standard_errors_of_ragged_batches():
    losses = np.array([1.0, 3.0, 5.0])
    mean, error = mean_and_error(losses, np.array([0.4, 0.4, 0.2]))
    assert mean == pytest.approx(2.6)
    squares = 0.16 * 1.6**2 + 0.16 * 0.4**2 + 0.04 * 2.4**2
    assert error == pytest.approx(np.sqrt(squares * 3 / 2))
    assert np.isnan(mean_and_error(np.ones(1), np.ones(1))[1])


def test_what_is_not_finite_stays_and_is_counted():
    found = measure_surface(
        lambda w: jnp.log(w), line(jnp.float32(-1), jnp.float32(1)), [0.0, 0.5, 1.0]
    )
    assert np.isnan(found.losses[0]) and found.losses[1] == -np.inf
    assert found.losses[2] == 0 and found.num_non_finite == 2
    objective = mean_objective(
        lambda w, x: jnp.mean(w * x), np.array([1.0, np.inf]), batch_size=1
    )
    both = measure_surface(objective, line(jnp.float32(1), jnp.float32(2)), [0.0])
    assert both.losses[0] == np.inf


def test_the_callers_arrays_are_left_alone():
    objective, _, _ = regression()
    a, b = linear_point(0), linear_point(1)
    before = jax.tree.map(np.array, (a, b))
    evaluate(objective, line(a, b), [0.0, 0.5], chunk_size=2)
    jax.tree.map(np.testing.assert_array_equal, (a, b), before)
    numpy_points = jax.tree.map(np.asarray, (a, b))
    np.testing.assert_allclose(
        evaluate(objective, line(*numpy_points), [0.3]),
        evaluate(objective, line(a, b), [0.3]),
    )
    as_class = [Weights(p["w"], p["b"]) for p in (a, b)]
    x, y = (np.concatenate([objective.batch(i)[k] for i in range(3)]) for k in (0, 1))
    classy = mean_objective(
        lambda p, batch: jnp.mean((batch[0] @ p.kernel + p.bias - batch[1]) ** 2),
        (x, y), batch_size=4,
    )  # fmt: skip
    np.testing.assert_allclose(
        evaluate(classy, line(*as_class), [0.3]),
        evaluate(objective, line(a, b), [0.3]), rtol=1e-6,
    )  # fmt: skip


# The store.


def counted_surface(store, alphas, **options):
    objective, _, _ = regression()
    way = line(linear_point(0), linear_point(1))
    return measure_surface(objective, way, alphas, store=store, **options)


def test_nothing_finished_is_measured_twice(tmp_path):
    store, alphas = tmp_path / "a" / "store", np.linspace(0, 1, 7)
    fresh = counted_surface(store, alphas, chunk_size=2)
    assert fresh.num_measured == 7
    again = counted_surface(store, alphas)
    assert again.num_measured == 0 and again.chunk_size == 2
    np.testing.assert_array_equal(again.losses, fresh.losses)
    np.testing.assert_array_equal(again.standard_errors, fresh.standard_errors)


@pytest.mark.parametrize("damage", ["cut", "header", "flipped", "empty"])
def test_a_store_that_was_cut_or_damaged_measures_what_it_lacks(tmp_path, damage):
    store, alphas = tmp_path / "store", np.linspace(0, 1, 7)
    fresh = counted_surface(store, alphas, chunk_size=1)
    data = bytearray(store.read_bytes())
    lost = {"cut": 1, "header": 7, "flipped": 1, "empty": 7}[damage]
    if damage == "cut":
        data = data[:-5]
    elif damage == "header":
        data = data[:40]
    elif damage == "flipped":
        data[-40] ^= 16
    else:
        data = b""
    store.write_bytes(data)
    again = counted_surface(store, alphas, chunk_size=1)
    assert again.num_measured == lost
    np.testing.assert_array_equal(again.losses, fresh.losses)
    assert counted_surface(store, alphas).num_measured == 0


def test_a_loss_of_zero_or_nan_counts_as_done(tmp_path):
    def loss(w):
        return jnp.where(w > 0.5, jnp.nan, 0.0 * w)

    way = line(jnp.float32(0), jnp.float32(1))
    for expected in (3, 0):
        found = measure_surface(loss, way, [0.0, 0.5, 1.0], store=tmp_path / "store")
        assert found.num_measured == expected
        np.testing.assert_array_equal(found.losses, [0, 0, np.nan])


def test_a_store_of_another_surface_is_refused(tmp_path):
    store, alphas = tmp_path / "store", np.linspace(0, 1, 4)
    counted_surface(store, alphas)
    objective, _, _ = regression()
    way = line(linear_point(0), linear_point(1))
    cases = {
        "coordinates": (objective, way, alphas + 1),
        "subspace": (objective, line(linear_point(0), linear_point(2)), alphas),
        "sample": (regression(seed=5)[0], way, alphas),
        "objective": (regression(batch_size=5)[0], way, alphas),
    }
    content = store.read_bytes()
    for part, arguments in cases.items():
        with pytest.raises(InputError, match=f"another surface: its .*{part}"):
            measure_surface(*arguments, store=store)
    assert store.read_bytes() == content
    other = tmp_path / "text"
    other.write_text("my thesis\n")
    for text in ("my thesis\n", "my thesis"):
        other.write_text(text)
        with pytest.raises(InputError, match="no store of a surface"):
            measure_surface(objective, way, alphas, store=other)
        assert other.read_text() == text


def test_what_a_function_closes_over_tells_surfaces_apart(tmp_path):
    way = line(jnp.zeros(2), jnp.ones(2))

    def of(shift):
        return lambda w: jnp.sum(w + shift)

    measure_surface(of(jnp.ones(2)), way, [0.0], store=tmp_path / "store")
    with pytest.raises(InputError, match="sample"):
        measure_surface(of(jnp.zeros(2)), way, [0.0], store=tmp_path / "store")


def test_another_loss_is_another_surface(tmp_path):
    way = line(jnp.zeros(2), jnp.ones(2))
    measure_surface(lambda w: jnp.sum(w**2), way, [0.0], store=tmp_path / "store")
    with pytest.raises(InputError, match="objective differ"):
        measure_surface(
            lambda w: 100 + jnp.sum(w**4), way, [0.0], store=tmp_path / "store"
        )


def test_a_function_as_a_subspace_is_known_again(tmp_path):
    def way(size):
        return lambda t: t * jnp.full(2, size)

    for expected in (2, 0):
        found = measure_surface(jnp.sum, way(1.0), [0.0, 1.0], store=tmp_path / "store")
        assert found.num_measured == expected
    with pytest.raises(InputError, match="subspace differ"):
        measure_surface(jnp.sum, way(2.0), [0.0, 1.0], store=tmp_path / "store")


@pytest.mark.slow
def test_killed_twice_and_resumed(tmp_path):
    store, counter, result = (tmp_path / name for name in ("store", "count", "out.npy"))
    counter.touch()

    def start():
        command = [sys.executable, "-m", "tests.surface_process"]
        return subprocess.Popen(
            [*command, *map(str, (store, counter, result))], cwd=ROOT,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    for target in (100, 300):
        process = start()
        wait_until(lambda n=target: counter.stat().st_size >= n, process)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert not result.exists()
    process = start()
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    x, y = np.meshgrid(AXIS, AXIS, indexing="ij")
    np.testing.assert_allclose(np.load(result), x**2 + y**2, atol=1e-6)
    # Each run looks at one batch to learn its shape and hash it (twice with a store);
    # beside these only the point that a kill interrupted is measured again.
    assert counter.stat().st_size <= 625 + 2 + 3 * LOOKS


# How often a run asks for a batch before the first point.
LOOKS = 6


def test_two_processes_do_not_share_a_store(tmp_path):
    code = (
        "import sys, time; from lrscape.landscape.store import Store\n"
        "Store(sys.argv[1], {}, 3, ['loss'], {}); print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    path = tmp_path / "store"
    process = subprocess.Popen(
        [sys.executable, "-c", f"import gc; gc.disable()\n{code}".replace(
            "Store(sys", "kept = Store(sys"), str(path)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(InputError, match="another process"):
            measure_surface(jnp.sum, line(jnp.zeros(2), jnp.ones(2)), [0.0], store=path)
    finally:
        process.kill()
        process.communicate()


# Bad input.

WAY = line(jnp.zeros(2), jnp.ones(2))
PLANE = plane(jnp.zeros(2), jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]))
BAD = {
    "plane, 1": (lambda: evaluate(jnp.sum, PLANE, [0.0, 1.0, 2.0]), "last axis must"),
    "plane, 0": (lambda: evaluate(jnp.sum, PLANE, 1.0), "last axis must be 2"),
    "ragged": (lambda: evaluate(jnp.sum, WAY, [[1.0], [1.0, 2.0]]), "no array"),
    "words": (lambda: evaluate(jnp.sum, WAY, ["a"]), "must be an array of numbers"),
    "no point": (lambda: evaluate(jnp.sum, WAY, []), "hold no point"),
    "chunk": (lambda: evaluate(jnp.sum, WAY, [0.0], chunk_size=0), "chunk_size=0"),
    "vector": (lambda: evaluate(lambda w: w, WAY, [0.0]), r"shape \(2,\)"),
    "no subspace": (lambda: evaluate(jnp.sum, 3, [0.0]), "subspace=3"),
    "unwritable": (
        lambda: evaluate(jnp.sum, WAY, [0.0], store="/proc/none/store"), "cannot be"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(InputError, match=message):
        call()


def test_progress_shows_the_time_left(capsys):
    evaluate(jnp.sum, WAY, np.linspace(0, 1, 5), progress=True, chunk_size=1)
    err = capsys.readouterr().err
    assert "5/5" in err and "point" in err
    evaluate(jnp.sum, WAY, [0.0])
    assert capsys.readouterr().err == ""


def test_labels_are_those_that_were_measured_at():
    surface = measure_surface(lambda w: w**2, line(0.0, 1.0), [0.0, 1.0, 2.0])
    assert surface.to_dataset({"alpha": [0, 1, 2]})["alpha"].values.tolist() == [
        0,
        1,
        2,
    ]
    with pytest.raises(InputError, match=r"alpha has the values \[10"):
        surface.to_dataset({"alpha": [10, 20, 30]})
