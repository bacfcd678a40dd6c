"""Whitening against its formulas; its cache; training on whitened images."""

import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lrscape import data, models
from lrscape.data import Whitening, cache, global_contrast_normalize
from lrscape.data import whitening as whitening_
from lrscape.errors import InputError
from lrscape.records import Records
from lrscape.runs import RunConfig, open_run
from lrscape.training import Config, fit
from lrscape.training.device_data import DeviceData
from lrscape.training.evaluate import make_evaluate


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "lrscape"


@pytest.fixture
def images():
    """Fewer values than images, each its own mixture of all of them."""
    random = np.random.default_rng(0)
    mixed = random.normal(size=(200, 18)) @ random.normal(size=(18, 18))
    return mixed.reshape(200, 3, 2, 3)


@pytest.fixture
def digits():
    return data.load("digits")


def no_fit(*args):
    raise AssertionError("fitted again")


def test_contrast_normalization_by_hand():
    images = np.array([[[[0], [2]], [[4], [6]]], [[[1], [1]], [[1], [5]]]], np.uint8)
    # Means 3 and 2; norms of what is left sqrt(20) and sqrt(12).
    expected = np.array([[-3, -1, 1, 3], [-1, -1, -1, 3]]) / np.sqrt([[20], [12]])
    found = global_contrast_normalize(images, scale=10.0)
    np.testing.assert_allclose(found.reshape(2, 4), 10 * expected, rtol=1e-12)
    assert found.dtype == np.float64 and found.shape == images.shape
    biased = global_contrast_normalize(images, scale=1.0, sqrt_bias=5.0)
    np.testing.assert_allclose(biased[0].ravel(), [-0.6, -0.2, 0.2, 0.6], rtol=1e-12)
    # By default the norm is 55, and every image's mean 0.
    flat = global_contrast_normalize(images).reshape(2, -1)
    np.testing.assert_allclose(np.linalg.norm(flat, axis=1), 55, rtol=1e-12)
    np.testing.assert_allclose(flat.mean(axis=1), 0, atol=1e-12)


@pytest.mark.parametrize("value", [0, 7, 255, 0.1])
def test_a_constant_image_becomes_nothing(value):
    images = np.full((2, 5, 5, 3), value)
    images[1, 0, 0, 0] = 1
    found = global_contrast_normalize(images)
    np.testing.assert_array_equal(found[0], 0)
    assert np.isfinite(found).all() and found[1].any()


def test_covariance_is_the_identity_but_for_the_bias(images):
    x = global_contrast_normalize(images, scale=3.0).reshape(len(images), -1)
    covariance = np.cov(x.T, bias=True)
    variances, vectors = np.linalg.eigh(covariance)
    bias = 0.1
    fitted = Whitening.fit(images, contrast=3.0, bias=bias)
    np.testing.assert_allclose(fitted.mean, x.mean(axis=0), atol=1e-6)
    root = vectors @ np.diag(np.sqrt(1 / (variances + bias))) @ vectors.T
    np.testing.assert_allclose(fitted.matrix, root, atol=1e-6)
    np.testing.assert_array_equal(fitted.matrix, fitted.matrix.T)
    assert fitted.mean.dtype == fitted.matrix.dtype == np.float32
    y = fitted.apply(images)
    assert y.shape == images.shape and y.dtype == np.float32
    y = y.reshape(len(images), -1).astype(np.float64)
    np.testing.assert_allclose(y, (x - x.mean(axis=0)) @ root, atol=1e-5)
    shrunk = vectors @ np.diag(variances / (variances + bias)) @ vectors.T
    np.testing.assert_allclose(np.cov(y.T, bias=True), shrunk, atol=1e-5)
    # Without much bias the identity, on the 17 directions that contrast leaves.
    y = Whitening.fit(images, bias=1e-4).apply(images).reshape(len(images), -1)
    identity = np.eye(18) - np.full((18, 18), 1 / 18)
    np.testing.assert_allclose(np.cov(y.T, bias=True), identity, atol=1e-3)


