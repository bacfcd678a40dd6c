"""The table of claims: what is named, measured, kept and judged."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from experiments import report, results_table
from experiments.claims import __main__ as claims
from experiments.claims import measure, workers
from experiments.claims.registry import CLAIMS, EXPERIMENTS
from experiments.claims.table import judged_papers, page, rows_of
from experiments.harness import statistics
from experiments.harness.statistics import (
    Claim,
    Condition,
    above,
    below,
    differs,
    judge,
)
from lrscape.environment import available_cores
from lrscape.errors import InputError
from lrscape.records import Records
from lrscape.training import NonFiniteLossError


def test_every_claim_is_there_once():
    counts = {p: sum(name.startswith(f"{p}.") for name in CLAIMS) for p in EXPERIMENTS}
    assert counts == {"1": 12, "2": 11, "3": 11, "4": 11, "5": 8}
    for paper in counts:
        numbers = [int(n.split(".")[1]) for n in CLAIMS if n.startswith(f"{paper}.")]
        assert numbers == list(range(1, counts[paper] + 1))


def test_parts_measure_claims_that_there_are():
    parts = measure.parts_of(CLAIMS)
    named = [name for part in parts for name in part.claims]
    assert len(named) == len(set(named)) and set(named) <= set(CLAIMS)
    assert {part.name for part in parts} == set(measure.MINUTES)
    minutes = [part.minutes for part in parts]
    assert minutes == sorted(minutes)


@pytest.fixture
def stand_ins(monkeypatch):
    """Parts that take no time: an effect, none, and its opposite."""
    random = np.random.default_rng(0)
    called = []

    def measured(part, lab):
        called.append(part.name)
        shift = {"premises": 3.0, "rates": 0.0, "safe": -3.0}.get(part.name, 3.0)
        values = random.normal(shift, 1, 20)
        return [
            Claim(f"{name} x" if name == "3.9" else name, "<b>it</b> holds", [
                above("a", values), below("b", [2.9, 3.0, 3.1], 4.0)
            ])
            for name in part.claims
        ]  # fmt: skip

    monkeypatch.setattr(measure.Part, "measure", measured)
    return called


def call(root, *argv):
    return claims.main([*argv, f"--run-dir={root}", "--workers=1"])


def kept(root):
    return json.loads((root / "results" / "claims.json").read_text())


def test_verdicts_come_out_as_the_data_say(tmp_path, stand_ins, capsys):
    assert call(tmp_path, "5.1", "5.5", "5.8") == 0
    rows = {row["claim"]: row for row in kept(tmp_path)["rows"]}
    assert [rows[name]["verdict"] for name in ("5.1", "5.5", "5.8")] == [
        "supported", "undecided", "contradicted",
    ]  # fmt: skip
    assert rows["5.1"]["seeds"] == "3 to 20" and " core" in rows["5.1"]["scale"]
    assert rows["5.8"]["command"] == "python -m experiments.claims 5.8 --preset=quick"
    assert "5.8    contradicted" in capsys.readouterr().out
    # Kept: more claims, and those that are there are not measured again.
    before = (tmp_path / "parts" / "results" / "part-5-safe.json").read_bytes()
    assert call(tmp_path, "5") == 0
    assert (tmp_path / "parts" / "results" / "part-5-safe.json").read_bytes() == before
    assert stand_ins.count("safe") == 1 and stand_ins.count("costs") == 1
    assert len(kept(tmp_path)["rows"]) == 8
    assert call(tmp_path, "5.8", "--again") == 0
    assert stand_ins.count("safe") == 2
    # Printed is what was asked for; the file has all that was measured.
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("5.") for line in lines[-6:]) == 1
    assert len(kept(tmp_path)["rows"]) == 8


def test_the_page_shows_text_as_text(tmp_path, stand_ins):
    assert call(tmp_path, "5.1", "3.9") == 0
    text = (tmp_path / "claims.html").read_text()
    assert "&lt;b&gt;it&lt;/b&gt; holds" in text and "<b>it</b>" not in text
    assert not re.search(r"(src|href)=", text)  # it needs no net
    assert "3 claims: 3 supported" in text  # 5.2 is measured with 5.1


def test_what_does_not_fit_is_said(tmp_path, stand_ins, capsys):
    assert call(tmp_path, "--budget=200s") == 0
    out = capsys.readouterr().out
    assert "left out, expected to take" in out
    rows = kept(tmp_path)["rows"]
    assert len(rows) == 53
    measured = [row for row in rows if row["verdict"] != "not measured"]
    assert 0 < len(measured) < 20
    # The cheapest, since nothing here takes any time.
    longest = max(p.minutes for p in measure.parts_of(r["claim"] for r in measured))
    assert longest * 60 <= 200


def test_a_claim_of_the_theory_is_measured(tmp_path):
    """The real thing, of the cheapest claim that trains nothing."""
    lab = measure.paper_lab("5", "quick", None)
    (part,) = (p for p in measure.parts_of(["5.3"]) if p.name == "stated")
    assert part.claims == ("5.3",) and lab.preset == "quick"
    (claim,) = part.measure(lab)
    again = measure.claims_in({"claims": [measure.as_dict(claim)]})[0]
    assert again == claim._replace(conditions=again.conditions)
    assert [str(c) for c in again.conditions] == [str(c) for c in claim.conditions]
    (row,) = rows_of(judged_papers({"5": [again]}), {}, "quick", ["5.3"])
    assert row["verdict"] == "supported" and "supported" in page([row], [])


def test_what_was_kept_is_judged_as_it_was_measured(tmp_path):
    """With the p values of tests other than those of its values."""
    records = Records(tmp_path)
    kept = [
        Claim("2.3", "says", [Condition("range", [1.0, 1, 1, 1, 1], "p", p_values)])
        for p_values in ((0.5, 0.5), (0.001, 1.0), (1.0, 0.001), None)
    ]
    found = {"claims": [measure.as_dict(claim) for claim in kept]}
    records.save_result_summary("part", found)
    again = measure.claims_in(records.load_result_summary("part"))
    wanted = [judged.verdict for judged in judge(kept)]
    assert wanted == ["undecided", "supported", "contradicted", "supported"]
    assert [judged.verdict for judged in judge(again)] == wanted


def stand_in(part, root, preset, data_dir, own):
    """Notes when it began and ended, in a process of its own."""
    del data_dir, own
    began = time.time()
    if part.name == "safe":
        raise InputError("safe=0 must be more")
    if part.name == "quality":
        raise NonFiniteLossError(3)
    if part.name == "theorems":
        os._exit(3)
    if part.name in ("lemma", "beyond"):  # at once: each waits for the other
        (Path(root) / part.name).touch()
        while not all((Path(root) / name).exists() for name in ("lemma", "beyond")):
            time.sleep(0.01)
    time.sleep(0.2)
    with (Path(root) / "times.txt").open("a") as file:
        file.write(json.dumps([part.paper, began, time.time()]) + "\n")
    return {"preset": preset, "claims": [], "seconds": 0.2}


@pytest.mark.slow
def test_papers_are_measured_at_once_and_parts_of_one_after_each_other(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(workers, "_apart", stand_in)
    parts = measure.parts_of(["1.1", "2.3", "2.10", "2.4", "4.4", "5.8", "5.3"])
    records = Records.create(tmp_path / "run", {})
    outcomes = dict(workers.measure_all(parts, records, "quick", None, 3))
    assert set(outcomes) == set(parts)
    failed = {
        part.name: one for part, one in outcomes.items() if isinstance(one, Exception)
    }
    assert set(failed) == {"safe", "quality", "theorems"}
    assert str(failed["safe"]) == "safe=0 must be more"
    assert failed["quality"].step == 3 and "at step 3;" in str(failed["quality"])
    assert str(failed["theorems"]) == "its process ended with 3"
    lines = (tmp_path / "run" / "times.txt").read_text().splitlines()
    times = [json.loads(line) for line in lines]
    assert len(times) == len(parts) - 3
    for paper, began, ended in times:
        for other, from_, to in times:
            if (paper, began) != (other, from_) and paper == other:
                assert ended <= from_ or to <= began
    assert capsys.readouterr().out.count("measuring") == len(parts)


def test_no_part_is_begun_after_the_time(tmp_path, stand_ins):
    parts = measure.parts_of(["5.3", "5.8"])
    records = Records.create(tmp_path / "run", {})
    for count in (1, 2):
        late = workers.measure_all(
            parts, records, "quick", None, count, time.monotonic()
        )
        assert not list(late)
    assert call(tmp_path / "paper", "5.3", "5.8", "--preset=paper", "--budget=0s") == 0
    assert not stand_ins


@pytest.mark.slow
def test_what_processes_measure_tells_how_it_was_made(tmp_path):
    argv = ["5.3", "1.1", f"--run-dir={tmp_path / 'run'}", "--workers=2"]
    command = [sys.executable, "-m", "experiments.claims", *argv]
    where = {"PYTHONPATH": str(Path(claims.__file__).parents[1])}
    subprocess.run(command, check=True, cwd=tmp_path, env={**os.environ, **where})
    rows = {row["claim"]: row for row in kept(tmp_path / "run")["rows"]}
    assert [rows[n]["verdict"] for n in ("1.1", "5.3")] == ["supported", "supported"]
    parts = tmp_path / "run" / "parts"
    for name in ("part-5-stated", "part-1-lemma"):
        found = Records(parts).load_result_summary(name)
        assert "-m experiments.claims 5.3 1.1" in found["command"]
        assert found["cores"] == max(1, available_cores() // 2)
        assert (parts / "logs" / f"{name}.log").exists()


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_processes_end_with_the_one_that_began_them(tmp_path, number):
    argv = ["4.4", "1.1", f"--run-dir={tmp_path / 'run'}", "--workers=2"]
    command = [sys.executable, "-c", _ENDLESS, *argv]
    root = tmp_path / "run" / "parts"
    with subprocess.Popen(
        command, cwd=Path(claims.__file__).parents[1], stderr=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        try:
            while len(list(root.glob("*.pid"))) < 2:
                assert process.poll() is None
                time.sleep(0.1)
            process.send_signal(number)
            assert "give the same command again" in process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == 130
    for file in root.glob("*.pid"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)


_ENDLESS = """
import signal
import sys
from experiments.claims import __main__ as claims
from experiments.claims import workers
from tests.test_claims import endless
# What a shell starts in the background ignores SIGINT, and so do its children.
signal.signal(signal.SIGINT, signal.default_int_handler)
if __name__ == "__main__":
    workers._apart = endless
    sys.exit(claims.main(sys.argv[1:]))
