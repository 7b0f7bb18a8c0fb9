"""Random command lines of every script and command: no traceback, documented exit status."""

import contextlib
import dataclasses
import io
import os
import shutil
import warnings

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from applesandoranges.app.keys import run_script
from applesandoranges.problems.registry import net_mnist_mini
from skerch.__main__ import main as skerch
from skerch.commands import make_parser
from tests.conftest import run
from tests.faults.trees import tree
from tests.script_loader import REPOSITORY, load_script

SCRIPTS = sorted(path.name for path in REPOSITORY.glob("[0-9]*.py"))

SEEDED = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

#: Texts that broke a parser, a file name or an integer somewhere; no slash, no harm outside.
NONSENSE = st.sampled_from([
    "", " ", "-1", "0", "1", "2", "nan", "-.inf", "1e400", "1e-3", "999999999999999999999999999",
    "-2147483649", "0x_", "1:99999", "2026-13-45", "null", "None", "true", "~", "[", "]", "{",
    "[]", "[0]", "[null]", "[-1]", "[0,0,0]", "[[0]]", "{a: b}", "[" * 3000, "9" * 5000,
    "!!python/object/apply:os.system ['false']", "&a [*a]", "${oc.env:HOME}", "${x}", "???",
    "a\nb", "\t", "'", '"', "\\", "`id`", "$(id)", "; ls", "ä\u202e\u2028", "\udcff", "🍎", "--x",
    "no such file", "cpu", "meta", "cuda:99", "SGD", "measured", "initialized", "float16", "9,9",
])  # fmt: skip
GARBAGE = st.text(st.characters(exclude_characters="/\0~", exclude_categories=("Cs",)), max_size=12)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory, trained):
    """A deep directory with a run, a store, data and settings; random names are relative to it."""
    root = tmp_path_factory.mktemp("random") / "a" / "b" / "c"
    trained.copy_training(root / "run")
    shutil.copytree(trained.datasets, root / "digits")
    shutil.copytree(trained.lay_out("random_store"), root / "store")
    words = ["--hdf5dir", str(root / "rounds_store"), "--shape", "7030,7030", "--sym"]
    assert skerch(["create_hdf5_layout", *words, "--outer", "6", "--inner", "0"]) == 0
    words = ROUNDS | {"ROUND": 0, "MEASUREMENT_IDXS": list(range(6))}
    assert trained.measure(root / "rounds_store", **words) == 0
    torch.save(net_mnist_mini().state_dict(), root / "step_4.pt")
    (root / "settings.yaml").write_text(
        "mnist_mini: {batch_size: 1000, num_epochs: 1, SGD: {opt_hpars: {lr: 0.1}}}"
    )
    (root / "notes.txt").write_text("not ours\n")
    return root


#: Of the store of a recovery in rounds.
ROUNDS = {"RECOVERY": "krylov", "NUM_ROUNDS": "2", "BLOCK_SIZE": "6"}


def good_words(script, sandbox):
    """Return a command line that works, but for the data where it would take long."""
    (log,) = (path.name for path in (sandbox / "run").glob("*[[]10a*"))
    (params,) = (path.name for path in (sandbox / "run").glob("*__params.h5"))
    training = {
        "OBS_DATASETS": "nowhere", "TUNING_CONF": "settings.yaml", "PROBLEM": "mnist_mini",
        "RECORD_STEPS": "[0]", "MAX_STEPS": "0", "NUM_HESSIAN_DATAPOINTS": "20",
        "OPTIMIZER": "SGD", "RANDOM_SEED": "1", "DEVICE": "cpu",
    }  # fmt: skip
    recorded = {
        "OBS_DATASETS": "nowhere", "TRAINING_LOGPATH": f"run/{log}", "STEP": "0", "DEVICE": "cpu",
        "PARAMS_PATH": f"run/{params}",
    }  # fmt: skip
    store = {
        f"{name}_{kind}": f"store/{file}_{end}.h5"
        for name, file in (("INNER", "inner"), ("OUTER", "leftouter"))
        for kind, end in (("VIRTUAL", "ALL"), ("MONOLITHIC", "MERGED"))
    }
    sizes = {"NUM_OUTER": "6", "NUM_INNER": "12"}
    return {
        "09a": {"OBS_DATASETS": "new", "SOURCE": "synthetic", "DATASETS": "[MNIST]",
                "NUM_SYNTHETIC_TRAIN": "10", "NUM_SYNTHETIC_TEST": "10"},
        "10a": training,
        "10c": recorded | sizes | {"MEASUREMENTS_DIR": "store", "MEASUREMENT_IDXS": "[0,7]"},
        "10d": recorded | store | {"NUM_A_POSTERIORI": "2"},
        "10e": recorded | ROUNDS | {"MEASUREMENTS_DIR": "rounds_store", "ROUND": "0"},
        "10f": {"CHECKPOINTS": "step_*.pt", "OBS_DATASETS": "nowhere", "PROBLEM": "mnist_mini",
                "BATCH_SIZE": "20", "NUM_HESSIAN_DATAPOINTS": "20", "DEVICE": "cpu"},
        # Decomposing exactly takes minutes: never with data.
        "12a": training | sizes,
        "13a": {"LOGS": f"run/{log}", "FIGURES": "[masks]", "OUTPUT_DIR": "figures"},
        "14a": {"LOGS": "run", "STEPS": "[7]", "SPLITS": "[test]", "DEVICE": "cpu"},
        "20a": {"OBS_DATASETS": "nowhere", "NUM_HESSIAN_DATAPOINTS": "20", "DEVICE": "cpu",
                "TUNING_CONF": "settings.yaml"},
    }.get(script[:3], {})  # fmt: skip


