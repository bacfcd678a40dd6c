"""Reports: what they show, escape, warn of and survive; in a browser where one is."""

import io
import json
import shutil

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from experiments import report
from lrscape import landscape
from lrscape.errors import InputError
from lrscape.figures import interactive_line
from lrscape.records import Records
from lrscape.report import render
from lrscape.report.doubts import doubts
from lrscape.report.reading import read_run
from tests import browser

EVIL = "<script>alert(1)<"
CONFIG = {
    "experiment": "digits", "model": EVIL, "dataset": "digits", "epochs": 3,
    "schedule": "gaussian", "seed": 0, "versions": {"jax": "0.10.2"},
    "command": 'python "--x=</script>"', "commit": "abc",
}  # fmt: skip
BOWL = "bowl"


def line(epoch, error=0.5):
    return {
        "step": 10 * epoch, "epoch": float(epoch), "learning_rate": 0.1 / epoch,
        "train_loss": 1.0 / epoch, "train_error": error / 2, "test_loss": 2.0 / epoch,
        "test_error": error,
    }  # fmt: skip


def bowl():
    axis = np.linspace(-1, 1, 5)
    surface = landscape.measure_surface(
        lambda w: (w**2).sum() + 1.0,
        landscape.plane(np.zeros(2, np.float32), *np.eye(2, dtype=np.float32)),
        landscape.grid_coordinates(axis, axis),
    )
    dataset = surface.to_dataset({"x": axis, "y": axis})
    dataset.attrs["points"] = json.dumps({EVIL: [0.0, 0.0]})
    return dataset


def make_run(path, **config):
    records = Records.create(path, {**CONFIG, **config})
    for epoch in (1, 2, 3):
        records.append_metrics(line(epoch, 0.5 / epoch))
    records.write_summary({"best": line(3, 1 / 6), "best_by": "test_error"})
    return records


@pytest.fixture
def run(tmp_path):
    """A finished run with an evil name and two results."""
    records = make_run(tmp_path / EVIL)
    records.save_result(BOWL, bowl(), {"probe": "plane", "command": EVIL})
    records.save_result_summary(BOWL, {"least_loss": 1.0, "settings": {"a": EVIL}})
    line_ = xr.Dataset(
        {"loss": ("alpha", [1.0, 3.0, 2.0]),
         "loss_standard_error": ("alpha", [0.1, 0.1, 0.1])},
        {"alpha": [0.0, 0.5, 1.0]},
    )  # fmt: skip
    records.save_result("line", line_, {"start": "initial", "end": EVIL})
    return records.path


def test_a_page_shows_a_run_and_fetches_nothing(run, capsys):
    assert report.main([str(run)]) == 0
    assert "written" in capsys.readouterr().out
    page = (run / "report.html").read_text()
    for shown in ("bowl", "16.67 %", "least_loss".replace("_", " "), "gaussian rate"):
        assert shown in page, shown
    # What a run holds is text, in HTML and in the JSON within it.
    assert EVIL not in page and "&lt;script&gt;alert(1)&lt;" in page
    assert page.count("</script>") == page.count("<script")
    data = page.split('id="plots">')[1].split("</script>")[0]
    plots = json.loads(data)
    assert {trace["type"] for plot in plots for trace in plot["data"]} >= {
        "surface", "scatter",
    }  # fmt: skip
    assert "default-src 'none'" in page and "Warnings" not in page
    # Plotly once, and none where there is nothing to turn.
    assert page.count("plotly.js v") == 1
    assert not list(run.glob(".*.html"))


def test_runs_side_by_side_say_what_they_differ_in(tmp_path):
    make_run(tmp_path / "a", seed=1, versions={"jax": "0.10.2"})
    make_run(tmp_path / "b", seed=2, versions={"jax": "0.11.0"})
    page, warnings = render([tmp_path / "a", tmp_path / "b"])
    head = page.split("Side by side")[1].split("<tbody>")[0]
    assert "seed" in head and "epochs" not in head and "dataset" not in head
    assert any("version of jax: 0.10.2, 0.11.0" in w for w in warnings)
    with pytest.raises(InputError, match="named twice"):
        render([tmp_path / "a", tmp_path / "a"])


def test_a_papers_table_marks_the_papers_numbers(tmp_path):
    records = Records(tmp_path / "paper")
    rows = [{"claim": "1", "sentence": "s", "verdict": "contradicted", "paper, %": 9.5}]
    records.save_result_summary("claims", {"rows": rows, "notes": ["n<b>"]})
    network = Records.create(tmp_path / "paper" / "net", {"epochs": 2})
    history = [{"epoch": 0, "rate": 0.1}, {"epoch": 1, "diverged": 7}]
    network.save_result_summary("history", history)
    page, warnings = render([records.path])
    assert '<td class="paper number">9.5' in page
    assert '<td class="verdict bad">contradicted' in page
    assert "n&lt;b&gt;" in page and "plotly.js v" not in page
    assert warnings == ["net: its loss stopped being finite at update 7"]
    # The network by itself is a run too.
    assert "stopped being finite" in render([network.path])[1][0]


def test_doubts(tmp_path):
    records = Records.create(tmp_path / "a", {**CONFIG, "commit": "abc+"})
    records.append_metrics({**line(1), "train_loss": float("nan")})
    steps = np.arange(3)
    walk = xr.Dataset(
        {
            "loss": (("step", "alpha"), np.full((3, 2), [1.0, np.inf])),
            "crosses_barrier": ("step", [True, True, False]),
            "barrier_height": ("step", [1.0, 0.1, -1.0]),
            "barrier_error": ("step", [0.1, 0.1, 0.1]),
        },
        {"step": steps, "alpha": [0.0, 1.0]},
    )
    records.save_result("walk", walk, {})
    noisy = (
        "1 of 2 barriers are no higher than 2 standard errors: sampling noise could "
        "make them"
    )
    assert doubts(read_run(records.path)) == [
        "it is not finished: it stopped, or is still after epoch 1 of 3",
        "train_loss is not finite in 1 of 1 logged lines",
        "it was made from source with uncommitted changes",
        "walk: 3 of 6 values of loss not finite",
        f"walk: {noisy}",
    ]
    page, _ = render([records.path])
    assert "walk" in page