"""


def endless(part, root, preset, data_dir, own):
    """Does not end by itself."""
    del preset, data_dir, own
    Path(root).mkdir(exist_ok=True)
    (Path(root) / f"{part.name}.pid").write_text(str(os.getpid()))
    time.sleep(600)


def test_a_part_that_cannot_be_measured_keeps_no_other_from_it(
    tmp_path, monkeypatch, stand_ins, capsys
):
    works = measure.Part.measure

    def measured(part, lab):
        if part.name == "safe":
            raise InputError("peak=0 must be more")
        return works(part, lab)

    monkeypatch.setattr(measure.Part, "measure", measured)
    assert call(tmp_path, "5.1", "5.8") == 0
    found = {row["claim"]: row["verdict"] for row in kept(tmp_path)["rows"]}
    assert found == {"5.1": "supported", "5.2": "supported", "5.8": "not measured"}
    assert "5.8: not measured: peak=0 must be more" in kept(tmp_path)["notes"]
    assert call(tmp_path / "other", "5.8") == 2  # nothing at all
    assert "error: peak=0 must be more" in capsys.readouterr().err


def test_what_fails_when_measured_again_keeps_its_verdict(
    tmp_path, monkeypatch, stand_ins
):
    assert call(tmp_path, "5.8") == 0
    before = kept(tmp_path)["rows"]

    def fails(part, lab):
        raise InputError("peak=0 must be more")

    monkeypatch.setattr(measure.Part, "measure", fails)
    assert call(tmp_path, "5.8", "--again") == 0
    assert kept(tmp_path)["rows"] == before
    assert "5.8: not measured again: peak=0 must be more" in kept(tmp_path)["notes"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["9.9"], "claims='9.9'"),
        (["--preset=quik"], "quick"),
        (["--budget=soon"], "such as 90s"),
        (["--workers=0"], "workers=0"),
        (["3.6", "--models", "vgg99"], "vgg99"),
    ],
)
def test_bad_input(tmp_path, argv, message, capsys):
    assert claims.main([*argv, f"--run-dir={tmp_path}"]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_list_measures_nothing(tmp_path, capsys):
    assert call(tmp_path, "5.3", "2.1", "--list") == 0
    out = capsys.readouterr().out
    assert "5.3" in out and "21 of 21 pairs" in out
    assert not list(tmp_path.iterdir())


def test_networks_of_paper_3_are_chosen(tmp_path, stand_ins):
    assert call(tmp_path, "3.6", "5.3", "--models", "vgg11", "mlp") == 0
    rows = {row["claim"]: row for row in kept(tmp_path)["rows"]}
    said = "python -m experiments.claims 3.6 --preset=quick --models mlp vgg11"
    assert rows["3.6"]["command"] == said
    assert rows["5.3"]["command"] == "python -m experiments.claims 5.3 --preset=quick"
    files = {file.name for file in (tmp_path / "parts" / "results").iterdir()}
    assert files == {"part-3-angle-mlp-vgg11.json", "part-5-stated.json"}
    # What was measured of other networks stays, until it is measured of these.
    assert call(tmp_path, "5.1") == 0
    rows = {row["claim"]: row for row in kept(tmp_path)["rows"]}
    assert rows["3.6"]["command"] == said and "5.1" in rows
    # The preset's own networks are those that no command names.
    assert call(tmp_path, "3.6", "--models", "mlp") == 0
    rows = {row["claim"]: row for row in kept(tmp_path)["rows"]}
    assert rows["3.6"]["command"] == "python -m experiments.claims 3.6 --preset=quick"
    assert call(tmp_path, "3.6") == 0 and stand_ins.count("angle") == 2


def test_what_is_damaged_is_measured_again(tmp_path, stand_ins, capsys):
    assert call(tmp_path, "5.3", "5.8") == 0
    file = tmp_path / "parts" / "results" / "part-5-stated.json"
    file.write_text(file.read_text().replace("quick", "paper"))
    assert call(tmp_path, "5.8") == 0  # what is not asked for is left alone
    assert "measured again where" in capsys.readouterr().out
    assert stand_ins.count("stated") == 1
    assert call(tmp_path, "5.3") == 0 and stand_ins.count("stated") == 2


def test_results_and_report_show_the_same_file(tmp_path, stand_ins):
    root = tmp_path / "claims-quick"
    assert call(root, "5.1", "5.8") == 0
    text = results_table.results_table(tmp_path)
    assert "2 supported, 1 contradicted, of 3 measured" in text
    assert "- **5.8**" in text and "contradicted (3 to 20)" in text
    assert "- **5.4**" in text  # of the paper, and not measured
    details = results_table.details_page(tmp_path)
    assert "python -m experiments.claims 5.1 --preset=quick" in details
    assert report.main([str(root)]) == 0
    page = (root / "report.html").read_text()
    assert "the last layer has the largest gradient" in page
    assert "contradicted" in page and "part-5-safe" not in page


def test_another_directory_is_left_alone(tmp_path, stand_ins, capsys):
    (tmp_path / "config.json").write_text("{}")
    assert call(tmp_path, "5.8") == 2
    assert "holds something else" in capsys.readouterr().err


@pytest.mark.parametrize("together", [1, 20])
@pytest.mark.parametrize("count", [3, 5, 10])
def test_chance_is_seldom_taken_for_an_effect(count, together, monkeypatch):
    """In 500 papers without an effect, of a claim and of twenty of them."""
    monkeypatch.setattr("experiments.harness.statistics.RESAMPLES", 1000)
    random = np.random.default_rng(count)
    papers = [
        {
            judged.verdict
            for judged in judge(
                [Claim(str(i), "", [Condition("a", one)]) for i, one in enumerate(rows)]
            )
        }
        for rows in random.normal(size=(500, together, count))
    ]
    # A paper, not a claim: that is what Holm's correction is for.
    for verdict in ("supported", "contradicted"):
        assert sum(verdict in paper for paper in papers) <= 0.06 * len(papers)
    # And an effect is found, and its opposite.
    for shift, verdict in ((4.0, "supported"), (-4.0, "contradicted")):
        values = random.normal(shift, 0.05, count)
        claims_ = [Claim(str(i), "", [above("a", values)]) for i in range(together)]
        assert {judged.verdict for judged in judge(claims_)} == {verdict}


@pytest.mark.parametrize("limit", [0.0, 0.7])
@pytest.mark.parametrize("count", [2, 3, 8, 9, 30])
def test_p_values_are_those_of_scipy_and_of_drawn_resamples(count, limit):
    values = np.random.default_rng(count).normal(0.3, 1, (20, count)).round(1)
    for row in values[np.ptp(values, axis=1) > 0]:
        for side, found in zip(
            (row, limit - row), statistics._p_values(row, limit), strict=True
        ):
            draws = np.random.default_rng(0).choice(side, (statistics.RESAMPLES, count))
            drawn = ((draws.mean(axis=1) <= 0).sum() + 1) / (len(draws) + 1)
            resampled = 0.0 if side.min() > 0 else drawn
            tested = stats.ttest_1samp(side, 0.0, alternative="greater").pvalue
            assert found == pytest.approx(max(resampled, tested), rel=1e-12)


def test_many_conditions_can_be_contradicted():
    """However many claims and conditions, and however few values."""
    wrong = [Claim(str(i), "", [above("a", [-1.0] * 5)] * 10) for i in range(54)]
    assert {judged.verdict for judged in judge(wrong)} == {"contradicted"}


def test_a_small_gain_that_is_sure_is_a_gain():
    gain = above("a", [0.30, 0.31, 0.29])._replace(effect=4.0)
    unsure = above("a", [0.3, -0.2, 0.1])._replace(effect=8.0)
    found = [judge([Claim("1", "", [one])])[0].verdict for one in (gain, unsure)]
    assert found == ["supported", "contradicted"]


def test_a_difference_has_no_side():
    found = [
        judge([Claim("1", "", [differs("a", values)])])[0].verdict
        for values in ([1.0, 1.1, 0.9], [-1.0, -1.1, -0.9], [1.0, -1.0, 0.1])
    ]
    assert found == ["supported", "supported", "undecided"]


def test_controls_stand_beside_the_verdict():
    good, bad = above("a", [1.0, 1.1, 0.9]), above("b", [-1.0, -1.1, -0.9])
    found = [Claim("4.8", "it", [good]), Claim("4.8 (control)", "and", [bad])]

    def row(claims_):
        return rows_of(judged_papers({"4": claims_}), {}, "quick", ["4.8"])[0]

    assert row(found)["verdict"] == "contradicted"
    found[1] = found[1]._replace(apart=True)
    assert row(found)["verdict"] == "supported"
    assert [part["verdict"] for part in row(found)["parts"]] == [
        "supported", "contradicted",
    ]  # fmt: skip
    assert row(found)["parts"][1]["says"] == "and, apart"
    # Kept and read again it is the same.
    kept = json.loads(json.dumps([measure.as_dict(claim) for claim in found]))
    assert row(measure.claims_in({"claims": kept}))["verdict"] == "supported"
