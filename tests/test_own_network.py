"""docs/own_network.md runs as it stands there, and the examples run through the whole pipeline."""

import json
import re
import tempfile

import h5py
import pytest
import torch
from safetensors.torch import save_file

from applesandoranges.app.log import read_log
from tests.conftest import Pipeline, run
from tests.script_loader import REPOSITORY, load_script

TRAIN = "10a_gather_params_grads.py"
DOCUMENT = (REPOSITORY / "docs" / "own_network.md").read_text()
RECORD, TEST, CHECK = (
    "10f_record_checkpoints.py", "12a_mnist_mini_exhaustive_test.py", "20a_curvlinops_checks.py",
)  # fmt: skip
EXAMPLES = {"digits_mlp": 1482, "sequence_transformer": 2422}


def example(name):
    return f"PROBLEM={REPOSITORY / 'examples' / name}.py"


def blocks(language):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    return [block for name, block in found if name == language]


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", DOCUMENT))
def test_links(link):
    assert (REPOSITORY / "docs" / link).exists()


#: A network whose forward() fails at once, or after so many calls.
FAULTY = """\
import torch


class Net(torch.nn.Module):
    calls = 0

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)

    def forward(self, X):
        Net.calls += 1
        if Net.calls > {calls}:
            X = X.reshape(7, -1)
        return self.linear(X)


network = Net
loss = torch.nn.functional.mse_loss
settings = {{"batch_size": 5, "num_epochs": 2, "SGD": {{"opt_hpars": {{"lr": 0.1}}}}}}


def data(split):
    return torch.utils.data.TensorDataset(torch.ones(40, 3), torch.ones(40, 2))
"""


@pytest.mark.parametrize("calls", [0, 12], ids=["at once", "while it trains"])
def test_an_error_in_forward_is_one_line(tmp_path, capsys, monkeypatch, calls):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    problem = tmp_path / "faulty.py"
    problem.write_text(FAULTY.format(calls=calls))
    words = [f"PROBLEM={problem}", "RECORD_STEPS=0", "NUM_HESSIAN_DATAPOINTS=10", "DEVICE=cpu"]
    assert run(TRAIN, *words, f"OUTPUT_DIR={tmp_path / 'output'}") == 1
    screen = capsys.readouterr()
    (line,) = screen.err.splitlines()
    assert "Traceback" not in screen.out
    assert line.startswith(
        f"{TRAIN}: {problem}, line 14, in forward: RuntimeError: shape '[7, -1]'"
    )
    if calls:
        (log,) = tmp_path.glob("output/*/*.log")
        assert line.endswith(f"(traceback: the last line of {log})")
        last = read_log(log).events[-1]
        assert (last.header, last.text) == ("ERROR", "Stopped by an error in a file of the user")
        text = last.body["traceback"]
    else:
        (file,) = tmp_path.glob("traceback-*.txt")
        assert line.endswith(f"(traceback: {file})")
        assert not (tmp_path / "output").exists()
        text = file.read_text()
    assert text.startswith("Traceback")
    assert "in forward" in text
    assert "applesandoranges" in text


def test_an_error_elsewhere_is_not_taken_for_one_of_the_user(tmp_path, monkeypatch):
    """A fault of ours must show as one, with its traceback."""

    def fault(*args):
        raise RuntimeError("ours")

    monkeypatch.setattr(load_script(TRAIN), "train", fault)
    words = [example("digits_mlp"), "RECORD_STEPS=0", "NUM_HESSIAN_DATAPOINTS=10", "DEVICE=cpu"]
    with pytest.raises(RuntimeError, match="ours"):
        run(TRAIN, *words, f"OUTPUT_DIR={tmp_path}")