@pytest.mark.parametrize(("height", "doubtful"), [(0.2, True), (1.0, False)])
def test_a_lines_barrier_is_held_against_its_errors(tmp_path, height, doubtful):
    records = make_run(tmp_path / "a")
    result = xr.Dataset(
        {"loss": ("alpha", [1.0, 1.0 + height, 0.5]),
         "loss_standard_error": ("alpha", [0.1, 0.1, 0.1])},
        {"alpha": [0.0, 0.5, 1.0]},
    )  # fmt: skip
    records.save_result("line", result, {})
    found = doubts(read_run(records.path))
    assert bool(found) == doubtful
    assert not doubtful or "sampling noise" in found[0]


def damage_bytes(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 3 :] = b"\x00" * 40
    file.write_bytes(content)


DAMAGES = {
    "config.json": lambda f: f.write_text("{"),
    "summary.json": lambda f: f.write_text("[1]"),
    "metrics.jsonl": lambda f: f.write_bytes(f.read_bytes()[:100] + b"\xff\n{}\n"),
    "results/bowl.nc": damage_bytes,
    "results/bowl.json": lambda f: f.write_bytes(b"\xff\xfe"),
    "figures/bowl.png": damage_bytes,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_said_and_the_rest_is_shown(run, name):
    picture = io.BytesIO()
    Image.effect_noise((32, 32), 50).save(picture, "png")
    (run / "figures").mkdir()
    (run / "figures" / "bowl.png").write_bytes(picture.getvalue())
    DAMAGES[name](run / name)
    page, warnings = render([run])
    assert any(name in warning for warning in warnings), warnings
    assert "Warnings" in page and "line" in page


def test_what_values_cannot_be_drawn_does_not_stop_the_page(run):
    records = Records(run)
    (run / "metrics.jsonl").write_text(
        '{"epoch": 1, "test_error": "x", "train_loss": [1]}\n{"epoch": NaN}\n[]\n'
    )
    empty = xr.Dataset({"loss": (("x", "y"), np.full((3, 3), np.nan))},
                       {"x": np.arange(3.0), "y": np.arange(3.0)})  # fmt: skip
    records.save_result("empty", empty, {})
    page, warnings = render([run])
    assert "empty" in page
    assert any("9 of 9 values of loss not finite" in w for w in warnings)


def test_what_is_no_run_is_refused(tmp_path, run, capsys):
    assert report.main([str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert report.main([str(tmp_path)]) == 2
    assert "it holds runs" in capsys.readouterr().err
    assert report.main([]) == 2
    assert "at least one" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert report.main([str(tmp_path / "file")]) == 2
    assert report.main([str(run), f"--out={tmp_path}"]) == 2
    assert "is a directory" in capsys.readouterr().err
    assert report.main([str(run), f"--out={tmp_path / 'file' / 'x.html'}"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_line_is_drawn_as_it_was_measured():
    x = np.linspace(0, 1, 3)
    result = xr.Dataset({"loss": ("alpha", [1.0, np.nan, 2.0])}, {"alpha": x})
    (trace,) = interactive_line(result, ends={0.0: "<b>a</b>"}).data
    np.testing.assert_array_equal(trace.y, [1.0, np.nan, 2.0])
    with pytest.raises(InputError, match="interactive_surface"):
        interactive_line(bowl())


@pytest.mark.slow
@pytest.mark.skipif(browser.find() is None, reason="no chromium")
def test_in_a_browser(run, tmp_path):
    """Opens from disk, dark and light, wide and on a phone; the surface turns."""
    assert report.main([str(run), f"--out={tmp_path / 'page.html'}"]) == 0
    page = browser.Browser(tmp_path / "profile")
    try:
        for width, dark in ((1200, False), (390, True)):
            page.look(width, 4000, dark=dark)
            page.open(tmp_path / "page.html")
            page.until("document.querySelectorAll('.js-plotly-plot').length == 3")
            # Nothing sticks out sideways.
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (ground == "rgb(255, 255, 255)") != dark
            names = page.evaluate("document.querySelector('h1').textContent")
            assert names == EVIL
        surface = (
            "[...document.querySelectorAll('.plot')].find(p => p._fullLayout.scene)"
        )
        camera = {"scene.camera": {"eye": {"x": -1.5, "y": 0.5, "z": 0.5}}}
        shot = f"Plotly.toImage({surface}, {{width: 400, height: 400}})"
        before = page.evaluate(shot)
        assert page.evaluate(shot) == before
        page.evaluate(f"Plotly.relayout({surface}, {json.dumps(camera)}).then(() => 1)")
        assert page.evaluate(shot) != before
        page.evaluate("document.querySelector('.plot').scrollIntoView()")
        page.evaluate(
            "Plotly.Fx.hover(document.querySelector('.plot'), {xval: 2}) || 1"
        )
        shown = "document.querySelector('.plot .hoverlayer').textContent"
        page.until(f"{shown}.includes('0.05')")  # the rate at epoch 2
        assert page.pdf().startswith(b"%PDF")
        assert page.complaints == []
        assert {r.partition(":")[0] for r in page.requests} <= {"file", "data", "blob"}
    finally:
        page.close()
        shutil.rmtree(tmp_path / "profile", ignore_errors=True)
