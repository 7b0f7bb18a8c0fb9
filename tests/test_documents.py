"""What the documents link to is there, and the commands of the first figure can be typed."""

import re
import shlex

import pytest

from applesandoranges.app.config import parse_config
from tests.script_loader import REPOSITORY, load_script

LINKS = [
    (path.name, target)
    for path in sorted(REPOSITORY.glob("*.md"))
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text())
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


@pytest.mark.parametrize(("document", "target"), LINKS, ids=lambda value: value)
def test_links_lead_somewhere(document, target):
    assert (REPOSITORY / target).exists()


def test_the_tested_environment_names_versions_only():
    lines = (REPOSITORY / "assets" / "requirements.txt").read_text().splitlines()
    packages = [line for line in lines if not line.startswith(("#", "--only-binary="))]
    assert {"torch", "curvlinops-for-pytorch"} <= {line.partition("==")[0] for line in packages}
    assert [line for line in packages if not re.fullmatch(r"[\w.-]+==[\w.+-]+", line)] == []
