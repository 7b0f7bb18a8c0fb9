"""Who may import whom in applesandoranges, and that every room says what lives in it."""

import ast
import importlib

import pytest

import applesandoranges
from tests.imports import imports, modules_of

MODULES = modules_of(applesandoranges)
#: What each room may import, beside itself and the names of the package: rooms, or modules of them.
ARROWS = {
    "app": set(),
    "subspaces": {"app"},
    "problems": {"app"},
    "hessian": {"problems", "app"},
    "training": {"hessian", "problems", "app"},
    "measurement": {"training", "hessian", "problems", "app"},
    "analysis": {"subspaces", "app"},
    "results": {"subspaces", "app"},
    "figures": {"results", "subspaces", "app"},
    "published": {"figures", "results", "problems", "app"},
    "cluster": {"app", "measurement.sizes", "problems", "training.settings", "analysis.starts"},
}
#: Packages that only some rooms import, and those that none does.
ONLY = {"curvlinops": {"hessian"}, "matplotlib": {"figures", "published"}}
NEVER = {"applesandoranges", "benchmarks", "tests"}  # itself by relative imports alone
#: Modules under the names that they had before there were rooms, for scripts that import them.
DOORS = {"hessian_engines", "incremental_hdf5", "jsonlog", "script_config"}


def room(module):
    return module.partition(".")[0]


@pytest.mark.parametrize("module", [module for module in MODULES if "." in module])
def test_arrows(module):
    own, found = room(module), set(imports(MODULES, module))
    inside = {name for name in found if name in MODULES and room(name) not in (own, "__init__")}
    assert {name for name in inside if not {name, room(name)} & ARROWS[own]} == set()
    others = {room(name) for name in found if name not in MODULES}
    assert not others & (NEVER | {name for name, homes in ONLY.items() if own not in homes})


def test_the_package_knows_no_room():
    assert {name for name in MODULES if "." not in name} == {"__init__", *DOORS}
    assert not {name for name in imports(MODULES, "__init__") if name in MODULES}


def test_arrows_are_those_of_the_rooms_there_are():
    assert {room(module) for module in MODULES} - {"__init__", *DOORS} == set(ARROWS)


@pytest.mark.parametrize("name", sorted(DOORS))
def test_a_door_holds_names_alone(name):
    document, door, names = ast.parse(MODULES[name].read_text()).body
    home = f"applesandoranges.{door.module}"
    assert ast.literal_eval(document.value) == f"Door under the former name of {door.module}."
    assert ast.literal_eval(names.value) == [alias.name for alias in door.names]
    there = importlib.import_module(f"applesandoranges.{name}")
    assert all(getattr(there, n) is getattr(importlib.import_module(home), n)
               for n in there.__all__)  # fmt: skip


@pytest.mark.parametrize("name", ARROWS)
def test_a_room_says_what_lives_in_it(name):
    document = ast.get_docstring(ast.parse(MODULES[f"{name}.__init__"].read_text()))
    assert 3 <= len([line for line in document.splitlines() if line]) <= 4
