"""Data sets read, split, normalised and augmented."""

import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrscape import data
from lrscape.data.__main__ import main
from lrscape.data.augment import (
    AUGMENTATIONS,
    PIXELS,
    PLANES,
    augment,
    augment_batch,
    warp,
)
from lrscape.errors import InputError, MissingDatasetError


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def test_digits_are_scikit_learns(digits):
    from sklearn.datasets import load_digits

    bunch = load_digits()
    ours = np.concatenate([digits.train.image, digits.test.image])[..., 0]
    # The same images, each once, whatever the order.
    assert sorted(map(bytes, ours)) == sorted(map(bytes, bunch.images.astype(np.uint8)))
    assert digits.train.image.dtype == np.uint8
    assert digits.train.label.dtype == np.int32
    assert len(digits.train) == 1437 and len(digits.test) == 360
    assert digits.image_shape == (8, 8, 1)


def test_splits_follow_their_seed(digits):
    again = data.load("digits", validation=100)
    np.testing.assert_array_equal(again.test.image, digits.test.image)
    assert len(again.train) == 1337 and len(again.validation) == 100
    other = data.load("digits", validation=100, split_seed=1)
    assert (other.test.image != digits.test.image).any()
    # Nothing is lost and nothing counted twice.
    parts = np.concatenate([again.train.image, again.validation.image])
    assert sorted(map(bytes, parts)) == sorted(map(bytes, digits.train.image))


@pytest.mark.parametrize("validation", [1437, 5000, -1])
def test_validation_must_leave_examples(validation):
    with pytest.raises(InputError, match=f"validation={validation} must"):
        data.load("digits", validation=validation)


