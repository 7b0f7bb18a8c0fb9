"""Networks whose results depend on more than their parameters and the usual buffers."""

import logging
import re

import pytest

from applesandoranges.app.log import read_log
from applesandoranges.problems.problem import build_problem
from applesandoranges.training import checkpoints
from skerch.errors import InputError
from tests.conftest import Pipeline

PROBLEM = """\
import torch
from torch.utils.data import TensorDataset

settings = {{"batch_size": 5, "num_epochs": 9, "SGD": {{"opt_hpars": {{"lr": 0.05}}}}}}


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = torch.nn.Linear(3, 4), torch.nn.Linear(4, 3)
        {state}

    def forward(self, x):
        if self.training:
            self.count += 1
        return self.last(torch.tanh(self.first(x)) * (1 + 0.1 * self.count))
{more}

def network():
    return Net()


loss = torch.nn.CrossEntropyLoss()


def data(split):
    x = torch.linspace(-1, 1, 60).reshape(20, 3)
    return TensorDataset(x, torch.arange(20) % 3)
"""
A_BUFFER = 'self.register_buffer("count", torch.zeros((), dtype=torch.{dtype}){how})'
KINDS = {
    "a buffer": A_BUFFER.format(dtype="float32", how=""),
    "of a dtype that files do not know": A_BUFFER.format(dtype="bfloat16", how=""),
    "not persistent": A_BUFFER.format(dtype="float32", how=", persistent=False"),
    "an attribute": "self.count = 0",
}
RECORD = (0, 4, 6)


def pipeline_of(directory, state, more=""):
    directory.mkdir()
    problem = directory / "counting.py"
    problem.write_text(PROBLEM.format(state=state, more=more))
    words = [f"PROBLEM={problem}", "WITH_EVAL=false"]
    return Pipeline(directory, None, 6, 12, dim=31, record=RECORD, num_hessian=15, extra=words)


def losses(pipeline):
    return [body["H_train_loss"] for body in read_log(pipeline.log).bodies("TRAINING BATCH")]


def stop_before_the_last_record(monkeypatch):
    true_save, steps = checkpoints.TrainingState.save, []

    def save(self, path, run_id, step):
        true_save(self, path, run_id, step)
        steps.append(step)
        if step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.TrainingState, "save", save)


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_goes_on_with_all_buffers_and_says_what_it_cannot(
    tmp_path, monkeypatch, caplog, kind
):
    undisturbed, disturbed = (pipeline_of(tmp_path / n, KINDS[kind]) for n in ("one", "two"))
    assert undisturbed.train() == 0
    with monkeypatch.context() as patch:
        stop_before_the_last_record(patch)
        assert disturbed.train() == 130
    disturbed.extra.append(f"RESUME={disturbed.run_dir}")
    with caplog.at_level(logging.WARNING):
        assert disturbed.train() == 0
    warned = [r.message for r in caplog.records if "changed attributes" in r.message]
    if kind == "an attribute":
        assert losses(disturbed) != losses(undisturbed)
        assert re.search(r"not in its checkpoint \(\.count\)", warned[0])
    else:
        assert losses(disturbed) == losses(undisturbed)
        assert not warned


@pytest.mark.parametrize("kind", KINDS)
def test_a_hessian_is_that_of_the_training_or_refused(tmp_path, capsys, kind):
    pipeline = pipeline_of(tmp_path / "run", KINDS[kind])
    assert pipeline.train() == 0
    store = pipeline.lay_out()
    assert pipeline.measure(store, STEP=0) == 0
    capsys.readouterr()
    status = pipeline.measure(store, STEP=6)
    message = capsys.readouterr().err
    if kind == "an attribute":
        assert status == 2
        trained = losses(pipeline)[-1]
        assert f"in the training it was {trained:.6g}" in message
    else:
        assert (status, message) == (0, "")


@pytest.mark.parametrize(
    ("state", "more"),
    [
        ("self.count = 0", "\n    def get_extra_state(self):\n        return {}\n"),
        ('self.register_buffer("count", torch.zeros(3).to_sparse())', ""),
    ],
    ids=["extra state", "sparse"],
)
def test_state_that_is_not_recorded_is_refused(tmp_path, state, more):
    pipeline = pipeline_of(tmp_path / "run", state, more)
    problem = pipeline.extra[0].partition("=")[2]
    with pytest.raises(InputError, match=r"modules with state that is not recorded.*: Net;"):
        build_problem(problem, None, 1, 4)
