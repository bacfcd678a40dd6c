"""Figures show what they are given: looked at by eye, counted here."""

import numpy as np

from lrscape.figures import learning_curves


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
