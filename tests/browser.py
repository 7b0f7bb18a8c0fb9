"""A notebook on a Jupyter server of its own, run in a headless Chromium, and what is seen there.

``python -m tests.browser PNG`` runs 00a_grassmannian_metrics.ipynb, writes all of it as a picture,
and prints what was found. Needs jupyterlab and playwright (requirements-dev.txt) and a Chromium
(``apt-get install --no-install-recommends chromium``). Nothing outside of the server is asked for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nbformat

from tests.script_loader import REPOSITORY

NOTEBOOK = REPOSITORY / "00a_grassmannian_metrics.ipynb"
#: Names under which systems have it.
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: Of the window; the height is that of the notebook when the picture is taken.
WIDTH, HEIGHT, MARGIN = 1100, 900, 150
#: Milliseconds until all cells have run, on a busy machine.
TIMEOUT = 900_000
#: All cells are part of the page, not only those in view; no questions about news.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none", "scrollPastEnd": False},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
#: Runs all cells once there is a kernel, which takes longer than the page; does not wait for them.
RUN = """() => {
  const session = window.jupyterapp.shell.currentWidget.sessionContext;
  session.ready
    .then(() => session.session.kernel.info)
    .then(() => window.jupyterapp.commands.execute('notebook:run-all-cells'))
    .finally(() => { window.allCellsRan = true; });
}"""
#: What the page says of itself when all cells have run.
FACTS = """() => {
  const all = (selector) => [...document.querySelectorAll('.jp-Notebook ' + selector)];
  const text = (node) => {  // without formulas
    const copy = node.cloneNode(true);
    copy.querySelectorAll('mjx-container, code, pre').forEach((part) => part.remove());
    return copy.textContent;
  };
  return {
    formulas: all('.jp-MarkdownOutput mjx-container').filter((f) => f.offsetWidth > 0).length,
    unreadable: all('mjx-merror, [data-mjx-error]').length,
    raw: all('.jp-MarkdownOutput').filter((node) => text(node).includes('$')).length,
    images: all('.jp-OutputArea-output img').map((image) => image.naturalWidth),
    boxes: all('.jp-OutputArea-output img').map((image) => image.getBoundingClientRect())
      .map((box) => [box.left, box.top, box.right, box.bottom].map(Math.round)),
    tables: all('.jp-OutputArea-output table').length,
    prompts: all('.jp-CodeCell .jp-InputPrompt').map((prompt) => prompt.textContent),
    warnings: all('[data-mime-type*="stderr"], [data-mime-type*="error"]').map(text),
    height: Math.ceil(
      all('.jp-Cell').at(-1).getBoundingClientRect().bottom
      - all('.jp-Cell')[0].getBoundingClientRect().top
    ),
  };
}"""


@dataclass(frozen=True)
class Seen:
    """What was seen of a notebook that was run from top to bottom.

    Attributes:
        formulas: How many are shown.
        unreadable: How many MathJax could not read.
        raw: Texts that show a dollar sign, as of a formula that was not rendered.
        images: Widths of the images, as they were made.
        boxes: Where they are in the picture: left, top, right, bottom.
        tables: How many tables there are.
        prompts: Of the code cells, such as ``"[1]:"``.
        warnings: Texts of errors and of what was written to stderr.
        height: Of the notebook in pixels.
        outside: Addresses outside of the server that the page asked for.
        page_errors: Errors of the page itself.
    """

    formulas: int
    unreadable: int
    raw: int
    images: list[int]
    boxes: list[list[int]]
    tables: int
    prompts: list[str]
    warnings: list[str]
    height: int
    outside: list[str]
    page_errors: list[str]


def find_chromium() -> str | None:
    """Return the path of a Chromium that starts; some systems have a note under its name."""
    for path in filter(None, map(shutil.which, CHROMIUMS)):
        if not subprocess.run([path, "--version"], capture_output=True, check=False).returncode:
            return path
    return None


def _prepare(root: Path) -> dict[str, str]:
    """Lay out a directory with the notebook, its outputs left out; return the environment."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    (root / "clone").mkdir()
    nbformat.write(notebook, root / "clone" / NOTEBOOK.name)
    for package in ("applesandoranges", "skerch"):
        (root / "clone" / package).symlink_to(REPOSITORY / package)
    for name, content in SETTINGS.items():
        file = root / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    own = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    directories = {name: str(root / name.lower()) for name in own}
    return os.environ | directories | {"JUPYTERLAB_SETTINGS_DIR": str(root / "settings")}


@contextlib.contextmanager
def served(root: Path) -> Iterator[str]:
    """Serve the notebook from a new directory; yield its address."""
    environment = _prepare(root)
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        "--port=0", f"--ServerApp.root_dir={root / 'clone'}", "--expose-app-in-browser",
    ]  # fmt: skip
    log = root / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        runtime = Path(environment["JUPYTER_RUNTIME_DIR"])
        end = time.monotonic() + 120
        while not (found := [*runtime.glob("jpserver-*.json")]):
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"no Jupyter server: {log.read_text()[-2000:]}")
            time.sleep(0.2)
        facts = json.loads(found[0].read_text())
        yield f"{facts['url']}lab/tree/{NOTEBOOK.name}?token={facts['token']}"
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _run_and_look(page: Any, address: str, picture: Path) -> dict[str, Any]:
    """Run all cells, wait for formulas and figures, take the picture; return :data:`FACTS`."""
    page.goto(address)
    page.wait_for_selector(".jp-Notebook .jp-MarkdownOutput", timeout=120_000)
    page.evaluate(RUN)
    page.wait_for_function("() => window.allCellsRan !== undefined", timeout=TIMEOUT)
    page.wait_for_function("() => document.querySelectorAll('mjx-container').length > 0")
    page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")
    for _ in range(2):  # the second time, the page has found its new size
        height = page.evaluate(FACTS)["height"]
        page.set_viewport_size({"width": WIDTH, "height": height + MARGIN})
        page.evaluate("() => { document.querySelector('.jp-Notebook .jp-WindowedPanel-outer')"
                      ".scrollTop = 0; }")  # fmt: skip
        page.wait_for_timeout(1500)
    page.screenshot(path=picture)
    facts = page.evaluate(FACTS)
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    return dict(facts)


def look(root: Path, picture: Path) -> tuple[Seen, nbformat.NotebookNode]:
    """Run the notebook in a browser.

    Args:
        root: A new directory for the server.
        picture: Where the picture goes, a PNG file.

    Returns:
        What was seen, and the notebook as the page has saved it.
    """
    from playwright.sync_api import sync_playwright

    outside: list[str] = []
    page_errors: list[str] = []

    def inside_alone(route: Any) -> None:
        if urlsplit(route.request.url).hostname == "127.0.0.1":
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    with served(root) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.on("pageerror", lambda error: page_errors.append(str(error)))
        page.route("http*://**/*", inside_alone)
        facts = _run_and_look(page, address, picture)
        browser.close()
    saved = nbformat.read(root / "clone" / NOTEBOOK.name, as_version=4)
    return Seen(**facts, outside=outside, page_errors=page_errors), saved


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        print(json.dumps(dataclasses.asdict(look(Path(directory), Path(sys.argv[1]))[0]), indent=1))
