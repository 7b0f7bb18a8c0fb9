"""A training that was stopped goes on to the very numbers of one that was not."""

import h5py
import pytest
import yaml

from applesandoranges.app.alone import take_lock
from applesandoranges.app.log import read_log
from applesandoranges.problems.sources import write_synthetic
from applesandoranges.training import checkpoints
from applesandoranges.training.params_file import IncrementalHDF5
from tests.conftest import TRAIN, Pipeline, run

RECORD = (0, 3, 9, 17)
HEADERS = ("EVAL ROUND", "TRAINING BATCH", "HDF5", "FINAL EVALUATION")

COSINE = {"name": "cosine", "warmup_ratio": 0.2}
CASES = {
    "SGD": ("mnist_mini", "SGD", {"lr": 0.3}, None),
    "momentum and schedule": ("mnist_mini", "SGD", {"lr": 0.1, "momentum": 0.9}, COSINE),
    "Adam": ("mnist_mini", "Adam", {"lr": 0.001}, None),
}
RANDOM_CASES = {
    "augmentation": ("cifar10_3c3d", "SGD", {"lr": 0.02}, None),
    "augmentation and dropout": ("cifar100_allcnnc", "Adam", {"lr": 0.001}, COSINE),
}


def settings(path, problem, optimizer, hpars, schedule, batch_size):
    """Write the settings of a case and return the words that name them."""
    how = {"opt_hpars": hpars, "lr_schedule": schedule}
    content = {"batch_size": batch_size, "num_epochs": 4, optimizer: how}
    path.write_text(yaml.safe_dump({problem: content}))
    return [f"PROBLEM={problem}", f"OPTIMIZER={optimizer}", f"TUNING_CONF={path}"]


def stop_after(monkeypatch, num_checkpoints):
    """Stop the next training after so many checkpoints, as Ctrl-C would."""
    true_save, calls = checkpoints.TrainingState.save, []

    def save(self, *args):
        true_save(self, *args)
        calls.append(args)
        if len(calls) == num_checkpoints:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.TrainingState, "save", save)


def numbers(pipeline):
    """Return all that a training leaves behind, time stamps and places aside."""
    log = read_log(pipeline.log)
    recorded = IncrementalHDF5(pipeline.params)
    steps = [metadata["step"] for metadata in recorded.metadata()]
    params = [recorded.find(step=step).data[:, 0].tolist() for step in steps]
    return {header: log.bodies(header) for header in HEADERS} | {"steps": steps, "params": params}


def assert_goes_on(tmp_path, monkeypatch, datasets, words, stops, num_hessian):
    def pipeline(name):
        return Pipeline(
            tmp_path / name, datasets, 6, 12, record=RECORD, num_hessian=num_hessian,
            extra=list(words),
        )  # fmt: skip

    undisturbed, disturbed = pipeline("undisturbed"), pipeline("disturbed")
    assert undisturbed.train() == 0
    for stop in stops:
        with monkeypatch.context() as patch:
            stop_after(patch, stop)
            assert disturbed.train() == 130
        disturbed.extra = [*words, f"RESUME={disturbed.run_dir}"]
    assert disturbed.train() == 0
    assert numbers(disturbed) == numbers(undisturbed)
    return disturbed


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("stops", [(1,), (2, 2), (3, 1, 2)], ids=str)
def test_same_numbers_however_often_it_was_stopped(tmp_path, monkeypatch, digits, case, stops):
    words = settings(tmp_path / "s.yaml", *case, batch_size=400)
    assert_goes_on(tmp_path, monkeypatch, digits, words, stops, 20)


@pytest.mark.slow
@pytest.mark.parametrize("case", RANDOM_CASES.values(), ids=RANDOM_CASES.keys())
def test_random_problems_go_on_with_their_generators(tmp_path, monkeypatch, case):
    datasets = tmp_path / "datasets"
    write_synthetic("CIFAR10", datasets, 100, 20)
    write_synthetic("CIFAR100", datasets, 100, 100)
    words = settings(tmp_path / "s.yaml", *case, batch_size=16)
    num_hessian = 100 if "cifar100" in case[0] else 20
    assert_goes_on(tmp_path, monkeypatch, datasets, words, (4,), num_hessian)