@pytest.mark.slow
def test_the_tutorial_runs(shell):
    (problem,) = blocks("python")
    (shell.clone / "my_problem.py").write_text(problem)
    shell("\n".join(blocks("")))
    (layers,) = shell.clone.glob("output/wine/*/figures/layers.png")
    assert layers.stat().st_size > 10_000
    (vectors,) = shell.clone.glob("output/wine/*/*eigenvectors__step=50*.h5")
    with h5py.File(vectors) as file:
        assert file["parameters/3.weight"].shape == (3, 12, 5)
    assert len(list(shell.clone.glob("output/experiment/*/*my_problem*/*10d*.log"))) == 4


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_through_the_pipeline(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    pipeline = Pipeline(
        tmp_path, None, 6, 12, dim=EXAMPLES[name], record=(0, 3), num_hessian=20,
        extra=[example(name)],
    )  # fmt: skip
    assert pipeline.train() == 0
    store = pipeline.lay_out()
    assert pipeline.measure(store, STEP=3) == 0
    assert pipeline.analyse(store, STEP=3, EIGENVECTORS=2) == 0
    (log,) = pipeline.logs("10d_core_and_analysis.py")
    bodies = [event.body for event in read_log(log).events if event.header == "RESULT"]
    (overlap,) = [body["frob_Qtop^2"] for body in bodies if "frob_Qtop^2" in body]
    top = next(body for body in bodies if "layers_mask" in body)
    assert len(overlap) == 6
    assert sum(top["layer_sizes"]) == EXAMPLES[name]
    assert sum(top["layers_overlap"]) == pytest.approx(overlap[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters"), [("digits_mlp", "*"), ("sequence_transformer", "encoder.self_attn")]
)
def test_examples_beside_their_exact_hessian(tmp_path, name, parameters):
    """The sketch has the eigenvalues of the dense Hessian, within what its size allows.

    Of the attention alone: thousands of its products, without vmap, take minutes.
    """
    words = [
        example(name), f"PARAMETERS={parameters}", "NUM_HESSIAN_DATAPOINTS=20", "RECORD_STEPS=3",
        "MAX_STEPS=3", "DEVICE=cpu", "RANDOM_SEED=1", "NUM_OUTER=200", "NUM_INNER=400",
        f"OUTPUT_DIR={tmp_path}", "EIGENVECTORS=2",
    ]  # fmt: skip
    assert run(TEST, *words) == 0
    (log,) = tmp_path.glob("*/*12a*.log")
    exact = [event.body for event in read_log(log).events if "eigval_errors" in event.body]
    assert len(exact) == 2  # of each split
    assert all(max(body["eigval_errors"][:10]) < 0.1 for body in exact)
    assert len(list(tmp_path.glob("*/*eigenvectors*.h5"))) == 2


def test_20a_checks_a_problem_of_a_file(capsys):
    assert run(CHECK, example("digits_mlp"), "NUM_HESSIAN_DATAPOINTS=20", "DEVICE=cpu") == 0
    assert "digits_mlp: all checks hold" in capsys.readouterr().out


# --------------------------------------------------------------------------------- checkpoints

PROBLEM = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

loss = nn.CrossEntropyLoss()

def network():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))

def data(split):
    return TensorDataset(torch.arange(36.).reshape(12, 3).sin(), torch.arange(12) % 2)
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A problem and its network, trained by another program."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(PROBLEM)
    torch.manual_seed(3)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    net(torch.randn(8, 3))  # statistics of its own
    return net


def record(*words):
    rest = ["PROBLEM=net.py", "NUM_HESSIAN_DATAPOINTS=10", "BATCH_SIZE=5", "DEVICE=cpu"]
    return run(RECORD, *rest, "OUTPUT_DIR=output", *words)


WRAPPED = {
    "plain": ("step_7.pt", lambda state: state),
    "an entry": ("step_7.pt", lambda state: {"epoch": 3, "model_state_dict": state}),
    "DataParallel": ("step_7.pt", lambda state: {f"module.{n}": v for n, v in state.items()}),
    "compiled": ("step_7.pt", lambda state: {f"_orig_mod.{n}": v for n, v in state.items()}),
    "safetensors": ("step_7.safetensors", lambda state: state),
}


@pytest.mark.parametrize(("file", "wrap"), WRAPPED.values(), ids=WRAPPED)
def test_checkpoints_are_recorded_as_10a_does(tmp_path, elsewhere, file, wrap):
    state = elsewhere.state_dict()
    (save_file if file.endswith("safetensors") else torch.save)(wrap(state), file)
    assert record(f"CHECKPOINTS={file}") == 0
    pipeline = Pipeline(tmp_path, None, 3, 6, dim=34)
    (log,) = pipeline.run_dir.glob("*10f*.log")
    with h5py.File(pipeline.params) as params:
        recorded = torch.from_numpy(params["data"][:, 0])
        mean = torch.from_numpy(params["extras/0/1.running_mean"][()])
    assert torch.equal(recorded, torch.nn.utils.parameters_to_vector(elsewhere.parameters()))
    assert torch.equal(mean, state["1.running_mean"])
    assert read_log(log).first("GLOBALS")["record_steps"] == [7]
    words = {"TRAINING_LOGPATH": log, "OBS_DATASETS": None, "STEP": 7}
    assert pipeline.measure(store := pipeline.lay_out(), **words) == 0
    assert pipeline.analyse(store, **words) == 0


