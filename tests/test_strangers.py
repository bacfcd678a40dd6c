"""What strangers put into run directories is refused before it is read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

from experiments import augmentations, report
from experiments.bench.pairs import write_json
from experiments.claims import measure
from experiments.harness.paper import compiled_once
from experiments.sweep.gather import gather
from experiments.sweep.grid import Job
from experiments.sweep.launchers import Notes
from lrscape import hdf5, manifest, reading
from lrscape.errors import InputError
from lrscape.landscape import evaluate, line
from lrscape.reading import Reader, parse_json
from lrscape.records import Records, lines_implied
from lrscape.report import pictures
from lrscape.report.markup import table
from lrscape.report.reading import read_run
from lrscape.runs import open_run
from lrscape.training import initial_state
from lrscape.training.checkpoint import (
    Checkpoints,
    CorruptCheckpointError,
    load_tree,
    save_tree,
)
from lrscape.training.stored import check_stored, leaves_of
from lrscape.user_cache import private_directory
from tests.faults import strangers
from tests.faults.strangers import ARRAYS, BOMBS, LINKS, SECRET, TREES

CONFIG = {
    "epochs": 3, "experiment": "digits", "preset": "quick", "dataset": "digits",
    "model": "mlp", "model_options": {"features": [8, 4]}, "schedule": "step",
    "schedule_options": {"init_value": 0.1},
}  # fmt: skip
WEIGHTS = {"params": {"Dense_0": {"kernel": np.ones((64, 8), np.float32)}}}
# These take seconds to be made or read; the faults suite has them.
LONG = {
    "20 MB of empty lists", "100,000 columns", "a million lines", "a million epochs",
    "60 pictures of 81 megapixels", "400 pictures of 24 megapixels", "200 surfaces",
    "12,000 results",
}  # fmt: skip


@pytest.fixture
def run_dir(tmp_path):
    records = Records.create(tmp_path / "run", CONFIG)
    records.append_metrics({"step": 1, "epoch": 1.0, "train_loss": 1.0})
    records.save_result("line", xr.Dataset({"loss": ("alpha", [1.0, 2.0])}), {"a": 1})
    records.save_result_summary("line", {"least_loss": 1.0})
    save_tree(records.path / "snapshots" / "final", WEIGHTS, {"step": 1})
    return records.path


def says(message, craft):
    assert craft.place in message, message
    assert any(word in message for word in craft.words.split("|")), message


@pytest.mark.parametrize(
    "name", [name for name in (*LINKS, *ARRAYS, *BOMBS) if name not in LONG]
)
def test_what_a_report_leaves_out(run_dir, name):
    craft = strangers.IN_REPORTS[name]
    craft.make(run_dir)
    run = read_run(run_dir)
    says("\n".join(run.troubles), craft)
    assert SECRET not in repr(run)
    # The rest is there.
    if craft.place != "results":
        assert run.results["line"].summary == {"least_loss": 1.0}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_refused_by_whoever_loads_them(run_dir, name):
    ARRAYS[name].make(run_dir)
    with pytest.raises(InputError, match=ARRAYS[name].words):
        Records(run_dir).load_result("evil")


def test_results_of_every_kind_come_back(run_dir):
    """What is refused is nothing that `save_result` writes."""
    records = Records(run_dir)
    saved = xr.Dataset(
        {
            "a": (("x", "name"), np.arange(6.0).reshape(3, 2), {"units": "nat"}),
            "flag": ("x", [True, False, True]),
            "small": ("x", np.arange(3, dtype=np.uint8)),
            "half": ("x", np.arange(3, dtype=np.float32)),
            "text": ("x", ["a", "", "ü" * 300]),
            "one": ((), 3.0),
            "none": ("nothing", np.zeros(0)),
            "whole": ("unlabelled", np.arange(4)),
        },
        {"x": [0.0, 0.5, 1.0], "name": ["first", "second"]},
        {"points": json.dumps({"a": [0, 1]}), "many": ["a", "b"], "n": [1, 2]},
    )
    records.save_result("all", saved, {"seed": 0})
    found = records.load_result("all")
    for name in saved.variables:
        np.testing.assert_array_equal(found[name].values, saved[name].values)


def test_memory_of_texts_and_arrays_is_known_before_they_are_loaded(tmp_path):
    records = Records.create(tmp_path / "run", {})
    texts = ["x" * 1000, *[""] * 99]
    file = records.save_result("t", xr.Dataset({"t": ("x", texts)}), {})
    assert hdf5.check(file.read_bytes(), file) >= 100 * 1000 * 4
    file = records.save_result("a", xr.Dataset({"a": ("x", np.zeros(10_000))}), {})
    size = hdf5.check(file.read_bytes(), file)
    assert 80_000 <= size <= 10 * 80_000
    reader = Reader(records.path, memory=size // 2)
    with pytest.raises(InputError, match=r"a\.nc would take .* of the budget"):
        hdf5.load(file, reader)


# Settings, metrics, points.


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"epochs": 3, "seed": ' + "7" * 400 + "}", "400 digits"),
        ('{"seed": -18446744073709551616}', "21 digits"),
        ('{"a": [' + "[" * 80 + "]" * 80 + "]}", "nested more than 64"),
        ('{"a": "\\uDFFF"}', "half of a character"),
        ('{"epochs": 3, "epochs": 4}', "'epochs' is there twice"),
        ('{"momentum": NaN}', "NaN is no value"),
        ('{"momentum": -Infinity}', "-Infinity is no value"),
        ("", "damaged"),
    ],
)
def test_settings_that_no_writer_wrote(run_dir, text, words):
    file = run_dir / "config.json"
    file.write_text(text)
    manifest.list_file(run_dir, file, text.encode())  # the stranger's own
    with pytest.raises(InputError, match=words) as caught:
        open_run(run_dir)
    assert str(run_dir / "config.json") in str(caught.value)


@pytest.mark.parametrize("value", [0, -(2**63), 2**64 - 1, 1.5, "ü", [[]] * 99, None])
def test_json_of_ours_is_read(value):
    for depth in range(0, 60, 20):
        nested = value
        for _ in range(depth):
            nested = {"a": [nested]} if depth < 30 else [nested]
        assert parse_json(json.dumps(nested), "it") == nested
    assert np.isnan(parse_json("[NaN]", "it")).all()


@pytest.mark.parametrize("name", ["config.json", "summary.json"])
def test_pipes_do_not_block(run_dir, name):
    strangers.pipe(name)(run_dir)
    records = Records(run_dir)
    with pytest.raises(InputError, match=f"{name}.*(holds no run|named pipe)|holds no"):
        records.config() if name == "config.json" else records.summary()
    with pytest.raises(InputError, match="named pipe"):
        records.check_links()


def test_lines_are_no_more_than_settings_imply(run_dir):
    records = Records(run_dir)
    for epoch in range(2, 13):
        records.append_metrics({"step": epoch, "epoch": float(epoch)})
    assert len(records.metrics()) == 12  # a few more than 3 epochs do no harm
    records.append_metrics({"step": 13, "epoch": 13.0})
    records.append_metrics({"step": 14, "epoch": 14.0})
    with pytest.raises(InputError, match="14 lines, and .* no more than 13"):
        records.metrics()
    (run_dir / "metrics.jsonl").write_bytes(b'{"a": "' + b"x" * 70_000 + b'"}\n')
    with pytest.raises(InputError, match=r"line of 70,\d+ bytes"):
        records.metrics()


@pytest.mark.parametrize("every", [1, 3, 7, 1000])
@pytest.mark.parametrize(
    ("fields", "each"),
    [({"examples": 1000, "batch_size": 64}, 15),
     ({"train_tokens": 4000, "batch_size": 8, "window": 50}, 10)],
)  # fmt: skip
def test_every_run_logs_what_is_implied(fields, each, every):
    """Counted as the loop of training counts: at each epoch's end and window's end."""
    epochs = 100
    logged = sum(
        1
        for step in range(1, epochs * each + 1)
        if step % each == 0 or step % every == 0 or step == epochs * each
    )
    implied = lines_implied({"epochs": epochs, "log_every": every, **fields})
    assert logged <= implied <= 2 * logged + 120


@pytest.mark.parametrize("name", TREES)
def test_snapshots_are_looked_at_before_there_is_room_for_them(run_dir, name):
    places = list(run_dir.glob("snapshots/final/*/d"))
    assert places  # where the crafts put theirs
    TREES[name].make(run_dir)
    with pytest.raises(CorruptCheckpointError, match=TREES[name].words):
        open_run(run_dir).snapshots["final"]


def test_trees_of_every_kind_come_back(tmp_path):
    tree = {
        "a": {"b": np.zeros((3, 1), np.float32), "c.d": jnp.ones(4, jnp.bfloat16)},
        "e": [np.int8(1), np.zeros((500, 500)), np.array([True, False])],
    }
    save_tree(tmp_path / "x", tree, {})
    found, _ = load_tree(tmp_path / "x")
    expected = jax.tree.leaves(tree)
    for one, other in zip(jax.tree.leaves(found), expected, strict=True):
        np.testing.assert_array_equal(one, np.asarray(other))


def test_points_of_another_model_are_told(run_dir):
    folder = run_dir / "snapshots" / "final"
    check_stored(folder, run_dir, leaves_of(WEIGHTS))
    for shape, dtype in (((64, 9), np.float32), ((64, 8), np.float16)):
        other = {"params": {"Dense_0": {"kernel": np.ones(shape, dtype)}}}
        with pytest.raises(InputError, match=r"not of the run's model.*Dense_0"):
            check_stored(folder, run_dir, leaves_of(other))
    run = open_run(run_dir)
    assert run.snapshots["final"].step == 1
    _ = run.data  # from here on it is known what the model implies
    with pytest.raises(CorruptCheckpointError, match="not of the run's model"):
        run.snapshots["final"]


def test_a_checkpoint_of_another_shape_is_passed_over(tmp_path):
    run = open_run(Records.create(tmp_path / "run", CONFIG).path)
    state = initial_state(run.model, run.data, optax.sgd(0.1), 0)
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        checkpoints.save(state, {})
        restored, _, problems = checkpoints.restore(state)
        assert problems == [] and int(restored.step) == 0
        wider = state.replace(params=jax.tree.map(jnp.ravel, state.params))
        with pytest.raises(CorruptCheckpointError, match="not of the run's model"):
            checkpoints.restore(wider)


def test_a_store_is_a_regular_file_of_its_surface(tmp_path):
    def measure_in(store):
        ends = ({"w": jnp.zeros(2)}, {"w": jnp.ones(2)})
        return evaluate(
            lambda point: optax.tree.norm(point), line(*ends), np.linspace(0, 1, 3),
            store=store,
        )  # fmt: skip

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "else")
    for name in ("/dev/zero", tmp_path / "pipe", tmp_path / "link"):
        with pytest.raises(InputError, match="a device|named pipe|symbolic link"):
            measure_in(name)
    store = tmp_path / "store"
    losses = measure_in(store)
    with store.open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match="more than twice as many records"):
        measure_in(store)
    store.unlink()
    np.testing.assert_array_equal(measure_in(store), losses)


# Budgets.


def test_a_budget_is_of_a_whole_directory(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.json").write_text(json.dumps({"a": "x" * 1000}))
    reader = Reader(tmp_path, memory=3 * reading.JSON_GROWTH * 1010)
    for i in range(3):
        reader.json(tmp_path / f"{i}.json")
    with pytest.raises(InputError, match=r"3\.json would take .* MB are left"):
        reader.json(tmp_path / "3.json")
    reader = Reader(tmp_path, seconds=0.0)
    sum(range(10**5))
    with pytest.raises(InputError, match="budget of 0 seconds"):
        reader.json(tmp_path / "0.json")


def test_pictures_are_measured_by_their_first_bytes(tmp_path):
    file = tmp_path / "x.png"
    file.write_bytes(strangers.png_of(300, 200))
    assert pictures.png(file, Reader(tmp_path)) == file.read_bytes()
    for width, height in ((50_000, 501), (2**31 - 1, 1)):
        content = bytearray(strangers.png_of(3, 2))
        content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
        file.write_bytes(content)
        with pytest.raises(InputError, match="pixels, and no more than"):
            pictures.png(file, Reader(tmp_path))
    file.write_bytes(b"GIF89a" + bytes(100))
    with pytest.raises(InputError, match="does not begin as a PNG"):
        pictures.png(file, Reader(tmp_path))


def test_large_tables_are_cut():
    rows = [{"a": i, "b": -i} for i in range(60_000)]
    page = table(rows)
    assert page.count("<tr>") == 25_001 and "60,000 rows of 2 columns" in page
    assert table([{str(i): 0 for i in range(60_000)}]).count("<td") == 0


# Where output goes.


@pytest.mark.parametrize("kind", ["pipe", "link", "device", "folder"])
def test_output_goes_to_regular_files_alone(run_dir, tmp_path, kind, capsys):
    out, target = tmp_path / "out.html", tmp_path / "thesis.tex"
    target.write_text("years of work")
    if kind == "pipe":
        os.mkfifo(out)
    elif kind == "link":
        out.symlink_to(target)
    elif kind == "folder":
        out.mkdir()
    else:
        out = Path(os.devnull)
    before = out.lstat().st_mode
    assert report.main([str(run_dir), f"--out={out}"]) == 2
    assert "error: out=" in capsys.readouterr().err
    for write in (
        lambda: write_json(out, {}),
        lambda: Records(out.parent)._aside(out).__enter__(),
    ):
        with pytest.raises(InputError):
            write()
    assert out.lstat().st_mode == before
    assert target.read_text() == "years of work"


def test_sheets_replace_no_link(tmp_path, capsys):
    (tmp_path / "flip.png").symlink_to(tmp_path / "thesis.tex")
    assert augmentations.main([f"--out={tmp_path}"]) == 2
    assert "symbolic link" in capsys.readouterr().err
    assert not (tmp_path / "thesis.tex").exists()


# Compiled programs.


@pytest.fixture
def no_cache():
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def test_compiled_programs_are_the_users_own(tmp_path, monkeypatch, no_cache):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with compiled_once():
        chosen = Path(jax.config.jax_compilation_cache_dir)
    assert chosen == tmp_path / "cache" / "lrscape" / "compiled"
    for folder in (chosen, chosen.parent):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert jax.config.jax_compilation_cache_dir is None
    # One that the user has chosen stays.
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    with compiled_once():
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")


@pytest.mark.parametrize("way", ["writable", "link", "file", "below", "owner"])
def test_a_cache_that_others_can_write_to_is_not_used(
    tmp_path, monkeypatch, no_cache, capsys, way
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "lrscape"
    if way == "link":
        (tmp_path / "elsewhere").mkdir()
        folder.symlink_to(tmp_path / "elsewhere")
    elif way == "file":
        folder.write_text("")
    else:
        (folder / "compiled").mkdir(parents=True)
        where = folder / "compiled" if way == "below" else folder
        where.chmod(0o777 if way != "owner" else 0o700)
        if way == "owner":
            monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(InputError, match="nothing in it is used"):
        private_directory("compiled")
    with compiled_once():
        assert jax.config.jax_compilation_cache_dir is None
    assert "warning: compiled programs are not kept" in capsys.readouterr().err


def test_without_a_home_programs_are_compiled_anew(monkeypatch, no_cache):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")

    def nowhere():
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", nowhere)
    assert private_directory("compiled") is None
    with compiled_once():
        assert jax.config.jax_compilation_cache_dir is None


# What sweeps and claims read.


@pytest.mark.parametrize(
    "summary", [{}, {"last": []}, {"last": {"test_error": "x"}}, {"last": {}}]
)
def test_a_sweep_tells_what_is_no_run(tmp_path, summary):
    records = Records.create(tmp_path / "run", {"epochs": 1})
    records.append_metrics({"step": 1, "test_error": 0.5})
    records.write_summary(summary)
    with pytest.raises(InputError, match="holds no run of this sweep"):
        gather([Job({"seed": "0"}, tmp_path / "run", ())], {}, 1)


@pytest.mark.parametrize(
    "jobs", [[], {"ids": []}, {"ids": {"a": "../../x"}}, {"errors": {"a": 1}}]
)
def test_notes_of_jobs_are_numbers(tmp_path, jobs):
    records = Records.create(tmp_path / "run", {})
    records.save_result_summary("jobs", {"ids": {"a": "12_3"}, "errors": {"b": "why"}})
    assert Notes(records).ids == {"a": "12_3"}
    records.save_result_summary("jobs", jobs)
    if jobs:
        with pytest.raises(InputError, match="jobs.json is damaged"):
            Notes(records)


@pytest.mark.parametrize(
    "kept", [[], {}, {"preset": "quick"}, {"preset": "quick", "claims": [{"a": 1}]}]
)
def test_claims_that_nobody_measured(tmp_path, kept):
    records = Records.create(tmp_path / "run", {})
    part = measure.Part("5", "safe", ("5.8",))
    assert measure.measured(part, records, "quick") is None
    records.save_result_summary(part.file, kept)
    with pytest.raises(InputError, match="is no result of a claim"):
        measure.measured(part, records, "quick")


# How commands end, and names that a locale lacks.


def python(code, **options):
    environment = {**os.environ, **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env=environment, **options,
    )  # fmt: skip


PRINTS = """
import sys
from lrscape import console
def main():
    print("first")
    {then}
    for i in range(100_000): print("x" * 100)
    return 0