@pytest.fixture
def stopped(tmp_path, monkeypatch, digits):
    """A training that was stopped, with the word that resumes it."""
    pipeline = Pipeline(tmp_path, digits, 6, 12)
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert pipeline.train() == 130
    pipeline.extra = [f"RESUME={pipeline.run_dir}"]
    return pipeline


def snapshot(pipeline):
    return {p: p.read_bytes() for p in (pipeline.root / "output").rglob("*") if p.is_file()}


def test_a_stop_says_what_is_recorded_and_how_to_go_on(stopped, capsys):
    body = read_log(stopped.log).events[-1].body
    assert body["recorded"] == [0]
    assert body["to go on"].endswith(f"RESUME={stopped.run_dir}")
    assert body["by"] == "Ctrl-C"


def test_a_finished_training_is_left_alone(stopped, capsys):
    assert stopped.train() == 0
    before = snapshot(stopped)
    capsys.readouterr()
    assert stopped.train() == 0
    assert "Nothing to train: the training is done" in capsys.readouterr().out
    assert snapshot(stopped) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["PROBLEM=fmnist_mlp"], "PROBLEM was 'mnist_mini', now 'fmnist_mlp'"),
        (["RANDOM_SEED=1"], "RANDOM_SEED was 12345, now 1"),
        (["NUM_HESSIAN_DATAPOINTS=30"], "NUM_HESSIAN_DATAPOINTS was 20, now 30"),
        (["OBS_DATASETS={other}"], "these are not the data of the training"),
        (["OBS_DATASETS=nowhere"], "not found"),
    ],
    ids=["problem", "seed", "points", "data", "no data"],
)
def test_a_finished_training_is_none_of_another_kind(trained, tmp_path, capsys, words, message):
    write_synthetic("MNIST", tmp_path, 4000, 1000)
    given = {
        "OBS_DATASETS": trained.datasets, "RANDOM_SEED": trained.seed, "RECORD_STEPS": "[0,2]",
        "MAX_STEPS": 2, "NUM_HESSIAN_DATAPOINTS": 20, "DEVICE": "cpu", "RESUME": trained.run_dir,
    } | dict(word.format(other=tmp_path).split("=") for word in words)  # fmt: skip
    before = snapshot(trained)
    capsys.readouterr()
    assert run(TRAIN, *(f"{name}={value}" for name, value in given.items())) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert snapshot(trained) == before


def test_a_line_cut_by_a_kill_is_ended_and_left_out(stopped):
    with stopped.log.open("a") as log:
        log.write('["2026-01-01_00:00:00.000", ["TRAINING BA')
    assert stopped.train() == 0
    log = read_log(stopped.log)
    assert len(log.left_out) == 1
    assert [body["global_step"] for body in log.bodies("TRAINING BATCH")] == [0, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "is of another training: RANDOM_SEED was 12345, now 1"),
        ({"record": (0, 1, 2)}, "RECORD_STEPS was [0, 2], now [0, 1, 2]"),
        ({"extra": ["RESUME=nowhere"]}, "nowhere: expected the log of one training"),
    ],
    ids=["seed", "steps", "no such run"],
)
def test_another_training_is_refused(stopped, capsys, changes, message):
    before = snapshot(stopped)
    for name, value in changes.items():
        setattr(stopped, name, value)
    assert stopped.train() == 2
    assert message in capsys.readouterr().err.splitlines()[0]
    assert snapshot(stopped) == before


def test_a_damaged_checkpoint_is_refused(stopped, capsys):
    (path,) = stopped.run_dir.glob("*__checkpoint.h5")
    with h5py.File(path, "r+") as file:
        file["net/1.weight"][0, 0] += 1
    params = stopped.params.read_bytes()
    assert stopped.train() == 1
    assert "the checkpoint is damaged; start the training anew" in capsys.readouterr().err
    assert stopped.params.read_bytes() == params


