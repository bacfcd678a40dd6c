"""What goes wrong within a process, and when: armed before its work begins."""

import builtins
import errno
import io
import os
import random
import resource
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

# Python's own word for each thing that changes a directory.
CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def changes_of(under):
    """Makes a function that tells of an audit event whether it changes `under`."""
    prefix = os.fspath(under)

    def changes(event, arguments):
        if event == "open":
            path, _, flags = arguments
            if not flags & WRITING:
                return False
        elif event in CHANGES:
            path = arguments[0]
        else:
            return False
        return isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(
            path
        ).startswith(prefix)

    return changes


def count_changes(under, counter):
    """Writes to the file `counter` how often `under` was changed in this process."""
    changes, seen = changes_of(under), [0]

    def hook(event, arguments):
        seen[0] += changes(event, arguments)

    sys.addaudithook(hook)
    return lambda: Path(counter).write_text(str(seen[0]))


def kill_at_change(under, number):
    """SIGKILL to this process as it is about to change `under` for the nth time."""
    changes, seen = changes_of(under), [0]

    def hook(event, arguments):
        if changes(event, arguments):
            seen[0] += 1
            if seen[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def fail_from_change(under, number, name):
    """From the nth change of `under` on each fails: ENOSPC, EROFS, EACCES ..."""
    changes, seen = changes_of(under), [0]
    code = getattr(errno, name)

    def hook(event, arguments):
        if changes(event, arguments):
            seen[0] += 1
            # What is removed makes room; nothing else does.
            if seen[0] >= number and (event != "os.remove" or name != "ENOSPC"):
                raise OSError(code, os.strerror(code), str(under))

    sys.addaudithook(hook)


def limit_memory_and_time(size, seconds):
    """This process ends with an error where it takes more memory or work than that."""
    before = resource.getrusage(resource.RUSAGE_SELF)

    def look():
        used = resource.getrusage(resource.RUSAGE_SELF)
        memory = used.ru_maxrss * 1024
        spent = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
        if memory > size or spent > seconds:
            print(f"Traceback: {memory / 1e6:.0f} MB, {spent:.1f} s")

    return look


def limit_file_size(limit):
    """No file may grow beyond so many bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def signal_at_update(step, name, delay):
    """A signal to this process so many seconds after an update."""
    from experiments.harness.trainer import Trainer

    original = Trainer._after_update
    number = getattr(signal, name)

    def after_update(self, now, *rest):
        if now == step:
            send = threading.Timer(delay, os.kill, (os.getpid(), number))
            send.daemon = True
            send.start() if delay else os.kill(os.getpid(), number)
        return original(self, now, *rest)

    Trainer._after_update = after_update


def fail_at_update(step, name, message):
    """An error of a kind after an update."""
    from experiments.harness.trainer import Trainer
    from lrscape.errors import InputError

    original = Trainer._after_update
    error = {"InputError": InputError, "OSError": OSError}[name](message)

    def after_update(self, now, *rest):
        if now == step:
            raise error
        return original(self, now, *rest)

    Trainer._after_update = after_update


def lose_directory_at_update(step, way, aside):
    """The run directory is removed, moved, or moved and replaced after an update."""
    from experiments.harness.trainer import Trainer

    original = Trainer._after_update

    def after_update(self, now, *rest):
        if now == int(step):
            if way == "remove":
                shutil.rmtree(self.root)
            else:
                self.root.rename(aside)
            if way == "replace":
                self.root.mkdir()
        return original(self, now, *rest)

    Trainer._after_update = after_update


def wait_before_locking(may_go):
    """Once all was looked at, the process waits until a file is there."""
    from lrscape.records import Records

    lock, may_go = Records.lock, Path(may_go)

    def late(self):
        may_go.with_suffix(".waits").touch()
        while not may_go.exists():
            time.sleep(0.05)
        return lock(self)

    Records.lock = late


def fail_part_way(under, number, share):
    """The nth file under a directory that is opened to be written takes a share."""
    original, seen = open, [0]

    def opened(file, mode="r", *args, **kwargs):
        found = original(file, mode, *args, **kwargs)
        named = isinstance(file, (str, os.PathLike)) and os.fspath(file)
        if set(mode) & set("wax+") and str(named).startswith(under):
            seen[0] += 1
            if seen[0] == number:
                write = found.write

                def half(data):
                    write(data[: int(share * len(data))])
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))

                found.write = half
        return found

    io.open = builtins.open = opened


def clock_that_jumps(seed):
    """Wall time goes back and forth by months, and clocks that never go back leap."""
    moves = random.Random(seed)
    wall, steady, precise = time.time, time.monotonic, time.perf_counter
    ahead = [0.0]

    def forth():
        # By minutes at the most: what waits longer than that for a save gives up.
        if moves.random() < 0.05:
            ahead[0] += moves.random() * max(0, 100 - ahead[0])
        return ahead[0]

    time.time = lambda: wall() + moves.uniform(-1e7, 1e7)
    time.monotonic = lambda: steady() + forth()
    time.perf_counter = lambda: precise() + forth()


def not_a_number_in_data(example):
    """A pixel of one training example is NaN."""
    from lrscape.runs import RunConfig

    load = RunConfig.load_data

    def load_data(self):
        dataset = load(self)
        image = dataset.train.image.astype(np.float32)
        image[example, 3, 3, 0] = np.nan
        object.__setattr__(
            dataset, "train", type(dataset.train)(image, dataset.train.label)
        )
        return dataset

    RunConfig.load_data = load_data


def kill_in_store(number, share):
    """SIGKILL at the nth points that a surface keeps, with a share of them written."""
    from lrscape.landscape.store import Store

    add, seen = Store.add, [0]

    def killed_add(self, indices, values):
        seen[0] += 1
        if seen[0] == number:
            start = self.path.stat().st_size
            add(self, indices, values)
            size = self.path.stat().st_size
            os.truncate(self.path, start + int(share * (size - start)))
            os.kill(os.getpid(), signal.SIGKILL)
        add(self, indices, values)

    Store.add = killed_add
