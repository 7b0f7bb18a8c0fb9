"""14a: verdicts on logs that are, are not, and cannot be those of the published run."""

import json

import pandas as pd
import pytest

from applesandoranges.published import SETTINGS, TABLES
from applesandoranges.script_config import parse_config
from tests.conftest import run
from tests.script_loader import load_script

SCRIPT, EXHAUSTIVE = "14a_check_published.py", "12a_mnist_mini_exhaustive_test.py"


def read(name):
    return pd.read_csv(TABLES / f"mnist_mini_{name}.csv")


def curve(table, step, at, column):
    """Return a list with the published values in their places."""
    rows = table[table["step"] == step]
    values = dict(zip(rows[at], rows[column], strict=True))
    return [values.get(i, 0.0) for i in range(1, 356)]


def published_events():
    """Return the events of a log of 12a that has exactly the published numbers."""
    events = [("CONFIG", dict(SETTINGS)), ("GLOBALS", {"num_params": 7030, "data_source": "full"})]
    events += [("EVAL ROUND", row) for row in read("evaluations").to_dict("records")]
    events += [("TRAINING BATCH", row) for row in read("recorded_steps").to_dict("records")]
    for step in (0, 500, 1000):
        for name, table, at, column in (
            ("H_eigvals", "spectrum", "rank", "true_eigval_by_desc_magnitude"),
            ("core_S", "spectrum", "rank", "core_S"),
            ("frob_Qtop^2", "overlap", "k", "frob_Qtop^2"),
        ):
            values = curve(read(table), step, at, column)
            events.append(("H_TRAIN RESULT", {"step": step, name: values}))
    return events


def write_log(path, events):
    stamp = "2026-01-31_12:34:56.789"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps([stamp, [*event]]) + "\n" for event in events))
    return path


@pytest.fixture
def log(tmp_path):
    """Writes a log with changes to the published one: ``(header, name, new value)``."""

    def write(*changes):
        events = published_events()
        for header, name, value in changes:
            body = next(body for at, body in events if at == header and name in body)
            body[name] = value(body[name]) if callable(value) else value
        return write_log(tmp_path / f"run[{EXHAUSTIVE}].log", events)

    return write


def test_the_published_numbers_themselves_are_met(log, capsys):
    assert run(SCRIPT, f"LOG={log()}") == 0
    output = capsys.readouterr().out
    assert "All published numbers are met." in output
    assert "DIFFERS" not in output
    for quantity in ("|eigenvalue|", "|core_S|", "overlap"):
        assert [line.split()[1] for line in output.splitlines() if quantity in line] == [
            "0", "500", "1000",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("header", "name", "change", "line"),
    [
        ("H_TRAIN RESULT", "H_eigvals", lambda v: [v[0] * 1.001, *v[1:]], "|eigenvalue|"),
        ("H_TRAIN RESULT", "core_S", lambda v: [*v[:9], v[9] + 0.01, *v[10:]], "|core_S|"),
        ("H_TRAIN RESULT", "frob_Qtop^2", lambda v: [*v[:-1], v[-1] + 1], "overlap"),
        ("EVAL ROUND", "xv_loss", lambda v: v + 0.001, "xv_loss"),
        ("EVAL ROUND", "test_acc", None, "test_acc"),
        ("TRAINING BATCH", "H_test_loss", lambda v: v + 0.001, "H_test_loss"),
    ],
    ids=["eigenvalue", "core_S", "overlap", "loss", "missing accuracy", "Hessian loss"],
)
def test_one_number_that_is_off_fails(log, capsys, header, name, change, line):
    assert run(SCRIPT, f"LOG={log((header, name, change))}") == 1
    output, error = capsys.readouterr()
    (differing,) = (text for text in output.splitlines() if "DIFFERS" in text)
    assert differing.split()[0] == line
    assert "1 of 18 lines differ from what was published" in error
    assert "All published" not in output


def test_eigenvalues_of_one_size_may_change_places(log):
    def swap_signs(values):
        return [-value for value in values]

    assert run(SCRIPT, f"LOG={log(('H_TRAIN RESULT', 'core_S', swap_signs))}") == 0


@pytest.mark.parametrize(
    ("header", "name", "value", "message"),
    [
        ("GLOBALS", "data_source", "embedded", "the data are embedded, not the full MNIST"),
        ("CONFIG", "RANDOM_SEED", 1, "RANDOM_SEED=1, published 12345"),
        ("CONFIG", "SYMMETRIZE_CORE", True, "SYMMETRIZE_CORE=True, published False"),
    ],
    ids=["data", "seed", "core"],
)
def test_another_experiment_gets_no_verdict(log, capsys, header, name, value, message):
    assert run(SCRIPT, f"LOG={log((header, name, value))}") == 2
    output, error = capsys.readouterr()
    assert message in error
    assert "no verdict is possible" in error
    assert "none" in output
    assert " met " not in output


def test_a_log_without_published_steps_is_refused(tmp_path, capsys):
    events = published_events()[:2]
    events += [("EVAL ROUND", {"global_step": 7}), ("H_TRAIN RESULT", {"step": 7, "core_S": [1]})]
    path = write_log(tmp_path / "a.log", events)
    assert run(SCRIPT, f"LOG={path}") == 2
    assert "none of the published steps" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["LOG=a", "OBS_DATASETS=b"]], ids=["neither", "both"])
def test_exactly_one_of_data_and_log(words, capsys):
    assert run(SCRIPT, *words) == 2
    assert "give either OBS_DATASETS" in capsys.readouterr().err


def test_embedded_digits_are_not_trained_on(digits, tmp_path, capsys):
    assert run(SCRIPT, f"OBS_DATASETS={digits}", f"OUTPUT_DIR={tmp_path / 'out'}") == 2
    assert "the data are embedded, not the full MNIST" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def stand_in(digits, tmp_path, monkeypatch):
    """14a on data that pass for full, with a stand-in for 12a that notes its words."""
    module = load_script(SCRIPT)
    load = module.load_dataset

    def load_as_full(*args):
        data = load(*args)
        return type(data)(**{**vars(data), "source": "full"})

    monkeypatch.setattr(module, "load_dataset", load_as_full)
    script = tmp_path / "stand_in.py"
    monkeypatch.setattr(module, "EXHAUSTIVE", script)

    def run_with(body):
        script.write_text(body)
        return run(SCRIPT, f"OBS_DATASETS={digits}", f"OUTPUT_DIR={tmp_path / 'out'}", "DEVICE=cpu")

    return run_with


def test_full_data_are_trained_on_with_the_published_settings(stand_in, tmp_path):
    source = write_log(tmp_path / "source.log", published_events())
    words = tmp_path / "words.json"
    body = f"""
import json, pathlib, sys
open({str(words)!r}, "w").write(json.dumps(sys.argv[1:]))
given = dict(word.split("=", 1) for word in sys.argv[1:])
path = pathlib.Path(given["OUTPUT_DIR"]) / "run" / "a[{EXHAUSTIVE}].log"
path.parent.mkdir(parents=True)
path.write_text(open({str(source)!r}).read())
"""
    assert stand_in(body) == 0
    config = parse_config(load_script(EXHAUSTIVE).Config, json.loads(words.read_text()))
    assert {name: getattr(config, name) for name in SETTINGS} == SETTINGS
    assert config.RECORD_STEPS == [0, 500, 1000]
    assert config.WITH_TRAIN_HESSIAN
    assert not config.WITH_TEST_HESSIAN


def test_a_failure_of_12a_is_one(stand_in, capsys):
    assert stand_in("raise SystemExit(2)") == 1
    assert "ended with exit status 2" in capsys.readouterr().err
