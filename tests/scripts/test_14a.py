"""14a: verdicts on logs that are, are not, and cannot be those of the published runs."""

import json
import re
from itertools import product

import numpy as np
import pandas as pd
import pytest

from applesandoranges.app.keys import parse_config
from tests.conftest import run
from tests.published_logs import (
    analysis_events,
    exhaustive_events,
    published_events,
    training_events,
    write_log,
    write_logs,
)
from tests.script_loader import load_script

SCRIPT, EXHAUSTIVE = "14a_check_published.py", "12a_mnist_mini_exhaustive_test.py"
NETWORKS = {
    "cifar10det_3c3d": list(product(range(0, 8001, 2000), ("train", "test"))),
    "cifar100_allcnnc": list(product(range(0, 8001, 2000), ("test",))),
    "imagenetdet_resnet18": list(product(range(0, 8001, 2000), ("test",))),
}
HESSIANS = NETWORKS | {"mnist_mini": list(product(range(0, 1001, 100), ("train", "test")))}


@pytest.fixture
def no_figure(monkeypatch):
    """14a without its figure, which takes longer than all the rest."""
    module = load_script(SCRIPT)
    monkeypatch.setattr(module, "draw_comparison", lambda *args: None)
    monkeypatch.setattr(module, "save_figure", lambda *args: [])


@pytest.fixture
def check(tmp_path, no_figure):
    """Runs 14a on logs, which are written first."""

    def check_logs(logs, *words):
        directory = write_logs(tmp_path / "logs", logs)
        return run(SCRIPT, f"LOGS={directory}", f"OUTPUT_DIR={tmp_path / 'out'}", *words)

    return check_logs


def change(logs, name, value, header=None, step=None, test=None):
    """Change the first such number, list or setting of the logs."""
    for events in logs.values():
        config = events[0][1]
        for at, body in events:
            here = body.get("step", config.get("STEP")) if isinstance(body, dict) else None
            if (
                isinstance(body, dict)
                and name in body
                and header in (None, at)
                and step in (None, here, body.get("global_step"))
                and test in (None, config.get("TEST_HESSIAN", "TEST" in at))
            ):
                body[name] = value(body[name]) if callable(value) else value
                return logs
    raise AssertionError(f"no {name} in the logs")


def lines(output):
    """Return step, split and verdict of the lines by step and split."""
    words = [line.split() for line in output.splitlines()]
    found = [w for w in words if len(w) > 3 and w[0].isdigit() and w[1] in ("train", "test")]
    verdicts = ("met", "explained", "DIFFERS", "none")
    return [(int(w[0]), w[1], next(v for v in reversed(w) if v in verdicts)) for w in found]


@pytest.mark.parametrize("problem", HESSIANS)
def test_the_published_numbers_themselves_are_met(check, capsys, problem):
    assert check(published_events(problem)) == 0
    output = capsys.readouterr().out
    assert "All published numbers are met." in output
    assert lines(output) == [(*hessian, "met") for hessian in HESSIANS[problem]]


def test_figure_and_table_are_saved(tmp_path, capsys):
    logs = write_logs(tmp_path / "logs", published_events("cifar100_allcnnc"))
    out = tmp_path / "out"
    assert run(SCRIPT, f"LOGS={logs}", f"OUTPUT_DIR={out}") == 0
    (directory,) = out.iterdir()
    names = ["published.pdf", "published.png", "published_differences.csv"]
    assert sorted(path.name for path in directory.iterdir()) == names
    assert str(directory / "published.png") in capsys.readouterr().out
    table = pd.read_csv(directory / "published_differences.csv")
    assert set(table["verdict"]) == {"met"}
    # five Hessians with core, overlap and mask; ten losses and so on at the start, and later
    assert len(table) == 5 * 3 + 2 * 10


def replace_at(index, function):
    return lambda values: [*values[:index], function(values[index]), *values[index + 1 :]]


def grow(size):
    return lambda value: value + size


