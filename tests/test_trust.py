"""A run directory from a stranger runs no code and writes nowhere but in itself."""

import hashlib
import json
import os
import pickle
import shutil
import subprocess

import jax
import numpy as np
import optax
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import digits, survey
from experiments.harness.train import main
from lrscape import lines, manifest
from lrscape.data.sources import prepared_builder
from lrscape.errors import InputError
from lrscape.landscape import evaluate, line
from lrscape.reading import Reader, read_json
from lrscape.records import Records
from lrscape.runs import RunConfig, open_run
from lrscape.training.checkpoint import CorruptCheckpointError
from tests import processes

FLAGS = [
    "--model=mlp", "--examples=128", "--epochs=2", "--checkpoint-every=1",
    "--num-devices=1",
]  # fmt: skip
LINE = ["--probe=line", "--points=3", "--examples=32", "--batch-size=32"]


def train(*flags):
    return main("digits", "", digits.PRESETS, list(map(str, flags)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("stranger") / "run"
    assert train(*FLAGS, f"--run-dir={run_dir}") == 0
    return run_dir


@pytest.fixture
def run_dir(finished, tmp_path):
    """A run of a stranger's, which lacks its last update."""
    copy = tmp_path / "inbox" / "run"
    shutil.copytree(finished, copy)
    (copy / "summary.json").unlink()
    last = max(copy.glob("checkpoints/*"), key=lambda path: int(path.name))
    shutil.rmtree(last)
    return copy


def rewrite(run_dir, **fields):
    """Settings as a stranger would write them, checksum and all."""
    config = {**Records(run_dir).config(), **fields}
    processes.rewrite(run_dir / "config.json", config)


def snapshot_of(folder):
    return {
        path: (path.lstat().st_mtime_ns, path.lstat().st_size)
        for path in sorted(folder.rglob("*"))
    }


def test_no_pickle_is_ever_loaded(run_dir, monkeypatch):
    opened = []

    def refuse(*arguments, **options):
        raise AssertionError("a pickle was loaded")

    class Refused(pickle.Unpickler):
        def __init__(self, *arguments, **options):
            refuse()

    load = np.load

    def checked_load(file, *arguments, allow_pickle=False, **options):
        assert not allow_pickle
        opened.append(file)
        return load(file, *arguments, allow_pickle=False, **options)

    for name in ("load", "loads", "_load", "_loads"):
        monkeypatch.setattr(pickle, name, refuse)
    for name in ("Unpickler", "_Unpickler"):
        monkeypatch.setattr(pickle, name, Refused)
    monkeypatch.setattr(np, "load", checked_load)
    with pytest.raises(AssertionError, match="a pickle was loaded"):
        pickle.loads(pickle.dumps({}))
    assert train("--resume", f"--run-dir={run_dir}") == 0
    run = open_run(run_dir)
    assert run.snapshots["final"].step == 4
    assert run.records.load_result("learning_curves")["step"].size == 2
    assert survey.main([str(run_dir), *LINE]) == 0
    run.records.load_result_summary("line-initial-final")


@pytest.mark.parametrize(
    "name",
    [
        "metrics.jsonl", "summary.json", ".lock", "results", "figures", "snapshots",
        "checkpoints", "figures/learning_curves.png", "results/learning_curves.nc",
        "snapshots/final", "checkpoints/3",
    ],
)  # fmt: skip
def test_links_are_not_followed_out_of_the_directory(run_dir, tmp_path, name, capsys):
    outside = tmp_path / "home"
    outside.mkdir()
    (outside / "thesis.tex").write_text("years of work")
    target = outside if not (run_dir / name).suffix and name != ".lock" else (
        outside / "thesis.tex"
    )  # fmt: skip
    place = run_dir / name
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    place.symlink_to(target)
    before = snapshot_of(outside)
    assert train("--resume", f"--run-dir={run_dir}") == 2
    message = capsys.readouterr().err
    assert "leads out of its run directory" in message and str(place) in message
    assert survey.main([str(run_dir), *LINE]) == 2
    assert snapshot_of(outside) == before
    assert (outside / "thesis.tex").read_text() == "years of work"


def test_links_within_the_directory_will_do(run_dir):
    (run_dir / "results" / "again.nc").symlink_to("learning_curves.nc")
    assert train("--resume", f"--run-dir={run_dir}") == 0


NAMES = st.sampled_from(
    ["../../x", "/etc/passwd", "..", ".", "", "a/b", "a\\b", "a\0b", "~root", "$HOME",
     "`id`", "; rm -rf x", "<script>alert(1)</script>", "x" * 5000, "\n", "%s",
     "os.system", "__import__('os')", "numpy:load", "-rf"]
)  # fmt: skip
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | NAMES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)
    ),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=60)
