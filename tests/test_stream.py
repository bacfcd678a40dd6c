"""Streams: what they read, in which order, and that training on them is the same."""

import dataclasses
import io
import json
import signal
import threading
import time

import jax
import numpy as np
import pytest
from PIL import Image

from experiments.bench.enlarged import write_folders, write_tfds
from lrscape import data, models, transforms
from lrscape.data.views import (
    ASPECTS,
    middle_box,
    middle_view,
    random_box,
    random_view,
    whole_view,
    window_box,
    window_view,
)
from lrscape.errors import InputError, MissingDatasetError
from lrscape.training import Config, fit, initial_state, make_evaluate
from lrscape.training.feed import Streamed, epoch_order, position
from tests.processes import (
    assert_same_run,
    finish,
    newest_checkpoint,
    start,
    wait_until,
)

SIDES = (24, 40)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", examples=96, test_examples=30)


@pytest.fixture(scope="module")
def folders(digits, tmp_path_factory):
    """Digits as JPEG files of many sizes, a folder a class."""
    root = tmp_path_factory.mktemp("folders")
    write_folders(root, digits, SIDES)
    return root


@pytest.fixture(scope="module")
def streamed(folders):
    return data.open_stream("folder", image_size=12, data_dir=folders)


def as_jpeg(pixels, quality=95):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=quality)
    return file.getvalue()


def as_png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


@pytest.fixture
def ramp():
    """A photograph of slow gradients: across in red, down in green."""
    across, down = np.meshgrid(np.arange(512) / 2, np.arange(384) / 2)
    return np.stack([across, down, 0 * across], axis=-1).astype(np.uint8)


def test_a_view_shows_its_box(ramp):
    """The middle's pixels are those of the place that it shows, PNG or JPEG."""
    left, top, right, bottom = middle_box(512, 384)
    assert right - left == bottom - top == 384 * 224 / 256
    centers = (np.arange(32) + 0.5) / 32
    expected_red = (left + centers * (right - left)) / 2
    expected_green = (top + centers * (bottom - top)) / 2
    for encoded, within in ((as_png(ramp), 1), (as_jpeg(ramp), 3)):
        view = middle_view(encoded, 32, 3).astype(float)
        np.testing.assert_allclose(view[16, :, 0], expected_red, atol=within)
        np.testing.assert_allclose(view[:, 16, 1], expected_green, atol=within)


def test_random_boxes_fit_and_have_the_published_sizes():
    random = np.random.default_rng(0)
    shares, aspects = [], []
    for _ in range(3000):
        left, top, right, bottom = random_box(random, 500, 375)
        assert 0 <= left < right <= 500
        assert 0 <= top < bottom <= 375
        shares.append((right - left) * (bottom - top) / (500 * 375))
        aspects.append((right - left) / (bottom - top))
    assert min(shares) >= 0.079
    assert 0.9 < max(shares) <= 1.0
    assert np.quantile(shares, 0.01) < 0.1
    assert ASPECTS[0] * 0.98 < min(aspects) < 0.77
    assert 1.3 < max(aspects) < ASPECTS[1] * 1.02


def test_a_box_that_never_fits_is_the_middle():
    left, top, right, bottom = random_box(np.random.default_rng(0), 1000, 10)
    assert (top, bottom) == (0, 10)
    assert left + right == pytest.approx(1000)
    assert right - left == pytest.approx(13)


def test_windows_are_cut_at_every_place_of_the_middle_square():
    """As of an image scaled to 256 pixels, of which 224 are seen."""
    random = np.random.default_rng(0)
    boxes = np.array([window_box(random, 512, 384, 224) for _ in range(2000)])
    np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], 384 * 224 / 256)
    places = (boxes[:, :2] - [64, 0]) / 1.5  # a pixel of 256 is one and a half of 384
    np.testing.assert_allclose(places, places.round(), atol=1e-9)
    for axis in (0, 1):
        assert set(places[:, axis].round().astype(int)) == set(range(33))


def test_windows_show_their_box_and_mirror_half_of_the_time(ramp):
    encoded = as_png(ramp)
    seen = [window_view(encoded, 224, 3, np.random.default_rng(n)) for n in range(60)]
    red = np.array([[view[5, 0, 0], view[5, -1, 0]] for view in seen], float)
    mirrored = red[:, 0] > red[:, 1]
    assert 15 < mirrored.sum() < 45
    for n, (left, _) in enumerate(np.sort(red)):
        box = window_box(np.random.default_rng(n), 512, 384, 224)
        assert abs(left - box[0] / 2) < 1


def test_a_stream_of_windows(ramp):
    train, test = (
        data.open_stream("digits", image_size=16, crop=crop)
        for crop in ("window", "random_resized")
    )
    one, other = (s.train.read(3, np.random.default_rng(1))[0] for s in (train, test))
    assert one.shape == other.shape and (one != other).any()
    # Measured on the middle, whatever is trained on.
    np.testing.assert_array_equal(train.test.read(3)[0], test.test.read(3)[0])


