"""The tool that looks whether tests notice: its changes are Python, and its explanations hold."""

import ast

import pytest

from tests import mutation
from tests.mutants import REPOSITORY, changes, code_of, mutants_of
from tests.mutation import ELSEWHERE, SCOPE, Copy, explained

FILES = sorted(
    str(path.relative_to(REPOSITORY))
    for scope in SCOPE
    for path in (REPOSITORY / scope).rglob("*.py")
)


def changed(code):
    """Return what a line is changed to."""
    return {new for node in code_of(ast.parse(code)) for _, new in changes(node)}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("a < b", {"a <= b", "a >= b"}), ("a + b", {"(a - b)"}), ("a ** b", {"(a * b)", "a"}),
        ("A @ B", {"(B @ A)"}), ("a and b", {"(a or b)"}), ("not a", {"a"}), ("-a", {"a"}),
        ("x[:k]", {"k + 1"}), ("x.sqrt()", {"x", "pass"}), ("np.abs(x)", {"x", "pass"}),
        ("y = f(a, b)", {"f(b, a)"}), ("y = max(a, b)", set()), ("raise Error('a' + b)", {"pass"}),
        ("y = x if c else z", {"(not c)"}), ("y = 3", {"4", "(2)"}), ("y = 0.5", {"1.0"}),
        ("y = True", {"False"}), ("y: int = 'text'", set()), ("plot(lw=3)", {"pass"}),
        ("x += 1", {"pass", "2", "(0)"}), ("y = f'{a + b}'", set()),
    ],
)  # fmt: skip
def test_changes(code, expected):
    assert changed(code) == expected


@pytest.mark.parametrize("path", FILES[::8])
def test_every_change_is_python_in_one_place(path):
    source = (REPOSITORY / path).read_bytes()
    for mutant in mutants_of(path)[::7]:
        after = source[: mutant.begin] + mutant.new.encode() + source[mutant.end :]
        assert after != source
        compile(after, path, "exec")


@pytest.mark.parametrize("path", FILES)
def test_every_module_has_tests(path):
    near, others = mutation.tests_for(path, REPOSITORY)
    tests = [*near, *others]
    assert len(set(tests)) == len(tests) > 0
    assert all((REPOSITORY / test).is_file() for test in tests)


def test_tests_elsewhere_are_of_modules_that_exist():
    assert all((REPOSITORY / part).exists() for part in ELSEWHERE)


def test_every_explanation_is_of_a_change_that_can_be_made():
    known = {
        mutant.key for path in {path for path, _ in explained()} for mutant in mutants_of(path)
    }
    assert set(explained()) <= known
    assert all(explained().values())


def test_a_change_is_noticed_in_a_copy_alone(tmp_path, monkeypatch):
    """``k / D`` becomes ``k * D``; a test of its own notices, another does not."""
    path = "applesandoranges/subspaces/chance.py"
    (mutant,) = [
        m
        for m in mutants_of(path)
        if m.key[1].endswith("-> return (torch.as_tensor(k, dtype=torch.float64) * dim)")
    ]
    before = (REPOSITORY / path).read_bytes()
    copy = Copy(tmp_path / "tree")
    for test, noticed in (("test_chance.py", True), ("test_other.py", False)):
        body = "from applesandoranges.subspaces.chance import chance_level as f\n\n"
        body += f"def test_it():\n    assert float(f(2, 4)) == 0.5 or {not noticed}\n"
        (tmp_path / "tree" / "tests" / test).write_text(body)
        monkeypatch.setattr("tests.mutation.tests_for", lambda *_, t=test: ([], [f"tests/{t}"]))
        assert copy.notices(mutant, 120) == noticed
    assert (tmp_path / "tree" / path).read_bytes() == (REPOSITORY / path).read_bytes() == before