@given(field=st.sampled_from(sorted(RunConfig.__dataclass_fields__)), value=NAMES | ANY)
def test_hostile_settings_are_refused_or_harmless(finished, field, value):
    """Whatever a field holds: the run opens, or an InputError says why not."""
    fields = {**Records(finished).config(), field: value}
    try:
        fields = json.loads(json.dumps(fields))
        config = RunConfig.from_dict(fields)
    except (InputError, ValueError) as error:
        assert isinstance(error, InputError), error
        return
    if field == "dataset":
        # Names of data sets are looked at when the data is read.
        with pytest.raises(InputError):
            config.load_data()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000, '{"a":' * 50_000, '{"epochs": ' + "9" * 5000 + "}", "nul",
        '{"epochs": NaN}', '{"epochs": 1e999}', '{"model": "mlp"}', "\ud800", "3",
        '{"model_options": ' + '{"a":' * 600 + "1" + "}" * 600 + "}",
    ],
)  # fmt: skip
def test_json_that_is_none_of_ours(run_dir, text, capsys):
    (run_dir / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    before = snapshot_of(run_dir)
    assert train("--resume", f"--run-dir={run_dir}") == 2
    assert survey.main([str(run_dir), *LINE]) == 2
    assert capsys.readouterr().err.count("error: ") == 2
    assert snapshot_of(run_dir) == before


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "..", "a/b", ".hidden"])
def test_names_of_results_stay_inside(run_dir, name):
    records = Records(run_dir)
    for use in (
        lambda: records.load_result(name),
        lambda: records.load_result_summary(name),
        lambda: records.save_result_summary(name, {}),
    ):
        with pytest.raises(InputError, match="may hold letters"):
            use()
    with pytest.raises(KeyError):
        open_run(run_dir).snapshots[name]


@pytest.mark.parametrize("name", ["$\\frac$ %s", "<script>alert(1)<%2fscript>{x}"])
def test_names_that_mean_something_to_others(run_dir, tmp_path, name):
    """A directory's name is text: in a title, in a page, in what is printed."""
    odd = tmp_path / name.replace("\\", "")
    shutil.copytree(run_dir, odd)
    plane = ["--probe=plane", "--grid=3", "--examples=32", "--batch-size=32"]
    assert survey.main([str(odd), *plane]) == 0
    (page,) = odd.glob("figures/*.html")
    assert "<script>alert" not in page.read_text("utf-8")


@pytest.mark.parametrize("name", ["a\\b", "a[0]"])
def test_names_that_orbax_would_take_for_others(run_dir, tmp_path, name, capsys):
    odd = tmp_path / name
    shutil.copytree(run_dir, odd)
    before = snapshot_of(tmp_path)
    assert train("--resume", f"--run-dir={odd}") == 2
    assert "checkpoints cannot be kept" in capsys.readouterr().err
    assert train(*FLAGS, f"--run-dir={tmp_path / 'new' / name}") == 2
    assert snapshot_of(tmp_path) == before


def test_tfds_imports_no_module_that_a_data_set_names(tmp_path):
    """Its features say which classes read them."""
    version = tmp_path / "mine" / "1.0.0"
    version.mkdir(parents=True)
    (version / "dataset_info.json").write_text('{"name": "mine", "version": "1.0.0"}')
    for features in (
        {"pythonClassName": "evil.Feature"},
        {"type": "evil.Feature", "content": {}},
        {"pythonClassName": "tensorflow_datasets.core.features.image_feature.Image",
         "nested": [{"pythonClassName": "tensorflow_datasets_evil.Feature"}]},
    ):  # fmt: skip
        (version / "features.json").write_text(json.dumps(features))
        with pytest.raises(InputError, match=r"evil\.Feature.*not one of TFDS's own"):
            prepared_builder("mine", tmp_path)
    (version / "features.json").write_text("{" * 9)
    with pytest.raises(InputError, match="is damaged"):
        prepared_builder("mine", tmp_path)