def test_random_views_mirror_half_of_the_time(ramp):
    encoded = as_png(ramp)
    views = [
        random_view(encoded, 16, 3, np.random.default_rng(seed)) for seed in range(200)
    ]
    mirrored = sum(int(v[8, 0, 0]) > int(v[8, -1, 0]) for v in views)
    assert 70 < mirrored < 130


def test_grey_and_colour(ramp):
    grey = as_png(ramp[..., 0])
    assert whole_view(grey, 8, 3).shape == (8, 8, 3)
    assert whole_view(as_png(ramp), 8, 1).shape == (8, 8, 1)


def test_folders_are_read_in_the_order_of_names(streamed, digits):
    assert len(streamed.train) == 96
    assert len(streamed.test) == 30
    assert streamed.num_classes == 10
    assert streamed.image_shape == (12, 12, 3)
    labels = streamed.train.take(np.arange(96)).label
    np.testing.assert_array_equal(labels, np.sort(digits.train.label))
    numbers = [
        int(streamed.train.name_of(i).split("/")[-1].split(".")[0])
        for i in np.flatnonzero(labels == 3)
    ]
    assert numbers == sorted(numbers)


@pytest.mark.filterwarnings("default")  # TFDS's own, when it writes
def test_tfds_in_imagenets_layout(digits, tmp_path):
    name = write_tfds(tmp_path, digits, SIDES)
    made = data.open_stream(name, image_size=12, data_dir=tmp_path)
    assert (len(made.train), len(made.test), made.num_classes) == (96, 30, 10)
    # TFDS shuffles what it writes; each image keeps its label.
    whole = data.open_stream(name, image_size=8, data_dir=tmp_path, crop="none")
    found = whole.train.take(np.arange(96))
    likeness = np.corrcoef(
        found.image.mean(axis=-1).reshape(96, -1), digits.train.image.reshape(96, -1)
    )[:96, 96:]
    nearest = likeness.argmax(axis=1)  # a few digits are each other's, but for noise
    assert (found.label == digits.train.label[nearest]).mean() > 0.95
    # A record that is damaged on disk is named.
    (shard,) = (tmp_path / name / "1.0.0").glob("*-train.array_record*")
    raw = bytearray(shard.read_bytes())
    raw[len(raw) // 3 : len(raw) // 3 + 4000] = bytes(4000)
    shard.write_bytes(raw)
    damaged = data.open_stream(name, image_size=8, data_dir=tmp_path)
    with pytest.raises(InputError, match="record [0-9]+ of 'train' in .* cannot be"):
        damaged.train.take(np.arange(96))
    with pytest.raises(InputError, match="images of different sizes.*--stream"):
        data.load(name, data_dir=tmp_path)


@pytest.mark.slow
def test_training_is_that_on_data_in_memory(cifar10_dir):
    """Whole images of their own size: order, augmentation, updates bit for bit."""
    kept = {"examples": 64, "test_examples": 33, "data_dir": cifar10_dir}
    stream = data.open_stream("cifar10", image_size=32, crop="none", **kept)
    memory = data.load("cifar10", **kept)
    np.testing.assert_array_equal(
        stream.train.take(np.arange(64)).image, memory.train.image
    )
    config = Config(
        epochs=2, batch_size=24, normalize="scale", augment=("crop", "flip"),
        num_devices=2,
    )  # fmt: skip
    model = models.create("mlp", num_classes=10, features=(8,))
    tx = transforms.scale_by_gaussian(0.05, 4)
    one, other = (list(fit(model, d, tx, config))[-1] for d in (stream, memory))
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)
    measured = [
        make_evaluate(model, d, config, batch_size=8, top5=True)(one)
        for d in (stream, memory)
    ]
    assert measured[0] == measured[1]


def test_goes_on_at_the_same_example(streamed):
    """Random views and order from a state in mid-epoch are those of the whole run."""
    config = Config(epochs=2, batch_size=40, num_devices=1)
    model = models.create("mlp", num_classes=10, features=(8,))
    tx = transforms.scale_by_gaussian(0.05, 4)
    states = list(fit(model, streamed, tx, config))
    assert len(states) == 4
    rest = list(fit(model, streamed, tx, config, state=states[0]))
    jax.tree.map(np.testing.assert_array_equal, states[-1].params, rest[-1].params)
    other = Config(epochs=2, batch_size=40, num_devices=1, seed=1)
    different = list(fit(model, streamed, tx, other))[-1]
    assert not np.array_equal(*(
        jax.tree.leaves(state.params)[0] for state in (different, states[-1])
    ))  # fmt: skip


