"""Real data, held as uint8 and brought to the device once.

`load` reads a data set by name: the embedded ``digits``, ``tiny_imagenet`` from the
folder that it is published as, or any prepared TFDS set of labelled images, without
TensorFlow. ``python -m lrscape.data prepare NAME`` downloads and prepares one (with the
extra ``[prepare]``).
"""

from lrscape.data.augment import AUGMENTATIONS as AUGMENTATIONS
from lrscape.data.augment import augment_batch as augment_batch
from lrscape.data.dataset import NORMALIZATIONS as NORMALIZATIONS
from lrscape.data.dataset import Dataset as Dataset
from lrscape.data.dataset import Examples as Examples
from lrscape.data.sources import load as load
from lrscape.data.whitening import Whitening as Whitening
from lrscape.data.whitening import (
    global_contrast_normalize as global_contrast_normalize,
)

__all__ = [
    "AUGMENTATIONS",
    "NORMALIZATIONS",
    "Dataset",
    "Examples",
    "Whitening",
    "augment_batch",
    "global_contrast_normalize",
    "load",
]
