"""Where each setting of paper 1's preset `paper` comes from."""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments.harness.sources import Source, ours
from experiments.nonmonotonic.lab import Lab


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """The settings that belong to no plan, see `Settings`.

    Attributes:
        ensemble: networks by each rule that ensembles are drawn from.
        draws: of Lemma 1.
    """

    ensemble: int
    draws: int


def plans_of(lab: Lab) -> dict[str, Any]:
    """The dataclasses that hold the settings, by name."""
    settings = lab.settings
    return {
        **settings.plans,
        "survey": settings.survey,
        "sweep": settings.sweep,
        "counts": Counts(ensemble=settings.ensemble, draws=settings.draws),
    }


def _of(*plans: str, **fields: Source) -> dict[str, Source]:
    """The sources of some plans' fields."""
    return {
        f"{plan}.{field}": source for plan in plans for field, source in fields.items()
    }


def _cited(where: str, paper: str = "-") -> Source:
    return Source(paper, where)


# The text's reference for its small model, and the layers that were published with it.
_CONVNET = _cited("cuda-convnet's 18 % network, of Krizhevsky et al. (2012)")
_ALL_CNN = _cited("Springenberg et al. (2014)")
_LIN = _cited("Lin et al. (2013)")
_HE = _cited("He et al. (2016)")
_HUANG = _cited("Huang et al. (2017)")
_ZAGORUYKO = _cited("Zagoruyko and Komodakis (2016)")
_KRIZHEVSKY = _cited("Krizhevsky et al. (2012), Sec. 5")
_SZEGEDY = _cited("Szegedy et al. (2014), Sec. 6")

_NINS = ("nin", "nin_cifar10")
_RESNETS = ("resnet110_cifar10", "resnet110_cifar100")
_DENSENETS = ("densenet100_cifar100", "densenet190_cifar100")
_WRN = "wrn28_10_cifar100"
_ALEXNETS = ("alexnet", "alexnet_180", "alexnet_naive")
_INCEPTIONS = ("googlenet", "bn_inception")
_IMAGENET = (*_ALEXNETS, *_INCEPTIONS)

_BUDGET = ours("a budget")
_UNUSED = ours("without effect: one rate throughout, that of the peak")
_CIFAR = Source("CIFAR-10 and CIFAR-100", "Table 3")
_PEAK = Source("0.3", "Sec. 7.2")
_VARIANCE = Source("2 * 0.08^2", "Sec. 7.2")
_AS_MNIST = Source("as of MNIST: 0.3", "Sec. 7.2")
_VARIANCE_AS_MNIST = Source("as of MNIST: 2 * 0.08^2", "Sec. 7.2")
# Of Gaussians that are cut at their start: none is given, and the last rate sets it.
_LAST_RATE = Source("by the last rate, the peak / 10,000", "Sec. 5 and Sec. 7")
_UNWHITENED = "as Lin, Zeiler and Fergus, Goodfellow et al.: Sec. 7.2"
_NO_RELU = ours("no last ReLU: it may shut off every output at such rates")

_PLANS = {
    "examples": ours("all; the text names no part"),
    "validation": ours("none held out; the text names no part"),
    "test": ours("all; the text names no part"),
    "model_options": ours("none: the network as it was published"),
    "seeds": ours("a budget; the text does not give how many it trained"),
    "rule": Source("Gaussian", "Sec. 5"),
    "rates": ours("none: the step rule is not tuned here"),
    "dense_decay": ours("none of their own; the text names none"),
    "bias_rate": ours("that of weights; the text names none"),
    "gradient_examples": ours("none: Fig. 5's gradients are of small and large"),
    "looked_at": ours("none: Eq. 13 is measured of small and of descent"),
    "keeps_peak": ours("kept and not looked at: Sec. 6.1's peak is of small"),
    "image_size": ours("none: images are held in memory, as large as they are"),
    "crop": ours("none: images are held in memory, as large as they are"),
    "top5": ours("no; errors are taken for those of one label"),
}

