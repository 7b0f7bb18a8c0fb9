"""The command sequences of the README run as they stand there."""

import re
from pathlib import Path

import pytest

from applesandoranges.app.log import read_log
from tests.script_loader import REPOSITORY

pytestmark = [pytest.mark.slow]


def blocks(heading: str) -> list[str]:
    """Return the blocks of code below a heading of the README."""
    section = (REPOSITORY / "README.md").read_text().partition(f"## {heading}\n")[2]
    return section.partition("\n## ")[0].split("```\n")[1::2]


def commands(heading: str) -> str:
    """Return the first block of code below a heading of the README."""
    return blocks(heading)[0]


EXPERIMENT = "A distributed experiment, command by command"


def test_results_of_the_experiment_are_readable(shell):
    screen = shell(commands(EXPERIMENT))
    rows = [line for line in screen.splitlines() if line.startswith(" step 0, train")]
    assert re.search(r" within (5|20)%$", rows[-1].rstrip())
    assert "not to be trusted" not in screen.partition("Written:")[2]


def test_the_commands_of_the_original_and_their_rerun(shell):
    script = (REPOSITORY / "tests" / "original_commands.txt").read_text()
    assert "--outer 50 --inner 100" in script
    assert "NUM_INNER=100 NUM_OUTER=50" in script
    measure = re.search(r"^python 10c.*$", script, re.MULTILINE)[0]
    again = "\n".join(
        line for line in script.splitlines() if re.match(r"\w+=", line)
    )  # the variables
    rows = [line for line in shell(script).splitlines() if line.startswith(" step 0, train")]
    assert rows[-1].split()[3] == "50"
    assert rows[-1].rstrip().endswith("not readable")
    (figure,) = Path(shell.clone).glob("output/*/figures/overview.png")
    assert figure.stat().st_size > 10_000
    assert "Nothing to measure: all requested measurements are done" in shell(f"{again}\n{measure}")


#: Sizes of the README, and some that take seconds.
SMALL = {
    "NUM_HESSIAN_DATAPOINTS=500": "NUM_HESSIAN_DATAPOINTS=100",
    "0-709": "0-99", "0-177": "0-24", "710": "100", "712": "100", "355": "50", "178": "25",
}  # fmt: skip


def test_the_recovery_in_rounds(shell):
    script, rounds = blocks(EXPERIMENT)[:2]
    for ours, small in SMALL.items():
        assert ours in script + rounds
        script, rounds = script.replace(ours, small), rounds.replace(ours, small)
    screen = shell(f"{script}\n{rounds}")
    table = screen.rpartition("Written:")[2]
    assert [line.split()[3] for line in table.splitlines() if line.startswith(" step 0, train")]
    logs = sorted(Path(shell.clone).glob("output/*__mnist_mini__*/*10d_core_and_analysis.py*.log"))
    krylov = read_log(logs[-1])
    assert krylov.first("GLOBALS")["recovery"] == "krylov"
    assert {"num_products": 100}.items() <= {
        name: value for body in krylov.bodies("RESULT") for name, value in body.items()
    }.items()


def test_the_readme_can_be_read_at_once():
    lines = (REPOSITORY / "README.md").read_text().splitlines()
    assert len(lines) <= 200


def test_every_page_is_in_the_index():
    index = (REPOSITORY / "docs/README.md").read_text()
    pages = {path.name for path in (REPOSITORY / "docs").glob("*.md")} - {"README.md"}
    assert {name for name in pages if f"]({name})" in index} == pages


def test_every_script_of_the_repository_is_described():
    readme = (REPOSITORY / "README.md").read_text()
    names = [
        p.name for p in REPOSITORY.iterdir() if re.match(r"\d\d[a-z]_.*\.(py|sh|ipynb)", p.name)
    ]
    assert names
    assert [name for name in names if name not in readme] == []
