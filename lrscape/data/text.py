"""Text as tokens, cut into streams and windows, and how well it is predicted."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lrscape import checks
from lrscape.data.sources import data_directory, prepared_builder, quiet_absl
from lrscape.errors import InputError, MissingDatasetError

LEVELS = ("characters", "words")
UNKNOWN = "<unk>"
END_OF_LINE = "<eos>"

PTB = "ptb"
PTB_FILES = {
    "train": "ptb.train.txt",
    "validation": "ptb.valid.txt",
    "test": "ptb.test.txt",
}
PTB_FOLDERS = ("", "ptb", "simple-examples/data")
PTB_URL = "http://www.fit.vutbr.cz/~imikolov/rnnlm/simple-examples.tgz"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
    """A text in three parts, as numbers.

    Attributes:
        name: what it was read from.
        level: ``'characters'`` or ``'words'``.
        vocabulary: what each number stands for.
        train: (n,), int32.
        validation: likewise.
        test: likewise.
    """

    name: str
    level: str
    vocabulary: tuple[str, ...]
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @property
    def num_classes(self) -> int:
        """The size of the vocabulary."""
        return len(self.vocabulary)

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.vocabulary)}

    def encode(self, text: str) -> np.ndarray:
        """Turns text into tokens, (n,), int32.

        Raises:
            InputError: something that the vocabulary does not have, where it has no
                ``<unk>`` either.
        """
        return _numbered(_split(text, self.level), self._numbers)

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        """Turns tokens back into text."""
        names = [self.vocabulary[token] for token in tokens]
        if self.level == "characters":
            return "".join(names)
        words = " ".join("\n" if name == END_OF_LINE else name for name in names)
        return re.sub(" ?\n ?", "\n", words)


def load_text(
    name: str | os.PathLike[str],
    *,
    level: str,
    max_words: int | None = None,
    held_out: float = 0.05,
    data_dir: str | os.PathLike[str] | None = None,
) -> Text:
    r"""Reads a text and numbers its characters or words.

    The vocabulary is that of the training part: its characters in their order, or its
    words by how often they come, a line's end being the word ``<eos>``. It has
    ``<unk>`` where something is read as it: a rarer word than the vocabulary holds, or
    what only the other parts have.

    Args:
        name: ``'ptb'`` (the Penn Treebank's ``ptb.train.txt``, ``ptb.valid.txt`` and
            ``ptb.test.txt``), the name of a prepared TFDS set of text such as
            ``'tiny_shakespeare'``, or the path of a text file (in UTF-8, with a ``.``
            or a ``/`` in its name).
        level: ``'characters'`` or ``'words'``.
        max_words: the size of a vocabulary of words, ``<unk>`` among them; None keeps
            all.
        held_out: the share of a file that is its validation part, and likewise its
            test part, both from its end.
        data_dir: as for `lrscape.data.load`; of ``ptb``, the folder of its files, or
            one that holds ``ptb`` or ``simple-examples/data``.

    Returns:
        The text.

    Raises:
        MissingDatasetError: it is not there; says where it was looked for, and how to
            get it.
        InputError: an unknown level, no room for words, a part that is empty, or a file
            that is no text.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, 'song.txt')
        ...     _ = path.write_text('row row row your boat\n')
        ...     song = load_text(path, level='words', held_out=0.2)
        >>> song.vocabulary, song.train
        (('row', 'your', '<unk>'), array([0, 0, 0, 1], dtype=int32))
    """
    checks.one_of("level", level, LEVELS)
    if max_words is not None:
        max_words = checks.count("max_words", max_words)
        if level != "words" or max_words < 2:
            raise InputError(
                f"max_words={max_words!r} with level={level!r}: it is the size of a "
                "vocabulary of words, 2 or more"
            )
    if not 0 < checks.number("held_out", held_out) < 0.5:
        raise InputError(
            f"held_out={held_out!r} must lie between 0 and 0.5: a share of the file "
            "for validation, and as much for testing"
        )
    directory = None if data_dir is None else checks.path("data_dir", data_dir)
    name = name if isinstance(name, str) else checks.path("text", name)
    if name == PTB:
        texts = _penn_treebank(data_directory(directory))
    elif re.fullmatch(r"[a-z][a-z0-9_]*", str(name)):
        texts = _tfds_text(str(name), directory)
    else:
        texts = {"train": _file(checks.path("text", name))}
    parts = {part: _split(text, level) for part, text in texts.items()}
    if "test" not in parts:
        parts = _cut(parts["train"], held_out)
    for part, tokens in parts.items():
        if not tokens:
            raise InputError(f"text={str(name)!r} has no {level} in its part {part!r}")
    vocabulary = _vocabulary(parts, level, max_words)
    numbers = {token: number for number, token in enumerate(vocabulary)}
    return Text(
        name=str(name),
        level=level,
        vocabulary=vocabulary,
        **{part: _numbered(tokens, numbers) for part, tokens in parts.items()},
    )


def _split(text: str, level: str) -> list[str]:
    if level == "characters":
        return list(text)
    return text.replace("\n", f" {END_OF_LINE} ").split()


def _cut(tokens: list[str], held_out: float) -> dict[str, list[str]]:
    """A file's parts, in its order."""
    size = max(1, round(held_out * len(tokens)))
    return {
        "train": tokens[: -2 * size],
        "validation": tokens[-2 * size : -size],
        "test": tokens[-size:],
    }


