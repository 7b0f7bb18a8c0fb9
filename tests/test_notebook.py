"""The notebook runs without errors or warnings; what is kept in it is what it draws."""

import base64
import copy
import re

import nbformat
import pytest

from tests.script_loader import REPOSITORY

NOTEBOOK = REPOSITORY / "00a_grassmannian_metrics.ipynb"


@pytest.fixture(scope="module")
def kept():
    return nbformat.read(NOTEBOOK, as_version=4)


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def images(notebook) -> list[bytes]:
    texts = [o["data"]["image/png"] for o in outputs(notebook) if "image/png" in o.get("data", {})]
    return [base64.b64decode(text) for text in texts]


def test_every_code_cell_was_run_in_order(kept):
    counts = [cell.execution_count for cell in kept.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert {output.output_type for output in outputs(kept)} == {"execute_result"}


def test_figures_in_the_notebook_are_the_files(kept):
    files = {path.read_bytes() for path in (REPOSITORY / "assets").glob("grassmannian_*.png")}
    assert len(files) == 6
    assert set(images(kept)) == files


def test_nothing_in_it_is_of_the_machine_it_ran_on():
    text = re.sub(r'"image/png": "[^"]*"', "", NOTEBOOK.read_text())
    assert not re.findall(r"(?<![\w.)\]])/(?:home|root|tmp|work|usr|opt|mnt)/\S*", text)
    assert '"execution"' not in text  # time stamps


@pytest.mark.slow
def test_notebook_runs_from_top_to_bottom(kept, tmp_path, monkeypatch):
    from nbclient import NotebookClient

    for package in ("applesandoranges", "skerch"):
        (tmp_path / package).symlink_to(REPOSITORY / package)
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    notebook = copy.deepcopy(kept)
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    assert {output.output_type for output in outputs(notebook)} == {"execute_result"}
    assert len(images(notebook)) == 6
    assert sorted(path.name for path in (tmp_path / "assets").iterdir()) == sorted(
        path.name for path in (REPOSITORY / "assets").glob("grassmannian_*.png")
    )
