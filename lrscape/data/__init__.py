"""Real data: images as uint8, brought to the device once or streamed; text as tokens.

`load` reads a data set by name: the embedded ``digits``, ``tiny_imagenet`` from the
folder that it is published as, or any prepared TFDS set of labelled images, without
TensorFlow; `load_text` reads text. `open_stream` opens what is larger than memory,
ImageNet in TFDS's layout or a folder of classes, and reads it as it is needed.
``python -m lrscape.data prepare NAME`` downloads and prepares a TFDS set (with the
extra ``[prepare]``).
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
from lrscape.data.text import Text as Text
from lrscape.data.text import Windows as Windows
from lrscape.data.text import load_text as load_text
from lrscape.data.text import perplexity as perplexity
from lrscape.data.text import stream_starts as stream_starts
from lrscape.data.text import token_streams as token_streams
from lrscape.data.text import token_windows as token_windows
from lrscape.data.text import unigram_perplexity as unigram_perplexity
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
    "Text",
    "Whitening",
    "Windows",
    "augment_batch",
    "global_contrast_normalize",
    "load",
    "load_text",
    "open_stream",
    "perplexity",
    "stream_starts",
    "token_streams",
    "token_windows",
    "unigram_perplexity",
]