_FIGURES = {
    **_of(
        "small",
        model=ours(
            "taken for cuda-convnet's 18 % network, by its errors",
            "small model, of Krizhevsky et al. (2012): Sec. 7",
        ),
        dataset=Source("CIFAR-10", "Sec. 7"),
        model_options=_CONVNET,
        batch_size=_KRIZHEVSKY,
        epochs=Source("360", "Table 1"),
        start=_cited(_CONVNET.where, "the step rule's largest: Sec. 7"),
        peak=ours(
            "ten times the start, within the text's 0.002 to 0.015",
            "three times the start, or more: Sec. 7",
        ),
        variance=_LAST_RATE,
        rates=ours("the start and the sweep's peaks; the text gives none it tried"),
        milestones=_CONVNET,
        momentum=_CONVNET,
        weight_decay=_CONVNET,
        dense_decay=_CONVNET,
        bias_rate=_CONVNET,
        augment=ours("none; the text names none for this network"),
        normalize=_CONVNET,
        gradient_examples=_BUDGET,
        looked_at=ours("the text measures no curvature; denser at first"),
        keeps_peak=Source("the peak's weights", "Sec. 6.1"),
    ),
    **_of(
        "large",
        model=ours(
            "taken for All-CNN-C, one of the networks there",
            "large model, of Springenberg et al. (2014): Sec. 7",
        ),
        dataset=Source("CIFAR-10", "Sec. 7"),
        model_options=ours(
            "no last ReLU: nine of ten outputs were shut off after 20 updates"
        ),
        batch_size=ours("neither the text nor Springenberg et al. name one"),
        epochs=_ALL_CNN,
        start=ours(
            "one of Springenberg et al.'s four; the best is not published",
            "the step rule's largest: Sec. 7",
        ),
        peak=Source("three times the start, or more", "Sec. 7"),
        variance=_LAST_RATE,
        rates=_ALL_CNN,
        milestones=_ALL_CNN,
        momentum=_ALL_CNN,
        weight_decay=_ALL_CNN,
        augment=ours("none; the text names none for this network"),
        normalize=_ALL_CNN,
        gradient_examples=_BUDGET,
    ),
    **_of(
        "descent",
        model=ours("the small model; the text's Eq. 13 has no experiment"),
        dataset=ours("that of the small model"),
        model_options=ours(
            "weights are drawn by their inputs: pixels are standardised"
        ),
        examples=ours("a budget: all are one batch"),
        validation=ours("without effect: nothing is chosen on them"),
        test=ours("a budget: Eq. 13 is not about errors"),
        batch_size=ours("without effect: all examples are one batch"),
        epochs=ours("a budget; each is one update"),
        seeds=ours("a budget; the text's Eq. 13 has no experiment"),
        start=_UNUSED,
        peak=ours("the text's Eq. 13 has no experiment"),
        rule=ours("without effect: one rate throughout, as Eq. 11 has it"),
        variance=_UNUSED,
        rates=_UNUSED,
        milestones=_UNUSED,
        momentum=Source("none", "Eq. 8"),
        weight_decay=Source("none", "Eq. 8"),
        augment=Source("none", "Eq. 6 and Eq. 8"),
        normalize=ours("it suits weights that are drawn by their inputs"),
        looked_at=ours("nine points, evenly spaced"),
    ),
}