@pytest.mark.parametrize(
    ("step", "test", "name", "new", "line"),
    [
        (300, False, "H_eigvals", replace_at(0, lambda v: v * (1 + 3e-5)), "|eigenvalue|"),
        (700, True, "H_eigvals", replace_at(200, lambda v: v * (1 + 3e-5)), "|eigenvalue|"),
        (100, True, "core_S", replace_at(9, grow(0.01)), "|core_S|"),
        (1000, False, "frob_Qtop^2", replace_at(354, grow(0.1)), "overlap at 355"),
        (900, True, "frob_Qtop^2", replace_at(4, grow(0.002)), "overlap at 5"),
        (0, False, "largest_absparams", replace_at(3, lambda i: 0), "mask at 355"),
        (400, False, "frob_Qtop^2", lambda values: values[:-1], "overlap at 355"),
    ],
)
def test_one_number_of_a_hessian_that_is_off_fails(check, capsys, step, test, name, new, line):
    assert check(change(published_events("mnist_mini"), name, new, None, step, test)) == 1
    output, error = capsys.readouterr()
    split = "test" if test else "train"
    assert [found for found in lines(output) if found[2] != "met"] == [(step, split, "DIFFERS")]
    assert f"step {step}, {split}: {line}" in output
    assert "1 of 98 quantities differ from what was published" in error
    assert "All published" not in output


def test_what_cannot_be_read_is_named_and_not_called_published(check, capsys):
    assert check(change(published_events("mnist_mini"), "core_S", ["x"], None, 400, False)) == 0
    output, error = capsys.readouterr()
    assert "left out: " in error
    assert "(core_S is no list of numbers)" in error
    assert "Not compared, as the logs lack it: " in output
    assert "All published" not in output


@pytest.mark.parametrize(
    ("header", "name", "step", "new"),
    [
        ("EVAL ROUND", "xv_loss", 4900, grow(3e-5)),
        ("EVAL ROUND", "test_acc", 100, None),
        ("FINAL EVALUATION", "train_acc", 5000, grow(1e-4)),
        ("TRAINING BATCH", "H_test_loss", 800, grow(3e-5)),
    ],
)
def test_one_number_of_the_training_that_is_off_fails(check, capsys, header, name, step, new):
    assert check(change(published_events("mnist_mini"), name, new, header, step)) == 1
    output, error = capsys.readouterr()
    (differing,) = (text for text in output.splitlines() if "DIFFERS" in text)
    assert differing.split()[0] == name
    assert f"{name} at {step}: ours" in output
    assert "1 of 98 quantities differ" in error


def test_signs_and_the_order_of_a_mask_without_order_do_not_matter(check):
    logs = change(published_events("mnist_mini"), "core_S", lambda v: [-x for x in v])
    assert check(change(logs, "largest_absparams", lambda v: v[::-1])) == 0


@pytest.mark.parametrize("problem", NETWORKS)
@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("core_S", replace_at(2, lambda v: v * 1.1)),
        ("largest_absparams", replace_at(999, lambda i: 0)),
    ],
    ids=["core", "mask"],
)
def test_step_0_of_a_network_must_agree(check, capsys, problem, name, new):
    assert check(change(published_events(problem), name, new, None, 0, True)) == 1
    assert [found for found in lines(capsys.readouterr().out) if found[2] != "met"] == [
        (0, "test", "DIFFERS")
    ]


@pytest.mark.parametrize("problem", ["cifar10det_3c3d", "cifar100_allcnnc"])
def test_the_order_of_a_mask_of_step_0_must_agree(check, capsys, problem):
    logs = published_events(problem)
    change(logs, "largest_absparams", lambda v: [v[1], v[0], *v[2:]], None, 0, True)
    assert check(logs) == 1
    assert "step 0, test: mask at 1: ours 0, published 1" in capsys.readouterr().out


def test_weights_that_are_all_one_may_be_chosen_otherwise(check, capsys):
    """BatchNorm's weights: bn1 of ResNet-18 comes after 64 x 3 x 7 x 7 weights of a convolution."""
    logs = published_events("imagenetdet_resnet18")
    others = [*range(64 * 3 * 7 * 7, 64 * 3 * 7 * 7 + 64)]
    new = lambda v: (others + [i for i in v if i not in others])[: len(v)]  # noqa: E731
    change(logs, "largest_absparams", new, None, 0, True)
    change(logs, "frob_Qtop^2", replace_at(0, grow(0.5)), None, 0, True)
    assert check(logs) == 0
    assert lines(capsys.readouterr().out)[0] == (0, "test", "explained")


def swapped(logs, first, second):
    """Exchange the results of two steps of the test split."""
    (one,), (two,) = (
        [events for name, events in logs.items() if f"step={step}__test=True" in name]
        for step in (first, second)
    )
    one[-3:], two[-3:] = two[-3:], one[-3:]
    return logs


@pytest.mark.parametrize("problem", NETWORKS)
def test_later_steps_may_be_as_far_apart_as_published_ones_are(check, capsys, problem):
    assert check(swapped(published_events(problem), 4000, 6000)) == 0
    output = capsys.readouterr().out
    assert [found for found in lines(output) if found[2] != "met"] == [
        (4000, "test", "explained"), (6000, "test", "explained"),
    ]  # fmt: skip
    assert "training amplifies rounding" in output
    assert "are met, but for 6 of" in output


