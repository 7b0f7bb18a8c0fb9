"""What an 11x script says besides its results: notes, refusals, how it was stopped; settings."""

import io
import re
import signal
import sys
from types import SimpleNamespace

import pytest

from applesandoranges.cluster import run as run_module
from applesandoranges.cluster.__main__ import USAGE
from applesandoranges.cluster.__main__ import main as cluster
from applesandoranges.cluster.screen import StopError, note, say
from applesandoranges.cluster.settings import FIELDS, Caller, mistyped
from tests.script_loader import REPOSITORY

SCRIPTS = sorted(REPOSITORY.glob("11[abcm]_*.sh"))


def caller(**given):
    return Caller("11m.sh", given | {"GIVEN": " ".join(given), "PROJECT_DIR": "/project"})


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_is_in_the_document_of_settings(name):
    assert re.search(rf"`{name}[`=]", (REPOSITORY / "docs" / "cluster.md").read_text())


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name[:3])
def test_the_scripts_name_the_recovery(script):
    assert len(SCRIPTS) == 4
    (line,) = (line for line in script.read_text().splitlines() if "RECOVERY" in line)
    assert line.startswith(': "${RECOVERY:=seigh}" "${NUM_ROUNDS:=}" "${BLOCK_SIZE:=}"')


def test_help_says_where_all_settings_are():
    assert "all of them in docs/cluster.md" in USAGE["run"]
    assert max(map(len, USAGE["run"].splitlines())) <= 100


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("NUM_OUTR", "NUM_OUTER"), ("RECOVRY", "RECOVERY"), ("ACTIVAT", "ACTIVATE"),
     ("NUM_INNER_", "NUM_INNER"), ("TIME_TRAINS", "TIME_TRAIN")],
)  # fmt: skip
def test_a_mistyped_setting_is_named(capsys, name, nearest):
    assert cluster(["run", "11m.sh", "--dry-run"], caller(**{name: "10"}).environ) == 2
    first, _ = capsys.readouterr().err.splitlines()
    assert first == f"11m.sh: note: {name} is no setting; the nearest one is {nearest}"


def test_other_variables_are_no_mistyped_settings():
    usual = [
        "HOME", "PATH", "USER", "LANG", "SHELL", "TMPDIR", "PYTHON", "PYTHONPATH", "VIRTUAL_ENV",
        "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "SLURM_ARRAY_TASK_ID", "SBATCH_PARTITION",
        "SBATCH_OPTION", "COLUMNS", "TERM", "DISPLAY", "WAIT_SECONDS", "HVP_ENGINE", "ALLOW_TF32",
    ]  # fmt: skip
    assert mistyped(caller(**dict.fromkeys([*usual, *FIELDS], "1"))) == {}


class Terminal(io.StringIO):
    def isatty(self):
        return True


LONG = "the data are too few for the defaults: " + "MAX_RECORD_STEP=300 instead of 1000, " * 4


@pytest.mark.parametrize(
    ("stream", "speak", "margin"),
    [("stdout", say, 10), ("stderr", lambda text: note("11m.sh", text), 4)],
    ids=["say", "note"],
)
def test_notes_are_broken_at_the_width_of_a_terminal_alone(monkeypatch, stream, speak, margin):
    monkeypatch.setenv("COLUMNS", "60")
    screen, file = Terminal(), io.StringIO()
    for shown in (screen, file):
        monkeypatch.setattr(sys, stream, shown)
        speak(LONG.strip())
    first, *rest = screen.getvalue().splitlines()
    assert rest
    assert max(map(len, [first, *rest])) <= 60
    assert all(re.match(rf" {{{margin}}}\S", line) for line in rest)
    assert file.getvalue().splitlines() == [" ".join([first, *map(str.strip, rest)])]


@pytest.mark.parametrize(
    ("number", "name", "status"), [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143)]
)
def test_nothing_is_to_be_mended_after_a_signal(monkeypatch, number, name, status):
    class Launcher:
        def __init__(self, *_):
            pass

        def start(self, _):
            signal.raise_signal(number)

    monkeypatch.setattr(run_module, "Local", Launcher)
    run = run_module.Run.__new__(run_module.Run)
    run.caller, run.experiment = caller(PATH="x"), SimpleNamespace()
    run.dry_run, run.on_slurm, run.resume = False, False, "RUN_DIR=[x] ./11m.sh"
    with pytest.raises(StopError) as stop:
        run._launch([SimpleNamespace()], wait=False)
    assert stop.value.status == status
    expected = (
        f"\n11m.sh: stopped by {name}. This goes on where it stopped:\n    RUN_DIR=[x] ./11m.sh"
    )
    assert str(stop.value) == expected
