"""Every setting of every paper's preset says where it comes from."""

import contextlib
import dataclasses
import functools
import io
import re

import pytest

from experiments.harness.commands import module_of
from experiments.harness.paper import Paper, PaperArguments, make
from experiments.harness.sources import Source, ours, settings_table
from lrscape.errors import InputError

PAPERS = (
    "nonmonotonic", "loss_surfaces", "walk_with_sgd", "asymmetric_valleys",
    "lipschitz_rate",
)  # fmt: skip


@functools.cache
def printed(name, preset="paper"):
    """What the command prints, and its exit status."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        status = module_of(name).main(["settings", f"--preset={preset}"])
    return status, text.getvalue()


def rows_of(text):
    """The cells of each row that is printed, by the setting's name."""
    lines = [re.split(r"\s{2,}", line) for line in text.splitlines()]
    assert lines[0] == ["setting", "paper", "preset", "source"]
    assert all(len(line) == 4 and all(line) for line in lines)
    return {line[0]: line[1:] for line in lines[1:]}


def plans_of(name):
    """The paper, and the dataclasses of its preset by name."""
    module = module_of(name)
    arguments = module.Arguments(item="settings", preset="paper")
    return module.PAPER, module.PAPER.plans_of(module.lab_of(arguments))


@pytest.mark.parametrize("name", PAPERS)
def test_every_setting_has_a_source_and_no_source_is_left_over(name):
    paper, plans = plans_of(name)
    settings = {
        f"{plan}.{field.name}": field.name
        for plan, held in plans.items()
        for field in dataclasses.fields(held)
    }
    table = settings_table(plans, paper.sources)
    assert [row["setting"] for row in table] == list(settings)
    used = {s if s in paper.sources else field for s, field in settings.items()}
    assert set(paper.sources) == used
    for setting, source in paper.sources.items():
        assert source.paper and source.where, setting
        # The reason, where it is ours.
        assert source.where.removeprefix("ours:").strip(), setting


@pytest.mark.parametrize("name", PAPERS)
def test_the_command_prints_the_preset(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, text = printed(name)
    assert status == 0 and not list(tmp_path.iterdir())
    rows, checked = rows_of(text), 0
    paper, plans = plans_of(name)
    for plan, held in plans.items():
        for field in dataclasses.fields(held):
            setting, value = f"{plan}.{field.name}", getattr(held, field.name)
            source = paper.sources.get(setting) or paper.sources[field.name]
            assert rows[setting][::2] == list(source)
            if isinstance(value, int | float) and not isinstance(value, bool):
                assert float(rows[setting][1]) == pytest.approx(value)
                checked += 1
            elif isinstance(value, str):
                assert rows[setting][1] == value
    assert checked


def test_the_paper_s_own_batch_size_is_printed():
    assert rows_of(printed("walk_with_sgd")[1])["vgg11.batch_size"] == [
        "100", "100", "Sec. 3",
    ]  # fmt: skip


def test_another_preset_says_whose_sources_are_shown():
    status, text = printed("walk_with_sgd", "quick")
    *table, note = text.splitlines()
    assert status == 0 and "preset paper" in note
    assert rows_of("\n".join(table))["mlp.seeds"][1] == "5"


@dataclasses.dataclass
class Plan:
    rate: float = 0.1
    batch_size: int = 100


def test_a_plan_s_own_source_comes_before_that_of_all():
    plans = {"a": Plan(), "b": Plan(rate=0.2)}
    sources = {
        "rate": Source("0.1", "Sec. 1"), "b.rate": ours("a budget", "0.1"),
        "batch_size": Source("100", "Sec. 2"),
    }  # fmt: skip
    found = {row["setting"]: row for row in settings_table(plans, sources)}
    assert found["a.rate"]["source"] == "Sec. 1"
    assert found["b.rate"] == {
        "setting": "b.rate", "paper": "0.1", "preset": "0.2", "source": "ours: a budget"
    }  # fmt: skip
    del sources["batch_size"]
    with pytest.raises(KeyError, match=r"a\.batch_size has no source"):
        settings_table(plans, sources)


def test_a_paper_without_plans_says_so():
    paper = Paper("none", "", PaperArguments, {}, *[None] * 3)
    with pytest.raises(InputError, match="none does not list its settings"):
        make(paper, {}, PaperArguments(item="settings"), None)