def test_later_steps_that_are_farther_apart_differ(check, capsys):
    logs = published_events("cifar10det_3c3d")
    change(logs, "core_S", replace_at(0, grow(300)), None, 8000, False)
    assert check(logs) == 1
    line = "step 8000, train: |core_S| at 1: ours 396.56157, published 96.561569, difference 3.1"
    assert line in capsys.readouterr().out


def test_a_last_batch_of_validation_data_may_be_another(check, capsys):
    logs = change(published_events("cifar10det_3c3d"), "xv_acc", grow(15 / 9984), "EVAL ROUND", 0)
    assert check(logs) == 0
    assert check(change(logs, "xv_acc", grow(3 / 9984), "EVAL ROUND", 0)) == 1
    assert check(change(published_events("cifar10det_3c3d"), "test_acc", grow(1 / 9984))) == 1


@pytest.mark.parametrize(
    ("problem", "header", "name", "value", "message"),
    [
        ("mnist_mini", "GLOBALS", "data_source", "embedded", "are embedded, not the full MNIST"),
        ("mnist_mini", "CONFIG", "RANDOM_SEED", 1, "RANDOM_SEED=1, published 12345"),
        ("mnist_mini", "CONFIG", "OPTIMIZER", "Adam", "OPTIMIZER=Adam, published SGD"),
        ("mnist_mini", "GLOBALS", "batch_size", 250, "batch_size=250, published 500"),
        ("cifar10det_3c3d", "GLOBALS", "data_source", "synthetic", "not the full CIFAR-10"),
        ("cifar10det_3c3d", "GLOBALS", "opt_hpars", {"lr": 0.1}, "lr=0.1, published 0.022611"),
        ("cifar100_allcnnc", "CONFIG", "NUM_HESSIAN_DATAPOINTS", 500,
         "NUM_HESSIAN_DATAPOINTS=500, published 1000"),
    ],
)  # fmt: skip
def test_another_experiment_gets_no_verdict(check, capsys, problem, header, name, value, message):
    logs = published_events(problem)
    next(body for at, body in next(iter(logs.values())) if at == header)[name] = value
    assert check(logs) == 2
    output, error = capsys.readouterr()
    assert message in error
    assert "no verdict is possible" in error
    assert {verdict for *_, verdict in lines(output)} == {"none"}
    assert " met " not in output


@pytest.mark.parametrize(
    ("name", "value"),
    [("SYMMETRIZE_CORE", True), ("NUM_INNER", 1400), ("RECOVERY", "krylov")],
)
def test_another_sketch_gets_no_verdict_on_the_sketch(check, capsys, name, value):
    logs = published_events("cifar10det_3c3d")
    for at, events in logs.items():
        if "10d" in at:
            events[0][1][name] = value
    change(logs, "core_S", replace_at(2, lambda v: v * 1.1), None, 0, True)
    assert check(logs) == 2
    output, error = capsys.readouterr()
    assert f"{name}={value}, published" in error
    assert "(of core and overlap)" in error
    assert {verdict for *_, verdict in lines(output)} == {"none"}
    assert "train_loss" in output
    assert output.count(" met ") >= 20
    change(logs, "largest_absparams", replace_at(2, lambda i: 0), None, 0, True)
    assert check(logs) == 1  # masks do not depend on the sketch


@pytest.mark.parametrize(
    ("problem", "published", "masks"),
    [("cifar100_allcnnc", 1000, ["100 of 100"]), ("mnist_mini", 355, [])],
)
def test_a_sketch_of_lower_rank_gets_no_verdict_on_the_sketch(
    check, capsys, problem, published, masks
):
    logs = published_events(problem)
    for name in ("core_S", "frob_Qtop^2", "largest_absparams"):
        change(logs, name, lambda values: values[:100], None, 0, True)
    assert check(logs, "STEPS=[0]", "SPLITS=[test]") == 2
    output, error = capsys.readouterr()
    assert f"NUM_OUTER=100, published {published}" in error
    (line,) = (text for text in output.splitlines() if text.split()[:2] == ["0", "test"])
    assert re.findall(r"\b\d+ of \d\d+\b", line) == masks


