"""How scripts begin: keys are checked before PyTorch is loaded, and that it is loaded is said."""

import re
import subprocess
import sys

import pytest

from tests.script_loader import REPOSITORY

SCRIPTS = sorted(path.name for path in REPOSITORY.glob("[0-9]*.py"))
#: Packages that take long to load.
HEAVY = {"torch", "h5py", "pandas", "matplotlib", "scipy"}
CLUSTER = ["-m", "applesandoranges.cluster", "run", "11m.sh"]


def start(*words):
    """Run a command; return its status, what it printed, and both kinds of lines on errors."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    lines = done.stderr.splitlines()
    imported = [line.rpartition("|")[2].strip() for line in lines if line.startswith("import time")]
    return done.returncode, done.stdout, imported, lines


def said(lines):
    return [line for line in lines if not line.startswith("import time")]


@pytest.mark.parametrize(
    "words",
    [*([script] for script in SCRIPTS), ["-m", "skerch"], ["-m", "skerch", "plan"],
     ["-m", "skerch", "inspect"], CLUSTER],
    ids=" ".join,
)  # fmt: skip
def test_help_needs_no_torch(words):
    status, out, imported, lines = start(*words, "--help")
    assert (status, said(lines)) == (0, [])
    assert "sage: " in out
    assert len(imported) > 10  # otherwise nothing was looked at
    assert not HEAVY & {*imported}


@pytest.mark.parametrize(
    ("words", "message"),
    [*(([script, "NO_SUCH_KEY=1"], "unknown key 'NO_SUCH_KEY'") for script in SCRIPTS),
     *(([script, "SCREEN=blue"], r"missing keys? [A-Z_, ]+|unknown SCREEN 'blue'")
       for script in SCRIPTS),
     (["10a_gather_params_grads.py", "RECORD_STEPS=x", "NUM_HESSIAN_DATAPOINTS=1"],
      "key RECORD_STEPS: expected list of int, got 'x'"),
     (["10d_core_and_analysis.py", "STEP=1.5"], "key STEP: expected int, got '1.5'"),
     (["13a_plot_overlap.py", "LOGS=x", "K=ten"], "key K: expected list of int, got 'ten'"),
     (["14a_check_published.py", "STEPS=x"], "key STEPS: expected list of int, got 'x'"),
     (["-m", "skerch", "plan", "--k", "x"], "skerch plan: argument --k: invalid"),
     (["-m", "skerch", "nothing"], "skerch: argument COMMAND: invalid choice: 'nothing'")],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_wrong_keys_need_no_torch_and_are_one_line(words, message):
    status, out, imported, lines = start(*words)
    assert (status, out) == (2, "")
    (line,) = said(lines)
    assert re.search(message, line)
    assert not HEAVY & {*imported}


def test_wrong_options_of_experiments_need_no_torch():
    status, _, imported, lines = start(*CLUSTER, "--no-such-option")
    assert status == 2
    assert said(lines)[-1].startswith("11m.sh: unknown option '--no-such-option'; see --help")
    assert not HEAVY & {*imported}


def needed(script):
    """Return words for all keys that a script needs; they are no use."""
    (line,) = said(start(script)[3])
    names = re.findall(r"[A-Z_]{4,}", line.partition("missing key")[2])
    return [f"{name}=0" for name in names]


@pytest.mark.parametrize("script", [name for name in SCRIPTS if not name.startswith("14a")])
def test_that_torch_is_loaded_is_said_before(script):
    status, _, imported, lines = start(script, *needed(script))
    assert status == 2
    first, *_, last = said(lines)
    assert re.fullmatch(rf"\d\d:\d\d:\d\d  {re.escape(script)}: loading PyTorch", first)
    assert last.startswith(f"{script}: ")
    assert "torch" in imported
    begin = lines.index(first)
    assert not any(re.search(r"\| +torch$", line) for line in lines[:begin])
