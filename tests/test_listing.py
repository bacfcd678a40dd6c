"""`python -m experiments`, groups in --help, and what a shell completes."""

import subprocess
from pathlib import Path

import pytest

from experiments import __main__ as listing
from experiments import digits
from experiments.harness.train import main


def test_every_experiment_is_listed_and_nothing_else(capsys):
    listing.main()
    lines = capsys.readouterr().out.split("\n\n")[0].splitlines()
    names = [line.split()[2].removeprefix("experiments.") for line in lines]
    assert {"cifar", "digits", "report", "survey"} <= set(names)
    # Those that can be called, and no others.
    folder = Path(listing.__file__).parent
    files = {f: f.stem for f in folder.glob("*.py") if f.stem != "__main__"}
    files |= {f: f.parent.name for f in folder.glob("*/__main__.py")}
    called = [n for f, n in files.items() if '__name__ == "__main__"' in f.read_text()]
    assert names == sorted(called)
    assert all(len(line.split(None, 3)[3]) > 20 for line in lines)


def test_exit_statuses_and_groups_are_in_the_help(capsys):
    listing.main()
    assert "2 bad input" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main("digits", digits.__doc__, digits.PRESETS, ["--help"])
    out = capsys.readouterr().out
    for group in ("run", "data", "training", "schedule", "optimizer", "loop"):
        assert f" {group} options " in out


def test_bash_completes_flags(tmp_path, capsys):
    with pytest.raises(SystemExit):
        arguments = ["--tyro-print-completion", "bash"]
        main("digits", digits.__doc__, digits.PRESETS, arguments)
    (tmp_path / "completion.sh").write_text(capsys.readouterr().out)
    script = """
        . ./completion.sh
        COMP_WORDS=(experiments.digits --sched) COMP_CWORD=1
        COMP_LINE="experiments.digits --sched" COMP_POINT=26
        $(complete -p experiments.digits | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    found = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert [word.strip() for word in found.stdout.split()] == ["--schedule"]
