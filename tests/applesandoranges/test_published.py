"""What can be met of the published results on the embedded digits: all of step 0.

The embedded digits begin with the very 500 digits of the published training Hessian, and the
weights of step 0 depend on the seed alone. Masks of step 0 need no data at all.
"""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torchvision.models import resnet18

from applesandoranges.analysis.overlap import largest_parameters, mask_curves
from applesandoranges.hessian.loss import Loss
from applesandoranges.hessian.operator import make_hessian
from applesandoranges.problems.parameters import parameter_vector
from applesandoranges.problems.problem import build_problem
from applesandoranges.published import tables
from applesandoranges.published.compare import (
    ALLOWED,
    KEYS,
    common_parameters,
    compare,
    difference,
    worst,
)
from applesandoranges.published.experiment import run_differences
from applesandoranges.published.figure import draw_comparison
from applesandoranges.results.collect import read_logs
from skerch.decompositions import seigh
from tests.published_logs import published_events, write_logs

RUN = tables.RUNS["mnist_mini"]
STEP_0 = ("mnist_mini", "train", 0)


@pytest.fixture(scope="module")
def problem(digits):
    return build_problem("mnist_mini", digits, tables.SEED, 500, torch.device("cpu"))


@pytest.fixture(scope="module")
def operator(problem):
    return make_hessian(problem.net, problem.criterion, problem.hessian_data("train", 500), 500)


@pytest.fixture(scope="module")
def sketch(operator):
    return seigh(operator, RUN.outer, RUN.inner, tables.SEED, torch.float32, symmetrize=False)


def test_loss_of_step_zero(problem):
    rows = tables.table("training", "mnist_mini")
    rows = rows[(rows["quantity"] == "H_train_loss") & (rows["global_step"] == 0)]
    (published,) = rows["value"]
    assert Loss.of(problem, "train", 500).value().item() == pytest.approx(published, abs=1e-6)


@pytest.mark.slow
@pytest.mark.xdist_group("published")
def test_largest_true_eigenvalues_of_step_zero(operator):
    def multiply(v):
        return (operator @ torch.from_numpy(v.astype(np.float32).ravel())).double().numpy()

    linop = LinearOperator((7030, 7030), matvec=multiply, dtype=np.float64)
    rng = np.random.default_rng(0)
    found = eigsh(linop, k=25, which="LM", v0=rng.standard_normal(7030), tol=1e-6)[0]
    ours = found[np.abs(found).argsort()[::-1]][:20]
    np.testing.assert_allclose(ours, tables.eigenvalues(*STEP_0)[:20], rtol=ALLOWED["eigenvalue"])


@pytest.mark.slow
@pytest.mark.xdist_group("published")
def test_sketched_eigenvalues_of_step_zero(sketch):
    published = np.abs(tables.core(*STEP_0))
    allowed = ALLOWED["core"] * published.max()
    np.testing.assert_allclose(sketch.S.abs().numpy(), published, rtol=0, atol=allowed)


@pytest.mark.slow
@pytest.mark.xdist_group("published")
def test_overlap_of_step_zero(problem, sketch):
    order = largest_parameters(parameter_vector(problem.net), RUN.outer)
    ours = mask_curves(sketch, [order])[0].numpy() / np.arange(1, RUN.outer + 1)
    np.testing.assert_allclose(ours, tables.overlap(*STEP_0), rtol=0, atol=ALLOWED["overlap"])


@pytest.mark.parametrize("name", tables.RUNS)
def test_masks_of_step_zero_depend_on_the_seed_alone(name, tmp_path):
    """The published ones, without any data; of ResNet-18 as far as they are decided."""
    run = tables.RUNS[name]
    net = build_problem(name, tmp_path, tables.SEED, run.batch_size, load_data=False).net
    magnitudes = parameter_vector(net).abs()
    published = tables.largest(name, 0)
    if name == "imagenetdet_resnet18":
        assert (magnitudes[published.tolist()] == magnitudes.max()).all()
        return
    ours = largest_parameters(magnitudes, run.outer).numpy()
    if name == "mnist_mini":
        ours, published = np.sort(ours), np.sort(published)
    np.testing.assert_array_equal(ours, published)


