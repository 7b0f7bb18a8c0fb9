"""What a problem's file imports is part of it, wherever below its directory it lies."""

import hashlib
import os
import sys
import sysconfig
from pathlib import Path

import pytest

import applesandoranges
from applesandoranges.problems.definition import load_definition
from applesandoranges.problems.imported import belongs, imported_files
from applesandoranges.problems.problem import build_problem
from skerch.errors import InputError
from tests.conftest import Pipeline
from tests.script_loader import REPOSITORY

GOOD = """\
import importlib
import sys
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

sys.path.append(str(Path(__file__).parent / "src"))
{top}

settings = {{"batch_size": 5, "num_epochs": 2, "SGD": {{"opt_hpars": {{"lr": 0.1}}}}}}


def network():
    {late}
    return torch.nn.Linear(3, 2)


def loss(outputs, targets):
    {in_loss}
    return (outputs - targets).square().mean() * scale


def data(split):
    return TensorDataset(torch.linspace(-1, 1, 60).reshape(20, 3), torch.ones(20, 2))
"""
#: Where the scale of the loss is written, and how it is imported; each with names of its own.
WAYS = {
    "beside": ("scale_a.py", "from scale_a import scale", "", ""),
    "in a package": ("pkg_b/parts.py", "from pkg_b.parts import scale", "", ""),
    "a module of a package": (
        "pkg_c/parts.py", "from pkg_c import parts", "", "scale = parts.scale",
    ),
    "its file": ("pkg_d/__init__.py", "import pkg_d", "", "scale = pkg_d.scale"),
    "by another": ("pkg_e/deep/parts.py", "from pkg_e.user import scale", "", ""),
    "in a path of its own": ("src/scale_f.py", "from scale_f import scale", "", ""),
    "late": ("scale_g.py", "", "from scale_g import scale", "from scale_g import scale"),
    "late, in a package": (
        "pkg_h/parts.py", "", "import pkg_h.parts", "from pkg_h.parts import scale",
    ),
    "as late as can be": ("src/pkg_i/parts.py", "", "", "from pkg_i.parts import scale"),
    "by its name": (
        "pkg_j/parts.py", "", "", "scale = importlib.import_module('pkg_j.parts').scale",
    ),
    "by some name": (
        "pkg_k/parts.py", "scale = importlib.import_module('pkg_k' + '.parts').scale", "", "",
    ),
    "a link": ("pkg_l/link.py", "from pkg_l.link import scale", "", ""),
}  # fmt: skip


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """Modules and paths that problems add are gone afterwards."""
    there, path = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - there:
        if name.startswith(("scale_", "pkg_", "_problem_")):
            del sys.modules[name]
    sys.path[:] = path


def write(directory, way):
    """Write a problem; return its file, and that with the scale of its loss."""
    file, top, late, in_loss = WAYS[way]
    part, path = directory / file, directory / "own.py"
    part.parent.mkdir(parents=True, exist_ok=True)
    if way == "by another":
        (directory / "pkg_e" / "user.py").write_text("from .deep.parts import scale\n")
    if way == "a link":
        (directory.parent / "elsewhere.py").touch()
        part.symlink_to(directory.parent / "elsewhere.py")
    part.write_text("scale = 1\n")
    path.write_text(GOOD.format(top=top, late=late or "pass", in_loss=in_loss or "pass"))
    return path, part


@pytest.mark.parametrize("way", WAYS)
def test_all_that_it_imports_is_part_of_its_hash(tmp_path, monkeypatch, way):
    directory = tmp_path / "own"
    path, part = write(directory, way)
    monkeypatch.syspath_prepend(directory)  # as of a script that lies there
    first = load_definition(str(path)).sha256
    problem = build_problem(str(path), None, 0, 5)
    X, y = next(iter(problem.train_loader(0)))
    problem.criterion(problem.net(X), y)  # where some import late
    os.utime(path)
    assert load_definition(str(path)).sha256 == first
    part.write_text("scale = 2\n")
    os.utime(path)
    assert load_definition(str(path)).sha256 != first


