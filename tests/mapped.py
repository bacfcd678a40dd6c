"""Every mapped call under both mappings; by test_shard_map, in one or more processes.

python -m tests.mapped FOLDER COORDINATOR NUM_PROCESSES PROCESS_ID
"""

import contextlib
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import optax

from lrscape import data, models, processes, training, transforms
from lrscape.training.programs import forget_programs

MAPPINGS = ("pmap", "shard_map")


class Net(nn.Module):
    """A dense layer with batch norm and dropout, which tells what enters its last."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dense(12)(x.reshape(len(x), -1))
        x = nn.BatchNorm(use_running_average=not train, axis_name=self.axis_name)(x)
        x = nn.Dropout(0.2, deterministic=not train)(nn.relu(x))
        self.sow("intermediates", "penultimate", x)
        return nn.Dense(10)(x)


def few_digits():
    """So many that an epoch is four updates of 32."""
    whole = data.load("digits")
    return data.Dataset(
        name="digits", num_classes=10, max_value=16, validation=None,
        train=whole.train.take(np.arange(150)), test=whole.test.take(np.arange(101)),
    )  # fmt: skip


def song():
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 5, 200).astype(np.int32)
    return data.Text(
        name="song", level="words", vocabulary=tuple("abcde"),
        train=tokens, validation=tokens[:50], test=tokens[50:100],
    )  # fmt: skip


def momentum(updates):
    rate = transforms.scale_by_gaussian(0.3, updates, start_value=0.1)
    return optax.chain(optax.trace(0.9), rate)


@contextlib.contextmanager
def compilations():
    """Notes each compilation: yields the list that it grows."""
    noted = []

    def listen(event, duration, **details):
        if event == "/jax/core/compile/backend_compile_duration":
            noted.append(details.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield noted
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def on_host(tree):
    """A copy of every leaf, keys as numbers."""

    def copied(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        return np.array(leaf)

    return jax.tree.map(copied, tree)


def last_of(states):
    """The last state, on the host, and how many there were."""
    count, last = 0, None
    for state in states:
        count, last = count + 1, on_host(state)
    return {"count": np.array(count), "state": last}


def images(model, mapping, num_devices=None, *, scan_steps=1, donate=False):
    """Two epochs of `fit`."""
    digits = few_digits()
    config = training.Config(
        epochs=2, batch_size=32, augment=("crop",), log_every=3, mapping=mapping,
        num_devices=num_devices, scan_steps=scan_steps,
    )  # fmt: skip
    every = 1 if scan_steps == 1 else 5
    return last_of(
        training.fit(
            model, digits, momentum(8), config, yield_every=every, donate=donate
        )
    )


def streamed(mapping, num_devices=None):
    """Two updates on images that are read as they are needed."""
    stream = data.open_stream(
        "digits", image_size=8, crop="random_resized", examples=64
    )
    config = training.Config(
        epochs=1, batch_size=32, num_devices=num_devices, mapping=mapping
    )
    return last_of(training.fit(Net(), stream, momentum(8), config))


def seeds(mapping, num_devices=None):
    """Three networks in one program."""
    config = training.Config(
        epochs=1, batch_size=32, num_devices=num_devices, mapping=mapping, scan_steps=3
    )
    return last_of(
        training.fit_seeds(
            Net(), few_digits(), momentum(8), config, range(3), yield_every=3
        )
    )


def measurements(mapping, num_devices=None):
    """An evaluation with a ragged last batch, and the largest activations."""
    digits, model = few_digits(), Net()
    state = training.initial_state(model, digits, momentum(8), seed=2)
    config = training.Config(
        epochs=1, batch_size=32, num_devices=num_devices, mapping=mapping
    )
    evaluate = training.make_evaluate(model, digits, config, batch_size=40, top5=True)
    norms = training.make_largest_activations(model, digits, config)
    return jax.tree.map(np.array, [evaluate(state), norms(state)])


def text(mapping, num_devices=None):
    """`fit_text`, donated, and an evaluation."""
    model = models.create("lstm", num_classes=5, features=4, layers=1, dropout=0.1)
    config = training.TextConfig(
        epochs=1, batch_size=4, window=10, num_devices=num_devices, mapping=mapping
    )
    tx = momentum(8)
    start = training.initial_text_state(model, song(), tx, config)
    evaluate = training.make_evaluate_text(model, song(), config, streams=3)
    trained = last_of(
        training.fit_text(
            model, song(), tx, config, yield_every=4, donate=True, state=start
        )
    )
    return trained, jax.tree.map(np.array, evaluate(start))


def assert_same(one, other):
    """The same trees to the last bit."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def both(call, *args, **options):
    """What `call` gives under pmap; raises where shard_map gives or compiles another.

    Args:
        call: ``(mapping, num_devices, ...) -> tree``.
    """
    call("pmap", *args, **options)  # compiles what is mapped by neither
    found, compiled = [], []
    for mapping in MAPPINGS:
        forget_programs()
        with compilations() as noted:
            found.append(call(mapping, *args, **options))
        compiled.append(noted)
    assert len(compiled[0]) == len(compiled[1]) > 0, compiled
    assert_same(*found)
    return found[0]


def main(folder, coordinator, count, rank):
    """All of it in several processes; leaves FOLDER/RANK where the mappings agree."""
    processes.connect(coordinator, int(count), int(rank))
    # They find one another's devices while none is busy compiling: Gloo waits 30 s.
    processes.wait_for_all("started")
    net = Net()
    for donate in (False, True):
        for scan_steps in (1, 3):
            both(
                lambda mapping, **options: images(net, mapping, **options),
                scan_steps=scan_steps, donate=donate,
            )  # fmt: skip
    for call in (streamed, seeds, measurements, text):
        both(call)
    (Path(folder) / rank).touch()
    processes.wait_for_all("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
