"""Paper 3 on digits: made once, resumed, and beside the numbers of the paper."""

import dataclasses
import json
import signal

import jax
import numpy as np
import optax
import pytest

from experiments.harness import statistics, trainer
from experiments.harness.signals import Signals
from experiments.walk_with_sgd import __main__ as walk_with_sgd
from experiments.walk_with_sgd import networks, trajectories
from experiments.walk_with_sgd.descent import descend
from experiments.walk_with_sgd.networks import Sample
from experiments.walk_with_sgd.presets import PRESETS
from lrscape import landscape
from lrscape.records import Records
from lrscape.runs import open_run
from tests.points import linear_point, regression
from tests.processes import rewrite

FLAGS = [
    "--dataset=digits", "--models", "mlp", "--epochs", "1", "3", "--updates=6",
    "--seeds=2", "--examples=120",
]  # fmt: skip


def call(root, item, *flags):
    return walk_with_sgd.main([item, *FLAGS, f"--run-dir={root}", *flags])


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A directory in which table 1 was made."""
    root = tmp_path_factory.mktemp("lab")
    assert call(root, "table1") == 0
    return root


def summary(root, item):
    return json.loads((root / "results" / f"{item}.json").read_text())


def test_table_1_counts_what_the_walk_saw(lab):
    rows = summary(lab, "table1")["rows"]
    assert [row["epoch"] for row in rows] == [1, 3]
    assert all(row["updates"] == 6 and row["of"] == 13 for row in rows)
    assert rows[0]["paper"] == 0 and rows[1]["paper"] == "-"
    found = Records(lab).load_result("table1")
    crossed = found["mlp-0.1-1_crosses_barrier"].values
    assert crossed.shape == (2, 6)
    losses = found["mlp-0.1-1_loss"].values
    by_hand = losses[..., 1:-1].max(-1) > np.maximum(losses[..., 0], losses[..., -1])
    np.testing.assert_array_equal(crossed, by_hand)
    assert rows[0]["barriers"].split()[0] == f"{by_hand.sum(axis=1).mean():.4g}"
    assert "mlp-0.1-1_second_crosses_barrier" in found


def test_networks_are_runs_and_are_made_once(lab, monkeypatch):
    (path, _) = sorted(lab.glob("mlp-digits-rate_0.1-*"))
    run = open_run(path)
    assert run.config.experiment == "walk_with_sgd" and "initial" in run.snapshots
    assert len(run.data.train) == 1_300

    def trained_again(*arguments, **options):
        raise AssertionError("what is there must not be made again")

    monkeypatch.setattr(networks.training, "fit", trained_again)
    before = summary(lab, "table1")["rows"]
    assert call(lab, "table1") == 0
    assert summary(lab, "table1")["rows"] == before


@pytest.mark.slow
def test_table_2_shares_the_networks_of_table_1(lab, capsys):
    assert call(lab, "table2") == 0
    rows = summary(lab, "table2")["rows"]
    assert [row["rate"] for row in rows] == [0.1, 0.1, 0.05, 0.05]
    found = Records(lab).load_result("table2")
    one = Records(lab).load_result("table1")
    np.testing.assert_array_equal(found["mlp-0.1-3_loss"], one["mlp-0.1-3_loss"])
    losses = found["mlp-0.05-1_loss"].values
    heights = (losses[..., 0] + losses[..., -1]) / 2 - losses.min(-1)
    assert rows[2]["height"].split()[0] == f"{heights.mean():.4g}"
    assert "paper" in capsys.readouterr().out


@pytest.mark.slow
def test_stopped_and_resumed_gives_the_same_table(lab, tmp_path, monkeypatch):
    """Ctrl-C between two updates of a stretch; the same command goes on."""
    monkeypatch.setattr(networks, "STRETCH", 2)
    seen = []

    class Stopping(Signals):
        @property
        def received(self):
            return signal.SIGINT if len(seen) == 9 else None

        @received.setter
        def received(self, value):
            pass

    record = landscape.Walk.record

    def counted(self, step, *arguments, **options):
        seen.append(step)
        return record(self, step, *arguments, **options)

    monkeypatch.setattr(landscape.Walk, "record", counted)
    monkeypatch.setattr(trainer, "noted_signals", Stopping)
    assert call(tmp_path, "table1") == 130
    saved = {file.name for file in tmp_path.rglob("walk-*.nc")}
    assert 0 < len(saved) < 6
    assert call(tmp_path, "table1") == 0
    assert summary(tmp_path, "table1")["rows"] == summary(lab, "table1")["rows"]
    ours, theirs = (Records(root).load_result("table1") for root in (tmp_path, lab))
    for name in theirs:
        if name.endswith("seconds"):  # which no run repeats
            continue
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


@pytest.mark.slow
def test_figures_1_and_2(lab, monkeypatch):
    monkeypatch.setattr(trajectories, "SHOWN", 6)
    for item in ("fig1", "fig2"):
        assert call(lab, item) == 0
        row, *others = summary(lab, item)["rows"]
        assert row["updates"] == 6 and len(others) == (item == "fig2")
        figure = lab / "figures" / f"{item}-mlp-epoch_1.png"
        assert figure.stat().st_size > 1000
    descent = Records(lab).load_result("fig1")
    # Full-batch descent goes down, which is what tells it from SGD.
    losses = descent["mlp-epoch_1_loss"].values
    assert (losses[:, -1, -1] < losses[:, 0, 0]).all()
    assert (np.isnan(descent["mlp-epoch_1_cosine"].values[:, 0])).all()


@pytest.mark.parametrize("batch_size", [1, 4, 10])
def test_descent_takes_exact_steps_whatever_its_batches(batch_size):
    objective, x, y = regression(10, batch_size)
    point, rate = linear_point(), 0.1
    steps = list(descend(objective, point, optax.sgd(rate), 2))
    assert [step for step, _, _ in steps] == [0, 1, 2]
    assert all(not leaf.any() for leaf in jax.tree.leaves(steps[0][2]))
    w, b = np.asarray(point["w"], np.float64), float(point["b"])
    for _ in range(2):
        residual = x @ w + b - y
        w, b = w - rate * 2 * x.T @ residual / 10, b - rate * 2 * residual.mean()
    np.testing.assert_allclose(steps[2][1]["w"], w, rtol=1e-5)
    np.testing.assert_allclose(steps[2][1]["b"], b, rtol=1e-5)


def test_means_and_intervals():
    assert statistics.mean_and_interval([]) == "-"
    # 4.303 standard errors to both sides.
    assert statistics.mean_and_interval([1.0, 2.0, 6.0]) == "3 (-3.57 to 9.57)"


def test_presets_are_whole():
    for plans in PRESETS.values():
        assert set(plans) == {"mlp", "vgg11", "resnet56"}
    asked = walk_with_sgd.Arguments(item="table1", preset="paper", examples=0)
    assert walk_with_sgd.lab_of(asked).plans["mlp"].updates is None
    assert walk_with_sgd.lab_of(asked).plans["mlp"].sample.examples is None


BAD = {
    "item": (["table3"], "did you mean 'table"),
    "preset": (["table1", "--preset=fast"], "preset='fast'"),
    "models": (["table1", "--models", "vgg_11"], "did you mean 'vgg11'"),
    "factory": (["table1", "--models", "tests.points:deep"], "has no 'deep'"),
    "module": (["table1", "--models", "nowhere.at_all:net"], "No module named"),
    "init": (["table1", "--init=he"], "init='he'"),
    "init_of": (["table1", "--models", "cnn", "--init=fan_in"], "in one way only"),
    "noise_shares": (["fig5", "--noise-shares", "0"], "noise_shares=0"),
    "seeds": (["table1", "--seeds=0"], "seeds=0"),
    "epochs": (["table1", "--epochs", "0"], "epochs=0"),
    "dataset": (["table1", "--dataset=digit"], "did you mean 'digits'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, tmp_path, capsys):
    flags, message = BAD[name]
    assert walk_with_sgd.main([*flags, f"--run-dir={tmp_path}"]) == 2
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_the_rates_of_the_paper():
    lab = walk_with_sgd.lab_of(walk_with_sgd.Arguments(item="all", preset="paper"))
    assert lab.rates("resnet56", "table2") == (0.3, 0.15)
    assert lab.rates("resnet56", "fig3")[0] == 0.3
    for item in ("", "table1", "fig1", "fig2", "fig5", "fig8"):
        assert lab.rates("resnet56", item)[0] == 0.1
    assert lab.rates("vgg11", "table2") == (0.1, 0.05)
    asked = walk_with_sgd.Arguments(item="all", preset="paper", rate=0.4)
    assert walk_with_sgd.lab_of(asked).rates("resnet56", "table2") == (0.4, 0.2)


def test_the_epochs_of_the_papers_figures():
    plans = PRESETS["paper"]
    # Figures 2 and 14 to 16; 10 to 13; 18 and 19. Figure 8 is of VGG-11.
    assert plans["vgg11"].drawn == plans["resnet56"].drawn == (1, 2, 25, 100)
    assert plans["mlp"].drawn == (1, 2)
    assert plans["vgg11"].counted == tuple(range(1, 41))


def test_any_model_and_its_settings_are_flags(tmp_path):
    name = "lrscape.models.plain:MLP"
    asked = walk_with_sgd.Arguments(
        item="table1", dataset="digits", run_dir=tmp_path, models=(name,), rate=0.2,
        batch_size=50, weight_decay=0.0, init="fan_in",
    )  # fmt: skip
    networks_ = []
    for one in (asked, dataclasses.replace(asked, weight_decay=0.1)):
        lab = walk_with_sgd.lab_of(one)
        assert lab.models_of("fig6") == (name,)
        rate, _ = lab.rates(name, "table1")
        networks_.append(lab.network(name, rate=rate, seed=0))
    config = networks_[0].config
    assert config.model == name and config.model_options == {"weight_init": "fan_in"}
    assert (config.batch_size, config.weight_decay) == (50, 0)
    assert config.schedule_options["init_value"] == 0.2
    # With other settings it is another network.
    assert len(list(tmp_path.glob("lrscape.models.plain_MLP-*"))) == 2
    assert open_run(networks_[0].records.path).model == networks_[0].model


@pytest.mark.slow
def test_figure_8_counts_its_epochs(lab):
    assert call(lab, "fig8") == 0
    assert summary(lab, "fig8")["rows"] == summary(lab, "table1")["rows"]
    assert (lab / "figures" / "fig8-mlp.png").stat().st_size > 1000


def test_a_network_that_was_trained_otherwise_is_not_taken_over(lab, capsys):
    (path, _) = sorted(lab.glob("mlp-digits-rate_0.1-*"))
    config = json.loads((path / "config.json").read_text())
    rewrite(path / "config.json", {**config, "weight_decay": 0.5})
    try:
        assert call(lab, "table1") == 2
        assert "trained otherwise" in capsys.readouterr().err
    finally:
        rewrite(path / "config.json", config)


def test_the_second_sample_shares_no_example(lab):
    (path, _) = sorted(lab.glob("mlp-digits-rate_0.1-*"))
    network = networks.Network(open_run(path).config, path)
    first, second = network.objectives(Sample(examples=120, batch_size=60))
    rows = [np.asarray(o.whole[0]).reshape(120, -1) for o in (first, second)]
    assert not {row.tobytes() for row in rows[0]} & {row.tobytes() for row in rows[1]}
    everything, held_out = network.objectives(Sample(examples=None, batch_size=50))
    assert everything.num_examples == 1_300 and held_out.num_examples == 137
