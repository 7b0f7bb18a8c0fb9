"""The command line: results, one-line errors, exit status, nothing changed on refusal."""

import json
import subprocess
import sys

import h5py
import pytest

from skerch.__main__ import main

LAYOUT = ["create_hdf5_layout", "--dtype", "float32", "--shape", "30,30", "--outer", "3",
          "--inner", "6"]  # fmt: skip


def run(argv, capsys):
    try:
        status = main([str(word) for word in argv])
    except SystemExit as error:
        status = error.code
    out, err = capsys.readouterr()
    return status, out, err


def test_prio_hpars_prints_the_reference(capsys):
    status, out, _ = run(
        ["prio_hpars", "--shape", "7030,7030", "--budget", 5_000_000, "--sym", "--json"], capsys
    )
    assert (status, json.loads(out)) == (0, {"outer": 543, "inner": 1087})


def test_post_bounds_prints_the_reference(capsys):
    status, out, _ = run(["post_bounds", "--apost_n", 30, "--apost_err", 0.5, "--json"], capsys)
    assert status == 0
    assert json.loads(out) == pytest.approx(
        {"P(err<=0.5x)": 0.055177075636476565, "P(err>=1.5x)": 0.24219226655288198}, rel=1e-12
    )


PLAN = ["plan", "--shape", "7030,7030", "--k", 355, "--products", 710, "--budget", "2GB"]


def test_plan_for_machines(capsys):
    status, out, _ = run([*PLAN, "--jobs", 71, "--json"], capsys)
    found = json.loads(out)
    assert (status, found["recommended"]) == (0, "krylov with 10 rounds of 71")
    by_name = {row["name"]: row for row in found["recoveries"]}
    assert by_name["krylov with 10 rounds of 71"]["products_in_sequence"] == 10
    assert by_name["seigh"]["stored_columns"] == 355


@pytest.mark.parametrize("dim", [10**30, 10**13 + 1], ids=["1e30", "1e13"])
@pytest.mark.parametrize("command", ["layout", "plan"])
def test_a_shape_that_no_machine_can_count_is_refused(tmp_path, capsys, command, dim):
    words = {
        "layout": ["create_hdf5_layout", "--hdf5dir", tmp_path / "m", "--outer", 2, "--inner", 4],
        "plan": ["plan", "--k", 2, "--products", 4],
    }[command]
    status, out, err = run([*words, "--shape", f"{dim},{dim}"], capsys)
    assert (status, out) == (2, "")
    *_, line = err.splitlines()
    assert line.startswith("skerch: expected a shape of at most 10000000000000, got")
    assert not [*tmp_path.iterdir()]


def test_plan_for_people(capsys):
    status, out, _ = run([*PLAN[:4], 400, *PLAN[5:], "--passes", 1, "--budget", "30MB"], capsys)
    recommended, reason, headings, *rows = map(str.rstrip, out.splitlines())
    assert status == 0
    assert recommended == "recommended: seigh"
    assert reason.startswith("reason: one pass is all that is allowed, and neither nystrom nor")
    assert headings.startswith("recovery  ")
    assert headings.endswith("peak memory  remark")
    assert len(rows) == 10
    assert rows[2].endswith("needs 800 products")
    assert all(row.endswith("exceeds the budget") for row in [rows[1], *rows[3:]])


def test_plan_warns_of_as_few_products_as_pairs(capsys):
    argv = ["plan", "--shape", "7030,7030", "--k", 355, "--products", 360, "--budget", "2GB"]
    status, out, _ = run(argv, capsys)
    assert status == 0
    assert out.splitlines()[0] == "recommended: krylov with 10 rounds of 36"
    assert out.splitlines()[2].startswith("warning: n_i=360 products are about as many as the n_o=")
    warning = json.loads(run([*argv, "--json"], capsys)[1])["warning"]
    assert out.splitlines()[2] == f"warning: {warning}"
    assert warning.endswith("twice as many products as pairs, 710")
    assert "warning" not in run(PLAN, capsys)[1]
    assert json.loads(run([*PLAN, "--json"], capsys)[1])["warning"] == ""


