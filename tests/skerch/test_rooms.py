"""Who may import whom in skerch, what an import brings along, and the names of the document."""

import importlib
import subprocess
import sys

import pytest

import skerch
from tests.imports import imports, modules_of

MODULES = modules_of(skerch)

#: Rooms and their modules; all others are named after their directory.
ROOMS = {
    "names": {"__init__"},
    "base": {
        "a_priori", "adapters", "budget", "dct", "errors", "heartbeat", "linop", "linops",
        "operands", "ssrft", "store_names", "streams", "symmetry", "synthmat", "utils", "written",
    },
    "results": {"results"},
    "front": {"a_posteriori", "decompositions", "planning", "rounds"},
    "doors": {"__main__", "commands", "distributed_decompositions", "distributed_measurements"},
}  # fmt: skip
#: What each room may import, beside itself.
ARROWS = {
    "names": {"front", "results", "base", "store"},  # when a name is first used
    "base": set(),
    "results": {"base", "core", "store"},  # the store when a result is saved
    "core": {"base", "results"},
    "front": {"base", "core", "results"},
    "store": {"names", "base", "core", "results"},
    "doors": {"names", "base", "core", "front", "results", "store"},
}
#: Packages that only one room imports, and those that none does.
ONLY = {"h5py": "store", "rich": "doors"}
NEVER = {"applesandoranges", "benchmarks", "matplotlib", "torchvision", "tests"}


def room(module):
    own = next((name for name, modules in ROOMS.items() if module in modules), None)
    return own or module.partition(".")[0]


@pytest.mark.parametrize("module", MODULES)
def test_arrows(module):
    own = room(module)
    found = set(imports(MODULES, module))
    inside = {name for name in found if name in MODULES}
    assert {room(name) for name in inside} - {own} <= ARROWS[own]
    others = {name.partition(".")[0] for name in found} - {room(m) for m in inside}
    assert not others & (NEVER | {name for name, home in ONLY.items() if home != own})
    assert "skerch" not in others  # but by relative imports


def test_results_know_row_blocks_alone():
    """Otherwise results and what is computed of them would know each other."""
    found = imports(MODULES, "results")
    assert {name for name in found if room(name) == "core"} == {"core.row_blocks"}
    assert not {name for name in imports(MODULES, "core.row_blocks") if room(name) == "results"}


CALLS = {
    "import": "import skerch",
    "import-a-name": "from skerch import as_linop, Eigh, seigh, ssvd, hmt, nystrom, block_krylov",
    "seigh": "import skerch, torch; skerch.seigh(torch.eye(8, dtype=torch.float64), 2, 4, 0)",
    "ssvd": "import skerch, torch; skerch.ssvd(torch.eye(8, dtype=torch.float64), 2, 4, 0)",
}


@pytest.mark.parametrize("call", CALLS)
def test_what_an_import_brings_along(call):
    code = f"{CALLS[call]}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "skerch" in loaded
    assert not loaded & {"applesandoranges", "h5py", "matplotlib", "torchvision", "skerch.store"}
    assert ("torch" in loaded) == (call != "import")


NAMES = {
    "skerch": [
        "BASIS_FMT", "INNER_FMT", "LO_FMT", "RO_FMT", "SSRFT", "Eigh", "Ssvd", "as_linop",
        "block_krylov", "hmt", "load", "nystrom", "seigh", "ssvd",
    ],
    "skerch.decompositions": ["Ssvd", "seigh", "ssvd", "truncate_core"],
    "skerch.distributed_decompositions": [
        "INNER_FMT", "LO_FMT", "RO_FMT", "DistributedHDF5", "core_pinv_solve",
        "create_hdf5_layout", "orthogonalize", "solve_core_seigh", "solve_core_ssvd",
    ],
    "skerch.distributed_measurements": [
        "INNER_FMT", "LO_FMT", "RO_FMT", "DistributedHDF5", "innermeas_batch_torch",
        "innermeas_idx_torch", "linmeas_batch_torch", "linmeas_idx_torch", "ssrft_batch_torch",
        "ssrft_idx_torch",
    ],
    "skerch.utils": [
        "InputError", "NumericalError", "StoreError", "gaussian_noise", "rademacher", "randperm",
        "uniform_noise",
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("module", "name"),
    [pytest.param(m, n, id=f"{m}.{n}") for m, names in NAMES.items() for n in names],
)
def test_names_of_the_document(module, name):
    home = importlib.import_module(module)
    assert hasattr(home, name)
    assert name in home.__all__


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = skerch.nothing