console.run(main)
"""


def test_a_reader_that_goes_away_ends_a_command_without_a_word(tmp_path):
    (tmp_path / "code.py").write_text(PRINTS.format(then=""))
    command = f"{sys.executable} {tmp_path / 'code.py'}"
    piped = f"{command} | head -1; echo ${{PIPESTATUS[0]}}"
    found = subprocess.run(["bash", "-c", piped], capture_output=True, text=True)
    assert (found.stdout, found.stderr) == ("first\n141\n", "")
    found = subprocess.run(
        ["bash", "-c", f"{command} > /dev/full"], capture_output=True, text=True
    )
    assert found.returncode == 1
    assert found.stderr == (
        "error: standard output cannot be written: No space left on device\n"
    )


def test_output_fails_as_no_disk_does(tmp_path):
    """Nothing in a command takes it for an error of its own; locks are let go."""
    then = (
        f"open({str(tmp_path / 'began')!r}, 'w').close()\n"
        "    import os; os.close(1); os.open('/dev/full', os.O_WRONLY)\n"
        "    try: print('lost')\n"
        "    except Exception: return 7\n"
        f"    finally: open({str(tmp_path / 'ended')!r}, 'w').close()"
    )
    found = python(PRINTS.format(then=then))
    assert found.returncode == 1 and "Traceback" not in found.stderr
    assert (tmp_path / "ended").exists()


@pytest.mark.parametrize("name", ["experiments.__main__", "experiments.bench.__main__"])
def test_commands_run_through_one_place(name):
    """Every command that Python can run ends as the others do."""
    root = Path(__file__).parents[1]
    commands = [
        file
        for package in ("experiments", "lrscape")
        for file in sorted((root / package).rglob("*.py"))
        if 'if __name__ == "__main__":' in file.read_text("utf-8")
    ]
    assert root / f"{name.replace('.', '/')}.py" in commands
    for file in commands:
        assert "    console.run(" in file.read_text("utf-8"), file


def test_a_directory_that_a_locale_cannot_name(tmp_path):
    place = tmp_path / "ünï"
    code = (
        "import os, sys; from pathlib import Path\n"
        "from lrscape.records import check_path; from lrscape import console\n"
        "path = Path(os.fsdecode(bytes.fromhex(sys.argv[1])))\n"
        "console.run(lambda: print(path, '\\u00b1') or check_path(path))"
    ).replace("sys.argv[1]", repr(os.fsencode(place).hex()))
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    found = python(code, env={**plain, "PYTHONUTF8": "0"})
    assert "InputError" in found.stderr and "PYTHONUTF8=1" in found.stderr
    assert "UnicodeEncodeError: 'ascii'" not in found.stderr
    found = python(code, env={**plain, "PYTHONUTF8": "1"})
    assert (found.returncode, found.stderr) == (0, "")


def test_a_table_of_bombs(tmp_path):
    """Seconds, memory and words are those of the report itself."""
    file = tmp_path / "bombs.json"
    assert strangers.main(["400 digits", f"--out={file}"]) == 0
    rows = json.loads(file.read_text())["bombs"]
    assert set(rows) == {"nothing", "400 digits"}
    for row in rows.values():
        assert row["status"] == 0 and row["told"] and row["within"]
        # A process that has imported all of this, and did not bring it from its parent.
        assert 50 < row["peak_mb"] < 1000 and 0.1 < row["seconds"] < 30
    assert "does not fit 64 bits" in rows["400 digits"]["said"]
