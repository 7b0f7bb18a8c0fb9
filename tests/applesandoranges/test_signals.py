"""Signals end a block as Interrupted, whatever other code makes of the exception on its way."""

import contextlib
import os
import signal
import sys
import threading
import time

import pytest

from applesandoranges.app.signals import Interrupted, interruptible, uninterrupted


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


class Finalised:
    def __init__(self, number):
        self.number = number

    def __del__(self):
        os.kill(os.getpid(), self.number)
        time.sleep(0.001)  # the handler runs here


def test_a_signal_in_a_finaliser_is_raised_right_after(capfd):
    """There, exceptions are printed and dropped."""
    hook, handler = sys.unraisablehook, signal.getsignal(signal.SIGALRM)

    def finalise_and_wait():
        Finalised(signal.SIGTERM)
        time.sleep(30)
        raise AssertionError("the signal was lost")

    with pytest.raises(Interrupted) as stop, interruptible():
        finalise_and_wait()
    assert (str(stop.value), stop.value.status) == ("SIGTERM", 143)
    assert capfd.readouterr().err == ""
    assert (sys.unraisablehook, signal.getsignal(signal.SIGALRM)) == (hook, handler)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


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


def test_held_back_until_the_end_of_the_block():
    done = []

    def block():
        with interruptible():
            with uninterrupted():
                with uninterrupted():
                    os.kill(os.getpid(), signal.SIGTERM)
                    done.append("inner")
                done.append("outer")
            done.append("after")

    with pytest.raises(Interrupted, match="SIGTERM"):
        block()
    assert done == ["inner", "outer"]


def test_a_second_signal_is_not_held_back():
    done = []

    def block():
        with interruptible(), uninterrupted():
            for name in ("first", "second"):
                os.kill(os.getpid(), signal.SIGINT)
                done.append(name)

    with pytest.raises(Interrupted, match="Ctrl-C"):
        block()
    assert done == ["first"]


def test_what_was_held_back_does_not_come_later():
    with pytest.raises(Interrupted), interruptible(), uninterrupted():
        os.kill(os.getpid(), signal.SIGTERM)
    with interruptible(), uninterrupted():
        pass


def test_other_threads_hold_nothing_back():
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with uninterrupted():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(10)
    with pytest.raises(Interrupted), interruptible():
        os.kill(os.getpid(), signal.SIGTERM)
    assert thread.is_alive()
    leave.set()
    thread.join()


def test_locks_are_released_whenever_a_signal_comes():
    """A timer sends signals while two threads fight for a lock as handlers of logs do."""
    lock, stop = threading.RLock(), threading.Event()

    def take():
        lock.acquire()
        try:
            pass
        finally:
            lock.release()

    def rival():
        while not stop.is_set():
            take()

    def block(timer):
        with interruptible():
            timer.start()
            while True:
                with uninterrupted():
                    take()

    thread = threading.Thread(target=rival)
    thread.start()
    try:
        for _ in range(50):
            timer = threading.Timer(0.005, os.kill, (os.getpid(), signal.SIGTERM))
            with pytest.raises(Interrupted):
                block(timer)
            timer.join()
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()
