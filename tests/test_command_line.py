"""The command line as a user types it: flags, presets, and what bad input gets."""

import json
import subprocess
import sys

import numpy as np
import pytest

from experiments import cifar, digits, imagenet, mnist, tiny_imagenet
from experiments.harness.arguments import resolve, schedule_options
from experiments.harness.train import main
from lrscape import schedules
from lrscape.errors import InputError
from lrscape.runs import open_run

QUICK = digits.PRESETS["quick"].fields

# A run of seconds: one device, two epochs.
SHORT = ["--num-devices=1", "--epochs=2", "--model=cnn"]


def command(*flags):
    return main("digits", digits.__doc__, digits.PRESETS, list(map(str, flags)))


def test_a_run_leaves_its_directory_whole(tmp_path, capsys):
    run_dir = tmp_path / "run"
    flags = [*SHORT, "--schedule=gaussian", "--snapshot-epochs", "1", "2"]
    assert command(*flags, "--validation=100", f"--run-dir={run_dir}") == 0
    out = capsys.readouterr().out
    assert f"everything lies in {run_dir}" in out

    config = json.loads((run_dir / "config.json").read_text())
    assert config["schedule"] == "gaussian" and config["epochs"] == 2
    for field in ("versions", "device", "cores", "commit", "command"):
        assert field in config
    metrics = open_run(run_dir).records.metrics()
    assert [line["step"] for line in metrics] == [20, 40]  # 1337 // 64 a epoch
    for line in metrics:
        assert set(line) == {
            "step", "epoch", "learning_rate", "train_loss", "train_error",
            "validation_loss", "validation_error", "test_loss", "test_error",
            "gradient_norm", "seconds",
        }  # fmt: skip
    # The rate that was used in the last update, not the next one.
    rate = schedules.gaussian(0.3, 40, start_value=0.1)
    np.testing.assert_allclose(
        [line["learning_rate"] for line in metrics], [rate(19), rate(39)], rtol=1e-5
    )
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["last"] == metrics[-1]
    assert summary["best"] == min(metrics, key=lambda line: line["validation_error"])
    assert summary["steps"] == 40 and summary["images_per_second"] > 0

    run = open_run(run_dir)
    assert set(run.snapshots) == {"initial", "peak", "final", "epoch_1", "epoch_2"}
    steps = {name: run.snapshots[name].step for name in run.snapshots}
    assert steps["initial"] == 0 and steps["epoch_1"] == 20
    assert steps["final"] == steps["epoch_2"] == 40
    assert rate(steps["peak"]) == max(rate(n) for n in range(40))
    assert sorted(int(p.name) for p in (run_dir / "checkpoints").iterdir()) == [0, 40]
    assert (run_dir / "figures" / "learning_curves.png").stat().st_size > 10_000
    curves = run.records.load_result("learning_curves")
    np.testing.assert_allclose(
        curves["test_error"], [line["test_error"] for line in metrics]
    )
    assert curves["train_loss"].units == "nat" and curves.step.units == "update"

    # The measured error is that of the final snapshot.
    from lrscape.training import initial_state, make_evaluate

    state = initial_state(run.model, run.data, run.config.make_optimizer(rate), 0)
    final = run.snapshots["final"]
    state = state.replace(params=final.params, batch_stats=final.batch_stats)
    measured = make_evaluate(run.model, run.data, run.config)(state)
    assert measured["error"] == metrics[-1]["test_error"]

    # It is finished: nothing is done twice, and nothing is overwritten.
    before = (run_dir / "summary.json").stat().st_mtime_ns
    assert command("--resume", f"--run-dir={run_dir}") == 0
    assert "is finished" in capsys.readouterr().out
    assert command(*flags, f"--run-dir={run_dir}") == 2
    assert "already holds a run" in capsys.readouterr().err
    assert command("--resume", f"--run-dir={run_dir}", "--epochs=1") == 2
    assert "epochs=1 differs from 2" in capsys.readouterr().err
    assert (run_dir / "summary.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", schedules.NAMES)