# Checksums.


def flip(file, place):
    content = bytearray(file.read_bytes())
    content[place] ^= 4
    file.write_bytes(content)


def test_any_changed_byte_of_a_file_is_told(tmp_path):
    """Of settings, arrays, results and texts, and of the manifest that lists them."""
    records = Records.create(tmp_path / "run", {"seed": 0, "name": "a"})
    array = xr.Dataset({"loss": ("alpha", np.arange(3.0))})
    arrays = records.save_result("line", array, {})
    summary = records.save_result_summary("line", [{"a": 1}, {"a": 2}])
    page = records.save_text("page.html", "<p>a</p>")
    reads = {
        records.path / "config.json": records.config,
        page: lambda: Reader(records.path).content(page, 100),
        arrays: lambda: records.load_result("line"),
        summary: lambda: records.load_result_summary("line"),
    }
    for file, read in reads.items():
        whole = file.read_bytes()
        read()
        for place in range(0, len(whole), 1 + len(whole) // 97):
            flip(file, place)
            with pytest.raises(InputError, match="was changed on disk"):
                read()
            file.write_bytes(whole)
        read()
    listing = records.path / manifest.NAME
    whole = listing.read_bytes()
    told = 0
    for place in range(len(whole)):
        flip(listing, place)
        try:
            assert records.config() == {"seed": 0, "name": "a"}
            assert records.load_result("line").equals(array.assign_attrs(settings="{}"))
        except InputError as error:
            told += "manifest.sha256" in str(error)
        listing.write_bytes(whole)
    assert told > 100  # each digit of a checksum that was read


def test_a_kill_between_the_manifest_and_the_file_loses_nothing(tmp_path):
    records = Records.create(tmp_path / "run", {"seed": 0})
    file = records.path / "config.json"
    manifest.list_file(records.path, file, b'{"seed": 1}')
    assert records.config() == {"seed": 0}
    # And in the middle of a line.
    with (records.path / manifest.NAME).open("ab") as opened:
        opened.write(b"0123456789abcdef")
    assert records.config() == {"seed": 0}
    records.replace_config({"seed": 2})
    assert records.config() == {"seed": 2}
    listed = manifest.read(records.path / manifest.NAME)
    assert set(listed) == {"config.json"} and len(listed["config.json"]) == 3


def test_a_kill_before_the_settings_leaves_room_for_the_run(tmp_path):
    root = tmp_path / "run"
    root.mkdir()
    manifest.list_file(root, root / "config.json", b"{}")
    assert Records.create(root, {"seed": 1}).config() == {"seed": 1}


def test_a_manifest_does_not_grow_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "LARGE", 2000)
    records = Records.create(tmp_path / "run", {"seed": 0})
    records.save_text("notes.txt", "kept")
    for number in range(100):
        file = records.save_result_summary("history", {"epoch": number})
        assert records.load_result_summary("history") == {"epoch": number}
    listing = records.path / manifest.NAME
    assert listing.stat().st_size < 3000
    for name in ("notes.txt", "results/history.json", "config.json"):
        file = records.path / name
        manifest.check(manifest.read(listing), listing, file, file.read_bytes())
        with pytest.raises(InputError, match="was changed on disk"):
            manifest.check(manifest.read(listing), listing, file, b"something else")
    assert {path.name for path in records.path.iterdir()} == {
        "config.json", "manifest.sha256", "notes.txt", "results",
    }  # fmt: skip


def test_sha256sum_reads_the_manifest(tmp_path):
    records = Records.create(tmp_path / "run", {"seed": 0})
    records.save_text("notes.txt", "a")
    if shutil.which("sha256sum") is None:
        pytest.skip("there is no sha256sum")
    command = ["sha256sum", "--check", "--quiet", manifest.NAME]
    subprocess.run(command, cwd=records.path, check=True)
    flip(records.path / "notes.txt", 0)
    done = subprocess.run(command, cwd=records.path, capture_output=True, check=False)
    assert b"notes.txt: FAILED" in done.stdout


