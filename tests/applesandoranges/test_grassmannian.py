"""Metrics between subspaces against closed forms, and random pairs against exact moments."""

import numpy as np
import pytest
from scipy.linalg import subspace_angles
from scipy.stats import kstest

from applesandoranges.figures.grassmannian import study_figure
from applesandoranges.subspaces import grassmannian as gr
from skerch.utils import InputError

pytestmark = pytest.mark.numerical

SMALL = gr.Grid("dim", (16, 32, 64), (1, 0.95, 0.4, 0.05))
each_metric = pytest.mark.parametrize("name", gr.METRICS)


@pytest.fixture
def rng():
    return np.random.default_rng(12345)


def pair_with_angles(t, dim, rng):
    """Return two bases with principal angles ``t``, by construction."""
    k = len(t)
    frame = gr.haar_basis(dim, 2 * k, rng)
    A, C = frame[:, :k], frame[:, k:]
    rotate = gr.haar_basis(k, k, rng)
    return A, (A * np.cos(t) + C * np.sin(t)) @ rotate


@pytest.mark.parametrize(
    "t",
    [
        [0.3], [0.1, 0.8, 1.5], [1e-9, 1e-5, 0.7], [0, 0, np.pi / 2], [np.pi / 2 - 1e-9, np.pi / 2],
    ],
    ids=["one", "several", "tiny", "equal and orthogonal directions", "nearly orthogonal"],
)  # fmt: skip
def test_angles_are_those_of_the_construction_however_small_or_large(t, rng):
    A, B = pair_with_angles(np.asarray(t), 20, rng)
    np.testing.assert_allclose(gr.principal_angles(A, B), t, rtol=1e-6, atol=1e-14)


@pytest.mark.parametrize(("dim", "k"), [(30, 7), (30, 20), (30, 30)])
def test_angles_are_those_of_scipy(dim, k, rng):
    A, B = gr.haar_basis(dim, k, rng), gr.haar_basis(dim, k, rng)
    np.testing.assert_allclose(
        gr.principal_angles(A, B), subspace_angles(A, B)[::-1], rtol=0, atol=1e-7
    )


@pytest.mark.parametrize(("dim", "k"), [(30, 7), (30, 20), (30, 30)])
def test_shortcuts_for_masks_give_the_angles_of_their_bases(dim, k, rng):
    A, mask, other = gr.haar_basis(dim, k, rng), *(gr.random_mask(dim, k, rng) for _ in "ab")
    B, C = gr.mask_basis(mask), gr.mask_basis(other)
    np.testing.assert_allclose(
        gr.mask_angles(A, mask), gr.principal_angles(A, B), rtol=0, atol=1e-12
    )
    np.testing.assert_allclose(
        gr.masks_angles(mask, other), gr.principal_angles(B, C), rtol=0, atol=1e-12
    )


def test_complements_have_the_same_angles_beside_the_shared_dimensions(rng):
    whole, other = gr.haar_basis(20, 20, rng), gr.haar_basis(20, 20, rng)
    large = gr.principal_angles(whole[:, :14], other[:, :14])
    small = gr.principal_angles(whole[:, 14:], other[:, 14:])
    np.testing.assert_allclose(large, [0] * 8 + list(small), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", [m.name for m in gr.METRICS.values() if m.of_bases])
@pytest.mark.parametrize("k", [1, 4, 9])
def test_formulas_by_angles_and_by_bases_agree(name, k, rng):
    metric = gr.METRICS[name]
    if name in gr.MASK_METRICS:
        A, B = (gr.mask_basis(gr.random_mask(12, k, rng)) for _ in "AB")
    else:
        A, B = gr.haar_basis(12, k, rng), gr.haar_basis(12, k, rng)
    by_angles = metric.of_angles(gr.principal_angles(A, B))
    assert by_angles == pytest.approx(metric.of_bases(A, B), abs=1e-12)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("geodesic", 0.5), ("chordal_2", 2 * np.sin(0.2)),
        ("chordal_F", 2 * np.hypot(np.sin(0.15), np.sin(0.2))), ("projection_2", np.sin(0.4)),
        ("projection_F", np.hypot(np.sin(0.3), np.sin(0.4))),
        ("fubini_study", np.arccos(np.cos(0.3) * np.cos(0.4))),
        ("overlap", (np.cos(0.3) ** 2 + np.cos(0.4) ** 2) / 2),
    ],
)  # fmt: skip
def test_values_at_known_angles(name, expected):
    assert gr.METRICS[name].of_angles(np.array([0.3, 0.4])) == pytest.approx(expected, rel=1e-14)


