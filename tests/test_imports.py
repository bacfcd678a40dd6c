"""Imports go one way: which part of the repository may know of which."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# One paper each, of which no other paper and nothing that trains one network knows.
PAPERS = (
    "experiments.asymmetric_valleys",
    "experiments.lipschitz_rate",
    "experiments.loss_surfaces",
    "experiments.nonmonotonic",
    "experiments.walk_with_sgd",
)
# From what knows of all to what knows of none; a row knows of the rows below it alone.
ORDER = (
    ("experiments.bench", "experiments.claims", "experiments.results_table"),
    PAPERS,
    (
        "experiments.cifar",
        "experiments.digits",
        "experiments.imagenet",
        "experiments.language",
        "experiments.launch",
        "experiments.mnist",
        "experiments.report",
        "experiments.survey",
        "experiments.sweep",
        "experiments.tiny_imagenet",
    ),
    ("experiments.harness", "experiments.probes"),
    ("lrscape.report",),
    ("lrscape.figures",),
    ("lrscape.runs", "lrscape.run_fields"),
    ("lrscape.training",),
    ("lrscape.models", "lrscape.data"),
)
# These know of no part above.
APART = ("lrscape.landscape", "lrscape.schedules", "lrscape.transforms")
# Transformations that papers propose, of which training knows nothing.
OF_PAPERS = (
    "lrscape.transforms",
    "lrscape.transforms.lipschitz",
    "lrscape.transforms.runge_kutta",
)


def module_name(file):
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(
        ".__init__"
    )


FILES = {
    module_name(file): file
    for package in ("lrscape", "experiments")
    for file in sorted((ROOT / package).rglob("*.py"))
}


def imports_of(name):
    """The modules that a module names in an import, in functions and for types too."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in FILES else node.module)
    # `lrscape` itself has a version, and imports its parts when they are first used.
    return {module for module in found if module in FILES} - {"lrscape"}


GRAPH = {name: imports_of(name) for name in FILES if name != "lrscape"}


def reached_from(name, graph=GRAPH):
    """Every module that a module's imports lead to, with a way there."""
    ways, todo = {name: (name,)}, [name]
    while todo:
        here = todo.pop()
        for other in sorted(graph[here]):
            if other not in ways:
                ways[other] = (*ways[here], other)
                todo.append(other)
    return ways


def lies_in(name, parts):
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def ways_into(parts, forbidden):
    return [
        " -> ".join(way)
        for name in GRAPH
        if lies_in(name, parts)
        for other, way in reached_from(name).items()
        if lies_in(other, forbidden) and not lies_in(other, parts)
    ]


@pytest.mark.parametrize("row", range(1, len(ORDER)))
def test_no_part_imports_what_is_above_it(row):
    above = [part for parts in ORDER[:row] for part in parts]
    assert not ways_into(ORDER[row], above)


@pytest.mark.parametrize("paper", PAPERS)
def test_no_paper_imports_another(paper):
    assert not ways_into((paper,), [other for other in PAPERS if other != paper])


def test_every_file_of_the_experiments_has_its_place():
    rows = [part for parts in ORDER[:4] for part in parts]
    rest = {name for name in GRAPH if lies_in(name, ("experiments",))}
    assert {name for name in rest if not lies_in(name, rows)} == {
        "experiments", "experiments.__main__", "experiments.augmentations",
        "experiments.docs",
    }  # fmt: skip


def test_models_and_data_are_independent():
    models, data = ORDER[-1]
    assert not ways_into((models,), (data,)) + ways_into((data,), (models,))


@pytest.mark.parametrize("part", APART)
def test_steering_and_surveying_import_no_part_of_training(part):
    assert not ways_into((part,), [name for parts in ORDER for name in parts])


def test_training_knows_of_no_landscape_and_of_no_papers_transformation():
    assert not ways_into(("lrscape.training",), ("lrscape.landscape",))
    found = {
        (name, other)
        for name in GRAPH
        if lies_in(name, ("lrscape.training",))
        for other in GRAPH[name]
        if other in OF_PAPERS
    }
    assert not found


def test_schedules_transformations_and_the_landscape_import_none_of_one_another():
    assert not ways_into(("lrscape.schedules",), ("lrscape.landscape", APART[2]))
    assert not ways_into(("lrscape.transforms",), ("lrscape.landscape",))
    assert not ways_into(("lrscape.landscape",), APART[1:])


@pytest.mark.parametrize("package", ["lrscape", "experiments"])
def test_no_modules_import_in_a_circle(package):
    inside = {
        name: {other for other in others if lies_in(other, (package,))}
        for name, others in GRAPH.items()
        if lies_in(name, (package,))
    }
    circles = {
        " -> ".join((*reached_from(other, inside)[name], other))
        for name, others in inside.items()
        for other in others
        if name in reached_from(other, inside)
    }
    assert not circles