_MNIST_AND_CIFAR = {
    **_of(
        *_NINS,
        model_options=_NO_RELU,
        batch_size=_LIN,
        start=ours("a third of the peak; the step rule alone starts there"),
        milestones=ours("Lin et al. fall twice, but do not say at which epochs"),
        momentum=_cited("Lin et al. (2013), in their published definitions"),
        weight_decay=ours(
            "the text names none; Lin et al.'s definitions have 0.001 and 0.0001"
        ),
    ),
    **_of(
        "nin",
        model=Source("NIN", "Table 2"),
        dataset=Source("MNIST", "Sec. 7.2"),
        epochs=Source("167", "Sec. 7.2"),
        peak=_PEAK,
        variance=_VARIANCE,
        augment=Source("none", "Table 2's caption"),
        normalize=ours("the text names none for MNIST"),
    ),
    **_of(
        "nin_cifar10",
        model=Source("NIN", "Table 3"),
        dataset=Source("CIFAR-10", "Table 3"),
        epochs=Source("720", "Sec. 7.2"),
        augment=_cited("Lin et al. (2013), whose 8.81 % is in Table 3"),
        normalize=Source("as Lin, Zeiler and Fergus, Goodfellow et al.", "Sec. 7.2"),
    ),
    **_of(
        *_RESNETS,
        model=Source("ResNet of He et al. (2016), 110 deep", "Table 3"),
        dataset=_CIFAR,
        model_options=_cited("He et al. (2016): basic blocks, 1.7 million parameters"),
        batch_size=_HE,
        epochs=Source("270", "Sec. 7.2"),
        seeds=ours("a budget", "several, by their ±: Table 3"),
        start=_cited("He et al. (2016); the step rule alone starts there"),
        milestones=_HE,
        momentum=_HE,
        weight_decay=_HE,
        augment=Source("colour jitter too", "Sec. 7.2; the rest: He et al. (2016)"),
        normalize=ours("jitter needs pixels that are not whitened", _UNWHITENED),
    ),
    **_of(
        *_DENSENETS,
        dataset=Source("CIFAR-100", "Table 3"),
        batch_size=_HUANG,
        epochs=_HUANG,
        start=_cited("Huang et al. (2017); the step rule alone starts there"),
        milestones=_HUANG,
        momentum=_HUANG,
        weight_decay=_HUANG,
        augment=_HUANG,
        normalize=ours("one way for all deep networks but NIN", _UNWHITENED),
    ),
    **_of("densenet100_cifar100", model=Source("DenseNet-BC (100, 12)", "Table 3")),
    **_of("densenet190_cifar100", model=Source("DenseNet-BC (190, 40)", "Table 3")),
    **_of("nin_cifar10", *_RESNETS, *_DENSENETS, peak=_AS_MNIST),
    **_of("nin_cifar10", *_RESNETS, *_DENSENETS, variance=_VARIANCE_AS_MNIST),
    **_of(
        _WRN,
        model=Source("WRN-28-10-dropout", "Table 3"),
        dataset=Source("CIFAR-100", "Table 3"),
        model_options=Source("dropout 0.3", "Sec. 7.2"),
        batch_size=_ZAGORUYKO,
        epochs=_cited(_ZAGORUYKO.where, "exceptionally few: Sec. 7.2"),
        start=_ZAGORUYKO,
        peak=Source("twice the start", "Sec. 7.2"),
        variance=_VARIANCE_AS_MNIST,
        milestones=_cited(f"{_ZAGORUYKO.where}; here ten-fold, there five-fold"),
        momentum=_ZAGORUYKO,
        weight_decay=_ZAGORUYKO,
        augment=_ZAGORUYKO,
        normalize=ours("one way for all deep networks but NIN", _UNWHITENED),
    ),
    **_of(
        "nin_cifar10", *_RESNETS, *_DENSENETS, _WRN,
        keeps_peak=ours("no: Sec. 6.1's peak is of small"),
    ),
}  # fmt: skip