def _vocabulary(
    parts: dict[str, list[str]], level: str, max_words: int | None
) -> tuple[str, ...]:
    counts = Counter(parts["train"])
    if level == "characters":
        names = sorted(counts)
    else:
        names = [word for word, _ in counts.most_common(max_words)]
    if not set().union(*parts.values()) <= set(names) and UNKNOWN not in names:
        names = [*names[: None if max_words is None else max_words - 1], UNKNOWN]
    return tuple(names)


def _numbered(tokens: list[str], numbers: dict[str, int]) -> np.ndarray:
    unknown = numbers.get(UNKNOWN)
    found = [numbers.get(token, unknown) for token in tokens]
    if unknown is None and None in found:
        token = tokens[found.index(None)]
        raise InputError(
            f"{token!r} is not in the vocabulary of {len(numbers)}, which has no "
            f"{UNKNOWN} for what it does not know"
        )
    return np.array(found, np.int32)


def _penn_treebank(root: Path) -> dict[str, str]:
    folders = [root / folder for folder in PTB_FOLDERS]
    for folder in folders:
        if all((folder / file).is_file() for file in PTB_FILES.values()):
            return {part: _file(folder / file) for part, file in PTB_FILES.items()}
    raise MissingDatasetError(
        f"text={PTB!r} was not found: {', '.join(PTB_FILES.values())} are not together "
        f"in any of {', '.join(map(str, folders))}. Unpack {PTB_URL} in {root}, or set "
        "TFDS_DATA_DIR or --data-dir to where they are; text='tiny_shakespeare' is a "
        "free stand-in."
    )


def _file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise MissingDatasetError(
            f"text={str(path)!r} is no file; give the path of a text file, {PTB!r}, or "
            "a TFDS name such as 'tiny_shakespeare'"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"text={str(path)!r} cannot be read as UTF-8 text: {error}"
        ) from error


def _tfds_text(name: str, data_dir: Path | None) -> dict[str, str]:
    with quiet_absl():
        builder = prepared_builder(name, data_dir)
        kinds = {k: type(v).__name__ for k, v in builder.info.features.items()}
        if kinds != {"text": "Text"}:
            raise InputError(
                f"text={name!r} holds {kinds}, not the feature text (Text)"
            )
        texts = {}
        for part in PTB_FILES:
            if part not in builder.info.splits:
                raise InputError(
                    f"text={name!r} in {builder.data_path} has no {part!r}"
                )
            source = builder.as_data_source(split=part)
            records = (record["text"].decode("utf-8") for record in source)
            texts[part] = "\n".join(records)
    return texts


class Windows(NamedTuple):
    """Pieces of a text, and the token that follows each of theirs.

    Attributes:
        inputs: (..., steps), int32.
        targets: likewise, one token on.
    """

    inputs: np.ndarray
    targets: np.ndarray


