"""KEY=VALUE command lines: types, messages, exit status."""

import os
import signal
from dataclasses import dataclass

import pytest

from applesandoranges.app.keys import key, parse_config, run_script
from skerch.utils import InputError, StoreError


@dataclass
class Config:
    """Keys of an imaginary script."""

    PATH: str = key("a path")
    STEP: int = key("a step")
    STEPS: list[int] = key("steps", list)
    RATE: float = key("a rate", 0.5)
    LIMIT: float | None = key("a limit", None, shown="none")
    MAX_STEPS: int | None = key("last step", None)
    TEST_HESSIAN: bool = key("a switch", False)
    SEED: int = key("a seed", lambda: 4, shown="random")


NEEDED = ["PATH=x", "STEP=3"]


def test_defaults_and_values():
    config = parse_config(Config, [*NEEDED, "STEPS=[0,1,100]", "RATE=1e-3", "TEST_HESSIAN=1"])
    assert config == Config("x", 3, [0, 1, 100], 1e-3, None, None, True, 4)


def test_a_text_that_must_be_given_is_not_empty():
    with pytest.raises(InputError, match=r"^key PATH: expected str, got nothing; is the shell var"):
        parse_config(Config, ["PATH=", "STEP=3"])


@pytest.mark.parametrize(
    "text",
    ["out/2024[10a_x.py].log", "${oc.env:HOME}", "a=b", 'it\'s "q"', "a: b # c", "a\nb", "12"],
)
def test_text_is_taken_verbatim(text):
    assert text == parse_config(Config, [f"PATH={text}", "STEP=3"]).PATH


@pytest.mark.parametrize(
    ("word", "value"), [("MAX_STEPS=null", None), ("MAX_STEPS=7", 7), ("TEST_HESSIAN=true", True),
                        ("TEST_HESSIAN=False", False), ("TEST_HESSIAN=0", False), ("RATE=2", 2.0)],
)  # fmt: skip
def test_typed_values(word, value):
    name = word.partition("=")[0]
    assert getattr(parse_config(Config, [*NEEDED, word]), name) == value


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["PATH=x"], "missing key STEP"),
        ([], "missing keys PATH, STEP"),
        ([*NEEDED, "STPES=[1]"], "unknown key 'STPES'; the nearest valid one is STEPS"),
        ([*NEEDED, "XQZ=1"], "unknown key 'XQZ'$"),
        ([*NEEDED, "step=1"], "unknown key 'step'; the nearest valid one is STEP"),
        ([*NEEDED, "STEP=4"], "key STEP was given twice"),
        ([*NEEDED, "STEPS"], "expected KEY=VALUE, got 'STEPS'"),
        ([*NEEDED, "STEPS=[1,x]"], r"key STEPS: expected list of int, got '\[1,x\]'"),
        ([*NEEDED, "STEPS=[1,"], r"key STEPS: expected list of int, got '\[1,'"),
        ([*NEEDED, "STEPS=3.5"], "key STEPS: expected list of int, got '3.5'"),
        ([*NEEDED, "RATE=fast"], "key RATE: expected float, got 'fast'"),
        ([*NEEDED, "MAX_STEPS=1.5"], "key MAX_STEPS: expected int, got '1.5'"),
        ([*NEEDED, "SEED={a: 1}"], "key SEED: expected int"),
        ([*NEEDED, "TEST_HESSIAN=maybe"], "key TEST_HESSIAN: expected bool, got 'maybe'"),
        (["PATH=x", "STEP="], "key STEP: expected int, got ''"),
        (["PATH=x", "STEP=0x_"], "key STEP: expected int, got '0x_'"),
        (["PATH=x", "STEP=${oc.env:HOME}"], "key STEP: expected int, got"),
        ([*NEEDED, "STEPS=${oc.env:HOME}"], "key STEPS: expected list of int, got"),
        (["PATH=x", "STEP=2026-13-45"], "key STEP: expected int, got '2026-13-45'"),
        ([*NEEDED, "STEPS=&a [*a]"], r"key STEPS: expected list of int, got '&a \[\*a\]'"),
        ([*NEEDED, f"STEPS={'[' * 3000}"], "key STEPS: expected list of int, got"),
    ],
)
def test_wrong_words_are_named(argv, message):
    with pytest.raises(InputError, match=message):
        parse_config(Config, argv)


def test_refusal_is_one_line(capsys):
    assert run_script("99_x.py", Config, print, ["STEP=3"]) == 2
    assert capsys.readouterr() == ("", "99_x.py: missing key PATH; --help lists all keys\n")


def test_help_prints_the_table(capsys):
    assert run_script("99_x.py", Config, print, ["--help"]) == 0
    out = capsys.readouterr().out
    assert "last step" in out
    _, _, table = out.partition("Usage: ")
    names = [line.split()[0] for line in table.splitlines() if line and line[0].isupper()]
    assert names[: len(Config.__dataclass_fields__)] == list(Config.__dataclass_fields__)
    assert "SCREEN" in names
    assert "random" in table


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InputError("expected\n a"), 2, "99_x.py: expected a\n"),
        (StoreError("broken"), 1, "99_x.py: broken\n"),
        (
            OSError(28, "No space left on device"),
            1,
            "99_x.py: [Errno 28] No space left on device\n",
        ),
        (KeyboardInterrupt(), 130, "99_x.py: stopped by Ctrl-C\n"),
    ],
    ids=["input", "store", "disk", "ctrl-c"],
)
def test_errors_become_one_line_and_a_status(capsys, error, status, line):
    def main(config):
        raise error

    assert run_script("99_x.py", Config, main, NEEDED) == status
    assert capsys.readouterr().err == line


def test_sigterm_ends_cleanly(capsys):
    def main(config):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("not reached")

    handler = signal.getsignal(signal.SIGTERM)
    assert run_script("99_x.py", Config, main, NEEDED) == 143
    assert capsys.readouterr().err == "99_x.py: stopped by SIGTERM\n"
    assert signal.getsignal(signal.SIGTERM) == handler


def test_unexpected_errors_are_not_hidden():
    def main(config):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_script("99_x.py", Config, main, NEEDED)