def test_chunks_make_no_difference(images, monkeypatch):
    whole = Whitening.fit(images)
    monkeypatch.setattr(whitening_, "CHUNK", 7)
    parts = Whitening.fit(images)
    np.testing.assert_allclose(parts.matrix, whole.matrix, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(parts.apply(images), whole.apply(images), atol=1e-4)


def test_pixels_that_never_change_and_ties(digits):
    """Digits have borders that are always 0: their covariance is of low rank."""
    x = global_contrast_normalize(digits.train.image).reshape(len(digits.train), -1)
    assert np.linalg.matrix_rank(np.cov(x.T)) < 64
    y = digits.whitening.apply(digits.train.image).reshape(len(x), -1)
    assert np.isfinite(y).all()
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-4)
    # Where there is variance it is 1, up to the bias.
    variances = np.linalg.eigvalsh(np.cov(y.T, bias=True))
    expected = np.linalg.eigvalsh(np.cov(x.T, bias=True))
    np.testing.assert_allclose(variances, expected / (expected + 0.1), atol=1e-4)


def test_fitted_on_training_images_alone(digits):
    noise = np.random.default_rng(0).integers(0, 17, digits.test.image.shape)
    other = dataclasses.replace(
        digits, test=data.Examples(noise.astype(np.uint8), digits.test.label)
    )
    np.testing.assert_array_equal(other.whitening.matrix, digits.whitening.matrix)
    held_out = data.load("digits", validation=500)
    assert (held_out.whitening.matrix != digits.whitening.matrix).any()
    expected = Whitening.fit(held_out.train.image)
    np.testing.assert_array_equal(held_out.whitening.matrix, expected.matrix)


def test_the_cache_is_used_and_exact(digits, cache_dir, monkeypatch):
    first = digits.whitening
    (file,) = cache_dir.iterdir()  # and nothing beside it
    assert file.suffix == ".npz"
    monkeypatch.setattr(np.linalg, "eigh", no_fit)
    second = data.load("digits").whitening
    for name in ("mean", "matrix", "contrast"):
        np.testing.assert_array_equal(getattr(second, name), getattr(first, name))
    assert second.matrix.dtype == np.float32
    # Other images have a file of their own, and so have other settings.
    with pytest.raises(AssertionError, match="fitted again"):
        _ = data.load("digits", validation=10).whitening
    monkeypatch.setattr(whitening_, "BIAS", 0.2)
    with pytest.raises(AssertionError, match="fitted again"):
        _ = data.load("digits").whitening


def flipped(content):
    return content[:9000] + bytes([content[9000] ^ 1]) + content[9001:]


def other_values(content):
    """A whole file, whose arrays are not those that its checksum is of."""
    with np.load(io.BytesIO(content)) as found:
        arrays = dict(found)
    arrays["matrix"] = arrays["matrix"] + 1
    made = io.BytesIO()
    np.savez(made, **arrays)
    return made.getvalue()


def one_array(content):
    made = io.BytesIO()
    np.save(made, np.ones(3))
    return made.getvalue()


def pickled(content):
    made = io.BytesIO()
    np.savez(made, mean=np.array([{}]), sha256=np.array("none"))
    return made.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        flipped,
        other_values,
        one_array,
        pickled,
        lambda content: content[:1000],
        lambda content: b"",
        lambda content: b"text",
    ],
    ids=["flipped", "other", "npy", "pickle", "cut", "empty", "text"],
)
def test_a_damaged_cache_is_made_anew(digits, cache_dir, monkeypatch, damage):
    matrix = digits.whitening.matrix
    (file,) = cache_dir.iterdir()
    content = file.read_bytes()
    file.write_bytes(damage(content))
    np.testing.assert_array_equal(data.load("digits").whitening.matrix, matrix)
    assert [child.name for child in cache_dir.iterdir()] == [file.name]
    monkeypatch.setattr(np.linalg, "eigh", no_fit)
    np.testing.assert_array_equal(data.load("digits").whitening.matrix, matrix)


