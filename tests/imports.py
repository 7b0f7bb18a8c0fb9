"""Which modules a package has, and what each of them imports."""

import ast
from pathlib import Path


def modules_of(package):
    """Return the files of a package by the names of its modules, without its own name."""
    directory = Path(package.__file__).parent
    return {
        ".".join(path.relative_to(directory).with_suffix("").parts): path
        for path in sorted(directory.rglob("*.py"))
    }


def imports(modules, module):
    """Yield what a module imports: modules of its package without its name, others with theirs."""
    here = module.split(".")[:-1]
    for node in ast.walk(ast.parse(modules[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module
        elif isinstance(node, ast.ImportFrom):
            base = [*here[: len(here) - node.level + 1], *(node.module or "").split(".")]
            name = ".".join(part for part in base if part)
            yield name if name in modules else f"{name}.__init__".lstrip(".")