def test_equal_weights_of_batch_norm():
    net = resnet18(num_classes=1000)
    ones = torch.cat([p.detach().ravel() for p in net.parameters()]) == 1
    expected = torch.nonzero(ones).ravel().tolist()
    assert sorted(tables.equal_at_start("imagenetdet_resnet18")) == expected
    assert not tables.equal_at_start("cifar10det_3c3d")


@pytest.mark.parametrize("name", tables.RUNS)
def test_tables_are_complete(name):
    """Every curve has all its ranks, in order, and spectra descend in magnitude."""
    run = tables.RUNS[name]
    for table, at in (("spectrum", "rank"), ("overlap", "k"), ("largest_parameters", "rank")):
        ranks = tables.table(table, name).groupby(["split", "step"], sort=False)[at]
        assert all(group.tolist() == [*range(1, run.outer + 1)] for _, group in ranks)
        assert len(ranks) == len(run.steps) * (
            len(run.splits) if table != "largest_parameters" else 1
        )
    spectra = [tables.core(name, split, step) for split in run.splits for step in run.steps]
    if run.exact:
        spectra += [tables.eigenvalues(name, split, s) for split in run.splits for s in run.steps]
    assert all((np.diff(np.abs(values)) <= 0).all() for values in spectra)


def test_tables_are_small():
    assert sum(path.stat().st_size for path in tables.TABLES.iterdir()) < 1_000_000


def test_scales_of_differences():
    ours, published = np.array([2.0, 0.11]), np.array([2.2, 0.1])
    np.testing.assert_allclose(difference("eigenvalue", ours, published), [0.2 / 2.2, 0.1])
    np.testing.assert_allclose(difference("core", ours, published), [0.2 / 2.2, 0.01 / 2.2])
    np.testing.assert_allclose(difference("overlap", ours, published), [0.2, 0.01])
    np.testing.assert_allclose(difference("training", ours, published), [0.2 / 2.2, 0.01])


def test_common_parameters_of_nested_masks():
    rng = np.random.default_rng(0)
    ours, theirs = rng.permutation(30)[:20], rng.permutation(30)[:20]
    expected = [len(set(ours[:k].tolist()) & set(theirs[:k].tolist())) for k in range(1, 21)]
    assert common_parameters(ours, theirs).tolist() == expected
    assert common_parameters(ours, ours).tolist() == [*range(1, 21)]
    assert common_parameters(ours, ours + 100).tolist() == [0] * 20


def test_what_later_steps_may_differ_by_is_the_distance_of_published_ones(tmp_path):
    name, later = "cifar100_allcnnc", (2000, 4000, 6000, 8000)
    logs = read_logs(str(write_logs(tmp_path, published_events(name))))
    rows = compare(logs, tables.RUNS[name])
    found = rows[rows["step"] == 4000].groupby("quantity")["explained"].first()
    cores = [np.abs(tables.core(name, "test", step)) for step in later]
    farthest = max(np.abs(a - b).max() for a in cores for b in cores)
    assert found["core"] == pytest.approx(farthest / cores[1].max())
    curves = [tables.overlap(name, "test", step) for step in later]
    farthest = max(np.abs(a - b).max() for a in curves for b in curves)
    assert found["overlap"] == pytest.approx(farthest)
    masks = [set(tables.largest(name, step).tolist()) for step in later]
    assert 1 > found["mask"] >= max(1 - len(a & b) / 1000 for a in masks for b in masks)
    at_start = rows[rows["step"] == 0].groupby("quantity")["explained"].first()
    assert at_start.to_dict() == {name: ALLOWED[name] for name in ("core", "overlap", "mask")}


