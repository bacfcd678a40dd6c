"""The picture sheets."""

import numpy as np
import pytest

from experiments.augmentations import main, sheet
from lrscape import data


@pytest.mark.slow
def test_sheets_are_drawn(tmp_path, capsys):
    assert main(["--out", str(tmp_path)]) == 0
    files = sorted(path.stem for path in tmp_path.iterdir())
    assert files == sorted(data.AUGMENTATIONS)
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in tmp_path.iterdir())


def test_a_sheet_shows_the_images_first():
    digits = data.load("digits")
    figure = sheet(digits, "flip", count=3)
    assert len(figure.axes) == 3 * 9
    shown = figure.axes[0].get_images()[0].get_array()
    np.testing.assert_allclose(shown, digits.train.image[0, ..., 0] / 16)


def test_a_missing_set(tmp_path, capsys):
    assert main(["--dataset=cifar10", "--data-dir", str(tmp_path)]) == 2
    assert "lrscape.data prepare cifar10" in capsys.readouterr().err