@st.composite
def command_lines(draw, script, good):
    """Change, drop, repeat and add words of a good command line."""
    names = [field.name for field in dataclasses.fields(load_script(script).Config)]
    words = dict(good)
    if "OBS_DATASETS" in words and script[:3] != "12a" and draw(st.integers(0, 24)) == 0:
        words["OBS_DATASETS"] = "digits"
    for _ in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from(names))
        action = draw(st.sampled_from(["nonsense", "garbage", "another", "drop"]))
        if action == "drop":
            words.pop(name, None)
        elif action == "another":
            words[name] = draw(st.sampled_from(sorted(good.values()) or [""]))
        else:
            words[name] = draw(NONSENSE if action == "nonsense" else GARBAGE)
    if script[:3] == "12a" and words.get("OBS_DATASETS") == "digits":
        del words["OBS_DATASETS"]
    argv = [f"{name}={value}" for name, value in words.items()]
    if draw(st.integers(0, 9)) == 0:
        argv.append(draw(GARBAGE | NONSENSE | st.sampled_from(["--help", "-h", *argv])))
    return draw(st.permutations(argv))


def call(main, sandbox):
    """Call an entry point as a process would, and return status and standard error."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="strict")
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace")
    with (
        contextlib.chdir(sandbox) if hasattr(contextlib, "chdir") else _chdir(sandbox),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")
        try:
            status = main()
        except SystemExit as stop:  # argparse
            status = stop.code
    err.seek(0)
    return status, err.read()


@contextlib.contextmanager
def _chdir(directory):
    before = os.getcwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)


def check(main, sandbox, before, draws_anyway=False):
    """Call it; where it was refused, nothing may have changed."""
    status, err = call(main, sandbox)
    assert status in (0, 1, 2)
    assert "Traceback" not in err
    after = tree(sandbox)
    if status == 2 and not draws_anyway:
        assert after == before
    if status != 0:
        assert err.strip()
    if after != before:
        assert {path: after.get(path) for path in before if "store" not in path.parts} == {
            path: value for path, value in before.items() if "store" not in path.parts
        }
        _undo(sandbox, before)
    return status


def _undo(sandbox, before):
    """Put the sandbox back as it was."""
    for path in sorted(sandbox.rglob("*"), reverse=True):
        if path not in before:
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    for path, (_, time_ns, content) in before.items():
        if path.is_file() and path.read_bytes() != content:
            path.write_bytes(content)
            os.utime(path, ns=(time_ns, time_ns))


@pytest.fixture
def no_network(monkeypatch):
    def download(name, root):
        raise OSError(f"{name}: download failed: no network")

    monkeypatch.setattr(load_script("09a_prepare_datasets.py"), "download", download)


AMOUNT = pytest.mark.parametrize("number", [25, pytest.param(500, marks=pytest.mark.slow)])


@AMOUNT
@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts(script, sandbox, no_network, number):
    before = tree(sandbox)
    module, parsed = load_script(script), []

    def main(config):
        parsed.append(config)
        module.main(config)

    @settings(SEEDED, max_examples=number)
    @given(command_lines(script, good_words(script, sandbox)))
    def try_it(argv):
        # 14a draws what it can give no verdict on.
        draws_anyway = script.startswith("14a")
        check(lambda: run_script(script, module.Config, main, argv), sandbox, before, draws_anyway)

    try_it()
    assert len(parsed) > number / 20  # otherwise only the parser was tried


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_good_command_line_is_refused_for_its_data_alone(script, sandbox, no_network):
    """Otherwise the random ones would all fail early."""
    before = tree(sandbox)
    words = good_words(script, sandbox)
    status, err = call(lambda: run(script, *(f"{k}={v}" for k, v in words.items())), sandbox)
    if words.get("OBS_DATASETS") == "nowhere":
        assert (status, "MNIST: nowhere" in err) == (2, True)
    _undo(sandbox, before)


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name[:3] in ("10c", "10e", "10f")])
def test_with_its_data_the_good_command_line_works(script, sandbox):
    before = tree(sandbox)
    words = good_words(script, sandbox) | {"OBS_DATASETS": "digits"}
    assert call(lambda: run(script, *(f"{k}={v}" for k, v in words.items())), sandbox)[0] == 0
    assert tree(sandbox) != before
    _undo(sandbox, before)


OPTIONS = {
    "create_hdf5_layout": {"--hdf5dir": "new", "--shape": "9,9", "--outer": "2", "--inner": "4",
                           "--dtype": "float32", "--sym": None},
    "merge_hdf5": {"--in_path": "store/inner_ALL.h5", "--out_path": "merged.h5",
                   "--ok_flag": "measured", "--delete_subfiles": None},
    "inspect": {"--verify": None, "--ok_flag": "measured", "": "store"},
    "post_bounds": {"--apost_n": "30", "--apost_err": "0.5"},
    "prio_hpars": {"--shape": "7030,7030", "--budget": "5000000", "--sym": None},
    "plan": {"--shape": "7030,7030", "--k": "20", "--products": "80", "--jobs": "4",
             "--budget": "2GB", "--passes": "3"},
}  # fmt: skip


def test_every_command_is_tried():
    (choices,) = (a.choices for a in make_parser()._actions if isinstance(a.choices, dict))
    assert set(choices) == set(OPTIONS)


@st.composite
def skerch_lines(draw, command):
    """Change, drop, repeat and add words of a good command."""
    words = dict(OPTIONS[command])
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(sorted(OPTIONS[command])))
        action = draw(st.sampled_from(["nonsense", "garbage", "drop", "json"]))
        if action == "drop":
            words.pop(name, None)
        elif action == "json":
            words["--json"] = None
        elif words.get(name) is not None:
            words[name] = draw(NONSENSE if action == "nonsense" else GARBAGE)
    argv = [command]
    for name, value in words.items():
        argv += [*([name] if name else []), *([] if value is None else [value])]
    if draw(st.integers(0, 9)) == 0:
        argv.insert(draw(st.integers(0, len(argv))), draw(GARBAGE | NONSENSE))
    return argv


@AMOUNT
@pytest.mark.parametrize("command", OPTIONS)
def test_skerch(command, sandbox, number):
    before, parsed = tree(sandbox), []

    @settings(SEEDED, max_examples=number)
    @given(skerch_lines(command))
    def try_it(argv):
        printed = io.StringIO()
        with (
            contextlib.suppress(SystemExit),
            contextlib.redirect_stderr(printed),
            contextlib.redirect_stdout(printed),
        ):
            parsed.append(make_parser().parse_args(argv))
        check(lambda: skerch(argv), sandbox, before)

    try_it()
    assert len(parsed) > number / 20


@pytest.mark.parametrize(
    "command", [c for c in OPTIONS if c != "merge_hdf5"]
)  # nothing is measured there
def test_the_good_command_works(command, sandbox):
    before = tree(sandbox)
    words = [word for pair in OPTIONS[command].items() for word in pair if word]
    assert call(lambda: skerch([command, *words]), sandbox)[0] == 0
    _undo(sandbox, before)


@pytest.mark.parametrize("word", ["NO_SUCH_KEY=1", "nonsense", "--steps"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_wrong_word_is_one_line(script, word, capsys):
    assert run(script, word) == 2
    screen = capsys.readouterr()
    (line,) = screen.err.splitlines()
    assert line.startswith(f"{script}: ")
    assert line.endswith("; --help lists all keys")
    assert word.partition("=")[0] in line
    assert screen.out == ""


@pytest.mark.parametrize("command", [[], *([command] for command in OPTIONS)], ids=str)
def test_a_wrong_word_of_skerch_is_one_line(command, capsys):
    with pytest.raises(SystemExit) as stop:
        skerch([*command, "--nonsense"])
    assert stop.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
