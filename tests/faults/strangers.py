"""What a stranger's run directory may hold: links, special files, bombs, programs.

    python -m tests.faults.strangers ["a million lines"] [--bombs] [--out FILE]

Crafts each of them, or those that are named, in a copy of a small run and writes its
report in a process of its own; prints the exit status, seconds of work, memory, and
what the report says. With --out the table is kept as JSON.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import jax
import numpy as np
import tensorstore as ts

from lrscape import environment, lines, manifest
from tests.faults.suite import DIGITS, ERROR, check
from tests.processes import rewrite

# In a file outside of the run directory: nobody may find it in anything.
SECRET = "-----BEGIN PRIVATE KEY-----"
# What looking at a directory may take: bytes, and seconds of a processor's work.
MEMORY, SECONDS = 1_000_000_000, 30


@dataclasses.dataclass(frozen=True)
class Craft:
    """Something that is put into a run directory.

    Attributes:
        make: puts it there; is given the run directory.
        place: the file or folder that messages have to name.
        words: with which they say why it is not read.
    """

    make: Callable
    place: str
    words: str


def linked(name):
    """Makes a file, or a folder, a link to one outside."""

    def make(run_dir):
        secret = run_dir.parent / "secret"
        secret.mkdir(exist_ok=True)
        target = secret / Path(name).name if Path(name).suffix else secret
        (secret / Path(name).name).write_text(json.dumps({"least_loss": SECRET}))
        remove(run_dir / name)
        (run_dir / name).parent.mkdir(exist_ok=True)
        (run_dir / name).symlink_to(target)

    return make


def endless(run_dir):
    """A link to a device that never ends."""
    (run_dir / "results" / "zero.json").symlink_to("/dev/zero")


def device(run_dir):
    """A device itself, where the system lets us make one; else a named pipe."""
    file = run_dir / "results" / "device.json"
    try:
        os.mknod(file, 0o600 | 0o020000, os.makedev(1, 5))
    except OSError:
        os.mkfifo(file)


def pipe(name):
    """Makes a file a named pipe, which is never written to."""

    def make(run_dir):
        remove(run_dir / name)
        (run_dir / name).parent.mkdir(exist_ok=True)
        os.mkfifo(run_dir / name)

    return make


def listening(run_dir):
    """A socket."""
    with contextlib.chdir(run_dir / "results"), socket.socket(socket.AF_UNIX) as one:
        one.bind("socket.json")


def remove(file):
    if file.is_dir() and not file.is_symlink():
        shutil.rmtree(file)
    else:
        file.unlink(missing_ok=True)


# HDF5.


def hdf5(write):
    """Makes a result of arrays that `write` fills."""

    def make(run_dir):
        secret = run_dir.parent / "secret.bin"
        secret.write_text(SECRET * 100)
        (run_dir / "results").mkdir(exist_ok=True)
        with h5py.File(run_dir / "results" / "evil.nc", "w") as file:
            write(file, secret)

    return make


def external_link(file, secret):
    with h5py.File(secret.with_suffix(".h5"), "w") as other:
        other["loss"] = np.zeros(3)
    file["loss"] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "/loss")


def soft_link(file, secret):
    file["a"] = np.zeros(3)
    file["loss"] = h5py.SoftLink("/a")


def external_storage(file, secret):
    external = [(str(secret), 0, 100)]
    file.create_dataset("loss", (100,), "u1", external=external)


def virtual(file, secret):
    with h5py.File(secret.with_suffix(".h5"), "w") as other:
        other["loss"] = np.zeros(3)
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(str(secret.with_suffix(".h5")), "loss", (3,))
    file.create_virtual_dataset("loss", layout)


def filtered(file, secret):
    file.create_dataset("loss", data=np.zeros(9), chunks=(9,), compression="gzip")


def group(file, secret):
    file["inner/loss"] = np.zeros(3)


def compound(file, secret):
    file["loss"] = np.zeros(3, [("a", "f8"), ("b", "i4")])


def gigabytes(file, secret):
    file.create_dataset("loss", (30_000, 30_000), "f8")


def shared(file, secret):
    """One array under many names."""
    file.create_dataset("loss", data=np.zeros(2_000_000))
    for i in range(500):
        file[f"loss_{i}"] = file["loss"]


def large_pieces(file, secret):
    file.create_dataset("loss", (1,), "f8", chunks=(1 << 27,), maxshape=(None,),
                        fletcher32=True)  # fmt: skip


def long_texts(file, secret):
    """Texts that are all one and the same of a megabyte."""
    many = 2_000
    texts = file.create_dataset("loss", (many,), h5py.string_dtype())
    texts[...] = [b"x" * 1_000_000, *[b""] * (many - 1)]
    file.flush()
    place, name = texts.id.get_offset(), file.filename
    file.close()
    with Path(name).open("r+b") as opened:
        opened.seek(place)
        one = opened.read(16)
        opened.seek(place)
        opened.write(one * many)


# JSON.


def text(name, written):
    """Makes a file of a text that no writer of ours wrote."""

    def make(run_dir):
        file = run_dir / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(written if isinstance(written, str) else written())
        manifest.list_file(run_dir, file, file.read_bytes())  # the stranger's own

    return make


def with_holes(name, size):
    """Makes a file of many bytes that takes none on disk."""

    def make(run_dir):
        (run_dir / name).parent.mkdir(exist_ok=True)
        with (run_dir / name).open("wb") as file:
            file.truncate(size)

    return make


def columns():
    """A table of which every row has a column of its own."""
    return json.dumps({"rows": [{str(i): i} for i in range(100_000)]})


def many_lines(run_dir):
    line = lines.with_checksum(
        {"step": 1, "epoch": 1.0, "train_loss": 1.0, "seconds": 2}
    )
    (run_dir / "metrics.jsonl").write_text(line * 1_000_000)


def implied_lines(run_dir):
    """Lines that the settings do imply, as if an update were an epoch."""
    config = json.loads((run_dir / "config.json").read_text())
    config |= {"epochs": 1_000_000, "log_every": 1}
    rewrite(run_dir / "config.json", config)
    many_lines(run_dir)


# Pictures, many files, trees of arrays.


def png_of(width, height):
    """A black PNG, of which only the size is large."""

    def chunk(kind, content):
        whole = kind + content
        return struct.pack(">I", len(content)) + whole + struct.pack(
            ">I", zlib.crc32(whole)
        )  # fmt: skip

    rows = zlib.compressobj(9)
    content = b"".join(rows.compress(bytes(1 + width)) for _ in range(height))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", content + rows.flush()) + chunk(b"IEND", b"")
    )  # fmt: skip


def pictures(run_dir):
    content = png_of(9_000, 9_000)
    (run_dir / "figures").mkdir(exist_ok=True)
    for i in range(60):
        (run_dir / "figures" / f"large-{i}.png").write_bytes(content)


def small_pictures(run_dir):
    """Pictures that are each small enough, of which together there are too many."""
    content = png_of(4_900, 4_900)
    (run_dir / "figures").mkdir(exist_ok=True)
    for i in range(400):
        (run_dir / "figures" / f"large-{i}.png").write_bytes(content)


def many_files(run_dir):
    for i in range(12_000):
        (run_dir / "results" / f"x{i}.json").write_text("{}")


def many_surfaces(run_dir):
    """Results that each take a while to be drawn."""
    import xarray as xr

    from lrscape.records import Records

    axis = np.linspace(-1, 1, 150)
    loss = np.random.default_rng(0).random((150, 150))
    surface = xr.Dataset({"loss": (("x", "y"), loss)}, {"x": axis, "y": axis})
    file = Records(run_dir).save_result("many", surface, {})
    for i in range(200):
        shutil.copy(file, file.with_name(f"many{i}.nc"))


def zarr(shape, chunk=None):
    """Makes the final snapshot declare an array of another shape."""

    def make(run_dir):
        item = next((run_dir / "snapshots" / "final").glob("*/manifest.ocdbt")).parent
        base = {"driver": "file", "path": f"{item}/"}
        store = ts.KvStore.open({"driver": "ocdbt", "base": base}).result()
        (key,) = [k for k in store.list().result() if b"Dense_0.kernel/zarr" in k]
        told = json.loads(store.read(key).result().value)
        told["shape"] = list(shape)
        wide = list(chunk or shape)
        told["chunk_grid"]["configuration"]["chunk_shape"] = wide
        told["codecs"][0]["configuration"]["chunk_shape"] = wide
        store.write(key, json.dumps(told).encode()).result()

    return make


LINKS = {
    "a link to a file": Craft(
        linked("results/evil.json"), "results/evil.json", "leads out"
    ),
    "metrics that are a link": Craft(
        linked("metrics.jsonl"), "metrics.jsonl", "leads out"
    ),
    "a picture that is a link": Craft(
        linked("figures/evil.png"), "figures/evil.png", "leads out"
    ),
    "a folder that is a link": Craft(linked("results"), "results", "leads out"),
    "a link to an endless device": Craft(endless, "results/zero.json", "leads out"),
    "a named pipe for metrics": Craft(
        pipe("metrics.jsonl"), "metrics.jsonl", "a named pipe"
    ),
    "a named pipe for settings": Craft(
        pipe("config.json"), "config.json", "a named pipe"
    ),
    "a named pipe for checksums": Craft(
        pipe("manifest.sha256"), "manifest.sha256", "a named pipe"
    ),
    "checksums that are a link": Craft(
        linked("manifest.sha256"), "manifest.sha256", "leads out"
    ),
    "a named pipe for arrays": Craft(
        pipe("results/evil.nc"), "results/evil.nc", "a named pipe"
    ),
    "a named pipe for a picture": Craft(
        pipe("figures/evil.png"), "figures/evil.png", "a named pipe"
    ),
    "a device": Craft(device, "results/device.json", "regular files alone"),
    "a socket": Craft(listening, "results/socket.json", "a socket"),
}

ARRAYS = {
    name: Craft(hdf5(write), "results/evil.nc", words)
    for name, write, words in (
        ("an external link", external_link, "link to another file"),
        ("a soft link", soft_link, "soft link"),
        ("external storage", external_storage, "external storage"),
        ("a virtual array", virtual, "virtual"),
        ("a filter", filtered, "filter"),
        ("a group", group, "group"),
        ("a compound type", compound, "class"),
        ("7 GB in a kilobyte", gigabytes, "can hold"),
        ("one array, 500 names", shared, "can hold|cannot hold"),
        ("pieces of a gigabyte", large_pieces, "in pieces of"),
        ("one text, 2,000 times", long_texts, "texts of"),
    )
}

BOMBS = {
    "400 digits": Craft(
        text("results/evil.json", f'{{"a": {"9" * 400}}}'),
        "results/evil.json", "400 digits",
    ),
    "50,000 lists in lists": Craft(
        text("results/evil.json", "[" * 50_000 + "]" * 50_000),
        "results/evil.json", "nested more than",
    ),
    "70 objects in objects": Craft(
        text("summary.json", '{"a":' * 70 + "1" + "}" * 70),
        "summary.json", "nested more than",
    ),
    "half a character": Craft(
        text("results/evil.json", '{"rows": [{"a": "\\ud800"}]}'),
        "results/evil.json", "half of a character",
    ),
    "a name twice": Craft(
        text("results/evil.json", '{"a": 1, "a": 2}'), "results/evil.json", "twice"
    ),
    "a terabyte of nothing": Craft(
        with_holes("results/evil.json", 1 << 40), "results/evil.json", "bytes"
    ),
    "a gigabyte of nothing": Craft(
        with_holes("results/evil.nc", 1 << 30), "results/evil.nc", "budget"
    ),
    "20 MB of empty lists": Craft(
        text("results/evil.json", lambda: "[" + "[]," * 7_000_000 + "0]"),
        "results/evil.json", "budget",
    ),
    "100,000 columns": Craft(
        text("results/evil.json", columns), "100,000 rows", "too many"
    ),
    "a million lines": Craft(many_lines, "metrics.jsonl", "imply no more than"),
    "a million epochs": Craft(implied_lines, "metrics.jsonl", "of the budget"),
    "one line of 300 MB": Craft(
        with_holes("metrics.jsonl", 300_000_000), "metrics.jsonl", "no more than"
    ),
    "a terabyte of checksums": Craft(
        with_holes("manifest.sha256", 1 << 40), "manifest.sha256", "no more than"
    ),
    "60 pictures of 81 megapixels": Craft(pictures, "figures/large-", "pixels"),
    "400 pictures of 24 megapixels": Craft(
        small_pictures, "figures/large-", "seconds"
    ),
    "12,000 results": Craft(many_files, "results", "more than 10,000"),
    "200 surfaces": Craft(many_surfaces, "many", "used up"),
}  # fmt: skip

# What a report does not read: points of the run.
TREES = {
    "10^12 weights": Craft(zarr((1_000_000, 1_000_000)), "snapshots/final", "declares"),
    "10^12 weights, pieces": Craft(
        zarr((1_000_000, 1_000_000), (64, 500)), "snapshots/final", "declares"
    ),
    "a piece of 10^12": Craft(
        zarr((64, 500), (1_000_000, 1_000_000)), "snapshots/final", "in pieces of"
    ),
    "a named pipe in a snapshot": Craft(
        pipe("snapshots/final/state/d/0123456789abcdef0123456789abcdef"),
        "snapshots/final", "a named pipe",
    ),
    "a link in a snapshot": Craft(
        linked("snapshots/final/state/d/evil.json"), "snapshots/final", "leads out"
    ),
}  # fmt: skip

IN_REPORTS = {**LINKS, **ARRAYS, **BOMBS}
# What would take too much memory or time, and not merely the wrong file.
TOO_LARGE = [
    "a link to an endless device", "a named pipe for metrics", "7 GB in a kilobyte",
    "one array, 500 names", "pieces of a gigabyte", "one text, 2,000 times", *BOMBS,
]  # fmt: skip


def looked_at(crafts, work):
    """Makes an injector: one of the crafts in a copy of a finished run.

    Args:
        crafts: by name.
        work: ``'report'`` or ``'open_snapshot'``, see `tests.faults.inside`.
    """

    def inject(suite, where, moves, number):
        craft = list(crafts.values())[number]
        run_dir = where / "run"
        shutil.copytree(suite.finished, run_dir)
        craft.make(run_dir)
        limits = ("limit_memory_and_time", MEMORY, SECONDS)
        status, said = suite.child(work, run_dir, armed=[limits])
        if work == "report":
            check(status == 0, f"status {status}", said)
            page = (run_dir / "report.html").read_text("utf-8")
            check(SECRET not in page, "a file from elsewhere is in the page")
            said += page
        else:
            suite.refused(status, said, (2,))
        check("Traceback" not in said.partition("<!doctype")[0], "a traceback", said)
        words = craft.words.split("|")
        check(craft.place in said and any(word in said for word in words), "why?", said)
        return ERROR

    return inject


def executable_cache(suite, where, moves, number):
    """Programs that lie in a run directory, as they once did, are not run."""
    run_dir = where / "run"
    shutil.copytree(suite.halted, run_dir)
    marker = run_dir / "compiled"
    marker.mkdir()
    (marker / "jit_step-0123-cache").write_bytes(b"not a program")
    before = {p: p.stat().st_atime_ns for p in marker.iterdir()}
    suite.go_on(run_dir)
    check({p: p.stat().st_atime_ns for p in marker.iterdir()} == before, "it was read")
    return ERROR


# Name -> how many there are, and what injects the nth one.
KINDS = {
    "links and special files": (len(LINKS), looked_at(LINKS, "report")),
    "arrays of HDF5's other ways": (len(ARRAYS), looked_at(ARRAYS, "report")),
    "bombs": (len(BOMBS), looked_at(BOMBS, "report")),
    "bombs in snapshots": (len(TREES), looked_at(TREES, "open_snapshot")),
    "an executable cache in a run": (2, executable_cache),
}


def main(argv=None):
    """Prints a row for each craft; returns 1 where one goes beyond a limit."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.strangers", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "names", nargs="*", choices=[*IN_REPORTS, []], metavar="NAME",
        help="default: all that a report reads",
    )  # fmt: skip
    parser.add_argument(
        "--bombs", action="store_true", help="those alone that are too large"
    )
    parser.add_argument("--out", type=Path, help="a file of JSON")
    options = parser.parse_args(argv)
    names = options.names or (TOO_LARGE if options.bombs else [*IN_REPORTS])
    rows, known = {}, ()
    with tempfile.TemporaryDirectory() as root:
        root = Path(root)
        finished = root / "finished"
        flags = ("--epochs=3", "--log-every=4", "--examples=512", "--model=mlp")
        command = [sys.executable, "-m", f"experiments.{DIGITS}", *flags]
        subprocess.run(
            [*command, f"--run-dir={finished}"], check=True, stdout=subprocess.DEVNULL
        )
        for name in ("nothing", *names):
            rows[name], warnings = tried(root, finished, name, known)
            known, row = known or warnings, rows[name]
            print(
                f"{name:<32}{row['status']:>3}{row['seconds']:>7.1f} s"
                f"{row['peak_mb']:>7.0f} MB  {row['said'][:150]}",
                flush=True,
            )
    if options.out is not None:
        found = {
            "limits": {"seconds": SECONDS, "peak_mb": MEMORY / 1e6},
            "made": environment.describe(jax.devices()), "bombs": rows,
        }  # fmt: skip
        options.out.write_text(json.dumps(found, indent=2) + "\n")
    good = all(row["told"] and row["within"] for row in rows.values())
    return 0 if good else 1


