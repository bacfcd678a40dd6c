"""Gradients of networks on CPU: freed memory given back to the system, and kept.

    python -m experiments.bench.memory --json memory.json

The gradient of one batch's loss in training mode, in a process as it is and in one that
keeps freed memory, as all commands that train do (`experiments.harness.memory`). Five
minutes on two CPU cores.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from typing import Any

from experiments.bench.convolution import BATCHES, command_line, compiled_gradient
from experiments.bench.pairs import interleaved, ratios, show
from experiments.harness.memory import keep_freed_memory
from lrscape import console


def _serve(asked: Any, name: str, keep: bool) -> None:
    """In a process of its own: a gradient each time one is asked for."""
    if keep and not keep_freed_memory():
        sys.exit("this system, or the environment, leaves nothing to choose")
    gradient, _ = compiled_gradient(name, slices=True)
    while asked.recv():
        gradient()
        asked.send(True)


def memory_table(name: str, repeats: int) -> dict[str, Any]:
    """A model's gradient, in either process."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for keep in (False, True):
        pipe, other = context.Pipe()
        processes.append(context.Process(target=_serve, args=(other, name, keep)))
        processes[-1].start()
        other.close()
        pipes.append(pipe)

    def call(pipe: Any) -> Callable[[], None]:
        def one() -> None:
            pipe.send(True)
            pipe.recv()

        return one

    try:
        functions = {"given back": call(pipes[0]), "kept": call(pipes[1])}
        table = ratios(interleaved(functions, repeats))
    finally:
        for pipe, process in zip(pipes, processes, strict=True):
            if process.is_alive():
                pipe.send(False)
            process.join()
    count, shape = BATCHES[name]
    show(f"{name}, {count} images of {shape}", table, count)
    return {"images": count, "shape": shape, "table": table}


def main() -> None:
    """Runs the benchmark."""
    command_line(__doc__ or "", memory_table)


if __name__ == "__main__":
    console.run(main)
