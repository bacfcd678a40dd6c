"""A run directory: whole files or none, and hostile names refused."""

import json

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from lrscape.errors import InputError
from lrscape.records import Records, best


@pytest.fixture
def records(tmp_path):
    return Records.create(tmp_path / "run", {"seed": 3})


def test_create_refuses_what_is_there(records, tmp_path):
    assert records.config() == {"seed": 3}
    with pytest.raises(InputError, match="already holds a run; go on with it"):
        Records.create(records.path, {})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="is not empty and holds no run"):
        Records.create(tmp_path / "other", {})
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        Records.create(tmp_path / "file" / "run", {})
    # An empty directory, such as a killed start leaves, will do.
    (tmp_path / "empty").mkdir()
    Records.create(tmp_path / "empty", {})


def test_config_must_be_there_and_whole(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        Records(tmp_path).config()
    for damaged in ("{", "[1, 2]", ""):
        (tmp_path / "config.json").write_text(damaged)
        with pytest.raises(InputError, match=r"config\.json"):
            Records(tmp_path).config()


def test_metrics_append_and_truncate(records):
    assert records.metrics() == [] and records.metrics_length() == 0
    records.append_metrics({"step": 1})
    length = records.metrics_length()
    records.append_metrics({"step": 2})
    # A line that a kill cut short does not count.
    with (records.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "tra')
    assert records.metrics() == [{"step": 1}, {"step": 2}]
    records.truncate_metrics(length)
    assert records.metrics() == [{"step": 1}]
    records.truncate_metrics(length)
    with pytest.raises(InputError, match="lines were lost"):
        records.truncate_metrics(length + 1)


def test_summary(records):
    assert records.summary() is None
    records.write_summary({"steps": 2})
    assert records.summary() == {"steps": 2}


def result():
    losses = xr.DataArray(np.linspace(0, 1, 1000), dims="alpha", attrs={"units": "nat"})
    return xr.Dataset({"loss": losses, "count": 7}, {"alpha": np.arange(1000)})


def test_results_come_back(records):
    file = records.save_result("line", result(), {"seed": 3})
    assert file == records.path / "results" / "line.nc"
    loaded = records.load_result("line")
    xr.testing.assert_identical(loaded.drop_attrs(deep=False), result())
    assert json.loads(loaded.attrs["settings"]) == {"seed": 3}


def test_flipped_bits_in_results_are_found(records):
    file = records.save_result("line", result(), {})
    content = bytearray(file.read_bytes())
    position = content.find(np.float64(0.5005005005005005).tobytes())
    if position < 0:  # the value next to the middle, whatever rounding made of it
        position = content.find(result()["loss"].values[500].tobytes())
    assert position > 0
    content[position] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(OSError):
        records.load_result("line")


def test_a_failed_write_leaves_nothing(records):
    records.write_summary({"steps": 1})
    with pytest.raises(TypeError):
        records.write_summary({"steps": object()})
    assert records.summary() == {"steps": 1}
    names = {path.name for path in records.path.iterdir()}
    assert names == {"config.json", "manifest.sha256", "summary.json"}


@pytest.mark.parametrize("name", ["../evil", "/etc/x", ".hidden", "", "a/b", "a\n"])
def test_names_stay_inside(records, name):
    with pytest.raises(InputError, match="name="):
        records.save_figure(name, Figure())
    with pytest.raises(InputError, match="name="):
        records.load_result(name)


def test_figures_are_png(records):
    file = records.save_figure("curve", Figure())
    assert file.read_bytes().startswith(b"\x89PNG")
    assert oct(file.stat().st_mode & 0o777) == oct(
        (records.path / "config.json").stat().st_mode & 0o777
    )


def test_best_is_the_first_of_equals():
    lines = [{"step": 1}, {"step": 2, "e": 0.2}, {"step": 3, "e": 0.1},
             {"step": 4, "e": float("nan")}, {"step": 5, "e": 0.1}]  # fmt: skip
    assert best(lines, "e")["step"] == 3
    assert best(lines, "missing") is None
