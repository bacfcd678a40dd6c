"""Bad command lines of every command: refused, with a reason, before anything is made.

Each must end with exit status 2 and one paragraph that names the flag and its value,
without a traceback, and leave nothing behind.
"""

import contextlib
import importlib
import io
import json
import re

import pytest

from experiments.harness.commands import module_of
from experiments.harness.values import Checked, flags_of

TRAINING = ("digits", "mnist", "cifar", "tiny_imagenet", "imagenet", "language")
PAPERS = {
    "nonmonotonic": "fig5", "loss_surfaces": "table1", "walk_with_sgd": "table1",
    "asymmetric_valleys": "fig2", "lipschitz_rate": "mnist",
}  # fmt: skip
# What a command takes before its flags.
FIRST = {
    **{name: [item] for name, item in PAPERS.items()},
    "survey": ["RUN", "--probe=line"], "report": ["RUN"],
    "sweep": ["digits", "--grid", "model=mlp"], "bench": ["all"], "claims": ["5.3"],
    "language line": [],
}  # fmt: skip

DIGITS_20 = "9" * 20
LONG = "a" * 300
NUL = "a\0b"
NUMBERS = {
    int: (DIGITS_20, "9" * 5000, f"-{DIGITS_20}", "1.5", "nan", "many", "1e3"),
    float: ("nan", "inf", "-inf", "1e999", "1e300", "1e-300", "lots"),
}


def called(command, argv):
    """Runs a command line in this process: its exit status, and what it said."""
    name, _, item = command.partition(" ")
    argv = [*([item] if item else []), *argv]
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            status = main_of(name)(argv)
        except SystemExit as ended:
            status = ended.code
    return status, said.getvalue()


def main_of(name):
    where = "lrscape.data" if name == "data" else f"experiments.{name}"
    module = importlib.import_module(where)
    if hasattr(module, "__path__"):  # a package's command line is its __main__
        module = importlib.import_module(f"{where}.__main__")
    if name in TRAINING and name != "language":
        from experiments.harness.train import main

        return lambda argv: main(name, module.__doc__, module.PRESETS, argv)
    return module.main


def flags_class(command):
    if command == "language line":
        from experiments.language.lines import LineArguments

        return LineArguments
    module = module_of(command)
    if command in TRAINING:
        from experiments.harness.kinds import IMAGES

        return getattr(module, "KIND", IMAGES).flags
    return module.Arguments


