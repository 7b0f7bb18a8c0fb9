"""The notebook on a Jupyter server, in a browser: it runs, formulas and figures are seen."""

import re

import nbformat
import numpy as np
import pytest
from PIL import Image

from tests.browser import NOTEBOOK, WIDTH, find_chromium, look

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module")
def kept():
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    return tmp_path_factory.mktemp("picture") / "notebook.png"


@pytest.fixture(scope="module")
def found(tmp_path_factory, picture):
    """What was seen, and the notebook that the page has saved."""
    for package in ("jupyterlab", "playwright"):
        pytest.importorskip(package, reason=f"no {package} here: requirements-dev.txt")
    if find_chromium() is None:
        pytest.skip("no Chromium here: apt-get install --no-install-recommends chromium")
    return look(tmp_path_factory.mktemp("server"), picture)


def cells(notebook, kind):
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def test_it_runs_from_top_to_bottom_without_warnings(found, kept):
    seen, saved = found
    num = len(cells(kept, "code"))
    assert seen.prompts == [f"[{i}]:" for i in range(1, num + 1)]
    assert seen.warnings == []
    kinds = {output.output_type for cell in cells(saved, "code") for output in cell.outputs}
    assert kinds == {"execute_result"}


def test_every_formula_is_shown(found, kept):
    seen, _ = found
    text = "\n\n".join(cell.source for cell in cells(kept, "markdown"))
    formulas = re.findall(r"\$\$.+?\$\$|\$[^$\n]+?\$", text, re.DOTALL)
    assert seen.formulas == len(formulas) > 40
    assert (seen.unreadable, seen.raw) == (0, 0)


def test_figures_and_tables_are_there(found):
    seen, _ = found
    assert len(seen.images) == 6
    assert min(seen.images) > 500
    assert seen.tables == 3


def test_nothing_is_fetched_from_elsewhere_and_the_page_has_no_errors(found):
    seen, _ = found
    assert (seen.outside, seen.page_errors) == ([], [])


def test_the_picture_shows_all_of_it(found, picture):
    """Text everywhere, and colours where the figures are."""
    seen, _ = found
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=int)
    assert pixels.shape[1] == WIDTH
    assert pixels.shape[0] > seen.height > 4000
    page = pixels[100:-60, 100:-100]
    strips = np.array_split(page, 20)
    assert min((strip.max(axis=2) < 128).mean() for strip in strips) > 0.002
    for left, top, right, bottom in seen.boxes:
        box = pixels[top:bottom, left:right]
        assert min(box.shape[:2]) > 200
        assert (np.ptp(box, axis=2) > 60).mean() > 0.005
        assert (box.min(axis=2) > 250).mean() > 0.3  # its white background
