"""Measuring claims: part by part, each kept on disk once it is done."""

from __future__ import annotations

import dataclasses
import importlib
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from experiments.claims.registry import EXPERIMENTS
from experiments.harness.commands import module_of
from experiments.harness.filing import check_own
from experiments.harness.paper import compiled_once
from experiments.harness.statistics import Claim, Condition
from lrscape.environment import describe
from lrscape.errors import InputError
from lrscape.reading import Reader
from lrscape.records import Records

# The number of a paper -> what judges it.
MODULES = {
    "1": "experiments.nonmonotonic.claims",
    "2": "experiments.loss_surfaces.claims",
    "3": "experiments.walk_with_sgd.claims",
    "4": "experiments.asymmetric_valleys.claims",
    "5": "experiments.lipschitz_rate.claims",
}

# Papers whose claims are about several networks.
SEVERAL = ("3",)

# Seeds of the preset quick where its tables and figures have fewer than verdicts need.
SEEDS = {"4": 5}

# What measuring takes where nothing is trained yet, in minutes on one CPU core, by the
# preset quick.
MINUTES = {
    "lemma": 1, "curvature": 13, "flatness": 12, "accuracy": 14, "gradients": 8,
    "sweeping": 10, "ensembles": 14, "tables_of": 16, "barriers": 4, "trajectory": 4,
    "height": 4, "angle": 1, "spectral": 2, "noisy": 4, "decomposition": 3,
    "schedules": 4, "small_rate": 3, "premises": 8, "stated": 1,
    "adaptive_against_fixed": 18, "rates": 6, "accuracies": 5, "costs": 14, "safe": 12,
    "minima": 4, "quality": 2, "shapes": 2, "switched": 8, "normed": 3,
    "runge_kutta": 3, "beyond": 2, "extremes": 2, "asymmetric": 6, "theorems": 1,
    "average_and_sgd": 4, "batch_sizes": 9, "batch_norm": 6,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Part:
    """Claims that are measured together.

    Attributes:
        paper: its number.
        name: of the function that measures it.
        claims: their names.
        models: networks of paper 3 that are looked at; empty: those of the preset.
    """

    paper: str
    name: str
    claims: tuple[str, ...]
    models: tuple[str, ...] = ()

    @property
    def minutes(self) -> float:
        """What it takes where nothing is trained yet."""
        return MINUTES.get(self.name, 10)

    @property
    def file(self) -> str:
        """The name under which its result is kept."""
        return "-".join(["part", self.paper, self.name, *self.models])

    def measure(self, lab: Any) -> list[Claim]:
        """Trains what is missing, and measures."""
        found = importlib.import_module(MODULES[self.paper]).PARTS
        function = next(one for one in found if one.__name__ == self.name)
        return function(lab)


def parts_of(names: Iterable[str], models: tuple[str, ...] = ()) -> list[Part]:
    """The parts that measure claims, the cheapest first.

    Args:
        names: of claims; those that nothing measures are left out.
        models: of those papers that look at several networks, see `Part`.
    """
    wanted = set(names)
    found = [
        Part(paper, function.__name__, claims, models if paper in SEVERAL else ())
        for paper, module in MODULES.items()
        for function, claims in importlib.import_module(module).PARTS.items()
        if wanted & set(claims)
    ]
    return sorted(found, key=lambda part: part.minutes)


def chosen_models(
    preset: str, data_dir: Path | None, models: Iterable[str]
) -> tuple[str, ...]:
    """Networks each once, in one order; none where they are those of the preset.

    Raises:
        InputError: a network that a paper has not.

    Example:
        >>> chosen_models("quick", None, ["mlp"])
        ()
        >>> chosen_models("quick", None, ["vgg11", "mlp", "mlp"])
        ('mlp', 'vgg11')
    """
    chosen = tuple(sorted(set(models)))
    for paper in SEVERAL if chosen else ():
        lab = paper_lab(paper, preset, data_dir, chosen)
        preset_s = dataclasses.replace(lab, models=()).models_of("claims")
        if chosen == tuple(sorted(preset_s)):
            return ()
    return chosen


def paper_lab(
    paper: str, preset: str, data_dir: Path | None, models: tuple[str, ...] = ()
) -> Any:
    """A paper's laboratory: its settings, and where its networks are kept.

    Raises:
        InputError: a network that the paper has not.
    """
    module = module_of(EXPERIMENTS[paper])
    chosen: dict[str, Any] = {"models": models} if models else {}
    if preset == "quick" and paper in SEEDS:
        chosen["seeds"] = SEEDS[paper]
    return module.lab_of(
        module.Arguments(item="claims", preset=preset, data_dir=data_dir, **chosen)
    )


def datasets_of(
    paper: str, preset: str, data_dir: Path | None, parts: Iterable[Part]
) -> dict[str, str]:
    """A paper's data sets, each with the one that is taken for it.

    Args:
        paper: its number.
        preset: quick or paper.
        data_dir: of the data sets.
        parts: those that are measured.

    Raises:
        InputError: one is not in `data_dir`, where digits would stand in for it.
    """
    models = next((part.models for part in parts if part.paper == paper), ())
    lab = paper_lab(paper, preset, data_dir, models)
    module = module_of(EXPERIMENTS[paper])
    return module.PAPER.datasets_of(lab, "claims")


def measured(part: Part, records: Records, preset: str) -> dict[str, Any] | None:
    """What was kept of a part, or None.

    Raises:
        InputError: it was changed on disk, or is not what `measure` keeps.
    """
    found = records.load_result_summary(part.file)
    if found is None:
        return None
    try:
        claims_in(found)
        is_ours = {"seconds", "scale"} <= found.keys()
        is_of_preset = found["preset"] == preset
    except (KeyError, TypeError, AttributeError):
        is_ours = False
    if not is_ours:
        raise InputError(
            f"{records.path / 'results' / part.file}.json is no result of a claim"
        )
    return found if is_of_preset else None


def of_other_models(part: Part, records: Records) -> list[Part]:
    """The part as it was kept of other networks of its paper, the newest first."""
    if part.paper not in SEVERAL:
        return []
    alone = dataclasses.replace(part, models=())
    folder = records.path / "results"
    files = [
        file
        for file in Reader(records.path).entries(folder)
        if file.suffix == ".json" and file.name.startswith(alone.file)
    ]
    found = [
        dataclasses.replace(part, models=tuple(file.stem.split("-")[3:]))
        for file in sorted(files, key=lambda file: -file.lstat().st_mtime)
    ]
    return [one for one in found if one != part]


def measure(
    part: Part, records: Records, preset: str, data_dir: Path | None
) -> dict[str, Any]:
    """Measures a part and keeps it.

    Returns:
        ``claims`` (see `claims_in`), ``seconds``, ``scale`` (networks, data and
        samples in words), and what it was measured on.
    """
    lab = paper_lab(part.paper, preset, data_dir, part.models)
    check_own(lab.root, {"paper": EXPERIMENTS[part.paper], "preset": preset})
    scale = importlib.import_module(MODULES[part.paper]).scale_of(lab)
    jax.clear_caches()
    started = time.monotonic()
    with compiled_once():
        claims = part.measure(lab)
    found = {
        "preset": preset,
        "scale": scale,
        "claims": [as_dict(claim) for claim in claims],
        "models": list(part.models),
        "seconds": round(time.monotonic() - started, 1),
        "networks": str(lab.root),
        **describe(jax.local_devices()),
    }
    records.save_result_summary(part.file, found)
    return found


def as_dict(claim: Claim) -> dict[str, Any]:
    """A claim as JSON holds it, every value of every seed in it."""
    conditions = [
        {
            "name": condition.name,
            "values": [float(value) for value in condition.values],
            "shown": condition.shown,
            "p_values": condition.p_values and list(condition.p_values),
            "effect": condition.effect,
        }
        for condition in claim.conditions
    ]
    return {**claim._asdict(), "conditions": conditions}


def claims_in(found: Mapping[str, Any]) -> list[Claim]:
    """The claims of a part that was kept."""
    return [
        Claim(
            **{**claim, "conditions": [Condition(**one) for one in claim["conditions"]]}
        )
        for claim in found["claims"]
    ]
