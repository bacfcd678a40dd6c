"""The flags of training, a class for each group of them in ``--help``."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, ClassVar

import tyro

from experiments.harness.values import (
    Checked,
    Count,
    DataDirectory,
    Directory,
    Epochs,
    Fraction,
    Networks,
    NotNegative,
    Positive,
    Rate,
    Seed,
    Threads,
    Whole,
    whole,
)

# A view of more pixels a side takes hundreds of megabytes an example.
ImageSize = Annotated[
    int, Checked(whole(1, 8192, "a batch of such images does not fit in memory"))
]


def _aliases(*names: str):
    return tyro.conf.arg(aliases=names)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFlags:
    """The run.

    Attributes:
        preset: the settings that all other flags change; default: quick.
        run_dir: where everything about the run goes; default:
            runs/EXPERIMENT-YYYYMMDD-HHMMSS.
        resume: go on from the last checkpoint in --run-dir; flags need not be repeated.
            With more --epochs than before the run is made longer.
        extend: how the rate goes on in a run that is made longer, where it depends on
            the run's length: hold (to the end of the old shape, then its last rate) or
            stretch (from here on the rate of a run of the new length).
        data_dir: the TFDS data directory; default: TFDS_DATA_DIR, or else
            ~/tensorflow_datasets.
        coordinator: of several processes: HOST:PORT where the first one listens, or
            auto, as the cluster says (Slurm, MPI, Kubernetes, TPU and GPU pods).
        num_processes: how many there are, unless --coordinator=auto.
        process_id: which one this is, from 0, unless --coordinator=auto.
        seeds: train so many networks that differ by their seed alone, from --seed on,
            each into RUN_DIR/seed_SEED, and gather them in RUN_DIR.
        replicas: with --seeds: together (all in one program), apart (one after another)
            or auto (what a short measurement finds to be faster); default: auto.
        debug: show a traceback with an error.
    """

    preset: str | None = None
    run_dir: Directory | None = None
    resume: bool = False
    extend: str | None = None
    data_dir: DataDirectory | None = None
    coordinator: str | None = None
    num_processes: Count | None = None
    process_id: Whole | None = None
    seeds: Networks | None = None
    replicas: str | None = None
    debug: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFlags:
    """The data.

    Attributes:
        dataset: any prepared TFDS set of labelled images; with --stream=True also
            folder, a directory --data-dir of train/CLASS/*.jpeg and val/CLASS/*.jpeg.
        validation: how many training examples to hold out.
        split_seed: which examples are held out or left out; for digits, which are test
            examples.
        examples: how many training examples to keep; default: all.
        test_examples: how many test examples to keep; default: all.
        stream: read images as they are needed, of any size, rather than hold them in
            memory.
        image_size: with --stream: the side of a view, in pixels.
        crop: with --stream: random_resized (a random patch, scaled and mirrored, to
            train on; the middle to measure on), window (a window as large as that
            middle, at random and mirrored, to train on) or none (the whole image,
            scaled).
        min_area: with --stream: the least share of an image that a patch takes.
        threads: with --stream: that read and decode; default: one a core.
        top5: report the labels beyond the five largest logits too.
    """

    dataset: str | None = None
    validation: Whole | None = None
    split_seed: Seed | None = None
    examples: Count | None = None
    test_examples: Count | None = None
    stream: bool | None = None
    image_size: ImageSize | None = None
    crop: str | None = None
    min_area: Fraction | None = None
    threads: Threads | None = None
    top5: bool | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingFlags:
    """The network, and how it is trained.

    Attributes:
        model: mlp, cnn, small, large, nin, nin_mnist, nin_bn, vgg, vgg11, resnet20 ...
            resnet110, preresnet20 ... preresnet164, densenet40, densenet100,
            densenet190, wrn28_10, alexnet, googlenet or bn_inception.
        compute_dtype: float32, bfloat16 or float64, of models that offer it: the
            ResNets.
        epochs: passes over the training examples.
        batch_size: examples an update, over all devices.
        seed: of initial weights, order, augmentation and dropout.
        augment: augmentations in order, of crop, flip, jitter, shift, zoom, rotation;
            none: --augment none.
        normalize: standardize (mean 0, deviation 1 a channel), center (minus the mean
            image, on the pixels' own scale), scale (to 0 ... 1), center_scale (both) or
            whiten (contrast and ZCA, before images are augmented).
    """

    model: str | None = None
    compute_dtype: str | None = None
    epochs: Epochs | None = None
    batch_size: Count | None = None
    seed: Seed | None = None
    augment: tuple[str, ...] | None = None
    normalize: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleFlags:
    """The learning rate.

    Attributes:
        schedule: gaussian, laplacian, rational, step, triangular, trapezoid or swa.
        peak_lr: the schedule's largest rate. A preset has one for schedules with a peak
            and a smaller one, its start_lr, for those that start at their largest.
        start_lr: the rate at the first update (gaussian, laplacian, trapezoid).
        end_lr: the rate at the end (gaussian, laplacian, trapezoid).
        variance: sigma squared of a gaussian; instead of end_lr.
        scale: lambda of a laplacian; instead of end_lr.
        decay: of rational: the rate ends at peak_lr / (1 + decay).
        milestones: of step: fractions of the run, separated by spaces.
        factor: of step: what each milestone multiplies the rate by.
        cycle_steps: of triangular: updates in a cycle; default: a quarter of the run.
        base_lr: of triangular: the smallest rate.
        rise: of trapezoid: the length of the rise, as a fraction of the run.
        fall: of trapezoid: the length of the fall, as a fraction of the run.
        swa_lr: of swa: the rate at the end.
        swa_start: of swa: where the rate begins to change, as a fraction of the run.
        swa_end: of swa: where the rate has changed, as a fraction of the run.
        per_epoch: change the rate at epochs only.
    """

    schedule: str | None = None
    peak_lr: Annotated[
        Rate | None, _aliases("--peak-value", "--init-lr", "--init-value")
    ] = None
    start_lr: Annotated[Rate | None, _aliases("--start-value")] = None
    end_lr: Annotated[Rate | None, _aliases("--end-value")] = None
    variance: Positive | None = None
    scale: Positive | None = None
    decay: NotNegative | None = None
    milestones: tuple[Fraction, ...] | None = None
    factor: NotNegative | None = None
    cycle_steps: Count | None = None
    base_lr: Annotated[Rate | None, _aliases("--base-value")] = None
    rise: Fraction | None = None
    fall: Fraction | None = None
    swa_lr: Annotated[Rate | None, _aliases("--swa-value")] = None
    swa_start: Fraction | None = None
    swa_end: Fraction | None = None
    per_epoch: bool | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerFlags:
    """The optimizer.

    Attributes:
        optimizer: sgd, adam, adamw, rmsprop ... as Optax spells them.
        momentum: of sgd and rmsprop.
        nesterov: use Nesterov's momentum.
        weight_decay: L2 term (or the optimizer's own decay).
        decay_all: decay biases and batch norm too.
    """

    optimizer: str | None = None
    momentum: Fraction | None = None
    nesterov: bool | None = None
    weight_decay: NotNegative | None = None
    decay_all: bool | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopFlags:
    """Devices, and what is kept on the way.

    Attributes:
        num_devices: local devices to use; default: all.
        mapping: pmap or shard_map: how an update runs on several devices. The numbers
            are the same; default: pmap.
        matmul_precision: bfloat16, tensorfloat32 or float32: of an update's matrix
            products; default: JAX's own choice on the device. What is measured is
            always float32.
        log_every: updates over which training metrics are averaged; default: an epoch.
        checkpoint_every: updates between checkpoints; default: an epoch.
        snapshot_epochs: epochs after which a snapshot is kept for ever, besides
            initial, peak and final; separated by spaces.
        tensorboard: write metrics as TensorBoard's event files too, into the run
            directory; needs pip install 'lrscape[tensorboard]'.
    """

    num_devices: Count | None = None
    mapping: str | None = None
    matmul_precision: str | None = None
    log_every: Count | None = None
    checkpoint_every: Count | None = None
    snapshot_epochs: tuple[Count, ...] | None = None
    tensorboard: bool | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageLoopFlags(LoopFlags):
    """Devices, and what is kept on the way.

    Attributes:
        sync_batch_norm: batch norm over all devices together.
        scan_steps: updates in one compiled loop; default: 1 on CPU, 100 elsewhere.
    """

    sync_batch_norm: bool | None = None
    scan_steps: Count | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommonArguments(RunFlags, ScheduleFlags, OptimizerFlags, LoopFlags):
    """Flags of every training experiment; None means "from the preset".

    Attributes:
        GROUPS: the groups, as ``--help`` shows them in order.
    """

    GROUPS: ClassVar[tuple[tuple[str, type], ...]] = (
        ("run", RunFlags),
        ("schedule", ScheduleFlags),
        ("optimizer", OptimizerFlags),
        ("loop", LoopFlags),
    )

    def given(self) -> dict[str, Any]:
        """The flags that describe the run and were given, as JSON holds them."""
        about_the_call = (
            "preset", "run_dir", "resume", "extend", "data_dir", "debug",
            "coordinator", "num_processes", "process_id", "seeds", "replicas",
            "tensorboard",
        )  # fmt: skip
        return {
            field: list(value) if isinstance(value, tuple) else value
            for field, value in vars(self).items()
            if value is not None and field not in about_the_call
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments, DataFlags, TrainingFlags, ImageLoopFlags):
    """Flags of training on images; None means "from the preset"."""

    GROUPS: ClassVar[tuple[tuple[str, type], ...]] = (
        ("run", RunFlags),
        ("data", DataFlags),
        ("training", TrainingFlags),
        ("schedule", ScheduleFlags),
        ("optimizer", OptimizerFlags),
        ("loop", ImageLoopFlags),
    )
