"""Real data: held as uint8 and brought to the device once, or streamed.

`load` reads a data set by name: the embedded ``digits``, ``tiny_imagenet`` from the
folder that it is published as, or any prepared TFDS set of labelled images, without
TensorFlow. ``python -m lrscape.data prepare NAME`` downloads and prepares one (with the
extra ``[prepare]``). `open_stream` opens what is larger than memory, ImageNet in TFDS's
layout or a folder of classes, and reads it as it is needed.
"""

from lrscape.data.augment import AUGMENTATIONS as AUGMENTATIONS
from lrscape.data.augment import augment_batch as augment_batch
from lrscape.data.dataset import NORMALIZATIONS as NORMALIZATIONS
from lrscape.data.dataset import Dataset as Dataset
from lrscape.data.dataset import Examples as Examples
from lrscape.data.sources import load as load
from lrscape.data.stream import Batch as Batch
from lrscape.data.stream import Stream as Stream
from lrscape.data.stream import StreamedDataset as StreamedDataset
from lrscape.data.stream import open_stream as open_stream
from lrscape.data.whitening import Whitening as Whitening
from lrscape.data.whitening import (
    global_contrast_normalize as global_contrast_normalize,
)

__all__ = [
    "AUGMENTATIONS",
    "NORMALIZATIONS",
    "Batch",
    "Dataset",
    "Examples",
    "Stream",
    "StreamedDataset",
    "Whitening",
    "augment_batch",
    "global_contrast_normalize",
    "load",
    "open_stream",
]
