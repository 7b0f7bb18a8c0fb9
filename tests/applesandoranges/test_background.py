import threading

import pytest
import torch

from applesandoranges.measurement.background import BackgroundWriter, HostCopy


def test_tasks_run_in_order_and_are_done_on_leaving():
    done = []
    with BackgroundWriter() as writer:
        for i in range(20):
            writer.submit(lambda i=i: done.append(i))
    assert done == list(range(20))


def test_few_tasks_wait():
    """The third submission waits until the first task is over."""
    release, started = threading.Event(), threading.Event()
    submitted = []

    def first():
        started.set()
        release.wait(10)

    def caller():
        with BackgroundWriter() as writer:
            for i, task in enumerate([first, lambda: None, lambda: None]):
                writer.submit(task)
                submitted.append(i)

    thread = threading.Thread(target=caller)
    thread.start()
    assert started.wait(10)
    thread.join(0.2)
    assert submitted == [0, 1]
    release.set()
    thread.join(10)
    assert submitted == [0, 1, 2]


def fail():
    raise OSError("disk full")


def test_an_error_surfaces_on_leaving():
    with pytest.raises(OSError, match="disk full"), BackgroundWriter() as writer:
        writer.submit(fail)


def test_an_error_surfaces_in_the_next_submissions():
    submitted = []

    def submit_until_it_fails():
        with BackgroundWriter() as writer:
            writer.submit(fail)
            for i in range(5):
                writer.submit(lambda: None)
                submitted.append(i)

    with pytest.raises(OSError, match="disk full"):
        submit_until_it_fails()
    assert len(submitted) <= BackgroundWriter.WAITING + 1


class Stopped(BaseException):
    pass


def test_what_was_computed_is_written_when_the_caller_is_stopped():
    done = []

    def interrupted():
        with BackgroundWriter() as writer:
            writer.submit(lambda: done.append(1))
            writer.submit(lambda: done.append(2))
            raise Stopped

    with pytest.raises(Stopped):
        interrupted()
    assert done == [1, 2]


def test_an_error_of_a_task_surfaces_also_when_the_caller_is_stopped():
    def interrupted():
        with BackgroundWriter() as writer:
            writer.submit(fail)
            raise Stopped

    with pytest.raises(OSError, match="disk full") as caught:
        interrupted()
    assert isinstance(caught.value.__context__, Stopped)


def test_host_copy_of_host_tensors_is_the_tensor():
    x = torch.arange(3.0)
    assert HostCopy(x).wait() is x


@pytest.mark.gpu
def test_host_copy_goes_through_pinned_memory():
    x = torch.arange(10.0**6, device="cuda")
    host = HostCopy(x).wait()
    assert host.is_pinned()
    assert torch.equal(host, torch.arange(10.0**6))
