"""Nothing that is found on disk is executed; names and paths may hold any character."""

import ast
import os
import subprocess
import sys

import pytest

from skerch.__main__ import main as skerch
from tests.conftest import ANALYSE, Pipeline, run
from tests.faults.conftest import results
from tests.script_loader import REPOSITORY

SOURCES = sorted(
    path
    for pattern in ("skerch/*.py", "applesandoranges/*.py", "[0-9]*.py")
    for path in REPOSITORY.glob(pattern)
)

FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
FORBIDDEN_ATTRIBUTES = {
    ("torch", "load"), ("yaml", "load"), ("yaml", "unsafe_load"), ("yaml", "full_load"),
    ("os", "system"), ("os", "popen"), ("pd", "read_pickle"), ("pandas", "read_pickle"),
}  # fmt: skip


def findings(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            where, function = f"{path.name}:{node.lineno}", node.func
            if isinstance(function, ast.Name) and function.id in FORBIDDEN_CALLS:
                yield f"{where} {function.id}"
            if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
                name = (function.value.id, function.attr)
                if name in FORBIDDEN_ATTRIBUTES:
                    yield f"{where} {'.'.join(name)}"
            for keyword in node.keywords:
                true = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
                if keyword.arg in ("shell", "allow_pickle") and true:
                    yield f"{where} {keyword.arg}=True"
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
            for name in names:
                if name.partition(".")[0] in FORBIDDEN_MODULES:
                    yield f"{path.name}:{node.lineno} import {name}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_nothing_is_unpickled_or_evaluated(path):
    assert not list(findings(path))


NASTY = "a b'c\"d [e]{f} $(g)\n*h;"


def test_any_character_in_names_and_paths(tmp_path, analysed, digits):
    """The whole pipeline in a directory with spaces, quotes, brackets and a newline in its name."""
    root = tmp_path / NASTY
    root.mkdir()
    datasets = root / "data"
    assert run("09a_prepare_datasets.py", f"OBS_DATASETS={datasets}", "SOURCE=embedded") == 0
    pipeline = Pipeline(root, datasets, 6, 12, extra=[f"OUTDIR_SUFFIX={NASTY}"])
    assert pipeline.train() == 0
    assert pipeline.run_dir.name.endswith(NASTY)
    store = pipeline.lay_out(f"store {NASTY}")
    flag = f"ok {NASTY}"
    assert pipeline.measure(store, SUCCESS_FLAG=flag) == 0
    merge = ["--in_path", f"{store}/inner_ALL.h5", "--out_path", f"{store}/m {NASTY}.h5"]
    assert skerch(["merge_hdf5", *merge, "--ok_flag", flag]) == 0
    assert skerch(["inspect", str(store), "--ok_flag", flag, "--verify"]) == 0
    assert pipeline.analyse(store, SUCCESS_FLAG=flag) == 0
    assert results(pipeline.logs(ANALYSE)[-1]) == analysed
    figures = root / "figures"
    words = [f"LOGS={pipeline.run_dir}", f"OUTPUT_DIR={figures}", "FIGURES=[masks]"]
    assert run("13a_plot_overlap.py", *words) == 0
    assert {path.suffix for path in figures.iterdir()} == {".png", ".pdf", ".csv"}


@pytest.mark.slow
def test_any_character_in_a_command_line_of_a_shell(tmp_path):
    """A shell passes such names on as they are; so does the demo, which is a shell script."""
    directory = tmp_path / NASTY
    command = f'"{sys.executable}" -m skerch create_hdf5_layout --hdf5dir "$DIR" ' + (
        "--shape 9,9 --outer 2 --inner 4 --sym"
    )
    environment = os.environ | {"DIR": str(directory)}
    subprocess.run(["bash", "-c", command], check=True, cwd=REPOSITORY, env=environment)
    assert (directory / "inner_ALL.h5").is_file()