def test_normalizations(digits):
    pixels = digits.train.image.astype(np.float64)
    mean, scale = digits.normalization("standardize")
    assert mean.dtype == scale.dtype == np.float32
    np.testing.assert_allclose(mean, pixels.mean(), rtol=1e-6)
    np.testing.assert_allclose(scale, pixels.std(), rtol=1e-6)
    mean, scale = digits.normalization("center")
    np.testing.assert_allclose(mean, pixels.mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(scale, 1)
    mean, scale = digits.normalization("scale")
    assert ((pixels - mean) / scale).max() == 1
    with pytest.raises(InputError, match="normalize='standardise'.*'standardize'"):
        digits.normalization("standardise")


def test_standardize_is_per_channel_and_spares_constant_ones():
    image = np.zeros((4, 2, 2, 2), np.uint8)
    image[..., 0] = np.arange(16).reshape(4, 2, 2)
    examples = data.Examples(image, np.zeros(4, np.int32))
    made = data.Dataset(
        name="made", num_classes=1, max_value=255, train=examples, test=examples
    )
    mean, scale = made.normalization("standardize")
    np.testing.assert_allclose(mean.ravel(), [7.5, 0])
    np.testing.assert_allclose(scale.ravel(), [np.arange(16).std(), 1], rtol=1e-6)


def test_augmentation_is_a_function_of_seed_epoch_and_example(digits):
    images = jnp.asarray(digits.train.image[:12])
    indices = jnp.arange(12)

    def augmented(seed, epoch, chosen):
        return np.asarray(
            data.augment_batch(
                jax.random.key(seed), epoch, indices[chosen], images[chosen],
                ("crop", "flip"),
            )
        )  # fmt: skip

    whole = augmented(0, 3, slice(None))
    # Whatever the batch it falls into, and its place there.
    np.testing.assert_array_equal(augmented(0, 3, slice(4, 8)), whole[4:8])
    order = jnp.array([7, 2, 11])
    np.testing.assert_array_equal(augmented(0, 3, order), whole[order])
    assert (augmented(0, 4, slice(None)) != whole).any()
    assert (augmented(1, 3, slice(None)) != whole).any()
    assert whole.dtype == np.uint8


def test_crop_shifts_and_flip_mirrors():
    image = jnp.arange(1, 65, dtype=jnp.uint8).reshape(8, 8, 1)
    padded = np.pad(np.asarray(image), ((4, 4), (4, 4), (0, 0)))
    windows = {
        padded[i : i + 8, j : j + 8].tobytes(): (i, j)
        for i in range(9)
        for j in range(9)
    }
    keys = jax.random.split(jax.random.key(0), 600)
    crops = jax.vmap(PIXELS["crop"], (0, None))(keys, image)
    seen = {windows[np.asarray(crop).tobytes()] for crop in crops}
    assert len(seen) == 81  # every window, and nothing but windows
    flips = np.asarray(jax.vmap(PIXELS["flip"], (0, None))(keys, image))
    mirrored = (flips == np.asarray(image)[:, ::-1]).all(axis=(1, 2, 3))
    kept = (flips == np.asarray(image)).all(axis=(1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 240 < mirrored.sum() < 360


@pytest.fixture(scope="module")
def photo():
    """A smooth colour image, so that interpolation is nearly exact."""
    rows, columns = np.mgrid[:33, :33] / 32
    channels = [np.sin(3 * rows) ** 2, np.cos(columns), rows * columns]
    return jnp.asarray(255 * np.stack(channels, axis=-1), jnp.float32)


def test_warps_are_exact_maps_of_the_plane(photo):
    move = jnp.eye(3).at[:2, 2].set(jnp.array([2.0, -3.0]))
    moved = warp(photo, move)
    np.testing.assert_allclose(moved[:31, 3:], photo[2:, :-3], atol=1e-2)
    # A quarter turn about the middle.
    turn = jnp.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(warp(photo, turn), jnp.rot90(photo, -1), atol=1e-1)
    # Twice as near: what was half way out is at the edge, the middle stays.
    near = warp(photo, jnp.diag(jnp.array([0.5, 0.5, 1.0])))
    np.testing.assert_allclose(near[16, 16], photo[16, 16], atol=1e-3)
    np.testing.assert_allclose(near[0, 32], photo[8, 24], atol=1e-2)
    # Edges repeat.
    far = warp(photo, jnp.eye(3).at[0, 2].set(1000.0))
    np.testing.assert_allclose(far, jnp.broadcast_to(photo[-1:], far.shape), atol=1e-3)


@pytest.mark.parametrize("name", ["shift", "zoom", "rotation"])
def test_planes_stay_within_their_limits(name):
    keys = jax.random.split(jax.random.key(0), 500)
    matrices = np.asarray(jax.vmap(lambda key: PLANES[name](key, (28, 20)))(keys))
    inner, offset = matrices[:, :2, :2], matrices[:, :2, 2]
    np.testing.assert_array_equal(matrices[:, 2], np.tile([0, 0, 1], (500, 1)))
    scale = np.sqrt(np.linalg.det(inner))
    angle = np.degrees(np.arctan2(inner[:, 1, 0], inner[:, 0, 0]))
    limits = {"shift": ([2.8, 2.0], 0, 0), "zoom": ([0, 0], 0.1, 0),
              "rotation": ([0, 0], 0, 15)}[name]  # fmt: skip
    for found, limit in zip((*np.abs(offset).T, np.abs(scale - 1), np.abs(angle)),
                            (*limits[0], *limits[1:]), strict=True):  # fmt: skip
        assert found.max() <= limit + 1e-5
        assert found.max() >= 0.95 * limit  # and use them


def test_neighbouring_planes_are_one_map(photo):
    key = jax.random.key(3)
    keys = [jax.random.fold_in(key, n) for n in range(2)]
    first, second = (
        PLANES["rotation"](keys[0], (33, 33)),
        PLANES["zoom"](keys[1], (33, 33)),
    )
    both = augment(key, photo, ("rotation", "zoom"))
    np.testing.assert_allclose(both, warp(photo, first @ second), atol=1e-2)
    # As one after the other, but for interpolating twice and for edges.
    twice = warp(warp(photo, first), second)
    np.testing.assert_allclose(both[8:-8, 8:-8], twice[8:-8, 8:-8], atol=2.0)


def test_jitter_changes_colour_within_its_limits(photo):
    keys = jax.random.split(jax.random.key(0), 200)
    images = np.asarray(jax.vmap(PIXELS["jitter"], (0, None))(keys, photo))
    assert images.min() >= 0 and images.max() <= 255
    brightness = images.mean(axis=(1, 2, 3)) / float(photo.mean())
    assert 0.55 < brightness.min() < 0.7 and 1.2 < brightness.max() < 1.45
    # Pixels of one colour stay of one colour: it is no noise.
    flat = jnp.full((4, 4, 3), 100.0)
    same = np.asarray(PIXELS["jitter"](keys[0], flat))
    assert np.ptp(same, axis=(0, 1)).max() < 1e-3
    grey = PIXELS["jitter"](keys[0], photo[..., :1], 300)
    assert grey.shape == (33, 33, 1)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation_is_the_examples_own(name, digits):
    """From (seed, epoch, example), whatever the batch; jitted or not."""
    images = jnp.asarray(digits.train.image[:6])
    indices = jnp.arange(6)
    key = jax.random.key(1)
    whole = augment_batch(key, 2, indices, images, (name,), 16)
    part = jax.jit(lambda i, x: augment_batch(key, 2, i, x, (name,), 16))(
        indices[3:5], images[3:5]
    )
    np.testing.assert_allclose(part, whole[3:5], atol=1e-4)
    assert (np.asarray(whole) != np.asarray(images)).any()
    assert whole.shape == images.shape and whole.max() <= 16


def test_unknown_augmentation():
    with pytest.raises(InputError, match="augment='flop'.*did you mean 'flip'"):
        data.augment_batch(jax.random.key(0), 0, jnp.arange(1), jnp.ones((1, 8, 8, 1)),
                           ["flop"])  # fmt: skip


@pytest.mark.parametrize("name", ["cifar10", "imagenette/full-size"])
def test_a_set_that_is_not_prepared(tmp_path, monkeypatch, name):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(MissingDatasetError) as caught:
        data.load(name)
    message = str(caught.value)
    assert str(tmp_path / "nowhere" / name) in message
    assert f"python -m lrscape.data prepare {name}" in message
    assert isinstance(caught.value, FileNotFoundError)
    assert not (tmp_path / "nowhere").exists()  # looking leaves nothing behind


@pytest.mark.parametrize(
    "name", ["../secret", "/etc", "a/b/c", "Cifar", "", "mnist/.."]
)
def test_names_do_not_leave_the_data_directory(tmp_path, name):
    with pytest.raises(InputError, match="is not a name of a data set"):
        data.load(name, data_dir=tmp_path)


def make_builder():
    """A TFDS set of labelled images that needs no download."""
    import tensorflow_datasets as tfds
    from PIL import Image

    class MadeImages(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.2.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(6, 6, 3)),
                "label": tfds.features.ClassLabel(num_classes=3),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(12),
                    "test": self._generate_examples(5)}  # fmt: skip

        def _generate_examples(self, count):
            for i in range(count):
                png = io.BytesIO()
                Image.fromarray(np.full((6, 6, 3), i, np.uint8)).save(png, "png")
                png.seek(0)
                yield i, {"image": png, "label": i % 3}

    return MadeImages


@pytest.mark.filterwarnings("default")  # TFDS's own, when it writes
def test_prepare_then_load(tmp_path, capsys):
    pytest.importorskip("tensorflow_datasets")
    make_builder()
    assert main(["prepare", "made_images", "--data-dir", str(tmp_path)]) == 0
    assert str(tmp_path / "made_images" / "1.2.0") in capsys.readouterr().out
    made = data.load("made_images", data_dir=tmp_path)
    assert made.num_classes == 3
    # Order is TFDS's own; each image still has its label.
    assert sorted(made.train.image[:, 0, 0, 0]) == list(range(12))
    np.testing.assert_array_equal(made.train.label, made.train.image[:, 0, 0, 0] % 3)
    assert len(made.test) == 5
    assert main(["list", "--data-dir", str(tmp_path)]) == 0
    assert "made_images" in capsys.readouterr().out


def test_prepare_of_an_unknown_set(tmp_path, capsys):
    assert main(["prepare", "cifar11", "--data-dir", str(tmp_path)]) == 2
    assert "dataset='cifar11' is not known to TFDS" in capsys.readouterr().err


def test_other_features_are_refused(tmp_path):
    folder = tmp_path / "words" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text(json.dumps({
        "name": "words", "version": "1.0.0", "fileFormat": "array_record",
        "splits": [{"name": "train", "numBytes": "0", "shardLengths": ["1"],
                    "filepathTemplate":
                        "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"}],
    }))  # fmt: skip
    (folder / "features.json").write_text(json.dumps({
        "pythonClassName":
            "tensorflow_datasets.core.features.features_dict.FeaturesDict",
        "featuresDict": {"features": {"text": {
            "pythonClassName": "tensorflow_datasets.core.features.text_feature.Text",
            "text": {}}}},
    }))  # fmt: skip
    with pytest.raises(InputError, match="not the features image"):
        data.load("words", data_dir=tmp_path)


@pytest.mark.real_data
def test_cifar10(cifar10_dir):
    cifar = data.load("cifar10", data_dir=cifar10_dir)
    assert (len(cifar.train), len(cifar.test)) == (50_000, 10_000)
    assert cifar.image_shape == (32, 32, 3)
    np.testing.assert_array_equal(np.bincount(cifar.train.label), 5000)
    np.testing.assert_array_equal(np.bincount(cifar.test.label), 1000)
    mean, scale = cifar.normalization("standardize")
    # The figures that the field quotes, in units of 255.
    np.testing.assert_allclose(mean.ravel() / 255, [0.491, 0.482, 0.447], atol=2e-3)
    np.testing.assert_allclose(scale.ravel() / 255, [0.247, 0.243, 0.262], atol=5e-3)


@pytest.mark.real_data
def test_mnist(mnist_dir):
    mnist = data.load("mnist", data_dir=mnist_dir)
    assert (len(mnist.train), len(mnist.test)) == (60_000, 10_000)
    mean, scale = mnist.normalization("standardize")
    np.testing.assert_allclose([mean.item() / 255, scale.item() / 255],
                               [0.1307, 0.3081], atol=1e-4)  # fmt: skip
