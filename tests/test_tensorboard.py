"""`--tensorboard=True`: events are the metrics; resuming hides what is made again."""

import json
import struct
import sys

import pytest

from experiments import digits
from experiments.harness.tensorboard import open_events
from experiments.harness.train import main
from lrscape.records import Records
from tests.test_command_line import SHORT


def command(*flags):
    return main("digits", digits.__doc__, digits.PRESETS, list(map(str, flags)))


def events(folder):
    """The events of TensorBoard's files: records of a length, a sum, bytes, a sum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            found.append(Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return found


def test_events_hold_the_metrics(tmp_path):
    assert command(*SHORT, "--tensorboard=True", f"--run-dir={tmp_path / 'a'}") == 0
    lines = Records(tmp_path / "a").metrics()
    found = {
        (value.tag, event.step): value.simple_value
        for event in events(tmp_path / "a" / "tensorboard")
        for value in event.summary.value
    }
    expected = {}
    for line in lines:
        for name, value in line.items():
            tag = name
            for part in ("train", "test"):
                tag = tag.replace(f"{part}_", f"{part}/")
            if name != "step":
                expected[tag, line["step"]] = pytest.approx(value, rel=1e-6)
    assert found == expected and len(lines) == 2
    # A run without the flag has none.
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert "tensorboard" not in config and "tensorboard" not in config["given"]


def test_what_a_resumed_run_makes_again_is_hidden(tmp_path):
    open_events(tmp_path, 20).close()
    starts = [e.step for e in events(tmp_path / "tensorboard") if e.session_log.status]
    assert starts == [21]


def test_a_missing_package_is_said_before_there_is_a_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert command("--tensorboard=True", f"--run-dir={tmp_path / 'a'}") == 2
    assert "pip install 'lrscape[tensorboard]'" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