def test_the_number_of_measurements_may_stand_in_their_logs_alone(check, capsys):
    logs = published_events("cifar100_allcnnc")
    (config,) = (e[0][1] for name, e in logs.items() if "step=0__" in name)
    measured = {"TRAINING_LOGPATH": config["TRAINING_LOGPATH"], "NUM_INNER": 4000}
    performing = ("INFO", ["Performing measurement", {"step": 0, "meas_idx": 0, "H_test": True}])
    logs["1[10c_hessian_hdf5_measurements.py]__idxs=<0...339>.log"] = [
        ("CONFIG", measured), performing,
    ]  # fmt: skip
    assert check(logs) == 2
    assert "NUM_INNER=4000, published 2000" in capsys.readouterr().err


def test_steps_and_splits_can_be_chosen(check, capsys):
    logs = change(
        published_events("mnist_mini"), "core_S", replace_at(0, grow(1.0)), None, 500, True
    )
    assert check(logs, "STEPS=[0,500]", "SPLITS=[train]") == 0
    output = capsys.readouterr().out
    assert lines(output) == [(0, "train", "met"), (500, "train", "met")]
    assert check(logs, "STEPS=[500]") == 1


@pytest.mark.parametrize("word", ["STEPS=[0,50]", "STEPS=[]", "SPLITS=[valid]"])
@pytest.mark.parametrize("problem", ["mnist_mini", "cifar100_allcnnc"])
def test_what_was_not_published_cannot_be_chosen(check, capsys, word, problem):
    assert check(published_events(problem), word) == 2
    error = capsys.readouterr().err
    assert f"{word[: word.index('=')]} must be some of the published ones of {problem}" in error
    assert len(error.splitlines()) == 1


def test_what_a_run_lacks_is_named(check, capsys):
    logs = published_events("cifar10det_3c3d")
    logs = {name: e for name, e in logs.items() if "step=4000__test=False" not in name}
    training = next(iter(logs.values()))
    training[:] = [event for event in training if event[0] != "FINAL EVALUATION"]
    assert check(logs) == 0
    output = capsys.readouterr().out
    assert "Not compared, as the logs lack it: core, overlap, mask of step 4000 train\n" in output
    assert "lack it: losses or accuracies of 1 of the steps 8002 ... 8002\n" in output
    assert "All compared numbers are met." in output
    assert "All published" not in output


def test_logs_without_published_steps_are_refused(check, capsys):
    events = exhaustive_events()[:3]
    events += [("EVAL ROUND", {"global_step": 7}), ("H_TRAIN RESULT", {"step": 7, "core_S": [1]})]
    assert check({"a[12a_x.py].log": events}) == 2
    assert "none of the published steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("logs", "message"),
    [
        ({"1[10d_a.py].log": analysis_events("cifar10det_3c3d", "test", 0)}, "found 1 runs with 0"),
        (
            {"a/1[10a_a.py].log": training_events("cifar10det_3c3d"),
             "b/1[10a_a.py].log": training_events("cifar100_allcnnc")},
            "found 2 runs with 2 trainings",
        ),
    ],
    ids=["no training", "two runs"],
)  # fmt: skip
def test_logs_that_are_not_of_one_run_are_refused(check, capsys, logs, message):
    assert check(logs) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "give one run directory" in error
    assert len(error.splitlines()) == 1


def test_a_problem_without_published_results_is_refused(check, capsys):
    logs = {"1[10a_a.py].log": training_events("mnist_mini")}
    assert check(change(logs, "PROBLEM", "fmnist_mlp")) == 2
    assert "nothing was published of fmnist_mlp" in capsys.readouterr().err


def test_log_is_the_same_as_logs(tmp_path, no_figure):
    path = write_log(tmp_path / f"run[{EXHAUSTIVE}].log", exhaustive_events())
    assert run(SCRIPT, f"LOG={path}", f"OUTPUT_DIR={tmp_path / 'out'}") == 0


@pytest.mark.parametrize(
    ("words", "got"),
    [
        ([], "got neither"),
        (["LOG=a", "OBS_DATASETS=b"], "got LOG and OBS_DATASETS"),
        (["LOG=a", "LOGS=b"], "got LOGS and LOG"),
    ],
    ids=["neither", "both", "twice"],
)
def test_exactly_one_of_data_and_logs(words, got, capsys):
    assert run(SCRIPT, *words) == 2
    error = capsys.readouterr().err
    assert "give either OBS_DATASETS" in error
    assert got in error


