"""The reference: built without a warning, with every public name."""

import re
import subprocess
import sys

import pytest

import lrscape
from experiments import docs
from lrscape import landscape, transforms


@pytest.mark.slow
def test_the_reference_is_whole(tmp_path):
    pytest.importorskip("pdoc", reason="pip install '.[docs]'")
    # By itself: pdoc looks at what the process has imported.
    command = [sys.executable, "-m", "experiments.docs", f"--out={tmp_path / 'site'}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for name in lrscape.__all__:
        assert (tmp_path / "site" / "lrscape" / f"{name}.html").is_file(), name
    for module in (landscape, transforms):
        file = tmp_path / "site" / f"{module.__name__.replace('.', '/')}.html"
        found = set(re.findall(r'id="([\w.]+)"', file.read_text()))
        names = {
            name
            for name, value in vars(module).items()
            if str(getattr(value, "__module__", "")).startswith("lrscape.")
            and name[0] != "_"
        }
        assert names <= found, names - found


def test_what_cannot_be_built_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pdoc", None)
    assert docs.main([f"--out={tmp_path / 'site'}"]) == 2
    assert "pip install 'lrscape[docs]'" in capsys.readouterr().err