def test_every_schedule_runs_from_its_name_alone(name, tmp_path):
    flags = ["--num-devices=1", "--epochs=2", "--batch-size=256", f"--schedule={name}"]
    assert (
        command(*flags, f"--run-dir={tmp_path / 'run'}", "--checkpoint-every=99") == 0
    )
    config = open_run(tmp_path / "run").config
    largest = (
        config.schedule_options.get("peak_value")
        or config.schedule_options["init_value"]
    )
    # A monotonic schedule starts where a peak would: that is its largest rate.
    nonmonotonic = ("gaussian", "laplacian", "triangular", "trapezoid")
    assert largest == (0.3 if name in nonmonotonic else 0.1)


def test_flags_become_a_schedules_arguments():
    assert schedule_options("gaussian", QUICK, {}) == {
        "peak_value": 0.3, "start_value": 0.1,
    }  # fmt: skip
    # A peak that is changed takes its start along, unless that is given too.
    changed = schedule_options("gaussian", QUICK, {"peak_lr": 0.03})
    assert changed == pytest.approx({"peak_value": 0.03, "start_value": 0.01})
    given = {"peak_lr": 0.03, "start_lr": 0.02, "end_lr": 1e-3}
    assert schedule_options("laplacian", QUICK, given) == {
        "peak_value": 0.03, "start_value": 0.02, "end_value": 1e-3,
    }  # fmt: skip
    assert schedule_options("step", QUICK, {"milestones": [0.5], "peak_lr": 0.2}) == {
        "init_value": 0.2, "milestones": [0.5],
    }  # fmt: skip
    # What sets the end replaces a preset's other way of setting it.
    preset = {**QUICK, "variance": 0.0128}
    assert schedule_options("gaussian", preset, {})["variance"] == 0.0128
    assert "variance" not in schedule_options("gaussian", preset, {"end_lr": 1e-4})


@pytest.mark.parametrize(
    ("preset", "first"), [("paper", 0.01), ("naive", 0.03 * np.exp(-0.25 / 0.0128))]
)
def test_imagenets_rates_are_the_papers(preset, first):
    config = resolve("imagenet", imagenet.PRESETS, preset, {}, None)
    schedule = config.make_schedule(total_steps=1000, steps_per_epoch=10)
    assert float(schedule(0)) == pytest.approx(first, rel=1e-3)
    rates = np.asarray(schedule(np.arange(1001)))
    assert rates.max() == pytest.approx(0.03, rel=1e-4)
    if preset == "paper":
        assert rates[-1] == pytest.approx(3e-6, rel=1e-3)


def test_a_preset_that_streams_can_be_held_in_memory():
    given = {"stream": False, "dataset": "cifar10"}
    config = resolve("imagenet", imagenet.PRESETS, "paper", given, None)
    assert (config.stream, config.image_size) == (False, None)
    with pytest.raises(InputError, match="image_size=32 is of data that is streamed"):
        resolve("digits", digits.PRESETS, "quick", {"image_size": 32}, None)
    with pytest.raises(InputError, match="stream=True needs image_size"):
        resolve("digits", digits.PRESETS, "quick", {"stream": True}, None)
    both = {"stream": True, "image_size": 8, "normalize": "whiten"}
    with pytest.raises(InputError, match="normalize='whiten'"):
        resolve("digits", digits.PRESETS, "quick", both, None)


