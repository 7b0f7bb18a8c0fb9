"""13a on logs of published form and of several runs: which figures, and what they show."""

import numpy as np
import pandas as pd
import pytest

from applesandoranges.figures import FIGURES, MissingInLogsError, Options, draw
from applesandoranges.figures.masks import intersection_over_union
from applesandoranges.results.collect import read_logs
from applesandoranges.results.log_files import find_logs
from skerch.errors import InputError
from tests.conftest import run
from tests.small_logs import (
    N,
    Writer,
    analysis_log,
    curve,
    exhaustive_log,
    measuring_log,
    run_directory,
    training_log,
)

DRAW = "13a_plot_overlap.py"
#: Every problem, with its number of parameters.
PROBLEMS = {
    "mnist_mini": 7030,
    "cifar10det_3c3d": 895_210,
    "cifar100_allcnnc": 1_387_108,
    "fmnist_mlp": 1_336_610,
    "fmnist_2c2d": 3_274_634,
    "imagenetdet_resnet18": 11_689_512,
}


def published_run(root, problem, dim):
    """Write all logs of a run: training, measurements, analyses of two steps."""
    directory = run_directory(root, problem)
    training_log(directory, dim, evaluations="resnet" not in problem)
    measuring_log(directory)
    for step in (0, 2000):
        analysis_log(directory, dim, step)
    return directory


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Figures of one run of each problem, in one call."""
    root = tmp_path_factory.mktemp("several")
    for problem, dim in PROBLEMS.items():
        published_run(root / "logs", problem, dim)
    assert run(DRAW, f"LOGS={root / 'logs'}", f"OUTPUT_DIR={root / 'f'}", "K=[2,8]") == 0
    return root / "f"


@pytest.mark.parametrize(("problem", "dim"), PROBLEMS.items())
def test_every_problem_ends_in_figures(tmp_path, capsys, problem, dim):
    directory = published_run(tmp_path, problem, dim)
    assert run(DRAW, f"LOGS={directory}", f"OUTPUT_DIR={tmp_path / 'f'}") == 0
    drawn = {path.stem for path in (tmp_path / "f").glob("*.png")}
    assert drawn == {
        "overlap_over_k", "overlap_over_steps", "ratio_over_k", "ratio_over_steps", "run_times",
        "overview", "mask_stabilisation", "training",
    }  # fmt: skip
    lines = capsys.readouterr().err.splitlines()
    reasons = {line.split()[2]: line for line in lines if line.startswith("not drawn: ")}
    assert set(reasons) == set(FIGURES) - drawn
    assert "(no log has H_frob_Qtop^2 (the exact overlap, which 12a logs))" in "".join(lines)
    table = pd.read_csv(tmp_path / "f" / "ratio_over_k_overlap.csv")
    k, step_0 = np.arange(1, N + 1), table[table["step"] == 0]
    np.testing.assert_allclose(step_0["ratio"], np.array(curve(0)) / k**2 * dim)
    assert table["chance_std"].isna().all()  # published logs do not say how random masks spread


@pytest.mark.xdist_group("several_runs")
@pytest.mark.parametrize(("problem", "dim"), PROBLEMS.items())
def test_no_run_is_mixed_with_another(several, problem, dim):
    table = pd.read_csv(several / "overlap_over_k_overlap.csv")
    own = table[table["run"] == f"{problem}, seed 12345"]
    k, step_2000 = np.arange(1, N + 1), own[own["step"] == 2000]
    np.testing.assert_allclose(step_2000["overlap"], np.array(curve(2000)) / k)
    np.testing.assert_allclose(step_2000["chance"], k / dim)


@pytest.mark.xdist_group("several_runs")
@pytest.mark.parametrize("problem", PROBLEMS)
def test_figures_of_one_run_are_as_many_as_runs(several, problem):
    name = f"mask_stabilisation__{problem}_seed_12345"
    table = pd.read_csv(several / f"{name}_iou.csv")
    assert (several / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    between = table[(table["step"] == 0) & (table["other_step"] == 2000)]
    assert between["k"].tolist() == [2, 8]
    assert between["iou"].tolist() == [0, 0]  # 0 ... 7 and 2000 ... 2007


@pytest.mark.xdist_group("several_runs")
def test_times_of_all_networks_stand_in_one_figure(several):
    table = pd.read_csv(several / "run_times_seconds.csv")
    total = table[table["stage"] == "all measurements, in sequence"]
    assert total["seconds"].tolist() == [15.0 * 2 * N] * len(PROBLEMS)
    assert total["run"].nunique() == len(PROBLEMS)


def test_exhaustive_runs_of_published_form(tmp_path):
    exhaustive_log(run_directory(tmp_path, "mnist_mini"), 7030)
    words = [f"LOGS={tmp_path}", f"OUTPUT_DIR={tmp_path / 'f'}", "FIGURES=[errors,masks,run_times]"]
    assert run(DRAW, *words) == 0
    table = pd.read_csv(tmp_path / "f" / "masks_overlap.csv")
    k = np.arange(1, N + 1)
    best = table[(table["step"] == 100) & (table["split"] == "test")]["best"]
    np.testing.assert_allclose(best, np.array(curve(99)) / k)
    errors = pd.read_csv(tmp_path / "f" / "errors_errors.csv")
    assert errors["relative_error"].iloc[0] == pytest.approx((2.5 / 4) ** 0.5)


# ----------------------------------------------------------- what the lines and matrices show


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """A run of three steps with everything that 12a logs of masks and eigenspaces."""
    log = Writer(tmp_path_factory.mktemp("logs"), "[12a_x.py]")
    log("GLOBALS", {"num_params": 100, "PROBLEM": "x"})
    for step in (0, 10, 20):
        log("H_TRAIN RESULT", {"step": step, "frob_Qtop^2": curve(step)})
        log("H_TRAIN RESULT", {"step": step, "H_frob_Qtop^2": curve(step + 1)})
        log("H_TRAIN RESULT", {"step": step, "largest_absparams": list(range(step, step + N))})
        angles = {"angles_with": "mask", "principal_angles": {"1": [0.5], "2": [0.0, np.pi / 2]}}
        log("H_TRAIN RESULT", {"step": step, **angles})
        for other in range(0, step, 10):
            values = [step / 100 * k for k in range(1, N + 1)]
            angles = {"2": [other / 100, 1.0]}
            log("H_TRAIN RESULT", {"step": step, "angles_with": "eigenspace", "other_step": other,
                                   "frob_VtV^2": values, "principal_angles": angles})  # fmt: skip
    return read_logs(str(log.path))


def line(ax, label):
    (found,) = [line for line in ax.get_lines() if line.get_label() == label]
    return np.asarray(found.get_xdata()), np.asarray(found.get_ydata())


@pytest.mark.parametrize(
    ("name", "scale"), [("overlap_over_k", 1), ("ratio_over_k", 100)], ids=["overlap", "ratio"]
)
def test_lines_over_k(logs, name, scale):
    figure, _ = draw(name, logs, Options())
    k = np.arange(1, N + 1)
    x, y = line(figure.axes[0], "step 10")
    np.testing.assert_array_equal(x, k)
    np.testing.assert_allclose(y, np.array(curve(10)) / k * (1 if scale == 1 else 100 / k))


@pytest.mark.parametrize("k", [2, 8])
@pytest.mark.parametrize("name", ["overlap_over_steps", "ratio_over_steps"])
def test_lines_over_steps(logs, name, k):
    figure, _ = draw(name, logs, Options((2, 8)))
    x, y = line(figure.axes[0], f"k = {k}")
    assert x.tolist() == [0, 10, 20]
    expected = np.array([curve(step)[k - 1] / k for step in (0, 10, 20)])
    np.testing.assert_allclose(y, expected * (100 / k if name.startswith("ratio") else 1))


def test_exact_curves_lie_behind_sketched_ones(logs):
    figure, tables = draw("exact_and_sketched_overlap", logs, Options())
    k, table = np.arange(1, N + 1), tables["overlap"]
    step = table[table["step"] == 20]
    np.testing.assert_allclose(step["overlap"], np.array(curve(21)) / k)
    np.testing.assert_allclose(step["overlap_sketched"], np.array(curve(20)) / k)
    broad = [line for line in figure.axes[0].get_lines() if line.get_linewidth() == 6][2]
    np.testing.assert_allclose(broad.get_ydata(), np.array(curve(21)) / k)


def test_matrix_of_masks(logs):
    figure, _ = draw("mask_stabilisation", logs, Options((8,)))
    matrix = figure.axes[0].get_images()[0].get_array()
    np.testing.assert_allclose(matrix, np.eye(3))
    assert "chance 0.042" in figure.axes[0].get_title()  # 8 / (200 - 8)


@pytest.mark.parametrize(
    ("masks", "expected"),
    [(([1, 2, 3], [3, 2, 1]), 1), (([1, 2], [2, 3]), 1 / 3), (([1], [2]), 0)],
    ids=["equal", "one of three", "disjoint"],
)
def test_intersection_over_union(masks, expected):
    assert intersection_over_union(*map(np.array, masks)) == pytest.approx(expected)


def test_masks_that_are_sets_are_compared_as_a_whole_alone(tmp_path):
    log = Writer(tmp_path, "[12b_x.py]")
    for step in (0, 10):
        indices = list(range(step, step + 20))
        body = {"step": step, "frob_Qtop^2": [0.1], "largest_absparams": indices}
        log("H_TRAIN RESULT", body)
    logs = read_logs(str(log.path), 100)
    figure, tables = draw("mask_stabilisation", logs, Options())
    assert tables["iou"]["k"].unique().tolist() == [20]
    assert figure.axes[0].get_images()[0].get_array()[0, 1] == pytest.approx(1 / 3)
    with pytest.raises(MissingInLogsError, match="they can be compared at k = 20 alone"):
        draw("mask_stabilisation", logs, Options((5,)))


def test_matrix_of_eigenspaces(logs):
    figure, _ = draw("eigenspace_stabilisation", logs, Options((4,)))
    matrix = figure.axes[0].get_images()[0].get_array()
    np.testing.assert_allclose(matrix, [[1, 0.1, 0.2], [0.1, 1, 0.2], [0.2, 0.2, 1]])


def test_metrics_along_a_training(logs):
    _, tables = draw("grassmannian_along_training", logs, Options())
    table = tables["metrics"].set_index(["pair", "step", "k", "metric"])["similarity"]
    assert table["mask", 10, 2, "overlap"] == pytest.approx(0.5)
    assert table["mask", 10, 2, "projection_2"] == pytest.approx(0)
    geodesic = np.hypot(0.1, 1.0) / (np.pi / 2 * 2**0.5)
    assert table["eigenspace", 20, 2, "geodesic"] == pytest.approx(1 - geodesic)
    assert ("eigenspace", 0, 2, "overlap") not in table.index


# ----------------------------------------------------------- several recoveries and analyses


@pytest.fixture
def recovered(tmp_path):
    """A run whose two steps were recovered in two ways, one of them analysed twice."""
    for number, (recovery, step) in enumerate(
        [("seigh", 0), ("seigh", 10), ("krylov", 0), ("krylov", 10), ("krylov", 10)]
    ):
        log = Writer(tmp_path / "run", f"[10d_x.py]{number}", number)
        log("CONFIG", {"RECOVERY": recovery})
        log("GLOBALS", {"run_id": "a", "num_params": 100, "PROBLEM": "x", "RANDOM_SEED": 3})
        body = {"step": step, "H_test": False}
        log("RESULT", body | {"core_S": list(range(N, 0, -1)), "frob_Qtop^2": curve(number)})
        log("RESULT", body | {"largest_absparams": list(range(number, number + N))[::-1]})
        log("RESULT", body | {"verdict": f"verdict {number}"})
    return tmp_path


def test_recoveries_are_neither_mixed_nor_dropped(recovered, capsys):
    figures = recovered / "f"
    assert run(DRAW, f"LOGS={recovered / 'run'}", f"OUTPUT_DIR={figures}", "K=8") == 0
    out = capsys.readouterr().out
    table = pd.read_csv(figures / "overlap_over_k_overlap.csv")
    k = np.arange(1, N + 1)
    for recovery, step, number in (("seigh", 0, 0), ("seigh", 10, 1), ("krylov", 0, 2),
                                   ("krylov", 10, 4)):  # fmt: skip
        own = table[(table["recovery"] == recovery) & (table["step"] == step)]
        np.testing.assert_allclose(own["overlap"], np.array(curve(number)) / k)
        name = f"overview__x_seed_3_{recovery}_overlap.csv"
        assert set(pd.read_csv(figures / name)["recovery"]) == {recovery}
        assert f"step {step}, train{'' if recovery == 'seigh' else ', krylov'}" in out
        assert f": verdict {number}\n" in out.partition("Written:")[2]
    masks = pd.read_csv(figures / "mask_stabilisation__x_seed_3_krylov_iou.csv")
    between = masks[(masks["step"] == 0) & (masks["other_step"] == 10)]
    assert between["iou"].tolist() == pytest.approx([(N - 2) / (N + 2)])
    assert "of several analyses: x, seed 3, step 10, train, krylov: of 2 analyses" in out


def test_panels_name_the_recovery(recovered):
    logs = read_logs(str(recovered / "run"))
    figure, _ = draw("overlap_over_k", logs, Options())
    titles = [ax.get_title().partition("\n")[0] for ax in figure.axes]
    assert titles == ["Hessian of the training split, krylov",
                      "Hessian of the training split, seigh"]  # fmt: skip
    x, _ = line(figure.axes[1], "step 10")
    assert x.tolist() == list(range(1, N + 1))


def test_a_figure_of_one_recovery_refuses_several(recovered):
    with pytest.raises(InputError, match=r"shows one run and recovery, got x, seed 3, krylov; x"):
        draw("masks", read_logs(str(recovered / "run")), Options())


def test_figures_of_runs_whose_names_look_alike_do_not_replace_each_other(tmp_path):
    for suffix in ("a b", "a_b"):
        analysis_log(run_directory(tmp_path / "logs", "mnist_mini", suffix=suffix), 7030, 0)
    words = [f"LOGS={tmp_path / 'logs'}", f"OUTPUT_DIR={tmp_path / 'f'}", "FIGURES=overview"]
    assert run(DRAW, *words) == 0
    assert len(list((tmp_path / "f").glob("*.png"))) == 2


# ----------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ("word", "message"),
    [("K=[0]", "expected ranks of at least 1, got 0"), ("K=[50]", "end at k = 8, got 50"),
     ("FIGURES=[overlap]", "figure"), ("K=x", "K"), ("NUM_PARAMS=0", "at least 1, got 0")],
)  # fmt: skip
def test_wrong_keys_end_in_one_line(tmp_path, capsys, word, message):
    directory = published_run(tmp_path, "cifar10det_3c3d", 895_210)
    assert run(DRAW, f"LOGS={directory}", f"OUTPUT_DIR={tmp_path / 'f'}", word) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "f").exists()


def test_a_file_in_place_of_the_directory_is_refused(tmp_path, capsys):
    directory = published_run(tmp_path, "cifar10det_3c3d", 895_210)
    (tmp_path / "f").write_text("mine")
    assert run(DRAW, f"LOGS={directory}", f"OUTPUT_DIR={tmp_path / 'f'}") == 2
    assert "OUTPUT_DIR is a file" in capsys.readouterr().err
    assert (tmp_path / "f").read_text() == "mine"


def test_several_runs_are_named_in_the_table(tmp_path, capsys):
    for problem in ("cifar10det_3c3d", "cifar100_allcnnc"):
        published_run(tmp_path, problem, PROBLEMS[problem])
    words = [f"LOGS={tmp_path}", f"OUTPUT_DIR={tmp_path / 'f'}", "FIGURES=[overview]"]
    assert run(DRAW, *words) == 0
    out = capsys.readouterr().out
    assert "cifar10det_3c3d, seed 12345: step 0, test" in out
    assert "cifar100_allcnnc, seed 12345: step 2000, test" in out


def test_a_path_with_a_colon_is_one_path(tmp_path):
    for name in ("a:b", "a", "b"):
        analysis_log(run_directory(tmp_path / name, "mnist_mini"), 7030, 0)
    whole, *parts = (find_logs(str(tmp_path / name)) for name in ("a:b", "a", "b"))
    assert all(len(logs) == 1 for logs in (whole, *parts))
    assert find_logs(f"{tmp_path / 'a'}:{tmp_path / 'b'}") == [*parts[0], *parts[1]]