_IMAGES = {
    **_of(
        *_IMAGENET,
        dataset=Source("ImageNet", "Table 4"),
        test=Source("the validation images", "Table 4's caption"),
        start=Source("0.01", "Sec. 7.2"),
        peak=Source("0.03", "Sec. 7.2"),
        variance=Source("by the last rate, 0.000003", "Sec. 7.2"),
        keeps_peak=ours("no: Sec. 6.1's peak is of small"),
        top5=ours("by their size the text's are such errors", "error: Table 4"),
    ),
    **_of(
        *_ALEXNETS,
        model=Source("that of Krizhevsky et al. (2012)", "Sec. 7.2"),
        batch_size=_KRIZHEVSKY,
        milestones=ours(
            "three ten-fold falls, Krizhevsky et al. (2012), Sec. 5; evenly spaced"
        ),
        momentum=_KRIZHEVSKY,
        weight_decay=_KRIZHEVSKY,
        augment=ours("mirrored by the crop; Krizhevsky et al.'s colours are left out"),
        normalize=_cited("Krizhevsky et al. (2012), Sec. 2"),
        image_size=_cited("Krizhevsky et al. (2012), Sec. 4.1"),
        crop=_cited("Krizhevsky et al. (2012), Sec. 4.1"),
    ),
    **_of(
        *_INCEPTIONS,
        batch_size=ours("the text names none"),
        epochs=Source("80", "Table 4"),
        milestones=ours("those of AlexNet; the text does not say when rates fall"),
        augment=ours("mirrored by the crop; changes of colours are left out"),
    ),
    **_of("alexnet", epochs=Source("90", "Table 4")),
    **_of("alexnet_180", epochs=Source("180", "Table 4")),
    **_of(
        "alexnet_naive",
        epochs=Source("270", "Sec. 7.2"),
        start=ours("as of the others; the step rule alone starts there"),
        peak=ours("as of the others; the text gives none for this one"),
        variance=Source("0.0128, not cut", "Sec. 7.2"),
    ),
    **_of(
        "googlenet",
        model=Source("that of Szegedy et al. (2014)", "Sec. 7.2"),
        momentum=_SZEGEDY,
        weight_decay=ours("the text names none"),
        normalize=ours("as of AlexNet; the text names none"),
        image_size=_cited("Szegedy et al. (2014), Sec. 5"),
        crop=_SZEGEDY,
    ),
    **_of(
        "bn_inception",
        model=ours("taken for that of Ioffe and Szegedy (2015)",
                   "BatchNormalization: Table 4"),
        momentum=ours("the text names none"),
        weight_decay=ours("as of AlexNet; the text names none"),
        normalize=ours("the text names none"),
        image_size=ours("as of GoogLeNet"),
        crop=_cited("Ioffe and Szegedy (2015), Sec. 4.2.1"),
    ),
}  # fmt: skip

_OTHERS = {
    **_of(
        "survey",
        examples=ours("a budget", "the training set: Sec. 6.1"),
        points=ours("a budget; curves are smooth"),
        directions=ours("a budget; the text does not give how many it drew"),
        noise=ours(
            "pixels are on their scale of 0 to 255; the text gives no range",
            "lengths of alpha, of noise of norm 1: Sec. 6.2",
        ),
        weights=ours("the text gives no length"),
        relative=ours("as long as each filter's weights; not a measure of the text"),
        fooling=ours("a budget; the text does not give how many it took"),
        curvature=ours("a budget; the text measures no curvature"),
    ),
    **_of(
        "sweep",
        examples=ours("all; the text names no part"),
        seeds=_BUDGET,
        totals=ours("up to Table 1's 360; the text lists none of its own"),
        starts=ours("the text names no values for its slow start"),
        peaks=ours(
            "two more in between, and no finer: a budget", "0.002 to 0.015: Sec. 7"
        ),
        epochs=ours("a budget; the text names none for its slow start"),
        random=ours("a budget", "numerous: Sec. 7"),
    ),
    **_of(
        "counts",
        ensemble=ours("to draw its 1 to 5 from more than once", "1 to 5: Table 1"),
        draws=ours("the text proves Lemma 1 and draws nothing"),
    ),
}

# By a plan's name and a field, or by a field of all plans that have none of their own.
SOURCES: dict[str, Source] = {
    **_PLANS,
    **_FIGURES,
    **_MNIST_AND_CIFAR,
    **_IMAGES,
    **_OTHERS,
}
