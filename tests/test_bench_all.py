"""Every benchmark with one command: their order, budgets, gaps and last table."""

import json
import subprocess
import sys

import pytest

from experiments.bench import __main__ as bench
from experiments.bench.__main__ import Bench, main, shares, speeds
from tests.processes import ROOT

MISSING = (
    "tyro", "tensorflow_datasets", "array_record", "grain", "submitit",
    "loss_landscapes", "pyhessian", "curvlinops", "hessian_eigenthings",
)  # fmt: skip
# Run in a process where these cannot be imported, however they are asked for.
BLOCK = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {MISSING!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def without_packages(code):
    return subprocess.run(
        [sys.executable, "-c", BLOCK + code], cwd=ROOT, capture_output=True, text=True,
        timeout=400,
    )  # fmt: skip


def test_all_can_be_listed_without_the_packages():
    done = without_packages(
        "from experiments.bench.__main__ import main\n"
        "status = main(['all', '--list'])\n"
        "assert 'jax' not in sys.modules, 'it would take the device'\n"
        "sys.exit(status)"
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(bench.BENCHES)
    assert "left out: needs grain" in lines[-1]
    assert sum(float(line.split()[1]) for line in lines) <= 9 * 60


@pytest.mark.slow
def test_benchmarks_run_without_the_packages(tmp_path):
    """Those of the last table: on noise, and products of a Hessian."""
    done = without_packages(f"""
from experiments.bench import curvature, surface, training, walk
small = {{"features": (8,), "batch_norm": False}}
curvature.CASES["mlp"] = (small, (4, 4, 1), 8, 2, 6, 1)
surface.CASES["mlp"] = (small, (4, 4, 1), 500, 2)
for module, flags in (
    (curvature, ["--parts", "products"]), (surface, ["--parts", "walk"]),
    (training, ["--parts", "training", "--batch-size=4"]),
):
    file = r"{tmp_path}/" + module.__name__.rpartition(".")[2] + ".json"
    model = ["--model", "mlp"]
    sys.argv = ["bench", *model, *flags, "--repeats=2", "--json", file]
    module.main()
""")
    assert done.returncode == 0, done.stderr[-3000:]
    found = {
        file.stem: json.loads(file.read_text()) for file in tmp_path.glob("*.json")
    }
    assert set(found) == {"curvature", "surface", "training"}
    assert found["surface"]["mlp"]["walk"]["Walk.record"]["seconds"] > 0
    assert "surface" not in found["surface"]["mlp"]
    assert found["training"]["training"]["flops_per_call"] > 1e5


WRITES = (
    "import json, sys; json.dump({'seen': 1}, open(sys.argv[-1][7:], 'w')); print('hi')"
)


@pytest.fixture
def stubs(monkeypatch, tmp_path):
    """Benchmarks that take no time; what was started, in order."""
    started = []
    codes = {
        "good": WRITES, "broken": "import sys; sys.exit('it broke')",
        "endless": WRITES + "; import time; sys.stdout.flush(); time.sleep(600)",
    }  # fmt: skip
    monkeypatch.setattr(
        bench, "BENCHES",
        {
            **{name: Bench(f"about {name}", name, (), 3.0) for name in codes},
            "lacking": Bench("about lacking", "good", (), 3.0, ("no_such_package",)),
        },
    )  # fmt: skip
    popen = subprocess.Popen

    def instead(command, **options):
        name = command[2].rpartition(".")[2]
        started.append(name)
        return popen([sys.executable, "-c", codes[name], *command[3:]], **options)

    monkeypatch.setattr(bench.subprocess, "Popen", instead)
    return started


def test_what_becomes_of_each(stubs, tmp_path, capfd):
    file = tmp_path / "new" / "bench.json"
    command = ["all", f"--json={file}", "--only", *bench.BENCHES]
    assert main(command) == 1
    found = json.loads(file.read_text())["benches"]
    assert {name: one["status"] for name, one in found.items()} == {
        "good": "done", "broken": "failed", "endless": "stopped", "lacking": "left out",
    }  # fmt: skip
    assert found["broken"]["reason"] == "exit status 1: it broke"
    assert found["lacking"]["reason"] == "needs no_such_package"
    # What was measured before it was stopped is kept.
    assert found["good"]["figures"] == found["endless"]["figures"] == {"seen": 1}
    assert "figures" not in found["broken"]
    assert found["endless"]["seconds"] < 60
    assert stubs == ["good", "broken", "endless"]
    assert "nothing was measured with both" in capfd.readouterr().out
    # What is done is not repeated, what is not is.
    stubs.clear()
    assert main(["all", f"--json={file}", "--only", "good", "broken"]) == 1
    assert stubs == ["broken"]
    assert main(["all", f"--json={file}", "--only", "good", "--again"]) == 1
    assert stubs == ["broken", "good"]
    assert set(json.loads(file.read_text())["benches"]) == set(found)


def test_budgets_are_shares_of_the_minutes(stubs, tmp_path, capfd):
    flags = ["all", f"--json={tmp_path / 'b.json'}", "--only", "endless"]
    assert main([*flags, "--minutes=0.9"]) == 0
    assert "after 0 s; --minutes gives more" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["all"], "--json names the file"),
        (["all", "--json=x", "--minutes=0"], "must be positive"),
        (["some", "--json=x"], "invalid choice"),
    ],
)
def test_bad_flags(flags, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(flags)
    assert message in capsys.readouterr().err


def test_a_file_of_something_else_is_left_alone(tmp_path, capsys):
    for content in ("[1]", '{"benches": 3}', "thesis"):
        (tmp_path / "x").write_text(content)
        with pytest.raises(SystemExit, match="2"):
            main(["all", f"--json={tmp_path / 'x'}"])
        assert "holds something else" in capsys.readouterr().err
        assert (tmp_path / "x").read_text() == content


def row(seconds):
    return {"seconds": seconds}


def test_the_last_table():
    trained = {
        "bare jitted step": row(0.9), "loop, step by step": row(1.0),
        "loop, 100 updates compiled": row(0.5), "PyTorch, channels last": row(2.0),
        "reference again": row(0.8),
    }  # fmt: skip
    found = {
        "rate": {"figures": {"flops": {"float32": 1e12, "bfloat16": 5e12}}},
        "training": {
            "figures": {
                "training": {
                    "model": "resnet20", "updates_per_call": 100, "table": trained,
                    "flops_per_call": 1e11,
                }
            }
        },
        "surface": {
            "figures": {
                "mlp": {
                    "surface": {
                        "table": {
                            "bare jitted forward pass": row(1), "evaluate": row(2.0),
                            "PyTorch, careful": row(1.0),
                        }
                    }
                }
            }
        },
        "walk": {"status": "failed"},
        "curvature": {
            "figures": {
                "mlp": {
                    "products": {
                        "inference": {
                            "gradient": row(1), "product": row(3),
                            "product, linearisation kept": row(2),
                            "PyTorch, double backward": row(6),
                        }
                    }
                }
            }
        },
    }  # fmt: skip
    assert {r["what"]: r["times"] for r in speeds(found)} == {
        "training resnet20, 100 updates": 4.0, "surface, mlp": 0.5, "curvature, mlp": 3,
    }  # fmt: skip
    reached = {r["what"]: r["share"] for r in shares(found)}
    assert reached["loop, 100 updates compiled"] == pytest.approx(0.2)
    assert "reference again" not in reached
    assert speeds({}) == shares({}) == []