def test_embedded_digits_are_not_trained_on(digits, tmp_path, capsys):
    assert run(SCRIPT, f"OBS_DATASETS={digits}", f"OUTPUT_DIR={tmp_path / 'out'}") == 2
    assert "the data are embedded, not the full MNIST" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def stand_in(digits, tmp_path, monkeypatch, no_figure):
    """14a on data that pass for full, with a stand-in for 12a that notes its words."""
    module = load_script(SCRIPT)
    load = module.load_dataset

    def load_as_full(*args):
        data = load(*args)
        return type(data)(**{**vars(data), "source": "full"})

    monkeypatch.setattr(module, "load_dataset", load_as_full)
    script, noted = tmp_path / "stand_in.py", tmp_path / "words.json"
    source = write_log(tmp_path / "source.log", exhaustive_events())
    monkeypatch.setattr(module, "EXHAUSTIVE", script)
    body = f"""
import json, pathlib, sys
open({str(noted)!r}, "w").write(json.dumps(sys.argv[1:]))
given = dict(word.split("=", 1) for word in sys.argv[1:])
path = pathlib.Path(given["OUTPUT_DIR"]) / "run" / "a[{EXHAUSTIVE}].log"
path.parent.mkdir(parents=True)
path.write_text(open({str(source)!r}).read())
"""

    def run_with(*words, body=body):
        script.write_text(body)
        out = f"OUTPUT_DIR={tmp_path / 'out'}"
        status = run(SCRIPT, f"OBS_DATASETS={digits}", out, "DEVICE=cpu", *words)
        if not noted.exists():
            return status, None
        return status, parse_config(load_script(EXHAUSTIVE).Config, json.loads(noted.read_text()))

    return run_with


#: What the published log says of itself.
PUBLISHED_CONFIG = {
    "PROBLEM": "mnist_mini", "OPTIMIZER": "SGD", "RANDOM_SEED": 12345,
    "NUM_HESSIAN_DATAPOINTS": 500, "NUM_OUTER": 355, "NUM_INNER": 710, "WITH_A_POSTERIORI": False,
}  # fmt: skip


def test_full_data_are_trained_on_with_the_published_settings(stand_in):
    status, config = stand_in()
    assert status == 0
    assert {name: getattr(config, name) for name in PUBLISHED_CONFIG} == PUBLISHED_CONFIG
    assert config.SYMMETRIZE_CORE is False
    assert set(config.RECORD_STEPS) == set(range(0, 1001, 100))
    assert config.MAX_STEPS is None  # all 50 epochs
    assert config.WITH_TRAIN_HESSIAN
    assert config.WITH_TEST_HESSIAN


def test_a_short_version_trains_and_analyses_no_more_than_it_needs(stand_in):
    status, config = stand_in("STEPS=[500,0]", "SPLITS=[test]")
    assert status == 0
    assert config.RECORD_STEPS == [0, 500]
    assert config.MAX_STEPS == 500
    assert config.WITH_TEST_HESSIAN
    assert not config.WITH_TRAIN_HESSIAN


def test_steps_that_were_not_published_are_not_trained(stand_in, capsys):
    assert stand_in("STEPS=[0,50]") == (2, None)
    assert "[0,100,200,300,400,500,600,700,800,900,1000], got [0,50]" in capsys.readouterr().err


def test_a_failure_of_12a_is_one(stand_in, capsys):
    assert stand_in(body="raise SystemExit(2)")[0] == 1
    assert "ended with exit status 2" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_of_12a_on_the_embedded_digits_gets_numbers_but_no_verdict(
    digits, tmp_path, capsys, no_figure
):
    """The embedded digits begin with those of the training Hessian, so that its step 0 agrees."""
    out = tmp_path / "out"
    words = [f"{name}={value}" for name, value in PUBLISHED_CONFIG.items()]
    words += ["SYMMETRIZE_CORE=false", "RECORD_STEPS=[0]", "MAX_STEPS=0", "WITH_TEST_HESSIAN=false"]
    assert run(EXHAUSTIVE, f"OBS_DATASETS={digits}", f"OUTPUT_DIR={out}", "DEVICE=cpu", *words) == 0
    capsys.readouterr()
    assert run(SCRIPT, f"LOGS={out}", f"OUTPUT_DIR={tmp_path}", "SPLITS=[train]", "STEPS=[0]") == 2
    output, error = capsys.readouterr()
    assert "the data are embedded, not the full MNIST" in error
    assert lines(output) == [(0, "train", "none")]
    (line,) = (text for text in output.splitlines() if text.split()[:2] == ["0", "train"])
    eigenvalue, core, overlap = (float(line.split()[i]) for i in (2, 5, 8))
    assert np.array([eigenvalue, core, overlap]) == pytest.approx(0, abs=1e-3)
    assert "355 of 355" in line
