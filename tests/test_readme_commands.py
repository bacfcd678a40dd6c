"""The commands of README and guide: each is read by the program that it names."""

import re
import shlex
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from experiments import results_table
from experiments.harness import kinds
from experiments.harness.commands import module_of
from experiments.harness.train import main

ROOT = Path(__file__).parents[1]
TEXT = "\n".join(
    (ROOT / name).read_text("utf-8") for name in ("README.md", "docs/guide.md")
)
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL))
COMMANDS = [
    shlex.split(line)
    for line in dict.fromkeys(
        line.partition("#")[0].strip()
        for line in re.findall(r"^(?:srun )?python -m (experiments\.\w.*)", SHELL, re.M)
    )
    if not re.search("--help|completion", line)
]
# What a program does once it has read its command line, and what that returns.
DOES = {
    "sweep": ("sweep", None), "survey": ("survey", None), "launch": ("launch", 0),
    "docs": ("build", []), "augmentations": ("sheet", MagicMock()),
}  # fmt: skip
TRAINING = ("cifar", "digits", "mnist", "imagenet", "language")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_is_understood(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DIR").mkdir()  # where a command says that data are
    name, given = command[0].partition(".")[2], command[1:]
    module = module_of(name)
    # Data that may not be prepared, and processes that are not there.
    given = [re.sub("^--dataset=cifar10$", "--dataset=digits", word) for word in given]
    given = [word for word in given if not word.startswith("--coordinator")]
    called = MagicMock()

    def trained(experiment, presets, arguments, kind=kinds.IMAGES):
        fields = arguments.given()
        preset = arguments.preset or "quick"
        kind.resolve(experiment, presets, preset, fields, arguments.data_dir)
        called(arguments)
        return 0

    if given[:1] == ["line"]:
        monkeypatch.setattr("experiments.language.lines.run", called)
    elif name in TRAINING:
        monkeypatch.setattr("experiments.harness.train.train", trained)
    elif name in DOES:
        called.return_value = DOES[name][1]
        monkeypatch.setattr(module, DOES[name][0], called)
    elif hasattr(module, "PAPER"):
        monkeypatch.setattr("experiments.harness.paper.make", called)
    else:
        monkeypatch.setattr(module, "run", called)
    if name in TRAINING and name != "language":
        assert main(name, module.__doc__, module.PRESETS, given) == 0
    else:
        assert not module.main(given)
    called.assert_called()


def test_all_kinds_of_commands_are_there():
    named = {command[0].partition(".")[2] for command in COMMANDS}
    papers = set(results_table.PAPERS)
    assert papers | set(TRAINING) - {"mnist"} | {"claims", "report", "survey"} <= named


def test_the_results_are_those_of_the_files():
    text = results_table.README.read_text("utf-8")
    assert results_table.inserted(text, results_table.results_table()) == text
    assert results_table.details_page() == results_table.DETAILS.read_text("utf-8")


def test_links_of_the_results_lead_somewhere():
    text = (results_table.ROOT / "README.md").read_text("utf-8")
    for target in re.findall(r"\]\((?!http)([^)]+)\)", text):
        assert (results_table.ROOT / target).exists(), target
