"""Sweeps: what is run, what a killed one comes to, and what Slurm is told."""

import os
import re
import signal
import stat
import subprocess
import sys

import numpy as np
import pytest

from experiments.sweep import __main__ as sweep
from experiments.sweep import launchers
from experiments.sweep.gather import figure, gather, table
from experiments.sweep.grid import make_jobs, parse_grid
from lrscape.errors import InputError
from lrscape.records import Records
from tests.processes import ROOT, wait_until

FLAGS = ["--epochs=1", "--model=mlp", "--num-devices=1"]
GRID = ["schedule=gaussian,step", "peak_lr=0.1,1e30"]


def test_runs_are_all_combinations(tmp_path):
    grid = parse_grid(["schedule=gaussian,step", "peak-lr=0.1,0.3,1"])
    jobs = make_jobs("digits", grid, 2, ["--epochs=1"], tmp_path)
    assert len({job.run_dir for job in jobs}) == len(jobs) == 12
    assert [job.values["seed"] for job in jobs[:3]] == ["0", "1", "0"]
    last = jobs[-1]
    assert last.run_dir == tmp_path / "runs" / "schedule_step-peak_lr_1-seed_1"
    assert last.flags == (
        "--epochs=1", "--schedule", "step", "--peak-lr", "1", "--seed=1",
        f"--run-dir={last.run_dir}", "--resume",
    )  # fmt: skip
    (listed,) = make_jobs(
        "digits", parse_grid(["milestones=0.5+0.8"]), 1, ["--schedule=step"], tmp_path
    )
    assert listed.flags[1:4] == ("--milestones", "0.5", "0.8")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "name what to vary"),
        (["peak_lr"], "must be FIELD=VALUE"),
        (["peak_lr=0.1,"], "must be FIELD=VALUE"),
        (["peak_rl=0.1"], "peak_lr"),
        (["peak_lr=0.1,0.1"], "value twice"),
        (["peak_lr=0.1", "peak-lr=0.2"], "given twice"),
        (["seed=1,2"], "use --seeds"),
        (["run_dir=a,b"], "not varied"),
    ],
)
def test_grids_that_cannot_be(entries, message):
    with pytest.raises(InputError, match=message):
        parse_grid(entries)


@pytest.mark.parametrize(
    ("experiment", "grid", "seeds", "flags", "message"),
    [
        ("cifr", ["epochs=1"], 1, [], "cifar"),
        ("digits", ["epochs=1"], 0, [], "seeds=0"),
        ("digits", ["epochs=0"], 1, [], "epochs=0"),
        ("digits", ["schedule=gausian"], 1, [], "gaussian"),
        ("digits", ["schedule=gaussian,rational", "start_lr=0.1"], 1, [], "start-lr"),
        ("digits", ["epochs=1"], 1, ["--seed=3"], "seed: a sweep chooses"),
        ("digits", ["data_dir=/"], 1, [], "may hold letters"),
    ],
)
def test_runs_that_cannot_be(tmp_path, experiment, grid, seeds, flags, message):
    with pytest.raises(InputError, match=message):
        make_jobs(experiment, parse_grid(grid), seeds, flags, tmp_path)
    assert not list(tmp_path.iterdir())


def made(job, error):
    """A run that is finished, without training it."""
    records = Records.create(job.run_dir, {})
    line = {"step": 1, "epoch": 1, "test_error": error, "test_loss": 1.0}
    line |= {"train_error": 0.0, "train_loss": 0.5}
    records.append_metrics({**line, "test_error": error / 2})
    records.append_metrics(line)
    records.write_summary({"last": line, "seconds": 2.0})


def test_what_is_done_is_gathered(tmp_path):
    grid = parse_grid(GRID)
    jobs = make_jobs("digits", grid, 2, [], tmp_path)
    for i, job in enumerate(jobs[:5]):
        made(job, 0.1 * (i + 1))
    found = gather(jobs, grid, 2)
    assert found.test_error.dims == ("schedule", "peak_lr", "seed")
    assert found.peak_lr.values.tolist() == [0.1, 1e30]
    one = found.sel(schedule="gaussian", peak_lr=1e30)
    np.testing.assert_allclose(one.test_error, [0.3, 0.4])
    np.testing.assert_allclose(one.least_test_error, [0.15, 0.2])
    assert found.done.values.sum() == 5
    rows = table(found, ["", "", "", "it broke"])
    assert [row["seeds"] for row in rows] == ["2 of 2", "2 of 2", "1 of 2", "0 of 2"]
    assert rows[0]["test error, %"].startswith("15 (")
    assert rows[2]["test error, %"] == "50" and rows[3]["test error, %"] == "-"
    assert rows[3]["failed"] == "it broke"
    drawn = figure(found).axes[0]
    assert [text.get_text() for text in drawn.get_legend().get_texts()] == [
        "schedule gaussian", "schedule step",
    ]  # fmt: skip