def test_iou_counts_coordinates():
    t = np.array([0, 0, np.pi / 2])  # two of three coordinates in common, four in the union
    assert gr.METRICS["iou"].of_angles(t) == pytest.approx(0.5, rel=1e-14)


def test_fubini_study_keeps_small_distances():
    t = np.full(3, 1e-9)
    assert gr.METRICS["fubini_study"].of_angles(t) == pytest.approx(np.sqrt(3) * 1e-9, rel=1e-6)


@each_metric
@pytest.mark.parametrize("k", [1, 5, 50])
def test_equal_and_orthogonal_subspaces_reach_the_ends_of_the_range(name, k):
    metric = gr.METRICS[name]
    for angle, similarity in ((0, 1), (np.pi / 2, 0)):
        value = metric.of_angles(np.full(k, angle))
        assert metric.similarity(value, k) == pytest.approx(similarity, abs=1e-12)


@each_metric
def test_metrics_do_not_depend_on_the_choice_of_bases(name, rng):
    metric, A, B = gr.METRICS[name], gr.haar_basis(15, 4, rng), gr.haar_basis(15, 4, rng)
    frame, U, V = (gr.haar_basis(n, n, rng) for n in (15, 4, 4))
    one = metric.of_angles(gr.principal_angles(A, B))
    assert metric.of_angles(gr.principal_angles(frame @ A @ U, frame @ B @ V)) == pytest.approx(
        one, abs=1e-12
    )


def test_haar_bases_are_orthonormal_and_their_signs_are_even(rng):
    Q = gr.haar_basis(40, 12, rng)
    np.testing.assert_allclose(Q.T @ Q, np.eye(12), rtol=0, atol=1e-14)
    # An entry of a Haar matrix is symmetric: its squares are Beta(1/2, (D-1)/2), its signs even.
    first = np.array([gr.haar_basis(6, 2, rng)[0, 0] for _ in range(2000)])
    assert kstest(first**2, "beta", args=(0.5, 2.5)).pvalue > 1e-3
    assert abs(np.sign(first).mean()) < 4 / np.sqrt(2000)


@pytest.mark.parametrize("case", gr.CASES)
@pytest.mark.parametrize(("dim", "k"), [(12, 3), (12, 10)])
def test_mean_and_variance_of_the_overlap_are_the_exact_ones(case, dim, k, rng):
    num = 4000
    overlaps = np.array(
        [np.mean(np.cos(gr.random_angles(case, dim, k, rng)) ** 2) for _ in range(num)]
    )
    variance = gr.overlap_variance(case, dim, k)
    assert abs(overlaps.mean() - k / dim) < 4 * np.sqrt(variance / num)
    assert overlaps.var() == pytest.approx(variance, rel=0.15)
    assert gr.expected_overlap(dim, k) == pytest.approx(k / dim, rel=1e-14)


def test_whole_spaces_are_equal(rng):
    np.testing.assert_array_equal(gr.random_angles("OB", 9, 9, rng), np.zeros(9))


@pytest.mark.parametrize("case", gr.CASES)
def test_study_is_tidy_in_range_and_seeded(case):
    table = gr.study(SMALL, case, gr.every_pair)
    metrics = {metric.name for metric in gr.metrics_of(case)}
    assert len(table) == len(SMALL.cells()) * 50 * len(metrics)
    assert set(table["metric"]) == metrics
    assert table["similarity"].between(-1e-12, 1 + 1e-12).all()
    assert gr.overlap_z_scores(table)["z"].abs().max() < 4
    # A cell does not depend on the grid around it.
    one = gr.study(gr.Grid("ratio", (32,), (0.4,)), case, gr.every_pair)
    there = table[(table["dim"] == 32) & (table["ratio"] == 0.4)].reset_index(drop=True)
    assert there.equals(one)
    other = gr.study(gr.Grid("ratio", (32,), (0.4,)), case, gr.every_pair, seed=1)
    assert not other["value"].equals(one["value"])


def test_z_scores_find_a_wrong_overlap():
    table = gr.study(SMALL, "OB", gr.every_pair)
    table.loc[table["metric"] == "overlap", "value"] *= 1.2
    assert gr.overlap_z_scores(table)["z"].abs().max() > 4