def test_worst_counts_a_missing_number_as_farthest():
    rows = pd.DataFrame(
        {
            "quantity": "training", "name": ["a", "a", "b", "b"], "step": "all", "split": "",
            "at": [0, 1, 0, 1], "difference": [1.0, np.nan, 0.1, 0.2], "allowed": 0.1,
            "explained": 0.5,
        }
    )  # fmt: skip
    found = worst(rows).set_index("name")
    assert found["at"].to_dict() == {"a": 1, "b": 1}
    assert found["count"].to_dict() == {"a": 2, "b": 2}
    assert found["verdict"].to_dict() == {"a": "DIFFERS", "b": "explained"}


def test_worst_is_what_differs_even_if_another_number_is_farther():
    rows = pd.DataFrame(
        {
            "quantity": "training", "name": "xv_loss", "step": "later", "split": "",
            "at": [1, 2], "difference": [1.0, 0.5], "allowed": 0.1, "explained": [2.0, 0.4],
        }
    )  # fmt: skip
    (row,) = worst(rows).itertuples()
    assert (row.at, row.verdict) == (2, "DIFFERS")


def test_a_schedule_is_another_experiment():
    bodies = {
        "CONFIG": {"OPTIMIZER": "SGD", "RANDOM_SEED": 12345, "NUM_HESSIAN_DATAPOINTS": 500},
        "GLOBALS": {"batch_size": 500, "opt_hpars": {"lr": 0.3}, "sched_name": "cosine"},
    }
    log = SimpleNamespace(first=bodies.__getitem__)
    logs = SimpleNamespace(training=[log], runs=[(SimpleNamespace(data_source="full"), [])])
    assert run_differences(logs, RUN) == ["lr_schedule=cosine, published None"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The published run of mnist_mini beside itself, a bit farther along each curve."""
    directory = write_logs(tmp_path_factory.mktemp("logs"), published_events("mnist_mini"))
    rows = compare(read_logs(str(directory)), RUN)
    return rows.assign(difference=1e-6 * rows["at"], ours=rows["ours"] * (1 + 1e-6))


def test_figure_shows_ours_published_and_differences(rows):
    figure = draw_comparison(rows, "a title")
    assert len(figure.axes) == 4 * 4  # two splits of curves and differences; three curves, losses
    titles = [ax.get_title() for ax in figure.axes]
    at = titles.index("exact eigenvalues, test split")
    top, below = figure.axes[at], figure.axes[at + 4]
    lines = [line for line in top.lines if line.get_linestyle() != "None"]
    points = [line for line in top.lines if line.get_linestyle() == "None"]
    assert len(lines) == len(points) == len(RUN.steps)
    np.testing.assert_allclose(
        lines[5].get_ydata(), np.abs(tables.eigenvalues("mnist_mini", "test", 500)) * (1 + 1e-6)
    )
    published = np.abs(tables.eigenvalues("mnist_mini", "test", 500))
    np.testing.assert_array_equal(
        points[5].get_ydata(), published[points[5].get_xdata().astype(int) - 1]
    )
    np.testing.assert_allclose(below.lines[0].get_ydata(), 1e-6 * np.arange(1, 356))
    assert below.lines[-1].get_ydata()[0] == ALLOWED["eigenvalue"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [*(f"step {s}" for s in RUN.steps), "published", "allowed difference"]


def test_figure_of_some_quantities(rows):
    some = rows[(rows["quantity"] == "overlap") & (rows["split"] == "test") & (rows["step"] == 100)]
    figure = draw_comparison(some, "a title")
    assert [ax.get_title() for ax in figure.axes] == [
        "overlap with the largest parameters, test split", "",
    ]  # fmt: skip


def test_a_step_has_one_colour_in_all_panels(rows):
    """Though one of the panels lacks the first steps."""
    lacking = (rows["quantity"] == "core") & (rows["split"] == "test") & rows["step"].isin([0, 100])
    axes = draw_comparison(rows[~lacking], "a title").axes
    colours = [ax.lines[2 * at].get_color() for ax, at in ((axes[1], 2), (axes[9], 0))]
    assert colours[0] == colours[1]
    assert axes[9].get_title() == "sketched eigenvalues, test split"


def test_groups_are_lines_of_a_report(rows):
    assert not worst(rows).duplicated(KEYS).any()