def test_a_cache_that_cannot_be_written(digits, tmp_path, monkeypatch):
    (tmp_path / "lrscape").write_text("in the way")
    assert np.isfinite(digits.whitening.matrix).all()
    assert (tmp_path / "lrscape").read_text() == "in the way"
    # Where there is no home at all.
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")

    def nowhere():
        raise RuntimeError("no home")

    monkeypatch.setattr(cache.Path, "home", nowhere)
    assert cache.directory() is None
    again = data.load("digits").whitening
    np.testing.assert_array_equal(again.matrix, digits.whitening.matrix)


def test_where_the_cache_is(tmp_path, monkeypatch):
    assert cache.directory() == tmp_path / "lrscape"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.directory() == tmp_path / "home" / ".cache" / "lrscape"


def test_device_data_holds_whitened_images(digits):
    held = DeviceData.of(digits, "test", "whiten")
    expected = digits.whitening.apply(digits.test.image)
    assert held.image.dtype == np.float32
    np.testing.assert_array_equal(held.image, expected)
    seen = held.normalize(jnp.asarray(held.image))
    np.testing.assert_array_equal(seen, expected)
    some = DeviceData.of(digits, "test", "whiten", np.array([7, 3]))
    np.testing.assert_allclose(some.image, expected[[7, 3]], atol=1e-5)
    np.testing.assert_array_equal(some.label, digits.test.label[[7, 3]])


@pytest.mark.parametrize("augment", [(), ("crop", "flip"), ("rotation",)])
def test_training_on_whitened_images(digits, augment):
    config = Config(epochs=2, batch_size=128, normalize="whiten", augment=augment,
                    num_devices=1)  # fmt: skip
    model = models.create("mlp", num_classes=10, features=(32,))
    *_, state = fit(model, digits, optax.sgd(0.1, momentum=0.9), config)
    measured = make_evaluate(model, digits, config)(state)
    assert np.isfinite(measured["loss"])
    # By chance 0.9; a crop that moves 8 x 8 pixels by 4 leaves little to learn from.
    assert measured["error"] < (0.9 if "crop" in augment else 0.5)
    # As evaluated by hand, on test images that training never saw.
    inputs = digits.whitening.apply(digits.test.image)
    logits = model.apply(jax.device_get(state.variables), inputs, train=False)
    wrong = np.mean(np.argmax(logits, axis=-1) != digits.test.label)
    np.testing.assert_allclose(measured["error"], wrong)


def test_bad_input(digits, images):
    with pytest.raises(InputError, match="augment='jitter'.*normalize='whiten'"):
        Config(epochs=1, normalize="whiten", augment=("flip", "jitter"))
    with pytest.raises(InputError, match=r"normalize='whiten'.*whitening\.apply"):
        digits.normalization("whiten")
    with pytest.raises(InputError, match=r"shape \(3, 2, 3\).*64 values"):
        digits.whitening.apply(images)
    with pytest.raises(InputError, match="scale=0"):
        global_contrast_normalize(images, scale=0)
    with pytest.raises(InputError, match="sqrt_bias=-1"):
        global_contrast_normalize(images, sqrt_bias=-1)
    with pytest.raises(InputError, match="bias=0"):
        Whitening.fit(images, bias=0)
    with pytest.raises(InputError, match="images is empty"):
        Whitening.fit(images[:0])


def test_a_run_gives_whitened_samples(tmp_path, digits):
    config = RunConfig(
        experiment="digits", preset="quick", dataset="digits", model="mlp",
        model_options={"features": (32,)}, schedule="step",
        schedule_options={"init_value": 0.1}, epochs=1, normalize="whiten",
    )  # fmt: skip
    Records.create(tmp_path / "run", config.to_dict())
    inputs, labels = open_run(tmp_path / "run").sample("test", 20, seed=1)
    order = np.random.default_rng(1).permutation(len(digits.test))[:20]
    chosen = digits.test.take(order)
    np.testing.assert_allclose(inputs, digits.whitening.apply(chosen.image), atol=1e-5)
    np.testing.assert_array_equal(labels, chosen.label)
