"""Signals end a block as Interrupted, whatever other code makes of the exception on its way."""

import contextlib
import os
import signal

import pytest

from skerch.interruptions import Interrupted, interruptible


def kept(number):
    os.kill(os.getpid(), number)


def turned_into_another(number):
    try:
        os.kill(os.getpid(), number)
    except BaseException as error:
        raise RuntimeError(str(error)) from None


def dropped(number):
    with contextlib.suppress(BaseException):
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("fate", [kept, turned_into_another, dropped])
@pytest.mark.parametrize(
    ("number", "name", "status"), [(signal.SIGTERM, "SIGTERM", 143), (signal.SIGINT, "Ctrl-C", 130)]
)
def test_a_signal_leaves_the_block_as_such(fate, number, name, status):
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted) as stop, interruptible():
        fate(number)
    assert (str(stop.value), stop.value.status) == (name, status)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers


def test_without_a_signal_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="mine"), interruptible():
        raise RuntimeError("mine")


def test_a_keyboard_interrupt_of_other_code_counts_as_ctrl_c():
    with pytest.raises(Interrupted, match="Ctrl-C"), interruptible():
        raise KeyboardInterrupt


def test_signals_that_are_ignored_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
