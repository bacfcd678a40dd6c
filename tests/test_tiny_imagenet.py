"""Tiny ImageNet, read from folders of its layout that hold real images."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image, ImageFile

from lrscape import data
from lrscape.data import tiny_imagenet
from lrscape.data.__main__ import main
from lrscape.data.sources import prepared
from lrscape.errors import InputError, MissingDatasetError

# As listed, which is not as sorted; a digit of each class's images.
WNIDS = {"n02124075": 3, "n04067472": 1, "n01443537": 8}
NUMBERS = (0, 2, 10, 1)  # of training images: 10 comes after 2
VAL = {0: "n01443537", 10: "n02124075", 2: "n04067472", 1: "n02124075"}


def jpeg(digit: int, number: int, mode: str = "RGB") -> bytes:
    """One of scikit-learn's digits, enlarged to 64x64."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = (bunch.images[bunch.target == digit][number] * 255 / 16).astype(np.uint8)
    grey = Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC)
    if mode == "RGB":
        image = Image.merge("RGB", (grey, grey.rotate(90), grey.rotate(180)))
    else:
        image = grey
    file = io.BytesIO()
    image.save(file, "jpeg", quality=95)
    return file.getvalue()


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """A data directory with a small tiny-imagenet-200; not to be changed."""
    root = tmp_path_factory.mktemp("published")
    folder = root / "tiny-imagenet-200"
    for wnid, digit in WNIDS.items():
        images = folder / "train" / wnid / "images"
        images.mkdir(parents=True)
        for number in NUMBERS:
            mode = "L" if (digit, number) == (1, 2) else "RGB"
            (images / f"{wnid}_{number}.JPEG").write_bytes(jpeg(digit, number, mode))
        (images.parent / f"{wnid}_boxes.txt").write_text("".join(
            f"{wnid}_{number}.JPEG\t0\t0\t63\t63\n" for number in NUMBERS
        ))  # fmt: skip
    for part in ("val", "test"):
        (folder / part / "images").mkdir(parents=True)
    for number, wnid in VAL.items():
        encoded = jpeg(WNIDS[wnid], 20 + number)
        (folder / "val" / "images" / f"val_{number}.JPEG").write_bytes(encoded)
    (folder / "val" / "val_annotations.txt").write_text("".join(
        f"val_{number}.JPEG\t{wnid}\t0\t32\t44\t62\n" for number, wnid in VAL.items()
    ))  # fmt: skip
    (folder / "test" / "images" / "test_0.JPEG").write_bytes(jpeg(5, 0))
    (folder / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    (folder / "words.txt").write_text("n01443537\tgoldfish, Carassius auratus\n")
    return root


@pytest.fixture
def copy(published, tmp_path):
    """One to damage."""
    return shutil.copytree(published, tmp_path / "copy") / "tiny-imagenet-200"


def decoded(path):
    with Image.open(path) as image:
        return image.mode, np.asarray(image.convert("RGB"))


def test_images_labels_and_order(published):
    tiny = data.load("tiny_imagenet", data_dir=published)
    assert (tiny.name, tiny.num_classes, tiny.max_value) == ("tiny_imagenet", 3, 255)
    assert tiny.image_shape == (64, 64, 3)
    assert tiny.train.image.dtype == tiny.test.image.dtype == np.uint8
    assert tiny.train.label.dtype == tiny.test.label.dtype == np.int32
    np.testing.assert_array_equal(tiny.train.label, np.repeat([0, 1, 2], 4))
    np.testing.assert_array_equal(tiny.test.label, [2, 0, 1, 0])
    folder = published / "tiny-imagenet-200"
    names = [
        folder / "train" / wnid / "images" / f"{wnid}_{number}.JPEG"
        for wnid in WNIDS
        for number in (0, 1, 2, 10)
    ]
    modes = []
    for path, pixels in zip(names, tiny.train.image, strict=True):
        mode, expected = decoded(path)
        modes.append(mode)
        np.testing.assert_array_equal(pixels, expected)
    assert modes.count("L") == 1 and modes.count("RGB") == 11
    for number, pixels in zip((0, 1, 2, 10), tiny.test.image, strict=True):
        _, expected = decoded(folder / "val" / "images" / f"val_{number}.JPEG")
        np.testing.assert_array_equal(pixels, expected)


def test_more_images_than_one_thread_reads(published):
    path = published / "tiny-imagenet-200" / "val" / "images" / "val_0.JPEG"
    other = path.with_name("val_1.JPEG")
    paths = [other if i % 7 == 0 else path for i in range(1203)]
    examples = tiny_imagenet._decode(paths, range(1203))
    expected = np.stack([decoded(path)[1], decoded(other)[1]])
    np.testing.assert_array_equal(
        examples.image, expected[(np.arange(1203) % 7 == 0).astype(int)]
    )
    np.testing.assert_array_equal(examples.label, np.arange(1203))


def test_where_it_is_looked_for(published, tmp_path, monkeypatch):
    folder = published / "tiny-imagenet-200"
    assert tiny_imagenet.folder(published) == folder
    assert tiny_imagenet.folder(folder) == folder
    renamed = shutil.copytree(folder, tmp_path / "renamed")
    for data_dir in (str(folder), renamed):
        assert len(data.load("tiny_imagenet", data_dir=data_dir).train) == 12
    monkeypatch.setenv("TFDS_DATA_DIR", str(published))
    assert len(data.load("tiny_imagenet").test) == 4


def test_validation_is_held_out(published):
    whole = data.load("tiny_imagenet", data_dir=published).train
    tiny = data.load("tiny_imagenet", data_dir=published, validation=5)
    assert (len(tiny.train), len(tiny.validation), len(tiny.test)) == (7, 5, 4)
    parts = np.concatenate([tiny.train.image, tiny.validation.image])
    assert sorted(map(bytes, parts)) == sorted(map(bytes, whole.image))


def test_it_is_listed(published, tmp_path, capsys):
    assert list(prepared(published)) == ["tiny_imagenet"]
    assert list(prepared(published / "tiny-imagenet-200")) == ["tiny_imagenet"]
    assert list(prepared(tmp_path)) == []
    assert main(["list", "--data-dir", str(published)]) == 0
    assert f"tiny_imagenet  in {published}" in capsys.readouterr().out


def test_it_is_listed_among_others_once(copy):
    for name in ("cifar10", "tiny_imagenet", "voc"):
        version = copy.parent / name / "1.0.0"
        version.mkdir(parents=True)
        (version / "dataset_info.json").write_text("{}")
    assert list(prepared(copy.parent)) == ["cifar10", "tiny_imagenet", "voc"]
    shutil.rmtree(copy)
    assert list(prepared(copy.parent)) == ["cifar10", "voc"]


@pytest.mark.parametrize("given", ["nowhere", "nowhere/tiny-imagenet-200"])
def test_missing(tmp_path, given):
    with pytest.raises(MissingDatasetError) as caught:
        data.load("tiny_imagenet", data_dir=tmp_path / given)
    message = str(caught.value)
    looked_for = tmp_path / "nowhere" / "tiny-imagenet-200" / "wnids.txt"
    assert f"dataset='tiny_imagenet' was not found: there is no {looked_for}" in message
    assert "cs231n.stanford.edu/tiny-imagenet-200.zip" in message
    assert f"unpack it in {tmp_path / 'nowhere'}, or" in message
    assert "--data-dir" in message
    assert not (tmp_path / "nowhere").exists()


def test_there_is_nothing_to_prepare(tmp_path, capsys):
    assert main(["prepare", "tiny_imagenet", "--data-dir", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "dataset='tiny_imagenet' is not a TFDS set" in message
    assert f"tiny-imagenet-200.zip and unpack it in {tmp_path}" in message


def refused(folder) -> str:
    with pytest.raises(InputError) as caught:
        data.load("tiny_imagenet", data_dir=folder)
    message = str(caught.value)
    assert message.startswith("dataset='tiny_imagenet' cannot be read: ")
    assert "unpack tiny-imagenet-200.zip again" in message
    return message


@pytest.mark.parametrize("damage", ["truncated", "no end", "zeros", "empty", "png"])
@pytest.mark.parametrize("lenient", [False, True])
def test_a_damaged_image(copy, monkeypatch, damage, lenient):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    path = copy / "train" / "n04067472" / "images" / "n04067472_10.JPEG"
    whole = path.read_bytes()
    half = len(whole) * 2 // 3
    png = io.BytesIO()
    Image.new("RGB", (64, 64)).save(png, "png")
    path.write_bytes({
        "truncated": whole[:half], "no end": whole[:-2], "empty": b"",
        "zeros": whole[:half] + bytes(len(whole) - half), "png": png.getvalue(),
    }[damage])  # fmt: skip
    message = refused(copy)
    assert str(path) in message
    assert "cannot be decoded as JPEG" in message or "is truncated" in message


def test_no_truncated_image_is_half_read(tmp_path, monkeypatch):
    whole = jpeg(3, 0)
    path = tmp_path / "val_0.JPEG"
    for lenient in (False, True):
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
        for length in range(0, len(whole), 5):
            path.write_bytes(whole[:length])
            with pytest.raises(InputError, match="val_0.JPEG"):
                tiny_imagenet._pixels(path)
        path.write_bytes(whole + b"trailing")
        assert tiny_imagenet._pixels(path).shape == (64, 64, 3)


@pytest.mark.parametrize("size", [(32, 64), (65, 64), (60_000, 60_000)])
def test_an_image_of_another_size(copy, size):
    path = copy / "val" / "images" / "val_2.JPEG"
    encoded = bytearray(path.read_bytes())
    place = encoded.index(b"\xff\xc0") + 5  # height and width
    encoded[place : place + 4] = b"".join(n.to_bytes(2, "big") for n in size[::-1])
    path.write_bytes(encoded)
    message = refused(copy)
    assert str(path) in message
    if size[0] < 1000:
        assert f"is {size[0]}x{size[1]} pixels, not 64x64" in message
        assert "or scale it to 64x64" in message
    else:  # Pillow's own limit
        assert "cannot be decoded as JPEG" in message


def test_a_class_without_images(copy):
    images = copy / "train" / "n01443537" / "images"
    for path in images.iterdir():
        path.rename(path.with_suffix(".jpg"))
    message = refused(copy)
    assert f"{images} holds no image n01443537_<number>.JPEG" in message
    assert "or take n01443537 out of wnids.txt" in message
    shutil.rmtree(images.parent)
    assert refused(copy) == message


def test_missing_annotations(copy):
    annotations = copy / "val" / "val_annotations.txt"
    lines = annotations.read_text().splitlines(keepends=True)
    annotations.write_text("".join(lines[:-1]))
    message = refused(copy)
    image = copy / "val" / "images" / "val_1.JPEG"
    assert f"{image} has no line in val_annotations.txt" in message
    assert "or leave the image out" in message
    annotations.unlink()
    assert f"{annotations} cannot be opened (No such file" in refused(copy)


@pytest.mark.parametrize("line", ["val_10.JPEG\tn00000001\t0\t0\t9\t9", "val_10.JPEG"])
def test_annotations_of_unknown_classes(copy, line):
    annotations = copy / "val" / "val_annotations.txt"
    lines = annotations.read_text().splitlines()
    annotations.write_text("\n".join([lines[0], line, *lines[2:]]))
    message = refused(copy)
    wnid = line.partition("\t")[2][:9]
    assert f"{annotations} line 2: 'val_10.JPEG' has the wnid {wnid!r}" in message
    assert "or list it there, or leave out the line and its image" in message


def test_annotations_that_contradict_each_other(copy):
    annotations = copy / "val" / "val_annotations.txt"
    with annotations.open("a") as file:
        file.write("val_0.JPEG\tn02124075\t0\t0\t9\t9\n")
    assert f"{annotations} line 5: 'val_0.JPEG' has two wnids" in refused(copy)


def test_annotations_without_images(copy):
    path = copy / "val" / "images" / "val_10.JPEG"
    path.unlink()
    message = refused(copy)
    assert f"{path} is in val_annotations.txt but not in the folder" in message
    assert "or leave its line out" in message
    shutil.rmtree(path.parent)
    assert f"{path.parent} holds no image val_<number>.JPEG" in refused(copy)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "lists no class"),
        ("n02124075\n../../secret\n", "line 2: '../../secret' is not a WordNet id"),
        ("n02124075\n\nn02124075\n", "line 3: 'n02124075' is listed twice"),
        ("n02124075\tcat\n", "line 1: 'n02124075\\tcat' is not a WordNet id"),
    ],
)
def test_lists_of_classes_that_will_not_do(copy, text, problem):
    (copy / "wnids.txt").write_text(text)
    assert f"{copy / 'wnids.txt'} {problem}" in refused(copy)


def test_other_files_and_classes_are_left_out(copy):
    images = copy / "train" / "n02124075" / "images"
    (images / "._n02124075_0.JPEG").write_bytes(b"a Mac's")
    (copy / "train" / "n09999999").mkdir()
    assert len(data.load("tiny_imagenet", data_dir=copy).train) == 12
