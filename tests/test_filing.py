"""Results that overwrite nothing, and directories that keep to what made them."""

import dataclasses
import json

import matplotlib.pyplot as plt
import pytest
import xarray as xr

from experiments.harness import filing, stand_ins
from experiments.harness.paper import Result, save
from experiments.loss_surfaces import __main__ as loss_surfaces
from experiments.nonmonotonic import __main__ as nonmonotonic
from lrscape.errors import InputError
from lrscape.records import Records


def kept(root, item, differs, value):
    """Files a result as papers do; its name."""
    records = Records(root)
    figure = plt.figure(figsize=(1, 1))
    found = Result([{"value": value}], xr.Dataset({"x": value}), {"line": figure})
    name = filing.place(records, item, differs)
    save(records, name, found, {"differs": differs, "dataset": "digits"})
    plt.close(figure)
    return name


def value_of(root, name):
    return Records(root).load_result_summary(name)["rows"][0]["value"]


def test_nothing_overwrites_another(tmp_path):
    rows = [{"model": "mlp"}, {"model": "nin"}, {"rows": ["a", "b"]}, {"rows": ["a"]}]
    names = [kept(tmp_path, "table3", differs, n) for n, differs in enumerate(rows)]
    assert len(set(names)) == 4 and names[0] == "table3"
    assert [value_of(tmp_path, name) for name in names] == [0, 1, 2, 3]
    # The same again takes its own place.
    assert kept(tmp_path, "table3", {"model": "nin"}, 9) == names[1]
    assert value_of(tmp_path, names[1]) == 9 and value_of(tmp_path, "table3") == 0
    # The default settings have the short name, and what had it moves with its figures.
    assert kept(tmp_path, "table3", {}, 5) == "table3"
    assert value_of(tmp_path, "table3") == 5
    assert value_of(tmp_path, "table3-model_mlp") == 0
    assert Records(tmp_path).load_result("table3-model_mlp")["x"].item() == 0
    figures = {file.stem for file in (tmp_path / "figures").iterdir()}
    assert figures == {f"{name}-line" for name in [*names, "table3-model_mlp"]}
    assert kept(tmp_path, "table3", {"model": "mlp"}, 6) == "table3-model_mlp"
    assert {row["result"] for row in filing.listed(tmp_path)} == {
        file.stem for file in (tmp_path / "results").glob("*.json")
    }
    assert all(row["figures"] == 1 for row in filing.listed(tmp_path))


def test_networks_of_a_paper_do_not_overwrite_each_other(tmp_path):
    """By the commands themselves, and whichever of them is first."""
    for first, second in (("mlp", "nin"), ("nin", "mlp")):
        root = tmp_path / first
        call = ["table3", "--dataset=digits", f"--run-dir={root}"]
        assert loss_surfaces.main([*call, f"--model={first}"]) == 0
        (file,) = (root / "results").glob("*.json")
        before = file.read_bytes()
        assert loss_surfaces.main([*call, f"--model={second}"]) == 0
        assert file.read_bytes() == before
        made = {
            Records(root).load_result_summary(other.stem)["settings"]["plan"]["model"]
            for other in (root / "results").glob("*.json")
        }
        assert made == {"mlp", "nin_bn"}


def test_names_are_distinct_and_short():
    long = {"rows": ["resnet110_cifar10"] * 40}
    found = [
        filing.named("t", d)
        for d in (
            long,
            {"rows": ["resnet110_cifar10"] * 41},
            {"x": "a/b"},
            {"x": "a_b"},
        )
    ]
    assert len(set(found)) == 4 and max(map(len, found)) <= 120


def test_what_distinguishes_is_flags_and_data():
    asked = nonmonotonic.Arguments(item="fig5", dataset="cifar10", epochs=2)
    assert filing.differences(asked, {"cifar10": "cifar10"}) == {"epochs": 2}
    none = dataclasses.replace(asked, dataset=None, epochs=None, debug=True)
    assert filing.differences(none, {"cifar10": "digits"}) == {"dataset": ["digits"]}
    assert filing.differences(none, {"cifar10": "cifar10"}) == {}


def test_a_directory_keeps_to_what_made_it(tmp_path):
    whose = {"paper": "nonmonotonic", "preset": "quick"}
    filing.own(tmp_path / "a", whose)
    assert filing.own(tmp_path / "a", whose).config() == whose
    for other in ({"paper": "nonmonotonic", "preset": "paper"}, {"claims": "quick"}):
        with pytest.raises(InputError, match="holds experiments.nonmonotonic"):
            filing.own(tmp_path / "a", other)
    # Results from before directories were marked.
    for name, command in (("b", "nonmonotonic"), ("c", "loss_surfaces")):
        (tmp_path / name / "results").mkdir(parents=True)
        settings = {"command": f"python -m experiments.{command} fig5"}
        Records(tmp_path / name).save_result_summary(
            "fig5", {"rows": [], "settings": settings}
        )
    assert filing.own(tmp_path / "b", whose).config() == whose
    with pytest.raises(InputError, match="not empty"):
        filing.own(tmp_path / "c", whose)


def test_results_are_listed(tmp_path, capsys):
    kept(tmp_path, "table3", {"model": "nin"}, 1)
    assert loss_surfaces.main(["results", f"--run-dir={tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert "table3" in out and "--model=nin" in out and "digits" in out
    assert loss_surfaces.main(["results", f"--run-dir={tmp_path / 'none'}"]) == 2
    assert "holds no results" in capsys.readouterr().err


def test_digits_stand_in_only_where_nothing_was_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert stand_ins.dataset_or_stand_in("mnist", None) == "digits"
    assert stand_ins.dataset_or_stand_in("digits", tmp_path) == "digits"
    with pytest.raises(InputError, match="'mnist' is not prepared in"):
        stand_ins.dataset_or_stand_in("mnist", tmp_path)
    version = tmp_path / "cifar10" / "3.0.2"
    version.mkdir(parents=True)
    (version / "dataset_info.json").write_text(json.dumps({}))
    assert stand_ins.dataset_or_stand_in("cifar100", tmp_path, ["cifar10"]) == "cifar10"
    stand_ins.say({"cifar100": "cifar10", "cifar10": "cifar10"}, tmp_path)
    assert capsys.readouterr().out.count("stands in") == 1