def test_layout_then_merge(tmp_path, capsys):
    directory = tmp_path / "meas dir"
    directory.mkdir()
    status, out, _ = run([*LAYOUT, "--hdf5dir", directory, "--sym"], capsys)
    assert status == 0
    assert "leftouter_ALL.h5" in out
    assert "rightouter" not in out
    merge = ["merge_hdf5", "--in_path", directory / "inner_ALL.h5", "--out_path"]
    assert run([*merge, directory / "inner_MERGED.h5"], capsys)[0] == 0
    status, _, err = run([*merge, directory / "inner_MERGED.h5"], capsys)
    assert status == 2
    assert "exists already" in err
    status, _, err = run([*merge, directory / "other.h5", "--ok_flag", "measured"], capsys)
    assert status == 1
    assert "6 of 6 measurements cannot be used: 0-5 (not measured)" in err
    assert not (directory / "other.h5").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "COMMAND"),
        (["merge"], "invalid choice: 'merge'"),
        (["prio_hpars", "--shape", "7030", "--budget", "10"], "expected a shape"),
        (["prio_hpars", "--shape", "7030,7030", "--budget", "10"], "holds no sketch"),
        (["prio_hpars", "--shape", "70,30", "--budget", "9999", "--sym"], "square"),
        ([*PLAN, "--jobs", "0"], "at least 1"),
        ([*PLAN, "--budget", "8 apples"], "expected bytes such as 8e9 or 8GB"),
        ([*PLAN, "--budget", "1KB"], "too small"),
        ([*PLAN[:-2], "--k", "711"], "got k=711 and products=710"),
        (["plan", "--shape", "7030,7030"], "--k, --products"),
        (["post_bounds", "--apost_n", "0", "--apost_err", "0.5"], "at least 1"),
        (["post_bounds", "--apost_n", "3", "--apost_err", "1.5"], r"(0, 1]"),
        (["post_bounds", "--apost_n", "x", "--apost_err", "1"], "invalid int"),
        (["post_bounds", "--apost_n", "1_0", "--apost_err", "1"], "invalid int"),
        (["post_bounds", "--apost_n", "3", "--apost_err", "0.2_5"], "invalid float"),
        (["merge_hdf5", "--in_path", "a", "--out_path", "b", "--delete_subfiles"], "--ok_flag"),
        ([*LAYOUT[:-1], "2", "--hdf5dir", "NEW"], "outer=3, inner=2"),
        ([*LAYOUT[:-1], "99", "--hdf5dir", "NEW"], "inner=99"),
        ([*LAYOUT, "--hdf5dir", "USED"], "expected a new or an empty directory"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[:1]),
)
def test_wrong_input_is_one_line_and_status_2(tmp_path, capsys, argv, message):
    used, new = tmp_path / "used", tmp_path / "new"
    used.mkdir()
    (used / "notes").write_text("mine")
    argv = [{"USED": used, "NEW": new}.get(word, word) for word in argv]
    status, out, err = run(argv, capsys)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not new.exists()
    assert [p.name for p in used.iterdir()] == ["notes"]


WHOLE_COMMANDS = {
    "create_hdf5_layout": ["--hdf5dir", "m", "--shape", "9,9", "--outer", "2", "--inner", "4"],
    "merge_hdf5": ["--in_path", "m/leftouter_ALL.h5", "--out_path", "m/leftouter.h5"],
    "post_bounds": ["--apost_n", "30", "--apost_err", "0.5"],
    "prio_hpars": ["--shape", "9,9", "--budget", "90"],
    "plan": ["--shape", "9,9", "--k", "2", "--products", "4"],
}


@pytest.mark.parametrize(
    ("command", "option"),
    [(name, option) for name, words in WHOLE_COMMANDS.items() for option in words[::2]],
)
def test_every_command_names_an_option_that_is_missing(
    tmp_path, monkeypatch, capsys, command, option
):
    monkeypatch.chdir(tmp_path)
    words = WHOLE_COMMANDS[command]
    at = words.index(option)
    status, out, err = run([command, *words[:at], *words[at + 2 :]], capsys)
    assert (status, out) == (2, "")
    assert "required" in err
    assert option in err
    assert list(tmp_path.iterdir()) == []


def test_missing_store_is_refused_in_one_line(tmp_path, capsys):
    status, _, err = run(
        ["merge_hdf5", "--in_path", tmp_path / "no.h5", "--out_path", tmp_path / "m.h5"], capsys
    )
    assert status == 2
    assert "no such file, expected one such as leftouter_ALL.h5" in err
    assert err.count("\n") == 1


def test_module_can_be_run():
    done = subprocess.run(
        [sys.executable, "-m", "skerch", "post_bounds", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "--apost_err" in done.stdout


def test_the_shape_is_that_of_a_params_file(tmp_path, capsys):
    path, store = tmp_path / "params.h5", tmp_path / "store"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", (30, 2), "float32")
    rest = ["--outer", 3, "--inner", 6, "--sym"]
    status, _, _ = run(["create_hdf5_layout", "--hdf5dir", store, "--params", path, *rest], capsys)
    assert status == 0
    with h5py.File(store / "leftouter_ALL.h5") as file:
        assert file["data"].shape == (30, 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "one of the arguments --shape --params is required"),
        (["--params", "none.h5"], "no such file"),
        (["--params", "none.h5", "--shape", "3,3"], "not allowed with"),
    ],
)
def test_wrong_shapes(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    create = ["create_hdf5_layout", "--hdf5dir", "store", "--outer", 3, "--inner", 6, *words]
    status, _, err = run(create, capsys)
    assert status != 0
    assert message in err
    assert list(tmp_path.iterdir()) == []