def forget(pipeline, lines):
    """Leave of a training what one has that was killed in its first milliseconds."""
    content = pipeline.log.read_text().splitlines(keepends=True)
    whole, cut = "".join(content[: int(lines)]), content[int(lines)][:30] * (lines % 1 > 0)
    pipeline.log.write_text(whole + cut)
    for path in pipeline.run_dir.glob("*.h5"):
        path.unlink()


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
@pytest.mark.parametrize("lines", [0, 0.5, 1, 1.5], ids=["empty", "cut", "CONFIG", "CONFIG, cut"])
def test_a_training_killed_before_it_began_goes_on(tmp_path, digits, stopped, lines, times):
    forget(stopped, lines)
    if times == 2:  # the second one, too, dies in its first line
        with stopped.log.open("a") as log:
            log.write("\n[" if lines < 1 else "\n")
    assert stopped.train() == 0
    undisturbed = Pipeline(tmp_path / "undisturbed", digits, 6, 12)
    assert undisturbed.train() == 0
    assert numbers(stopped) == numbers(undisturbed)
    assert len(read_log(stopped.log).bodies("GLOBALS")) == 1


@pytest.mark.parametrize("lines", [0, 1], ids=["empty", "CONFIG"])
def test_a_cut_log_beside_recorded_steps_is_refused(stopped, capsys, lines):
    """It does not say of which run they are."""
    content = stopped.log.read_text().splitlines(keepends=True)
    stopped.log.write_text("".join(content[:lines]))
    before = snapshot(stopped)
    assert stopped.train() == 2
    assert "was cut, it does not say of which run" in capsys.readouterr().err
    assert snapshot(stopped) == before


def test_a_training_that_another_process_goes_on_with_is_refused(stopped, capsys):
    before = snapshot(stopped)
    with take_lock(stopped.log, "x"):
        assert stopped.train() == 2
    assert "is being written already, in another process" in capsys.readouterr().err
    assert snapshot(stopped) == before
    assert stopped.train() == 0


def without_last(path):
    """Put an earlier copy of a file in its place: one without the last step."""
    file = IncrementalHDF5(path)
    entries = [file.find(step=metadata["step"]) for metadata in file.metadata()[:-1]]
    attributes, dim = file.attributes(), len(file.find(step=0).data)
    path.unlink()
    copy = IncrementalHDF5.create(path, dim, entries[0].data.dtype, attributes)
    for entry in entries:
        copy.append(entry.data[:, 0], entry.metadata, entry.extras)


LOSSES = {"lost": lambda path: path.unlink(), "an earlier copy": without_last}


@pytest.mark.parametrize(
    ("is_done", "name", "how"),
    [
        (False, "params", "lost"),
        (False, "gradients_test", "lost"),
        (True, "gradients_train", "lost"),
        (True, "params", "an earlier copy"),
    ],
)
def test_recorded_steps_that_were_lost_are_not_passed_over(
    tmp_path, monkeypatch, digits, capsys, is_done, name, how
):
    words = ["STORE_GRADS=true", "WITH_EVAL=false"]
    pipeline = Pipeline(tmp_path, digits, 6, 12, extra=words)
    with monkeypatch.context() as patch:
        if not is_done:
            stop_after(patch, 2)
        assert pipeline.train() == (0 if is_done else 130)
    (path,) = pipeline.run_dir.glob(f"*__{name}.h5")
    steps = [metadata["step"] for metadata in IncrementalHDF5(path).metadata()]
    LOSSES[how](path)
    pipeline.extra.append(f"RESUME={pipeline.run_dir}")
    before = snapshot(pipeline)
    capsys.readouterr()
    assert pipeline.train() == 2
    lost = steps if how == "lost" else steps[-1:]
    assert f"of which {lost} are not there; put the file back" in capsys.readouterr().err
    assert snapshot(pipeline) == before