# The flags, and what the message has to say besides; RUN is a finished run's directory,
# NEW one that is not there yet, FILE a file, PLACE a directory with nothing in it.
BAD = [
    # Whole numbers.
    ("digits", "--epochs=0", "epochs=0"),
    ("digits", "--epochs=-3", "epochs=-3"),
    ("digits", "--epochs=2000000", "32 bits"),
    ("digits", "--split-seed=-1", "split_seed=-1"),
    ("digits", "--seed=-1", "seed=-1"),
    ("digits", f"--seed={2**32}", str(2**32)),
    ("digits", "--seeds=0", "seeds=0"),
    ("digits", "--seeds=1000000000", "each is a network"),
    ("digits", "--batch-size=0", "batch_size=0"),
    ("digits", "--validation=-5", "validation=-5"),
    ("digits", "--examples=0", "examples=0"),
    ("digits", "--snapshot-epochs 1 0", "snapshot_epochs=0"),
    ("digits", "--snapshot-epochs 1 99", "99"),
    ("digits", "--threads=100000", "thread"),
    ("digits", "--process-id=-1", "process_id=-1"),
    ("digits", "--num-devices=0", "num_devices=0"),
    ("digits", "--scan-steps=-1", "scan_steps=-1"),
    ("imagenet", "--image-size=100000", "memory"),
    ("language", "--features=0", "features=0"),
    ("language", "--features=1000000000", "memory"),
    ("language", "--layers=0", "layers=0"),
    ("language", "--window=0", "window=0"),
    ("language", "--offset=-1", "offset=-1"),
    ("language", "--max-words=0", "max_words=0"),
    ("language", "--eval-streams=0", "eval_streams=0"),
    ("language line", "--points=100000000000", "100,000"),
    ("language line", "--points=2", "points=2"),
    ("language line", "--seed=-7", "seed=-7"),
    ("survey", "--points=100000000000", "each is a pass"),
    ("survey", "--points=2", "points=2"),
    ("survey", "--grid=1000000", "square"),
    ("survey", "--seed=-1", "seed=-1"),
    ("survey", "--directions=100000000", "each is a pass"),
    ("survey", "--eigenpairs=1000000", "vector"),
    ("survey", "--matvecs=1000000", "vector"),
    ("survey", "--epoch=0", "epoch=0"),
    ("survey", "--batch-size=0", "batch_size=0"),
    ("survey", "--examples=-1", "examples=-1"),
    ("survey", "--examples=1", "two or more"),
    ("nonmonotonic", "--epochs=0", "epochs=0"),
    ("nonmonotonic", "--ensemble=1000000000", "ensemble=1000000000"),
    ("nonmonotonic", "--examples=-1", "examples=-1"),
    ("loss_surfaces", "--grid=1000000", "square"),
    ("loss_surfaces", "--grid=2", "grid=2"),
    ("loss_surfaces", "--epochs=3", "epochs=3"),
    ("walk_with_sgd", "--epochs 1 -2", "epochs=-2"),
    ("walk_with_sgd", "--examples=1", "examples=1"),
    ("walk_with_sgd", "--trained=0", "trained=0"),
    ("asymmetric_valleys", "--swa-from=0", "swa_from=0"),
    ("lipschitz_rate", "--seeds=-2", "seeds=-2"),
    ("claims", "--workers=0", "workers=0"),
    ("claims", "--workers=1000000", "process"),
    ("sweep", "--seeds=0", "seeds=0"),
    ("sweep", "--parallel=0", "parallel=0"),
    ("sweep", "--seeds=1000000000", "each is a network"),
    # Numbers.
    ("digits", "--peak-lr=1e-320", "single precision"),
    ("digits", "--variance=1e-300", "single precision"),
    ("digits", "--variance=1e-30", "nothing is learned"),
    ("digits", "--schedule=laplacian --scale=1e-30", "nothing is learned"),
    ("digits", "--weight-decay=inf", "weight_decay=inf"),
    ("digits", "--weight-decay=1e-300", "single precision"),
    ("digits", "--momentum=1.0", "momentum=1.0"),
    ("digits", "--momentum=-0.1", "momentum=-0.1"),
    ("digits", "--schedule=step --milestones 0.5 1.5", "milestones=1.5"),
    ("digits", "--schedule=step --milestones 0.5,0.75", "milestones='0.5,0.75'"),
    ("imagenet", "--min-area=2", "min_area=2.0"),
    ("language", "--held-out=2", "held_out=2.0"),
    ("language", "--held-out=0", "held_out=0.0"),
    ("language", "--dropout=1.5", "dropout=1.5"),
    ("language", "--clip-norm=0", "clip_norm=0.0"),
    ("survey", "--extent=inf", "extent=inf"),
    ("survey", "--extent=1e300", "single precision"),
    ("survey", "--scale=inf", "scale=inf"),
    ("survey", "--scale=0", "scale=0.0"),
    ("survey", "--l2=inf", "l2=inf"),
    ("survey", "--l2=-1", "l2=-1.0"),
    ("asymmetric_valleys", "--zeta=0", "zeta=0.0"),
    ("asymmetric_valleys", "--zeta=3", "zeta=3.0"),
    ("asymmetric_valleys", "--r=nan", "r=nan"),
    ("claims", f"--budget={'9' * 400}h", "characters"),
    ("claims", "--budget=-3m", "budget='-3m'"),
    ("bench", "--minutes=nan", "minutes"),
    ("bench", "--minutes=1e300", "minutes"),
    ("bench", "--minutes=-1", "minutes"),
    # Names.
    ("digits", "--schedule=gausian", "did you mean 'gaussian'"),
    ("digits", f"--model={LONG}", "model="),
    ("digits", f"--dataset={LONG}", "dataset="),
    ("digits", "--augment crop flop", "did you mean 'flip'"),
    ("language", "--level=word", "did you mean 'words'"),
    ("language lin", "", "lin"),
    ("survey", "--norm=evil", "did you mean 'eval'"),
    ("survey", f"--name={LONG}", "name="),
    ("survey", "--name=../x", "name='../x'"),
    ("survey", "--to=finale", "finale"),
    ("nonmonotonic", "--dataset=cifar1000", "did you mean 'cifar100'"),
    ("nonmonotonic", "--rows resnet110_cifar", "resnet110_cifar10"),
    ("loss_surfaces", "--model=vg", "vg"),
    ("walk_with_sgd", "--models mpl", "did you mean 'mlp'"),
    ("asymmetric_valleys", "--models lstm", "reads text"),
    ("lipschitz_rate", "--feed=fre", "did you mean 'free'"),
    ("claims", "--preset=paperr", "did you mean 'paper'"),
    ("augmentations", "--dataset=digit", "digit"),
    ("data", "prepare ../x", "'../x'"),
    ("data", f"prepare {LONG}", "dataset="),
    ("data", "prepare digits", "needs no preparing"),
    ("data", "prepare a/../b", "a/../b"),
    # What does not go together.
    ("survey", "--from=final --to=final", "one snapshot"),
    ("survey", "--probe=distance --from=initial --to=initial", "one snapshot"),
    ("survey RUN", "--probe=walk", "not 2"),
    ("survey RUN", "--probe=plane", "not 2"),
    ("survey RUN RUN", "--probe=line", "not 3"),
    ("survey", "--probe=barycentric", "not 1"),
    # Grids.
    ("sweep digits", "--grid model=mlp seeds=2", "seeds"),
    ("sweep digits", "--grid model=mlp replicas=apart", "replicas"),
    ("sweep digits", "--grid model", "FIELD=VALUE"),
    ("sweep digits", "--grid =mlp", "''"),
    ("sweep digits", "--grid model=mlp,,cnn", "FIELD=VALUE"),
    ("sweep digits", "--grid model=mlp model=cnn", "twice"),
    ("sweep digits", "--grid epochs=many", "epochs='many'"),
    ("sweep digits", "--grid epochs=0", "epochs=0"),
    ("sweep digits", f"--grid epochs={DIGITS_20}", "epochs"),
    ("sweep digits", "--grid modle=mlp", "did you mean 'model'"),
    ("sweep digits", "--grid model=mlp --slurm time=²", "slurm"),
    ("sweep digits", f"--grid model=mlp --launcher=slurm --slurm time={'9' * 5000}",
     "characters"),
    ("sweep digit", "--grid model=mlp", "did you mean 'digits'"),
    ("sweep", "--epoch=3", "did you mean --epochs"),
    ("sweep", "--paralel=3", "did you mean --parallel"),
    # Misspelt flags.
    ("digits", "--epoch=3", "did you mean --epochs"),
    ("digits", "--run_dri=a", "did you mean --run-dir"),
    ("language", "--feature=3", "did you mean --features"),
    ("language line", "--point=3", "did you mean --points"),
    ("survey", "--prob=line", "did you mean --probe"),
    ("report", "--ou=a", "did you mean --out"),
    ("nonmonotonic", "--epoch=3", "did you mean --epochs"),
    ("loss_surfaces", "--optimizer adam", "did you mean --optimizers"),
    ("walk_with_sgd", "--update=3", "did you mean --updates"),
    ("asymmetric_valleys", "--zetta=1", "did you mean --zeta"),
    ("lipschitz_rate", "--fed=free", "did you mean --feed"),
    ("claims", "--worker=2", "did you mean --workers"),
    ("augmentations", "--ou=a", "did you mean --out"),
    ("results_table", "--writ", "did you mean --write"),
    ("bench", "--minute=3", "did you mean --minutes"),
    ("data", "prepare mnist --data-dri=a", "did you mean --data-dir"),
    ("docs", "--ot=a", "did you mean --out"),
    # Directories and files.
    *[(name, "--run-dir=FILE", "file is there") for name in ("digits", *PAPERS)],
    *[(name, "--run-dir=FILE/a", "is a file") for name in ("digits", "claims")],
    *[(name, f"--run-dir={LONG}", "too long")
      for name in ("digits", "language line", "sweep", "claims", *PAPERS)],
    *[(name, f"--run-dir={NUL}", "NUL") for name in ("digits", "claims", *PAPERS)],
    ("report", f"--out={LONG}", "too long"),
    ("report", f"--out={NUL}", "NUL"),
    ("augmentations", "--out=FILE", "file is there"),
    ("augmentations", f"--out={LONG}", "too long"),
    ("docs", "--out=FILE", "file is there"),
    ("sweep", f"--jobs-dir={LONG}", "too long"),
    ("bench", "--json=FOREIGN", "something else"),
    ("bench", "--json=PLACE", "a directory"),
    ("bench", "--json=FILE/a", "is no directory"),
    # Another experiment's directory.
    *[(name, "--run-dir=RUN", "a run of experiments.digits")
      for name in ("language line", "sweep", "claims", *PAPERS)],
    *[(name, "--run-dir=OTHER", "experiments.tables") for name in ("claims", *PAPERS)],
    *[(name, "--run-dir=THESIS", "not empty")
      for name in ("digits", "sweep", "claims", *PAPERS)],
    # Data that are not where they were said to be.
    *[(name, "--data-dir=/nonexistent", "data_dir='/nonexistent'")
      for name in ("digits", "language", "language line", "survey", "claims",
                   "augmentations", *PAPERS)],
    *[(name, "--data-dir=PLACE", "is not prepared in") for name in PAPERS],
    ("claims 1.2 2.1 3.1", "--data-dir=PLACE", "is not prepared in"),
    *[(name, "--data-dir=PLACE --preset=paper", "is not prepared in")
      for name in PAPERS],
    ("data", "list --data-dir=/nonexistent", "is not there"),
    ("mnist", "--data-dir=PLACE", "is not prepared"),
]  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Paths by the names that the table calls them."""
    root = tmp_path_factory.mktemp("places")
    found = {name: root / name.lower() for name in
             ("RUN", "NEW", "FILE", "PLACE", "FOREIGN", "OTHER", "THESIS")}  # fmt: skip
    from experiments import digits
    from experiments.harness.arguments import resolve

    config = resolve("digits", digits.PRESETS, "quick", {}, None).to_dict()
    for name in ("RUN", "PLACE", "OTHER", "THESIS"):
        found[name].mkdir()
    (found["RUN"] / "config.json").write_text(json.dumps(config))
    for snapshot in ("initial", "final"):
        (found["RUN"] / "snapshots" / snapshot).mkdir(parents=True)
    other = {"paper": "tables", "preset": "quick"}
    (found["OTHER"] / "config.json").write_text(json.dumps(other))
    (found["THESIS"] / "chapter.tex").write_text("x")
    found["FILE"].write_text("x")
    found["FOREIGN"].write_text(json.dumps({"benches": {"rate": 3}}))
    return found


def filled(text, places):
    return re.sub(r"\b[A-Z]{3,}\b", lambda m: str(places.get(m[0], m[0])), text)


def check_refused(command, argv, words, places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(places["PLACE"]))
    before = {p: p.stat().st_mtime_ns for p in places["PLACE"].parent.rglob("*")}
    status, said = called(command, argv)
    assert status == 2, said
    assert "Traceback" not in said and words in " ".join(said.split())
    assert len(said) < 2000  # whatever was typed
    message = said.rpartition("error: ")[2].strip()
    assert message and "\n\n" not in message
    assert not list(tmp_path.iterdir())
    after = {p: p.stat().st_mtime_ns for p in places["PLACE"].parent.rglob("*")}
    assert before == after
    return said


def argv_of(command, text, places):
    """A table's row as a command and its words."""
    command, *given = command.split(" ")
    if command == "language" and given[:1] == ["line"]:
        command, given = "language line", given[1:]
    first = FIRST.get(command, [])
    if command == "sweep" and given:
        first = []
    if command == "claims" and given:
        first = []
    if command == "survey":  # runs come before flags
        probe = [] if "--probe" in text else ["--probe=line"]
        first, given = ["RUN", *given], probe
    words = [*first, *given, *text.split(" ")] if text else [*first, *given]
    needs = {"digits": "--epochs=1", "mnist": "--epochs=1"}.get(command)
    words += [needs] if needs and needs[:8] not in text else []
    if command in ("digits", "mnist", "claims", "language line", *PAPERS) and (
        "--run-dir" not in text
    ):
        words.append("--run-dir=NEW")
    return command, [filled(word, places) for word in words]