def tried(root, finished, name, known=()):
    """What `experiments.report` makes of a copy of a run with one of the crafts.

    Args:
        root: where the copy lies while it is looked at.
        finished: the run.
        name: in `IN_REPORTS`; another one leaves the run as it is.
        known: warnings that the run gives rise to as it is.

    Returns:
        The exit status, seconds of work and megabytes of the whole process, with what
        it imports; whether these are within the limits, and whether what was crafted
        is told of; the first warning that is not known, and all of them.
    """
    craft = IN_REPORTS.get(name)
    run_dir = root / name.replace(" ", "-").replace("^", "") / "run"
    shutil.copytree(finished, run_dir)
    if craft:
        craft.make(run_dir)
    status, said, seconds, memory = measured(run_dir)
    page = run_dir / "report.html"
    told = said + (page.read_text("utf-8") if page.exists() else "")
    warnings = [
        line.partition(": ")[2].replace(f"{run_dir.parent}/", "")
        for line in said.replace(f"{run_dir}/", "").splitlines()
        if line.startswith(("warning: ", "error: "))
    ]
    new = [line for line in warnings if line not in known]
    shutil.rmtree(run_dir.parent)
    row = {
        "status": status,
        "seconds": round(seconds, 1),
        "peak_mb": round(memory / 1e6),
        "within": memory <= MEMORY and seconds <= SECONDS,
        "told": craft is None or craft.place in told,
        "said": new[0] if new else "-",
    }
    return row, warnings


# Started anew and small: what a process was forked from counts as its own memory.
MEASURE = """
import resource, subprocess, sys
status = subprocess.call([sys.executable, "-m", "experiments.report", sys.argv[1]])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print("\\nmeasured", status, used.ru_utime + used.ru_stime, used.ru_maxrss)
"""


def measured(run_dir):
    """Status, output, seconds of work and memory of a report in a process of its own.

    Raises:
        subprocess.TimeoutExpired: it takes ten times as long as it may.
    """
    said = subprocess.run(
        [sys.executable, "-c", MEASURE, run_dir], stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=10 * SECONDS,
    ).stdout  # fmt: skip
    said, _, numbers = said.rpartition("\nmeasured ")
    status, work, memory = numbers.split()
    unit = 1 if sys.platform == "darwin" else 1024
    return int(status), said, float(work), int(memory) * unit


if __name__ == "__main__":
    sys.exit(main())