@pytest.mark.parametrize("steps", [[], [70, 50]])
def test_steps_come_from_names_or_from_the_key(tmp_path, elsewhere, steps):
    for step in (3, 12):
        torch.save(elsewhere.state_dict(), f"s{step}.pt")
    words = [f"STEPS={json.dumps(steps)}"] if steps else []
    assert record("CHECKPOINTS=s*.pt", *words) == 0
    (log,) = tmp_path.glob("output/*/*10f*.log")
    assert read_log(log).first("GLOBALS")["record_steps"] == (sorted(steps) or [3, 12])


REFUSED = {
    "no file": ([], {}, "no file matches"),
    "no number": (["last.pt"], {}, "no number in its name"),
    "steps": (["a1.pt"], {"STEPS": "[1,2]"}, "expected 1 different steps"),
    "another network": (["other1.pt"], {}, "is not of this network: 9 names are missing"),
    "code": (["module1.pt"], {}, "could run code; save net.state_dict()"),
    "damaged": (["noise1.pt"], {}, "cannot be read"),
    "nested": (["nested1.pt"], {"ENTRY": "ema"}, "expected a state dictionary under 'ema', found"),
}


@pytest.mark.parametrize(("files", "changes", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_checkpoints(tmp_path, elsewhere, capsys, files, changes, message):
    for name in files:
        content = {
            "other1.pt": torch.nn.Linear(3, 2).state_dict(),
            "module1.pt": elsewhere,
            "nested1.pt": {"state_dict": elsewhere.state_dict()},
        }.get(name, elsewhere.state_dict())
        torch.save(content, name)
    if files == ["noise1.pt"]:
        (tmp_path / "noise1.pt").write_bytes(b"noise" * 100)
    words = [f"{name}={value}" for name, value in changes.items()]
    assert record("CHECKPOINTS=*.pt", *words) == 2
    line = capsys.readouterr().err.splitlines()[0]
    assert message in line
    assert not (tmp_path / "output").exists()


LOSSES = {
    "none": ("nn.CrossEntropyLoss(reduction='none')", "the loss has reduction='none'"),
    "values": ("lambda out, y: (out - y[:, None]).square().sum(1)", "one number for a mini-batch"),
    "another mean": (
        "lambda out, y: nn.functional.cross_entropy(out, y, ignore_index=0)",
        "neither the mean over its data points",
    ),
    "dtype": (
        "lambda out, y: nn.functional.cross_entropy(out, y, torch.tensor([1., 3.]))",
        "must follow the dtype of the outputs",
    ),
}  # fmt: skip


@pytest.mark.parametrize("script", [TRAIN, RECORD])
@pytest.mark.parametrize(("loss", "message"), LOSSES.values(), ids=LOSSES)
def test_refused_losses_write_nothing(tmp_path, elsewhere, capsys, script, loss, message):
    """What they are means over shows in their values only."""
    text = PROBLEM.replace("nn.CrossEntropyLoss()", loss)
    settings = {"batch_size": 5, "num_epochs": 1, "SGD": {"opt_hpars": {"lr": 0.1}}}
    (tmp_path / "net.py").write_text(f"{text}\nsettings = {settings}\n")
    torch.save(elsewhere.state_dict(), "s1.pt")
    words = ["CHECKPOINTS=s1.pt"] if script == RECORD else ["RECORD_STEPS=0", "MAX_STEPS=1"]
    rest = ["PROBLEM=net.py", "NUM_HESSIAN_DATAPOINTS=10", "DEVICE=cpu", "OUTPUT_DIR=output"]
    assert run(script, *rest, *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["BATCH_SIZE=0"], "BATCH_SIZE must be at least 1, got 0"),
        ([], "no settings for SGD, neither there"),
    ],
)
@pytest.mark.parametrize("script", [RECORD, CHECK])
def test_what_does_not_train_needs_a_batch_size_alone(elsewhere, capsys, script, words, message):
    torch.save(elsewhere.state_dict(), "s1.pt")
    rest = ["PROBLEM=net.py", "NUM_HESSIAN_DATAPOINTS=10", "DEVICE=cpu"]
    rest += ["CHECKPOINTS=s1.pt"] if script == RECORD else []
    assert run(script, *rest, *words) == 2
    assert message in capsys.readouterr().err
    if script == CHECK:
        assert run(script, *rest, "BATCH_SIZE=5") == 0


def test_checks_are_shown_one_by_one(elsewhere, capsys, monkeypatch):
    """What was found stands there if a later check is stopped."""
    module = load_script(CHECK)
    true_checks = module.each_check

    def stopped(*args):
        yield next(true_checks(*args))
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "each_check", stopped)
    words = ["PROBLEM=net.py", "NUM_HESSIAN_DATAPOINTS=10", "DEVICE=cpu", "BATCH_SIZE=5"]
    assert run(CHECK, *words) == 130
    assert "train  determinism             ok" in capsys.readouterr().out