@pytest.mark.parametrize(
    ("command", "text", "words"), BAD, ids=[f"{c} {t[:40]!r}" for c, t, _ in BAD]
)
def test_bad_command_lines(command, text, words, places, tmp_path, monkeypatch):
    command, argv = argv_of(command, text, places)
    check_refused(command, argv, words, places, tmp_path, monkeypatch)


NUMERIC = [
    (command, flag)
    for command in ("digits", "language", "language line", "survey", "claims",
                    "sweep", *PAPERS)
    for flag in flags_of(flags_class(command))
    if flag.kind in NUMBERS and flag.names
]  # fmt: skip


def test_every_number_has_bounds_and_every_path_is_looked_at():
    commands = ("digits", "language", "language line", "survey", "report", "claims",
                "sweep", "docs", "augmentations", *PAPERS)  # fmt: skip
    for command in commands:
        for flag in flags_of(flags_class(command)):
            assert flag.check is not None or flag.kind is bool, (command, flag.field)
    assert len(NUMERIC) > 90 and isinstance(Checked, type)


# Each number flag meets one or two of the values; all values are met by many flags.
@pytest.mark.parametrize(
    ("command", "flag", "value"),
    [
        (command, flag.names[0], NUMBERS[flag.kind][(n + k) % 7])
        for n, (command, flag) in enumerate(NUMERIC)
        for k in (0,)
    ],
)
def test_numbers(command, flag, value, places, tmp_path, monkeypatch):
    first = [filled(word, places) for word in FIRST.get(command, [])]
    argv = [*first, f"{flag}={value}"]
    said = check_refused(command, argv, "", places, tmp_path, monkeypatch)
    assert flag[2:].replace("-", "_") in said