def token_streams(tokens: np.ndarray, batch_size: int, steps: int) -> Windows:
    """Cuts a text for truncated backpropagation through time.

    It is cut into `batch_size` streams, one beside the other, and these into pieces:
    row b of a piece goes on where row b of the piece before it ended. What is left at
    the end of a stream is left out.

    Args:
        tokens: (n,).
        batch_size: how many streams.
        steps: tokens a piece.

    Returns:
        Inputs and targets, (pieces, batch_size, steps).

    Raises:
        InputError: fewer than 1 of them, or a text that is too short for one piece.

    Example:
        >>> inputs, targets = token_streams(np.arange(9), batch_size=2, steps=2)
        >>> inputs.tolist()
        [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]
        >>> targets[0].tolist()
        [[1, 2], [5, 6]]
    """
    tokens = _tokens("tokens", tokens)
    starts = stream_starts(len(tokens), batch_size, steps)
    index = starts[..., None] + np.arange(steps)
    return Windows(tokens[index], tokens[index + 1])


def stream_starts(num_tokens: int, batch_size: int, steps: int) -> np.ndarray:
    """The positions in a text at which the pieces of `token_streams` begin.

    Args:
        num_tokens: the length of the text.
        batch_size: how many streams.
        steps: tokens a piece.

    Returns:
        (pieces, batch_size), positions as int32.

    Raises:
        InputError: as `token_streams`.

    Example:
        >>> stream_starts(9, batch_size=2, steps=2).tolist()
        [[0, 4], [2, 6]]
    """
    checks.whole("num_tokens", num_tokens)
    checks.count("batch_size", batch_size)
    checks.count("steps", steps)
    length = (num_tokens - 1) // batch_size  # the last one has no target
    if length < steps:
        raise InputError(
            f"{num_tokens} tokens are too few for batch_size={batch_size} streams of "
            f"steps={steps}: that takes {batch_size * steps + 1}"
        )
    pieces = np.arange(length // steps, dtype=np.int32)[:, None] * steps
    return pieces + np.arange(batch_size, dtype=np.int32) * length


def token_windows(tokens: np.ndarray, steps: int) -> Windows:
    """Cuts a text into windows that follow each other, as examples of an objective.

    Args:
        tokens: (n,).
        steps: tokens a window.

    Returns:
        Inputs and targets, (windows, steps).

    Raises:
        InputError: no steps, or a text that is too short for one window.

    Example:
        >>> token_windows(np.arange(6), steps=2).inputs.tolist()
        [[0, 1], [2, 3]]
    """
    inputs, targets = token_streams(tokens, 1, steps)
    return Windows(inputs[:, 0], targets[:, 0])


def perplexity(loss: float | np.ndarray) -> np.ndarray:
    """The perplexity of a mean cross-entropy, in nats a token.

    Example:
        >>> print(perplexity(np.log(50)).round(6))
        50.0
    """
    return np.exp(np.asarray(checks.numbers("loss", loss), np.float64))


def unigram_perplexity(
    train: np.ndarray, test: np.ndarray, vocabulary_size: int
) -> float:
    """The perplexity of the training part's frequencies: what a model must beat.

    Args:
        train: tokens that are counted, each number of the vocabulary once more than it
            is there, so that none is impossible.
        test: tokens that are predicted.
        vocabulary_size: how many numbers there are.

    Example:
        Counts of 3 and 1, and one more for each: 4/6 and 2/6.

        >>> round(unigram_perplexity(np.array([0, 0, 0, 1]), np.array([1]), 2), 6)
        3.0
    """
    checks.count("vocabulary_size", vocabulary_size)
    train, test = _tokens("train", train), _tokens("test", test)
    checks.positions("train", train, vocabulary_size)
    checks.positions("test", test, vocabulary_size)
    counts = np.bincount(train, minlength=vocabulary_size) + 1
    log_frequency = np.log(counts / counts.sum())
    return float(perplexity(-log_frequency[test].mean()))


def _tokens(name: str, value: np.ndarray) -> np.ndarray:
    """Tokens as an array; raises InputError for what is no text in numbers."""
    array = np.asarray(checks.numbers(name, value, axes=1))
    if array.dtype.kind not in "iu" or not array.size:
        raise InputError(
            f"{name}={checks.shown(value)} must be whole numbers, of shape (n,)"
        )
    return array