def test_hosts_share_each_batch(streamed):
    """Two processes read halves of the batches that one reads whole."""
    devices = jax.local_devices()[:1]
    key = jax.random.key(0)

    def batches(rank, count):
        feed = Streamed(
            streamed, "train", "scale", devices, process_index=rank, process_count=count
        )
        return list(
            feed.batches(
                lambda n: epoch_order(key, n // 2, 96)[n % 2 * 48 :][:48],
                range(1, 4),
                key,
            )
        )

    whole, halves = batches(0, 1), [batches(rank, 2) for rank in (0, 1)]
    for step, batch in enumerate(whole):
        for field in batch._fields:
            parts = [np.asarray(getattr(half[step], field))[0] for half in halves]
            np.testing.assert_array_equal(
                np.concatenate(parts), np.asarray(getattr(batch, field))[0]
            )
    uneven = Streamed(
        streamed, "train", "scale", devices, process_index=0, process_count=5
    )
    with pytest.raises(InputError, match="batch_size=48 cannot be split .* 5 proc"):
        list(uneven.batches(lambda n: np.arange(48), range(1)))


def test_a_ragged_last_batch_is_exact(streamed):
    """Errors of a stream are those of its images in memory, whatever the batch."""
    model = models.create("mlp", num_classes=10, features=(8,))
    config = Config(epochs=1, batch_size=32)
    state = initial_state(model, streamed, transforms.scale_by_step(0.1, 10), 0)
    found = [
        make_evaluate(model, streamed, config, batch_size=size, top5=True)(state)
        for size in (30, 16)
    ]
    held = streamed.test.take(np.arange(30))
    mean, scale = streamed.normalization("standardize")
    logits = np.asarray(
        model.apply(state.variables, (held.image - mean) / scale, train=False)
    )
    # The label's place when classes are sorted from the likeliest on.
    ranks = np.argmax(np.argsort(-logits, axis=1) == held.label[:, None], axis=1)
    for measured in found:
        assert measured["error"] == pytest.approx(np.mean(ranks > 0))
        assert measured["top5_error"] == pytest.approx(np.mean(ranks > 4))
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-6)


def test_top5_of_few_classes():
    digits = data.load("digits")
    few = data.Dataset(**{**vars(digits), "num_classes": 5})
    with pytest.raises(InputError, match="top5=True says nothing of 5 classes"):
        make_evaluate(models.create("mlp", num_classes=5), few, Config(epochs=1),
                      top5=True)  # fmt: skip


def test_nothing_is_left_running(streamed):
    before = threading.active_count()
    model = models.create("mlp", num_classes=10, features=(8,))
    config = Config(epochs=3, batch_size=32, num_devices=1)
    states = fit(model, streamed, transforms.scale_by_gaussian(0.05, 9), config)
    next(states)
    states.close()
    end = time.monotonic() + 20
    while threading.active_count() > before:
        assert time.monotonic() < end, threading.enumerate()
        time.sleep(0.01)


def test_moments_are_those_of_the_images(streamed):
    pixels = streamed.train.take(np.arange(96)).image.astype(float)
    mean, scale = streamed.normalization("standardize")
    np.testing.assert_allclose(mean.ravel(), pixels.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(scale.ravel(), pixels.std((0, 1, 2)), rtol=1e-6)
    np.testing.assert_array_equal(streamed.normalization("center")[1], 1)
    np.testing.assert_array_equal(streamed.normalization("scale")[0], 0)
    with pytest.raises(InputError, match="whiten.*streamed"):
        streamed.normalization("whiten")
    with pytest.raises(InputError, match="did you mean 'center'"):
        streamed.normalization("centre")


def test_a_corrupt_record_is_named(folders, digits, tmp_path):
    root = tmp_path / "copy"
    write_folders(root, digits, SIDES)
    victim = sorted((root / "train" / "class_4").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:200])
    stream = data.open_stream("folder", image_size=12, data_dir=root)
    model = models.create("mlp", num_classes=10, features=(8,))
    config = Config(epochs=1, batch_size=96, normalize="scale", num_devices=1)
    tx = transforms.scale_by_gaussian(0.05, 9)
    with pytest.raises(InputError, match=f"class_4/{victim.name} .*cannot be decoded"):
        list(fit(model, stream, tx, config))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "image_size=0 must be a whole number, from 1 to 4096"),
        ({"crop": "randm_resized"}, "did you mean 'random_resized'"),
        ({"min_area": 0.0}, r"min_area=0.0 must lie in \(0, 1\]"),
        ({"examples": 97}, "examples=97 must lie between 1 and the 96"),
        ({"test_examples": 0}, "test_examples=0 must be a whole number, 1 or more"),
        ({"validation": 96}, "validation=96 must leave examples"),
    ],
)
def test_bad_options(folders, options, message):
    with pytest.raises(InputError, match=message):
        data.open_stream("folder", **{"image_size": 12, "data_dir": folders, **options})


