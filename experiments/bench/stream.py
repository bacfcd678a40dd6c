"""The stream of images: against a bare decode loop, and feeding a training step.

    python -m experiments.bench.stream --json stream.json

Real images (CIFAR-10's, or digits where it is not prepared) enlarged to ImageNet's size
and written as JPEG files of many sizes. First, images a second of `Stream.batches`,
random views of 224 pixels in shuffled order, against threads that do nothing but read
and decode the same files. Second, updates of AlexNet that are fed by the stream against
the same updates on images that lie in memory, and the time that they waited. Six
minutes on two CPU cores.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

from experiments.bench.enlarged import write_folders
from experiments.bench.pairs import (
    file_of_figures,
    interleaved,
    ratios,
    show,
    write_json,
)
from lrscape import console, data, models, transforms
from lrscape.data.sources import data_directory, prepared
from lrscape.data.views import random_view
from lrscape.environment import describe
from lrscape.parser import Parser
from lrscape.training import Config, initial_state
from lrscape.training.devices import choose_devices, replicate
from lrscape.training.feed import make_feed
from lrscape.training.mapping import map_over_devices
from lrscape.training.step import make_step

SIDE = 224
IMAGES = 256


def pipeline(stream: data.Stream, batch_size: int):
    """Reads every example once, in batches, as training does."""

    def one() -> None:
        order = np.random.default_rng(0).permutation(IMAGES).reshape(-1, batch_size)
        batches = stream.batches(
            order.__getitem__,
            range(len(order)),
            random_of=lambda step, index: np.random.default_rng([step, index]),
        )
        assert sum(len(batch.label) for batch in batches) == IMAGES

    return one


def bare_loop(stream: data.Stream):
    """Reads and decodes the same files in as many threads, and nothing else."""
    random = [np.random.default_rng(n) for n in range(IMAGES)]

    def read(n: int) -> np.ndarray:
        return random_view(stream.encoded[n][0], SIDE, 3, random[n])

    def one() -> None:
        with ThreadPoolExecutor(stream.gauge.threads) as pool:
            assert len(list(pool.map(read, range(IMAGES)))) == IMAGES

    return one


def updates(
    dataset: data.Dataset | data.StreamedDataset,
    model: str,
    batch_size: int,
    count: int,
):
    """Makes a function of `count` updates, from the first batch on."""
    config = Config(epochs=1, batch_size=batch_size, num_devices=1)
    devices = choose_devices(1, batch_size)
    network = models.create(model, num_classes=dataset.num_classes)
    tx = transforms.scale_by_step(1e-6, 1000)  # values do not change speed
    state = replicate(initial_state(network, dataset, tx, 0), devices)
    step = map_over_devices(
        make_step(network, tx, config, 1000), devices, config.mapping
    )
    feed = make_feed(dataset, "train", config.normalize, devices)
    order = np.random.default_rng(0).permutation(IMAGES)

    def indices_of(n: int) -> np.ndarray:
        return np.take(
            order, np.arange(n * batch_size, (n + 1) * batch_size), mode="wrap"
        )

    def one() -> None:
        nonlocal state
        for batch in feed.batches(indices_of, range(count), state.key):
            state, _ = step(state, feed.dataset, batch)
        jax.block_until_ready(state)

    return one


def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark and prints it; returns the exit status."""
    parser = Parser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=30, help="interleaved rounds")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--updates", type=int, default=4, help="a call")
    parser.add_argument("--model", default="alexnet")
    parser.add_argument(
        "--json", type=file_of_figures, help="where to write the figures"
    )
    options = parser.parse_args(argv)
    if IMAGES % options.batch_size:
        parser.error(f"--batch-size={options.batch_size} must divide {IMAGES}")
    source = "cifar10" if "cifar10" in prepared(data_directory()) else "digits"
    real = data.load(source, examples=IMAGES, test_examples=16)
    with tempfile.TemporaryDirectory() as folder:
        write_folders(Path(folder), real)
        streamed = data.open_stream("folder", image_size=SIDE, data_dir=folder)
        read = ratios(
            interleaved(
                {
                    "bare decode loop": bare_loop(streamed.train),
                    "stream": pipeline(streamed.train, options.batch_size),
                },
                options.repeats,
            )
        )
        sizes = [len(streamed.train.encoded[n][0]) for n in range(IMAGES)]
        print(f"{np.mean(sizes) / 1000:.0f} kB a file on average")
        show(f"{IMAGES} random views of {SIDE} pixels", read, IMAGES)
        memory = data.Dataset(
            name="memory", num_classes=streamed.num_classes, max_value=255,
            train=streamed.train.take(np.arange(IMAGES)),
            test=streamed.test.take(np.arange(16)),
        )  # fmt: skip
        fed = updates(streamed, options.model, options.batch_size, options.updates)
        fed()
        gauge = streamed.train.gauge
        waited = gauge.waited
        trained = ratios(
            interleaved(
                {
                    "images in memory": updates(
                        memory, options.model, options.batch_size, options.updates
                    ),
                    "images streamed": fed,
                },
                options.repeats,
            )
        )
        waited = gauge.waited - waited
        work = options.batch_size * options.updates
        show(f"{options.updates} updates of {options.model}", trained, work)
        calls = options.repeats + 2
        share = waited / calls / trained["images streamed"]["seconds"]
        print(f"  waited for the stream: at most {100 * share:.1f} % of the time")
    if options.json:
        found = {
            **describe(jax.local_devices()),
            "source": source,
            "settings": {
                name: value for name, value in vars(options).items() if name != "json"
            },
            "views": read,
            "updates": trained,
            "bytes_a_file": float(np.mean(sizes)),
            "waited_share_at_most": share,
        }
        write_json(options.json, found)
    return 0


if __name__ == "__main__":
    console.run(main)