def test_the_hash_of_a_file_and_its_neighbours_stays_as_it_was(tmp_path):
    path, part = write(tmp_path, "beside")
    parts = (b"own.py", path.read_bytes(), b"scale_a.py", part.read_bytes())
    expected = hashlib.sha256(b"".join(part + b"\0" for part in parts)).hexdigest()
    assert load_definition(str(path)).sha256 == expected


def test_other_problems_of_the_directory_are_no_part_of_it(tmp_path):
    path, _ = write(tmp_path, "beside")
    first = load_definition(str(path)).sha256
    other = path.with_name("other.py")
    other.write_text(path.read_text())
    load_definition(str(other))
    os.utime(path)
    assert load_definition(str(path)).sha256 == first


def test_what_is_found_only_when_it_is_called_is_refused(tmp_path, monkeypatch):
    path, _ = write(tmp_path, "late")
    late = "importlib.import_module('scale' + '_g')"
    path.write_text(GOOD.format(top="", late=late, in_loss="scale = 1"))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"network\(\) imports .*scale_g.py, which the hash of"):
        build_problem(str(path), None, 0, 5)


@pytest.mark.parametrize(
    ("file", "belongs_to_it"),
    [
        ("net.py", True),
        ("a/b/net.py", True),
        ("env/lib/net.py", False),
        (".local/lib/python3.11/site-packages/net/net.py", False),
        ("../net.py", False),
    ],
)
def test_installed_packages_are_no_part_of_it(tmp_path, file, belongs_to_it):
    (tmp_path / "own" / "env").mkdir(parents=True)
    (tmp_path / "own" / "env" / "pyvenv.cfg").touch()
    file = Path(os.path.normpath(tmp_path / "own" / file))
    assert belongs(file, tmp_path / "own" / "own.py") == belongs_to_it


def test_a_problem_high_up_does_not_contain_this_project_or_python():
    python = Path(sysconfig.get_path("stdlib")).resolve() / "json" / "__init__.py"
    package = Path(applesandoranges.__file__).resolve()
    assert not belongs(python, Path("/own.py"))
    assert not belongs(package, REPOSITORY / "own.py")
    assert belongs(package.parent / "own" / "net.py", package.parent / "own.py")


def test_what_is_no_python_imports_nothing(tmp_path, monkeypatch):
    (tmp_path / "scale_m.py").write_text("print 'of Python 2'")
    path = tmp_path / "own.py"
    dots = "." * 99
    path.write_text(
        f"from {dots} import nothing\nfrom {dots}a import b\n"
        "def network():\n    import scale_m, skerch, numpy, json, nothing_like_it\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert imported_files(path) == {tmp_path / "scale_m.py"}


def test_another_loss_in_a_package_is_refused_by_10c_10d_and_resume(tmp_path, monkeypatch, capsys):
    path, part = write(tmp_path / "own", "as late as can be")
    pipeline = Pipeline(
        tmp_path, None, 2, 4, dim=8, record=(0, 1), num_hessian=10, extra=[f"PROBLEM={path}"]
    )
    assert pipeline.train() == 0
    store, words = pipeline.lay_out(), {"OBS_DATASETS": None}
    assert pipeline.measure(store, MEASUREMENT_IDXS=[0, 1], **words) == 0
    part.write_text("scale = 3\n")
    os.utime(path)  # a new process would import it anew
    capsys.readouterr()
    pipeline.extra.append(f"RESUME={pipeline.run_dir}")
    assert pipeline.measure(store, MEASUREMENT_IDXS=[2, 3], **words) == 2
    assert "is not what was trained" in (err := capsys.readouterr().err)
    assert "problem_sha256 was " in err
    assert pipeline.analyse(store, **words) == 2
    assert "problem_sha256 was " in capsys.readouterr().err
    assert pipeline.train() == 2
    assert "problem_sha256" in capsys.readouterr().err
    part.write_text("scale = 1\n")
    os.utime(path)
    assert pipeline.measure(store, MEASUREMENT_IDXS=[2, 3], **words) == 0
