"""Two processes want one run directory. What else goes wrong is in `tests.faults`."""

import os
import signal

import pytest

from lrscape.errors import InputError
from lrscape.records import Records
from tests.processes import (
    FLAGS,
    assert_same_run,
    newest_checkpoint,
    start,
    wait_until,
)


@pytest.mark.slow
def test_a_second_process_is_refused(undisturbed, tmp_path):
    run_dir = tmp_path / "shared"
    process = start(run_dir, *FLAGS)
    wait_until(lambda: newest_checkpoint(run_dir) >= 0, process)
    process.send_signal(signal.SIGSTOP)  # so that it is not done before the second
    try:
        second = start(run_dir, "--resume")
        out, _ = second.communicate(timeout=60)
    finally:
        process.send_signal(signal.SIGCONT)
    assert second.returncode == 2, out
    assert f"is being written by another process (process {process.pid} on" in out
    # The first one has not noticed.
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    assert_same_run(undisturbed, run_dir)


def test_the_lock_goes_with_its_process(tmp_path):
    records = Records(tmp_path / "run")
    other = Records(tmp_path / "run")
    with (
        records.lock(),
        pytest.raises(InputError, match=f"process {os.getpid()} on"),
        other.lock(),
    ):
        pass
    with other.lock():
        pass
