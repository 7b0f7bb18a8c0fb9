"""What the documents link to is there, and the commands of the first figure can be typed."""

import re
import shlex

import pytest

from applesandoranges.app.keys import parse_config
from tests.script_loader import REPOSITORY, load_script

DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
#: Path of a document, and where it links to: a file, a heading of one, or one of its own.
LINKS = [
    (str(path.relative_to(REPOSITORY)), target)
    for path in DOCUMENTS
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", path.read_text())
]

#: The commands that made the first figure.
FIRST_COMMANDS = [
    line.split(maxsplit=2)[1:]
    for line in (REPOSITORY / "README.md").read_text().split("```\n")[1].splitlines()
    if line.startswith("python ")
]


@pytest.mark.parametrize(("script", "words"), FIRST_COMMANDS, ids=[c[0] for c in FIRST_COMMANDS])
def test_commands_of_the_first_figure_have_keys_that_exist(script, words):
    parse_config(load_script(script).Config, shlex.split(words))


def anchors(path):
    """Return the names under which headings of a document can be linked to."""
    headings = re.findall(r"^#+ +(.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize(("document", "target"), LINKS, ids=lambda value: value)
def test_links_lead_somewhere(document, target):
    name, _, anchor = target.partition("#")
    path = (REPOSITORY / document).parent / name if name else REPOSITORY / document
    assert path.exists()
    if anchor:
        assert anchor in anchors(path)


def test_links_of_all_documents_are_tried():
    assert {"README.md", "docs/architecture.md", "docs/which_recovery.md"} <= {
        str(path.relative_to(REPOSITORY)) for path in DOCUMENTS
    }
    assert {document.partition("/")[0] for document, _ in LINKS} >= {"README.md", "docs"}


#: Files that documents name in code, such as `skerch/core/` or `tests/test_documents.py`.
NAMED = sorted({
    (str(path.relative_to(REPOSITORY)), name)
    for path in DOCUMENTS
    for name in re.findall(
        r"`((?:skerch|applesandoranges|tests|benchmarks|docs|config|slurm)/[\w./-]*)`",
        path.read_text(),
    )
})  # fmt: skip


@pytest.mark.parametrize(("document", "name"), NAMED, ids=lambda value: value)
def test_files_that_documents_name_are_there(document, name):
    assert (REPOSITORY / name).exists()


def test_the_tested_environment_names_versions_only():
    lines = (REPOSITORY / "assets" / "requirements.txt").read_text().splitlines()
    packages = [line for line in lines if not line.startswith(("#", "--only-binary="))]
    assert {"torch", "curvlinops-for-pytorch"} <= {line.partition("==")[0] for line in packages}
    assert [line for line in packages if not re.fullmatch(r"[\w.-]+==[\w.+-]+", line)] == []