@pytest.mark.parametrize("experiment", [digits, mnist, cifar, imagenet, tiny_imagenet])
def test_presets_resolve(experiment):
    name = experiment.__name__.split(".")[-1]
    for preset in experiment.PRESETS:
        config = resolve(name, experiment.PRESETS, preset, {}, None)
        assert config.experiment == name and config.preset == preset
    assert (
        resolve(name, experiment.PRESETS, "quick", {"model": "mlp"}, None).model_options
        == {}
    )
    with pytest.raises(
        InputError, match="preset='qick' is unknown; did you mean 'quick'"
    ):
        resolve(name, experiment.PRESETS, "qick", {}, None)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--schedule=gausian"], ["schedule='gausian'", "did you mean 'gaussian'"]),
        (["--model=mpl"], ["model='mpl'", "did you mean 'mlp'"]),
        (["--optimizer=adm"], ["optimizer='adm'", "did you mean 'adam'"]),
        (["--preset=paperr"], ["preset='paperr'"]),
        (["--peak-lr=-0.1"], ["peak_value=-0.1", "positive"]),
        (["--peak-lr=0"], ["peak_value=0.0", "positive"]),
        (["--start-lr=0.5"], ["start_value=0.5", "above peak_value=0.3"]),
        (["--end-lr=0.4"], ["end_value=0.4", "below peak_value=0.3"]),
        (["--variance=0.01", "--end-lr=0.01"], ["variance=0.01", "end_value=0.01"]),
        (["--schedule=step", "--variance=0.1"],
         ["--variance is not taken by --schedule=step", "--milestones"]),
        (["--schedule=step", "--milestones", "0.75", "0.5"], ["(0.75, 0.5) must"]),
        (["--epochs=0"], ["epochs=0"]),
        (["--batch-size=5000"], ["batch_size=5000 is larger", "1437"]),
        (["--batch-size=63", "--num-devices=2"], ["batch_size=63", "choose 62 or 64"]),
        (["--num-devices=64"], ["num_devices=64"]),
        (["--dataset=cifar11"], ["dataset='cifar11'", "lrscape.data prepare cifar11"]),
        (["--dataset=../x"], ["dataset='../x'"]),
        (["--momentum=1.5"], ["momentum=1.5"]),
        (["--weight-decay=-1"], ["weight_decay=-1.0"]),
        (["--augment", "crop", "flop"], ["augment='flop'", "did you mean 'flip'"]),
        (["--snapshot-epochs", "99"], ["snapshot_epochs: 99", "epochs=30"]),
        (["--validation=1437"], ["validation=1437"]),
    ],
)  # fmt: skip
def test_bad_input(flags, words, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    status = command(*flags, f"--run-dir={tmp_path / 'run'}")
    error = capsys.readouterr().err
    assert status == 2
    assert error.startswith("error: ") and "Traceback" not in error
    for word in words:
        assert word in error
    assert not (tmp_path / "run").exists()  # nothing is left of what never began


def test_resume_needs_a_run(tmp_path, capsys):
    assert command("--resume") == 2
    assert "--resume needs --run-dir" in capsys.readouterr().err
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    assert command(f"--run-dir={tmp_path / 'thesis'}", "--resume") == 2
    assert "is not empty and holds no run" in capsys.readouterr().err


def test_another_experiments_run(tmp_path, capsys):
    config = resolve("cifar", cifar.PRESETS, "quick", {}, None)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert command(f"--run-dir={tmp_path}", "--resume") == 2
    assert "python -m experiments.cifar" in capsys.readouterr().err


def test_a_loss_that_is_not_finite(tmp_path, capsys):
    flags = [*SHORT, "--peak-lr=1e9", f"--run-dir={tmp_path / 'run'}"]
    assert command(*flags, "--checkpoint-every=1") == 1
    error = capsys.readouterr().err
    assert "error: the loss or its gradient is not finite at step " in error
    step = int(error.split("not finite at step ")[1].split(";")[0])
    last = max(int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir())
    # The update that met it started from the last good state.
    assert last == step
    assert (
        f"the last good checkpoint is {tmp_path / 'run' / 'checkpoints' / str(last)}"
        in error
    )
    assert not (tmp_path / "run" / "summary.json").exists()


def test_debug_shows_where(tmp_path, capsys):
    assert command("--schedule=gausian", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


def test_help_prints_the_presets(capsys):
    with pytest.raises(SystemExit) as caught:
        command("--help")
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for word in ("--schedule", "--resume", "--milestones", "quick:", "peak_lr=0.3"):
        assert word in out


@pytest.mark.parametrize(
    "flags", [["--epochs=many"], ["--epoch=3"], ["--milestones", "0.5,0.7"]]
)
def test_what_cannot_be_read_exits_with_2(flags, capsys):
    with pytest.raises(SystemExit) as caught:
        command(*flags)
    assert caught.value.code == 2


def test_the_list_of_experiments():
    listed = subprocess.run(
        [sys.executable, "-m", "experiments"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in ("digits", "mnist", "cifar"):
        assert f"python -m experiments.{name} " in listed
    assert "train." not in listed
