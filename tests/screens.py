"""Writes the screens of a small run anew: ``python -m tests.screens RUN_DIRECTORY``.

Of the directory of a run of 10a, with logs of the other scripts, it keeps one log of each script,
with long lists thinned, and the screen that it makes.
"""

import json
import re
import sys
from pathlib import Path

from tests.applesandoranges.test_words import SCREENS, rendered

#: Numbers of a list that are kept; words count them, and show the first and the last.
KEPT = 40


def thinned(value):
    """Return a body with shorter lists."""
    if isinstance(value, dict):
        return {name: thinned(item) for name, item in value.items()}
    if isinstance(value, list):
        return [thinned(item) for item in value[:KEPT]]
    return value


def main(directory):
    """Write logs and screens."""
    for path in sorted(directory.glob("*.log")):
        script = re.search(r"\[(\d\d[a-z])_", path.name)[1]
        text = path.read_text().replace(str(directory), "output/run")
        lines = [json.dumps(thinned(json.loads(line))) for line in text.splitlines()]
        (SCREENS / f"{script}.log").write_text("".join(f"{line}\n" for line in lines))
        (SCREENS / f"{script}.txt").write_text(rendered(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