def few_pairs(case, dim, k):
    """At most as many as the study has, and ten."""
    return min(10, gr.fewer_large_pairs(case, dim, k))


@pytest.mark.slow
@pytest.mark.parametrize("grid", [gr.AGAINST_DIM, gr.AGAINST_RATIO], ids=lambda g: g.against)
@pytest.mark.parametrize("case", gr.CASES)
def test_overlap_is_the_exact_one_in_every_cell_of_the_study(case, grid):
    z_scores = gr.overlap_z_scores(gr.study(grid, case, few_pairs))
    assert len(z_scores) == sum(k < dim for dim, _, k in grid.cells())
    assert z_scores["z"].abs().max() < 4


@pytest.fixture(scope="module")
def large_medians():
    """Medians of similarities at D = 2048, r = 0.2, subspace against mask."""
    table = gr.study(gr.Grid("dim", (2048,), (0.2,)), "OB", few_pairs)
    return gr.summarise(table).set_index("metric")["median"]


@pytest.mark.slow
@pytest.mark.xdist_group("large_medians")
@pytest.mark.parametrize(
    ("name", "distance"),
    [("geodesic", 0.7547), ("chordal_F", 0.7825), ("projection_F", 0.8943), ("overlap", 0.7998)],
)
def test_medians_in_a_large_space(large_medians, name, distance):
    assert 1 - large_medians[name] == pytest.approx(distance, abs=0.005)


@pytest.mark.slow
@pytest.mark.xdist_group("large_medians")
@pytest.mark.parametrize("name", ["chordal_2", "projection_2", "fubini_study"])
def test_metrics_that_saturate_in_a_large_space(large_medians, name):
    assert 1 - large_medians[name] > 0.999


def test_pairs_are_fewer_only_where_they_are_large():
    cells = gr.AGAINST_DIM.cells() + gr.AGAINST_RATIO.cells()
    numbers = [gr.fewer_large_pairs("OB", dim, k) for dim, _, k in cells]
    assert min(numbers) >= 5
    assert max(numbers) == 50
    assert {gr.fewer_large_pairs("BB", dim, k) for dim, _, k in cells} == {50}


def test_grid_rounds_and_keeps_at_least_one_dimension():
    assert gr.Grid("dim", (16,), (0.4, 0.01)).cells() == [(16, 0.4, 6), (16, 0.01, 1)]


@pytest.mark.parametrize("case", gr.CASES)
@pytest.mark.parametrize("against", ["dim", "ratio"])
def test_figure_shows_every_metric_and_the_exact_overlap(case, against):
    import matplotlib.pyplot as plt

    grid = gr.Grid(against, (16, 32), (0.4, 0.2))
    figure = study_figure(gr.summarise(gr.study(grid, case, gr.every_pair)), grid, case)
    legend, *cells = figure.axes
    assert len(cells) == 7
    texts = [text.get_text() for text in legend.get_legend().get_texts()]
    assert texts[-1 - (case == "BB")] == "exact mean k/D ± 2 std. dev."
    assert all(len(ax.lines) >= 2 for ax in cells)
    exact = [
        y for bar in cells[-1].containers for y in bar.lines[0].get_ydata()
    ]  # fmt: skip
    assert sorted(exact) == pytest.approx(sorted(k / dim for dim, _, k in grid.cells()))
    plt.close(figure)


def test_inconsistencies_are_rounding_only(rng):
    pairs = [(gr.haar_basis(20, 6, rng), gr.haar_basis(20, 6, rng)) for _ in range(3)]
    pairs += [tuple(gr.mask_basis(gr.random_mask(20, 6, rng)) for _ in "AB")]
    table = gr.inconsistencies(pairs)
    assert len(table) == 7
    assert table["difference"].max() < 1e-10


def test_bases_of_different_shapes_are_refused():
    with pytest.raises(InputError, match=r"one shape \[D, k\], got \(4, 2\) and \(4, 3\)"):
        gr.principal_angles(np.eye(4)[:, :2], np.eye(4)[:, :3])


def test_unknown_cases_are_refused(rng):
    with pytest.raises(InputError, match="expected a case of OO, OB, BB, got 'XX'"):
        gr.random_angles("XX", 4, 2, rng)