def test_bad_folders(tmp_path, folders):
    with pytest.raises(MissingDatasetError, match="lacks train/ or val/"):
        data.open_stream("folder", image_size=8, data_dir=tmp_path)
    with pytest.raises(InputError, match="'folder' needs --data-dir"):
        data.open_stream("folder", image_size=8)
    for part in ("train", "val"):
        (tmp_path / part / "cats").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no image"):
        data.open_stream("folder", image_size=8, data_dir=tmp_path)
    (tmp_path / "train" / "cats" / "1.png").write_bytes(b"")
    (tmp_path / "val" / "dogs").mkdir()
    with pytest.raises(InputError, match="dogs is a class that .* lacks"):
        data.open_stream("folder", image_size=8, data_dir=tmp_path)
    with pytest.raises(MissingDatasetError, match="imagenet2012.*is not prepared"):
        data.open_stream("imagenet2012", image_size=8, data_dir=tmp_path)


def test_parts_do_not_overlap(folders):
    """What is held out or left out is not trained on."""
    made = data.open_stream(
        "folder", image_size=8, data_dir=folders, validation=20, examples=50
    )
    assert (len(made.train), len(made.validation)) == (50, 20)
    assert not set(made.train.at) & set(made.validation.at)


# Flags of a run that is killed and resumed.
FLAGS = [
    "--dataset=folder", "--stream=True", "--image-size=12", "--epochs=20",
    "--batch-size=16", "--model=mlp", "--top5=True", "--checkpoint-every=8",
    "--num-devices=1",
]  # fmt: skip


@pytest.mark.slow
def test_killed_and_resumed(folders, tmp_path):
    flags = [*FLAGS, f"--data-dir={folders}"]
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    finish(start(undisturbed, *flags))
    process = start(killed, *flags)
    wait_until(lambda: newest_checkpoint(killed) >= 30, process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert not (killed / "summary.json").exists()
    assert "resuming" in finish(start(killed, "--resume"))
    assert_same_run(undisturbed, killed)
    summary = json.loads((undisturbed / "summary.json").read_text())
    assert summary["pipeline_images_per_second"] > 0
    assert 0 <= summary["last"]["test_top5_error"] <= summary["last"]["test_error"]


def test_fingerprints_are_of_the_images(folders, digits, tmp_path):
    """The same wherever they lie; another where a file, or the choice, is another."""

    def opened(root, **options):
        return data.open_stream("folder", image_size=12, data_dir=root, **options)

    root = tmp_path / "copy"
    write_folders(root, digits, SIDES)
    before = opened(folders)
    assert opened(root).train.fingerprint == before.train.fingerprint
    assert opened(root, examples=95).train.fingerprint != before.train.fingerprint
    file = sorted((root / "val" / "class_1").iterdir())[0]
    file.write_bytes(file.read_bytes() + b"more")
    assert opened(root).test.fingerprint != before.test.fingerprint
    assert opened(root).train.fingerprint == before.train.fingerprint


def test_labels_that_are_none(streamed):
    few = dataclasses.replace(streamed.train, num_classes=9)
    with pytest.raises(InputError, match=r"class_9/.* has the label 9, .* 9 classes"):
        few.take(np.arange(96))


def test_too_many_at_once(streamed):
    with pytest.raises(InputError, match="GB of memory at once"):
        streamed.train.take(np.zeros(10_000_000, int))


def test_what_only_one_path_takes(tmp_path):
    with pytest.raises(InputError, match="'folder' is streamed: add --stream=True"):
        data.load("folder", data_dir=tmp_path)
    with pytest.raises(InputError, match="'tiny_imagenet' is read into memory"):
        data.open_stream("tiny_imagenet", image_size=8)


@pytest.mark.slow
def test_other_data_is_not_gone_on_with(folders, digits, tmp_path):
    """A stream that lacks a file since is noticed before an update is made."""
    root = tmp_path / "data"
    write_folders(root, digits, SIDES)
    run_dir = tmp_path / "run"
    process = start(run_dir, *FLAGS, f"--data-dir={root}")
    wait_until(lambda: newest_checkpoint(run_dir) >= 8, process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    sorted((root / "train" / "class_0").iterdir())[0].unlink()
    process = start(run_dir, "--resume")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 2, out
    assert "is not what" in out
    assert "bring the data back" in out


def test_position_names_the_next_example(streamed):
    key = jax.random.key(3)
    found = position(streamed, key, step=5, batch_size=40)
    assert (found["epoch"], found["examples"], found["all"]) == (2, 40, 96)
    expected = epoch_order(key, 2, 96)[40]
    assert found["next"] == streamed.train.name_of(expected)
