"""The Python of the README and the guide, run as it stands."""

import re
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import digits
from experiments.harness.train import main
from lrscape import data
from lrscape.report import render

ROOT = Path(__file__).parents[1]
PAGES = {name: (ROOT / name).read_text() for name in ("README.md", "docs/guide.md")}
BLOCKS = list(
    dict.fromkeys(
        block
        for text in PAGES.values()
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    )
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A place with the run that the README opens."""
    path = tmp_path_factory.mktemp("readme")
    flags = ["--schedule=step", "--epochs=1", "--num-devices=1"]
    flags.append(f"--run-dir={path / 'runs' / 'step'}")
    assert main("digits", digits.__doc__, digits.PRESETS, flags) == 0
    return path


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n")[0])
def test_python_blocks_run(block, directory, monkeypatch, capsys):
    monkeypatch.chdir(directory)
    names = {
        "params": {"w": jnp.ones(2)},
        "gradients": {"w": jnp.ones(2)},
        "activations": jnp.ones((4, 8)),
        "initial": {"w": jnp.zeros(2)},
        "final": {"w": jnp.ones(2)},
        "x": jnp.eye(2),
        "y": jnp.ones(2),
        "images": jnp.asarray(data.load("digits").test.image[:4], jnp.float32),
    }
    exec(compile(block, "README.md", "exec"), names)
    if "losses" in names:
        # ((1 - alpha)^2, the mean over two examples)
        alphas = np.linspace(-0.5, 1.5, 41)
        np.testing.assert_allclose(names["losses"], (1 - alphas) ** 2, atol=1e-6)
    if "walk" in names:
        assert names["result"]["loss"].shape == (20, 12)
    if "logits" in names:
        assert names["logits"].shape == (4, 10)
    if "rate" in names:
        assert capsys.readouterr().out.strip() == "0.1"
    if "config" in names:
        assert int(names["state"].step) == names["config"].total_steps(names["digits"])


def test_every_link_leads_somewhere():
    for name, text in PAGES.items():
        for target in re.findall(r"\]\((?!http)([^)]+)\)", text):
            assert ((ROOT / name).parent / target).exists(), target


@pytest.mark.parametrize("name", ["README.md", "experiments/results/README.md"])
def test_tables_can_be_read_on_a_phone(name):
    text = (ROOT / name).read_text()
    for line in text.splitlines():
        if line.startswith("|"):
            assert max(map(len, line.split("|"))) <= 100, line
    assert name != "README.md" or len(text.splitlines()) <= 150


CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize(
    "block",
    re.findall(r"```python\n(.*?)```", CONTRIBUTING, re.DOTALL),
    ids=lambda block: re.findall(r"(?:def|class) (\w+)", block)[0],
)
def test_examples_for_contributors_run(block, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(block, "CONTRIBUTING.md", "exec"), names)
    if "cosine" in names:
        rates = names["cosine"](0.4, 100)(jnp.array([0, 50, 100, 200]))
        np.testing.assert_allclose(rates, [0.4, 0.2, 0, 0], atol=1e-7)
    if "sharpest_of" in names:
        point, directions = jnp.zeros(2), [jnp.eye(2)[0], 2 * jnp.eye(2)[1]]
        found = names["sharpest_of"](lambda w: jnp.sum(w**2), point, directions)
        np.testing.assert_allclose(found, 4e-4, rtol=1e-5)
    if "norm" in names:
        survey = SimpleNamespace(
            point={"initial": jnp.zeros(4), "final": jnp.ones(4)}.get
        )
        found = names["norm"](survey)
        assert found.summary == {"distance": 2.0}
    if "Linear" in names:
        module = names["Linear"](num_classes=3)
        x = jnp.ones((2, 4, 4, 1))
        logits, _ = module.init_with_output(jax.random.key(0), x, train=True)
        assert logits.shape == (2, 3)
    if "table1" in names:
        assert "8.1" in capsys.readouterr().out
        assert 'class="paper number">8.1' in render([tmp_path / "runs/paper-quick"])[0]