def test_words_of_a_failure():
    assert launchers.error_in("a\nerror: too large\nb") == "too large"
    assert launchers.error_in("a\nTraceback\nKeyError: 1\n") == "KeyError: 1"
    assert launchers.error_in(None) == "it left no word"


def start(root, jobs, *flags):
    return subprocess.Popen(
        [
            sys.executable, "-m", "experiments.sweep", "digits", *FLAGS, "--grid",
            *GRID, "--seeds=1", f"--run-dir={root}", f"--jobs-dir={jobs}", *flags,
        ],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on(tmp_path):
    """Killed with its jobs, then alone; a run that fails is listed, and tried again."""
    undisturbed, root = tmp_path / "undisturbed", tmp_path / "killed"
    process = start(undisturbed, tmp_path / "jobs")
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "2 of 4 runs failed" in out and "not finite" in out
    process = start(root, tmp_path / "jobs")
    wait_until(lambda: list(root.glob("runs/*/summary.json")), process, 120)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    process = start(root, tmp_path / "jobs")
    wait_until(lambda: len(list(root.glob("runs/*/config.json"))) > 1, process, 120)
    process.kill()
    process.communicate()
    process = start(root, tmp_path / "jobs")
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 1 and "2 of 4 runs failed" in out
    ours, theirs = (Records(r).load_result("sweep") for r in (root, undisturbed))
    assert ours.drop_vars("seconds").equals(theirs.drop_vars("seconds"))
    assert ours.done.values.tolist() == [[[True], [False]], [[True], [False]]]
    # No pickle is in a run directory, nor in the sweep's.
    assert not [p for p in root.rglob("*") if p.suffix in (".pkl", ".pickle")]


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands that stand for Slurm's, and keep what they are told."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, says in {
        "sbatch": f'cp "$1" {tmp_path}/submitted.sh; echo Submitted batch job 12',
        "srun": "true",
        "sacct": "echo 'JobID|State|NodeList'; for i in 0 1 2 3; do "
        'echo "12_$i|$(cat state)|"; done',
        "scontrol": "true",
    }.items():
        file = folder / name
        file.write_text(f"#!/bin/sh\ncd {tmp_path}\n{says}\n")
        file.chmod(file.stat().st_mode | stat.S_IEXEC)
    (tmp_path / "state").write_text("RUNNING")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return tmp_path


def test_slurm_is_told_of_all_jobs_once(slurm, capsys):
    argv = [
        "digits", *FLAGS, "--grid", *GRID, f"--run-dir={slurm}/sweep",
        f"--jobs-dir={slurm}/jobs", "--launcher=slurm", "--parallel=3", "--slurm",
        "partition=gpu", "time=600",
    ]  # fmt: skip
    assert sweep.main(argv) == 0
    assert "4 jobs submitted, 0 of 4 done" in capsys.readouterr().out
    script = (slurm / "submitted.sh").read_text()
    for line in ("--array=0-3%3", "--partition=gpu", "--time=600"):
        assert re.search(f"^#SBATCH {line}$", script, re.MULTILINE), script
    other = [f"--run-dir={slurm}/other", "--slurm", "tme=600"]
    assert sweep.main([*argv[:-3], *other]) == 2
    assert "tme" in capsys.readouterr().err
    # On their way: not again.
    assert sweep.main(argv) == 0
    assert "0 jobs submitted" in capsys.readouterr().out
    jobs = make_jobs("digits", parse_grid(GRID), 1, FLAGS, slurm / "sweep")
    made(jobs[0], 0.5)
    (slurm / "state").write_text("FAILED")
    launchers.submitit.SlurmJob.watcher.clear()
    assert sweep.main(argv) == 0
    assert "3 jobs submitted, 1 of 4 done" in capsys.readouterr().out
    assert not list((slurm / "sweep").rglob("*.pkl"))


def test_slurm_that_is_not_there(tmp_path, capsys):
    argv = ["digits", *FLAGS, "--grid", *GRID, f"--run-dir={tmp_path}/sweep",
            f"--jobs-dir={tmp_path}/jobs", "--launcher=slurm"]  # fmt: skip
    assert sweep.main(argv) == 2
    assert "launcher='slurm'" in capsys.readouterr().err


def test_bad_input(tmp_path, capsys):
    argv = ["digits", "--grid", "epochs=1", f"--run-dir={tmp_path}/sweep"]
    for more, message in (
        (["--launcher=slrum"], "slurm"),
        (["--parallel=0"], "parallel=0"),
        (["--launcher=slurm", "--slurm", "gpus"], "must be NAME=VALUE"),
        ([f"--jobs-dir={tmp_path}/sweep/jobs"], "choose one outside"),
    ):
        assert sweep.main([*argv, *more]) == 2
        assert message in capsys.readouterr().err
