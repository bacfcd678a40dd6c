"""Training on a text: flags, and what is measured and said."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import jax
import numpy as np
import tyro

from experiments.harness.arguments import resolve
from experiments.harness.flags import (
    CommonArguments,
    LoopFlags,
    OptimizerFlags,
    RunFlags,
    ScheduleFlags,
)
from experiments.harness.kinds import Evaluate, Kind
from experiments.harness.values import (
    Checked,
    Count,
    Epochs,
    Fraction,
    NameOrPath,
    Positive,
    Seed,
    Share,
    Whole,
    whole,
)
from lrscape.data import Text, perplexity, unigram_perplexity
from lrscape.errors import InputError
from lrscape.runs import TextRunConfig
from lrscape.training import (
    TextState,
    fit_text,
    initial_text_state,
    make_evaluate_text,
)

_ROOM = "its weights do not fit in memory"
Width = Annotated[int, Checked(whole(1, 65_536, _ROOM))]
Layers = Annotated[int, Checked(whole(1, 1000, _ROOM))]

# Updates between two looks at signals: half a second of a small network on two cores.
STRIDE = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextFlags:
    """The text.

    Attributes:
        dataset: ptb (the Penn Treebank's ptb.train.txt, ptb.valid.txt and ptb.test.txt
            in --data-dir), a prepared TFDS set of text such as tiny_shakespeare, or the
            path of a text file.
        level: what a token is: characters or words.
        max_words: the size of a vocabulary of words; default: all.
        held_out: of a text file: the share that is for validation, and as much for
            testing.
        train_tokens: how much of the training text to keep, from its start; default:
            all.
        test_tokens: how much of the validation and the test text to keep; default: all.
    """

    dataset: Annotated[NameOrPath | None, tyro.conf.arg(aliases=("--text",))] = None
    level: Annotated[str | None, tyro.conf.arg(aliases=("--unit",))] = None
    max_words: Count | None = None
    held_out: Share | None = None
    train_tokens: Count | None = None
    test_tokens: Count | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageFlags:
    """The network, and how it is trained.

    Attributes:
        model: lstm.
        features: the width of a layer, its hidden state.
        layers: how many layers there are.
        embedding: the width of the embedding; default: features.
        dropout: the share of outputs that is dropped behind embedding and layers.
        tie_weights: the last layer's weights are the embedding's.
        epochs: passes over the training text.
        batch_size: streams that the text is cut into, over all devices.
        window: tokens of each stream an update, through which gradients flow back.
        offset: tokens that are passed over at the start: another order of the text.
        seed: of initial weights and dropout.
        clip_norm: shorten gradients of a larger norm to this one; default: do not.
        runge_kutta: midpoint, heun or ralston: second-order gradients before the
            optimizer; default: plain ones.
        eval_streams: streams that a part is cut into to be measured: 1 is the text as
            it is, more are faster.
        scan_steps: updates in one compiled loop, at the most; default: 100.
    """

    model: str | None = None
    features: Annotated[Width | None, tyro.conf.arg(aliases=("--hidden-size",))] = None
    layers: Layers | None = None
    embedding: Width | None = None
    dropout: Fraction | None = None
    tie_weights: bool | None = None
    epochs: Epochs | None = None
    batch_size: Annotated[Count | None, tyro.conf.arg(aliases=("--streams",))] = None
    window: Count | None = None
    offset: Whole | None = None
    seed: Seed | None = None
    clip_norm: Positive | None = None
    runge_kutta: str | None = None
    eval_streams: Count | None = None
    scan_steps: Count | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextArguments(CommonArguments, TextFlags, LanguageFlags):
    """Flags of training on a text; None means "from the preset"."""

    GROUPS: ClassVar[tuple[tuple[str, type], ...]] = (
        ("run", RunFlags),
        ("text", TextFlags),
        ("training", LanguageFlags),
        ("schedule", ScheduleFlags),
        ("optimizer", OptimizerFlags),
        ("loop", LoopFlags),
    )


class Texts(Kind):
    """Text, by characters or words."""

    unit = "tokens"
    best_by = "perplexity"
    in_one_program = False

    @property
    def flags(self) -> type[CommonArguments]:
        """The flags of its command line."""
        return TextArguments

    def resolve(self, experiment, presets, preset, given, data_dir) -> TextRunConfig:
        """See `Kind.resolve`."""
        # A vocabulary of words is none of characters.
        if given.get("level") == "characters" and "max_words" not in given:
            given = {**given, "max_words": None}
        return resolve(experiment, presets, preset, given, data_dir, TextRunConfig)

    def parts(self, data: Text) -> tuple[str, ...]:
        """See `Kind.parts`."""
        return ("validation", "test")

    def evaluate(self, model, data: Text, config: TextRunConfig) -> Evaluate:
        """See `Kind.evaluate`."""
        return make_evaluate_text(model, data, config, streams=config.eval_streams)

    def make_initial_state(
        self, model, data: Text, tx, config: TextRunConfig
    ) -> Callable[[int], TextState]:
        """See `Kind.make_initial_state`."""

        def state_of(seed: int) -> TextState:
            own = dataclasses.replace(config, seed=seed)
            return initial_text_state(model, data, tx, own)

        return state_of

    def stride(self, config: TextRunConfig, devices: Sequence[jax.Device]) -> int:
        """See `Kind.stride`."""
        return min(config.scan_steps or STRIDE, STRIDE)

    @property
    def fit(self) -> Callable[..., Any]:
        """See `Kind.fit`."""
        return fit_text

    def per_update(self, config: TextRunConfig) -> int:
        """See `Kind.per_update`."""
        return config.batch_size * config.window

    def prepare(self, data: Text, config: TextRunConfig) -> None:
        """See `Kind.prepare`."""
        for part in ("validation", "test"):
            if (count := len(getattr(data, part))) <= config.eval_streams:
                raise InputError(
                    f"eval_streams={config.eval_streams}: the {part} text has {count} "
                    "tokens, and they need one more than streams; give fewer streams, "
                    "or more text (--test-tokens)"
                )
        baseline = self.baseline(data)["unigram_perplexity"]
        print(
            f"{len(data.train):,} {data.level} of {data.num_classes:,} kinds; the "
            f"perplexity of their frequencies on the test text: {baseline:.2f}"
        )

    def added(self, line: dict[str, Any]) -> dict[str, Any]:
        """See `Kind.added`."""
        return {"train_perplexity": float(perplexity(line["train_loss"]))}

    def baseline(self, data: Text) -> dict[str, float]:
        """See `Kind.baseline`."""
        return {
            "unigram_perplexity": unigram_perplexity(
                data.train, np.asarray(data.test[1:]), data.num_classes
            )
        }

    def measured(self, line: Mapping[str, Any], part: str) -> str:
        """See `Kind.measured`."""
        return (
            f"{part} loss {line[part + '_loss']:.4f} "
            f"perplexity {line[part + '_perplexity']:.2f}"
        )

    def outcome(self, summary: Mapping[str, Any], part: str) -> str:
        """See `Kind.outcome`."""
        last, best = summary["last"], summary["best"]
        return (
            f"test perplexity {last['test_perplexity']:.2f} after the last epoch, "
            f"unigram {summary['unigram_perplexity']:.2f} (least {part} perplexity "
            f"{best[part + '_perplexity']:.2f} after epoch {best['epoch']:g})"
        )


TEXTS = Texts()
