"""Figures show what they are given: looked at by eye, counted here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from lrscape import figures
from lrscape.errors import InputError
from lrscape.figures import learning_curves
from lrscape.landscape import (
    CurvatureTrack,
    Walk,
    grid_coordinates,
    line,
    measure_surface,
    plane,
)
from lrscape.landscape.density import SpectralDensity
from lrscape.landscape.flatness import Curves
from tests.points import double_well


def lines(count):
    return [
        {"epoch": n, "learning_rate": 0.1 / n, "train_loss": 1 / n,
         "train_error": 0.5 / n, "test_loss": 2 / n, "test_error": 0.6 / n}
        for n in range(1, count + 1)
    ]  # fmt: skip


def test_learning_curves_hold_every_point_in_per_cent():
    figure = learning_curves(lines(30), title="a run")
    loss, error, rate = figure.axes
    train, test = loss.get_lines()
    assert [line.get_label() for line in (train, test)] == ["train", "test"]
    np.testing.assert_allclose(train.get_ydata(), 1 / np.arange(1, 31))
    np.testing.assert_allclose(error.get_lines()[1].get_ydata(), 60 / np.arange(1, 31))
    np.testing.assert_allclose(rate.get_lines()[0].get_ydata(), 0.1 / np.arange(1, 31))
    assert figure.get_suptitle() == "a run"
    assert "%" in error.get_ylabel() and "nats" in loss.get_ylabel()


def test_gaps_and_short_runs():
    metrics = lines(3)
    del metrics[1]["test_loss"], metrics[1]["test_error"]
    metrics[2]["train_loss"] = float("nan")
    loss, _, _ = learning_curves(metrics).axes
    train, test = loss.get_lines()
    np.testing.assert_array_equal(test.get_xdata(), [1, 3])
    assert np.isnan(train.get_ydata()[2])
    assert len(learning_curves([]).axes) == 3


# The landscape.


def bowl_surface(shift=1.0, size=9):
    axis = np.linspace(-1, 1, size)
    way = plane(jnp.zeros(2), jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]))
    surface = measure_surface(
        lambda w: jnp.sum(w**2) + shift, way, grid_coordinates(axis, axis)
    )
    return surface.to_dataset({"x": axis, "y": axis}, units={"x": "m"})


def test_lines_hold_every_point_and_mark_both_ends():
    alphas = np.linspace(0, 1, 5)
    way = line(jnp.float32(1), jnp.float32(0))
    result = measure_surface(lambda w: jnp.log(w), way, alphas).to_dataset(
        {"alpha": alphas}
    )
    figure = figures.line_figure({"one": result, "two": result}, ends={0: "a", 1: "b"})
    (axes,) = figure.axes
    np.testing.assert_allclose(axes.get_lines()[0].get_xdata(), alphas)
    # log(0) is hatched, and counted.
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[0] == "one" and "1 not finite (hatched)" in labels
    assert [patch.get_hatch() for patch in axes.patches] == ["///"] * 2
    assert {text.get_text() for text in axes.texts} == {"a", "b"}
    assert axes.get_ylabel() == "loss (nats)" and axes.get_xlabel() == "alpha"
    many = figures.line_figure({str(i): result for i in range(8)}).axes[0]
    assert len([n for n in many.get_legend_handles_labels()[1] if n.isdigit()]) == 8
    with pytest.raises(InputError, match="contour_figure"):
        figures.line_figure(bowl_surface())


def test_contours_have_levels_even_in_the_logarithm():
    figure = figures.contour_figure(
        bowl_surface(), path=np.array([[0.0, 0.0], [0.5, 0.5]]), points={"p": (0, 0)}
    )
    axes = figure.axes[0]
    assert axes.get_xlabel() == "x (m)" and axes.get_ylabel() == "y"
    assert "p" in [text.get_text() for text in axes.texts]
    levels = axes.collections[0].levels
    np.testing.assert_allclose(np.diff(np.log(levels)), np.log(3) / 15, rtol=1e-5)
    # Losses of 0 or less have no logarithm: even levels.
    negative = figures.contour_figure(bowl_surface(shift=-1.0))
    levels = negative.axes[0].collections[0].levels
    np.testing.assert_allclose(np.diff(levels), levels[1] - levels[0], rtol=1e-4)
    line_result = measure_surface(jnp.sum, line(jnp.zeros(1), jnp.ones(1)), [0.0, 1.0])
    with pytest.raises(InputError, match="two coordinates"):
        figures.contour_figure(line_result.to_dataset({"a": [0.0, 1.0]}))


def test_what_is_not_finite_is_hatched_and_counted():
    result = bowl_surface()
    result["loss"][:2, 3] = np.nan
    figure = figures.contour_figure(result)
    hatched = [patch for patch in figure.axes[0].patches if patch.get_hatch()]
    assert len(hatched) == 2
    assert "2 not finite" in figure.axes[0].get_legend().get_texts()[0].get_text()
    solid = figures.surface_figure(result)
    assert "2 not finite" in solid.axes[0].get_legend().get_texts()[0].get_text()
    page = figures.interactive_surface(result)
    assert [trace.name for trace in page.data[1:]] == ["2 not finite"]
    result["loss"][:] = np.nan
    for draw in (figures.contour_figure, figures.surface_figure):
        draw(result).canvas.draw()


def test_surfaces_to_turn_hold_the_path_at_its_own_height(tmp_path):
    path = np.array([[0.0, 0.0], [0.5, 0.5]])
    page = figures.interactive_surface(
        bowl_surface(), path=path, path_heights=np.array([4.0, 5.0]),
        points={"p": (1.0, 1.0)}, title="<b>t</b>",
    )  # fmt: skip
    surface, drawn, points = page.data
    np.testing.assert_allclose(surface.z, bowl_surface()["loss"].values.T)
    assert list(drawn.z) == [4.0, 5.0] and list(points.z) == [3.0]
    page.write_html(tmp_path / "a.html", include_plotlyjs=True)
    text = (tmp_path / "a.html").read_text()
    assert "<script src" not in text  # opens without a network
    steep = bowl_surface()
    steep["loss"][0, 0] = 1000.0
    assert "log10" in figures.surface_figure(steep).axes[0].get_zlabel()


def test_the_walk_marks_floors_and_barriers():
    walk = Walk(double_well, windows=[(0, 3)], num_points=9)
    for step, w in enumerate([-2.0, 0.5, -1.0, 1.0]):
        walk.record(step, jnp.array([w]))
    result = walk.to_dataset()
    figure = figures.walk_figure(result, title="a walk")
    loss, cosine, distance = figure.axes
    labels = {text.get_text() for text in loss.get_legend().get_texts()}
    assert labels == {"valley floor", "barrier"}
    np.testing.assert_allclose(loss.get_lines()[0].get_xdata(), np.arange(11) / 10)
    barriers = loss.get_lines()[-1]
    assert len(barriers.get_xdata()) == int(result["crosses_barrier"].sum()) > 0
    assert "cosine" in cosine.get_ylabel() and "distance" in distance.get_ylabel()
    short = figures.walk_figure(result, max_steps=1)
    assert len(short.axes[1].get_lines()[0].get_xdata()) == 1


def test_perturbations_show_each_direction_and_their_mean():
    curves = Curves(np.arange(3.0), np.arange(6.0).reshape(2, 3), np.ones((2, 3)))
    figure = figures.perturbation_figure({"weights": {"all": curves}})
    thin, other, mean = figure.axes[0].get_lines()
    np.testing.assert_allclose(mean.get_ydata(), [1.5, 2.5, 3.5])
    assert thin.get_alpha() == other.get_alpha() == 0.25


# Curvature.


def test_a_density_and_its_outliers():
    grid_ = np.linspace(-1, 5, 50)
    found = SpectralDensity(grid_, np.exp(-(grid_**2)))
    (axes,) = figures.density_figure({"a": found, "b": found}, eigenvalues=[4, 5]).axes
    assert axes.get_yscale() == "log"
    first, _, ticks = axes.get_lines()
    np.testing.assert_allclose(first.get_ydata(), found.density)
    np.testing.assert_array_equal(ticks.get_xdata(), [4, 5])
    broken = SpectralDensity(grid_, np.full(50, np.nan))
    with pytest.raises(InputError, match="finite"):
        figures.density_figure(broken)


def test_sharpness_and_the_limit():
    track = CurvatureTrack(
        lambda w: w[0] ** 3 / 6 + w[1] ** 2 / 4, key=jax.random.key(0)
    )
    for step, w in enumerate([2.0, -3.0]):
        track.record(step, jnp.array([w, 0.0]), learning_rate=0.1)
    curvature, rate = figures.sharpness_figure(track.to_dataset()).axes
    labels = curvature.get_legend_handles_labels()[1]
    assert "negative" in labels and "2 / learning rate" in labels
    line_ = curvature.get_lines()[0]
    np.testing.assert_allclose(line_.get_ydata(), [2, 3], rtol=0.02)
    np.testing.assert_allclose(rate.get_lines()[0].get_ydata(), [0.1, 0.1])


def test_shares_of_many_layers_are_summed_up():
    values = np.full((2, 40), 1 / 40)
    shares = xr.DataArray(
        values, dims=("eigenvector", "layer"),
        coords={"layer": [f"layer{i}" for i in range(40)],
                "eigenvalue": ("eigenvector", [3.0, 2.0])},
    )  # fmt: skip
    axes, _ = figures.layer_shares_figure(shares, max_layers=10).axes
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert len(names) == 10 and names[-1] == "31 others"
    np.testing.assert_allclose(axes.images[0].get_array().sum(axis=0), 100)
    assert [t.get_text() for t in axes.get_xticklabels()] == ["3", "2"]
