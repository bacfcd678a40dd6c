"""The notebooks: in step with the `.py` beside each, and run from top to bottom."""

import re
from pathlib import Path

import pytest

COLABS = Path(__file__).parents[1] / "colabs"
NAMES = sorted(file.stem for file in COLABS.glob("*.py"))

jupytext = pytest.importorskip("jupytext", reason="pip install '.[notebooks]'")


def cells(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def test_there_are_five():
    assert len(NAMES) == 5
    assert sorted(file.stem for file in COLABS.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_pairs_are_in_step_and_light(name):
    light = jupytext.read(COLABS / f"{name}.py")
    notebook = jupytext.read(COLABS / f"{name}.ipynb")
    assert cells(notebook) == cells(light)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    # A badge that opens this one, an install cell, and nothing of a checkout.
    address = f"github/lrscape/lrscape/blob/main/colabs/{name}.ipynb"
    assert address in notebook.cells[0].source
    assert 'find_spec("lrscape") is None' in code[0].source
    source = "\n".join(cell.source for cell in code)
    assert not re.search(r"^\s*(import|from) (experiments|tests)", source, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_runs_from_top_to_bottom(name, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="pip install '.[notebooks]'")
    # The reader has one device, and no strictness of ours.
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    notebook = jupytext.read(COLABS / f"{name}.ipynb")
    client = nbclient.NotebookClient(
        notebook, timeout=180, kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )  # fmt: skip
    client.execute()
    shown = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    assert any("image/png" in out.get("data", {}) for out in shown)
    for out in shown:
        assert out.get("name") != "stderr" or "rror" not in out["text"], out["text"]
    assert list(tmp_path.iterdir()) == []
