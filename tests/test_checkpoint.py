"""What is saved comes back, or a damaged file is found out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lrscape import data, models, transforms
from lrscape.training import checkpoint, initial_state
from lrscape.training.checkpoint import (
    Checkpoints,
    CorruptCheckpointError,
    leaf_hashes,
    load_tree,
    save_tree,
)
from lrscape.training.devices import replicate


@pytest.fixture(scope="module")
def state():
    digits = data.load("digits")
    model = models.create("mlp", num_classes=10, features=(4,))
    tx = optax.chain(optax.trace(0.9), transforms.scale_by_gaussian(0.3, 10))
    return initial_state(model, digits, tx, seed=7)


def at(state, step):
    return state.replace(
        step=jnp.asarray(step, jnp.int32),
        params=jax.tree.map(lambda leaf: leaf + step, state.params),
    )


def assert_same(a, b):
    a, b = (s.replace(key=jax.random.key_data(s.key)) for s in (a, b))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert jax.tree.structure(a) == jax.tree.structure(b)


@pytest.mark.parametrize("num_devices", [1, 4])
def test_round_trip(state, tmp_path, num_devices):
    devices = jax.devices()[:num_devices]
    placed = replicate(state, devices)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(placed) is None
        for step in (1, 2, 3):
            checkpoints.save(at(placed, step), {"metrics_bytes": 10 * step})
        assert checkpoints.steps == [2, 3]  # the newest, and one to fall back to
    with Checkpoints(tmp_path) as checkpoints:
        restored, notes, problems = checkpoints.restore(placed)
    assert_same(restored, at(placed, 3))
    assert notes == {"metrics_bytes": 30} and problems == []
    # In the layout that training works in, so that nothing compiles twice.
    for leaf, like in zip(
        jax.tree.leaves(restored.params), jax.tree.leaves(placed.params), strict=True
    ):
        assert leaf.sharding == like.sharding


def test_saved_on_one_layout_restored_on_another(state, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(at(replicate(state, jax.devices()), 3), {})
    with Checkpoints(tmp_path) as checkpoints:
        one = replicate(state, jax.devices()[:1])
        restored, _, _ = checkpoints.restore(one)
    assert_same(restored, at(state, 3))
    assert len(jax.tree.leaves(restored.params)[0].sharding.device_set) == 1


def flip_a_bit(folder):
    """In the largest file, where the numbers are."""
    file = max(
        (f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size
    )
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def truncate(folder):
    file = max(
        (f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size
    )
    file.write_bytes(file.read_bytes()[:-20])


def change_the_notes(folder):
    file = folder / "_CHECKPOINT_METADATA"
    text = file.read_text()
    assert '"metrics_bytes": 20' in text or '"metrics_bytes":20' in text
    file.write_text(text.replace("20", "21"))


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, change_the_notes])
def test_a_damaged_checkpoint_falls_back(state, tmp_path, damage):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(at(state, step), {"metrics_bytes": 10 * step})
    damage(tmp_path / "2")
    with Checkpoints(tmp_path) as checkpoints:
        restored, notes, problems = checkpoints.restore(state)
        assert_same(restored, at(state, 1))
        assert notes == {"metrics_bytes": 10}
        assert len(problems) == 1 and str(tmp_path / "2") in problems[0]
        # The run passes that step again.
        assert checkpoints.steps == [1]
        checkpoints.save(at(state, 2), {"metrics_bytes": 20})
        assert_same(checkpoints.restore(state)[0], at(state, 2))


def test_all_damaged(state, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(at(state, step), {})
    for step in (1, 2):
        flip_a_bit(tmp_path / str(step))
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(CorruptCheckpointError, match="no checkpoint is whole"),
    ):
        checkpoints.restore(state)


def test_a_killed_save_is_cleared_away(state, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(at(state, 1), {})
    half = tmp_path / "2.orbax-checkpoint-tmp"
    half.mkdir()
    (half / "something").write_text("half")
    with Checkpoints(tmp_path) as checkpoints:
        assert_same(checkpoints.restore(state)[0], at(state, 1))
        assert checkpoints.steps == [1]
    assert not half.exists()


def test_trees(tmp_path):
    tree = {
        "params": {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(2, jnp.bfloat16)}
    }
    save_tree(tmp_path / "final", tree, {"step": 4})
    loaded, notes = load_tree(tmp_path / "final")
    assert notes == {"step": 4}
    assert leaf_hashes(loaded) == leaf_hashes(tree)
    numbers = jax.random.normal(jax.random.key(0), (100, 100))
    save_tree(tmp_path / "final", {"params": {"a": numbers}}, {"step": 5})
    assert load_tree(tmp_path / "final")[1] == {"step": 5}
    flip_a_bit(tmp_path / "final")
    with pytest.raises(CorruptCheckpointError, match="final"):
        load_tree(tmp_path / "final")


def test_what_cannot_be_saved_is_an_os_error(state, tmp_path, monkeypatch):
    """Whatever Orbax makes of a full disk."""

    def full(*args, **kwargs):
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device\nand so on")

    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        monkeypatch.setattr(checkpoints._orbax, "save", full)
        with pytest.raises(OSError, match="checkpoint of step 0 cannot be saved: RES"):
            checkpoints.save(state, {})
    monkeypatch.setattr(checkpoint.ocp, "save", full)
    with pytest.raises(OSError, match="snapshots/final cannot be saved.*on device$"):
        save_tree(tmp_path / "snapshots" / "final", state.params, {})


def test_hashes_see_dtype_shape_and_value():
    trees = [jnp.zeros(4), jnp.zeros((2, 2)), jnp.zeros(4, jnp.int32), -jnp.zeros(4)]
    assert len({leaf_hashes([tree])["[0]"] for tree in trees}) == 4
