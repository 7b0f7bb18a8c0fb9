"""Names that lead elsewhere, and YAML that would run code."""

import pytest

from tests.conftest import TRAIN, run
from tests.faults.trees import tree


@pytest.fixture
def words(trained, tmp_path):
    return [
        f"OBS_DATASETS={trained.datasets}", "RECORD_STEPS=[0]", "MAX_STEPS=0", "DEVICE=cpu",
        "NUM_HESSIAN_DATAPOINTS=20", "WITH_EVAL=false", f"OUTPUT_DIR={tmp_path / 'a' / 'output'}",
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", ["../up", "a/b", "/tmp/elsewhere", "..", ".", "a\nb", "x" * 60])
def test_a_run_directory_lies_where_it_should(words, tmp_path, capsys, suffix):
    status = run(TRAIN, *words, f"OUTDIR_SUFFIX={suffix}")
    if "/" in suffix:
        assert status == 2
        assert "OUTDIR_SUFFIX is part of a file name" in capsys.readouterr().err
        assert not list(tmp_path.iterdir())
        return
    assert status == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    (run_dir,) = (tmp_path / "a" / "output").iterdir()
    assert run_dir.name.endswith(f"__mnist_mini__{run_dir.name.split('__')[2]}__{suffix}")
    assert all(path.parent == run_dir for path in run_dir.rglob("*"))


def test_a_suffix_that_is_too_long_is_refused_before_anything_is_written(words, tmp_path, capsys):
    assert run(TRAIN, *words, f"OUTDIR_SUFFIX={'x' * 130}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "bytes long, at most 150 are possible" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        '!!python/object/apply:os.system ["touch {}"]',
        "!!python/object/new:subprocess.Popen [[touch, {}]]",
        "!!python/name:os.system",
        "!!python/module:os",
    ],
)
@pytest.mark.parametrize("where", ["file", "RECORD_STEPS", "OUTDIR_SUFFIX", "MAX_STEPS"])
def test_tags_run_nothing(words, tmp_path, capsys, text, where):
    harm, settings = tmp_path / "harm", tmp_path / "settings.yaml"
    text = text.format(harm)
    settings.write_text(f"mnist_mini: {text}\n")
    before = tree(tmp_path)
    word = f"TUNING_CONF={settings}" if where == "file" else f"{where}={text}"
    assert run(TRAIN, *words, word) == 2
    assert tree(tmp_path) == before
    assert "Traceback" not in capsys.readouterr().err
