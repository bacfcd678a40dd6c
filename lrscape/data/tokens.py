"""Tokens in streams and windows, and how well they are predicted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lrscape import checks
from lrscape.errors import InputError


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
    """Where the pieces of `token_streams` begin in a text.

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
