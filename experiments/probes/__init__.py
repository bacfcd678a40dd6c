"""The probes of `experiments.survey`: each measures runs and shows what it saw.

A probe takes the survey that was asked for and returns labelled arrays, a few numbers
that sum them up, and figures.
"""

from __future__ import annotations

from collections.abc import Callable

from experiments.probes.curvature import curvature, sharpness
from experiments.probes.networks import distance, flatness
from experiments.probes.surfaces import barycentric, bilinear, line, path, plane
from experiments.probes.survey import Found as Found
from experiments.probes.survey import Settings as Settings
from experiments.probes.survey import Survey as Survey
from experiments.probes.walk import walk

PROBES: dict[str, Callable[[Survey], Found]] = {
    "line": line,
    "plane": plane,
    "path": path,
    "barycentric": barycentric,
    "bilinear": bilinear,
    "walk": walk,
    "flatness": flatness,
    "distance": distance,
    "curvature": curvature,
    "sharpness": sharpness,
}