def test_a_result_that_is_renamed_keeps_its_checksum(tmp_path):
    records = Records.create(tmp_path / "run", {})
    file = records.save_result_summary("a", {"x": 1})
    records.rename(file, file.with_name("b.json"))
    assert records.load_result_summary("b") == {"x": 1}
    flip(file.with_name("b.json"), 3)
    with pytest.raises(InputError, match="was changed on disk"):
        records.load_result_summary("b")


def test_a_network_within_a_papers_directory_has_its_own_manifest(tmp_path):
    paper = Records.create(tmp_path / "paper", {})
    network = Records.create(paper.path / "mlp-seed_0", {"seed": 0})
    file = network.path / "config.json"
    assert read_json(file, Reader(paper.path)) == {"seed": 0}
    flip(file, 3)
    with pytest.raises(InputError, match="was changed on disk"):
        read_json(file, Reader(paper.path))


def test_checksums_of_versions_before_there_were_manifests(tmp_path):
    """One in each object of JSON, under the key sha256."""
    fields = {"a": 1.5, "b": 22}
    text = json.dumps(fields, sort_keys=True).encode()
    file = tmp_path / "x.json"
    whole = json.dumps({**fields, "sha256": hashlib.sha256(text).hexdigest()})
    for place in range(len(whole)):
        file.write_text(whole)
        assert read_json(file) == fields
        flip(file, place)
        try:
            found = read_json(file)
        except InputError:
            continue
        assert found == fields or not set(found) <= {*fields, "sha256"}


def test_any_changed_byte_of_a_line_is_told(tmp_path):
    file, values = tmp_path / "x.jsonl", [{"step": 1, "loss": 0.5}, {"step": 2}]
    whole = "".join(map(lines.with_checksum, values))
    for place in range(len(whole)):
        file.write_text(whole)
        flip(file, place)
        with pytest.raises(InputError, match="damaged|changed"):
            lines.read_lines(file)
    for cut in range(len(whole)):
        file.write_text(whole[:cut])
        assert lines.read_lines(file) == values[: whole[: cut + 1].count("\n")]


def test_files_from_before_there_were_checksums(tmp_path):
    (tmp_path / "x.json").write_text('{"a": 1}')
    (tmp_path / "x.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_json(tmp_path / "x.json") == {"a": 1}
    assert lines.read_lines(tmp_path / "x.jsonl") == [{"step": 1}, {"step": 2}]
    # A run of that time goes on as it is.
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    records = Records(tmp_path)
    records.append_metrics({"step": 2})
    assert records.metrics() == [{"step": 1}, {"step": 2}]


def test_a_finished_run_that_lost_lines(finished, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match="ends before step 4"):
        Records(copy).metrics()


def test_a_store_whose_first_line_was_changed(tmp_path):
    store = tmp_path / "store"

    def measure():
        return evaluate(
            lambda point: optax.tree.norm(point), line({"w": jax.numpy.zeros(2)},
            {"w": jax.numpy.ones(2)}), np.linspace(0, 1, 3), store=store,
        )  # fmt: skip

    measure()
    whole = store.read_bytes()
    for place in range(0, whole.index(b"\n"), 7):
        store.write_bytes(whole)
        flip(store, place)
        with pytest.raises(InputError, match="changed on disk|no store of|damaged"):
            measure()


def test_what_a_killed_process_wrote_aside_is_removed(tmp_path):
    records = Records.create(tmp_path / "run", {})
    (tmp_path / "run" / "results").mkdir()
    child = subprocess.Popen(["true"])
    child.wait()
    own, dead = (
        records.path / "results" / f"{prefix}x.nc"
        for prefix in (aside_of(records, os.getpid()), aside_of(records, child.pid))
    )
    for file in (own, dead):
        file.touch()
    with records.lock():
        assert own.exists() and not dead.exists()


def aside_of(records, process):
    with records._aside(records.path / "x") as aside:
        return (
            aside.name.partition("~")[0].replace(str(os.getpid()), str(process)) + "~"
        )


def test_damaged_snapshots_are_told(run_dir):
    for file in run_dir.glob("snapshots/final/**/d/*"):
        file.write_bytes(bytes(100))
    with pytest.raises(CorruptCheckpointError):
        open_run(run_dir).snapshots["final"]
