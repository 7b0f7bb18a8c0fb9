"""What stands in the axes of the figures of results, against numbers worked out by hand."""

import math

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb

from applesandoranges.figures import MissingInLogsError, Options, draw, parts
from applesandoranges.figures.style import BAND, CHANCE, COLOURS
from applesandoranges.results.collect import read_logs
from skerch.errors import InputError
from tests.small_logs import Writer

D = 100
#: ``k * overlap(k)`` at k = 1, 2, 3, 4, and the overlap.
CURVES = {0: [0.5, 0.8, 1.2, 1.6], 10: [0.9, 1.6, 2.1, 2.4]}
OVERLAP = {0: [0.5, 0.4, 0.4, 0.4], 10: [0.9, 0.8, 0.7, 0.6]}
EXACT = {0: [0.6, 1.0, 1.5, 2.0], 10: [0.8, 1.4, 1.8, 2.0]}
EXACT_OVERLAP = {0: [0.6, 0.5, 0.5, 0.5], 10: [0.8, 0.7, 0.6, 0.5]}
K = [1, 2, 3, 4]
#: Of masks: ``k`` times the standard deviation, and two of them above and below k / D.
SPREAD = [0.002, 0.006, 0.012, 0.1]
LOW, HIGH = [0.006, 0.014, 0.022, 0], [0.014, 0.026, 0.038, 0.09]
SPECTRUM = {0: [4.0, -3.0, 2.0, -1.0], 10: [8.0, 6.0, -2.0, 1.0]}
TRUE = {0: [5.0, -3.0, 2.5, -2.0], 10: [8.0, 4.0, -2.0, 2.0]}
RELATIVE = {0: [0.2, 0, 0.2, 0.5], 10: [0, 0.5, 0, 0.5]}
SCREE = {0: ([0.9, 0.3, 0.1, 0.02], [1.0, 0.4, 0.2, 0.05]), 10: ([0.8] * 4, [0.9] * 4)}
ANGLES = [math.pi / 3, 0.0, math.pi / 6]
BOUNDS = {"P(err<=0.75x)": 0.125, "P(err>=1.25x)": 0.5}
RANDOM = [[0.01, 0.08, 0.03, 0.04], [0.03, 0.04, 0.09, 0.2]]


def write_result(log, header, step):
    """Write all of one Hessian."""

    def result(**quantities):
        log(header, {"step": step, **quantities})

    result(**{"frob_Qtop^2": CURVES[step], "frob_Qchance^2_std": SPREAD,
              "frob_Qtop^2_lowest": [0.4, 0.6, 0.9, 1.2], "frob_Qtop^2_highest": [0.7, 1, 1.5, 2],
              "num_tied": [0, 3, 1200 if step else 0, 0]})  # fmt: skip
    result(**{"H_frob_Qtop^2": EXACT[step], "H_frob_Qchance^2_std": SPREAD})
    result(**{"frob_Qbest^2": [0.95, 1.8, 2.7, 3.6], "frob_Qrandom^2": RANDOM})
    lower, upper = SCREE[step]
    result(core_S=SPECTRUM[step], H_eigvals=sorted(TRUE[step]))
    result(scree_lower=lower, scree_upper=upper, **BOUNDS)
    for rank, left in ((4, 0.36), (2, 1.0)):
        sums = {"Frob(H)^2": 4.0, "Frob(H-H_K)^2": left, "num_a_posteriori": 30}
        result(K=rank, **sums)
    result(K=2, principal_angles=[1.0, 1.5])
    result(K=3, principal_angles=ANGLES)
    for recovery, rounds, errors in (("krylov", 3, (0.3, 0.2)), ("seigh", 1, (0.5, 0.4))):
        for products, error in zip((20, 40), errors, strict=True):
            result(recovery=recovery, num_products=products, num_rounds=rounds, K=4,
                   rel_frob_error=error + step, half_eigval_error=error / 10,
                   best_rel_frob_error=0.1)  # fmt: skip


def write_log(directory, steps=(0, 10), headers=("H_TRAIN RESULT",), **facts):
    log = Writer(directory, "[12a_x.py]")
    log("GLOBALS", {"num_params": D, "PROBLEM": "x", "RANDOM_SEED": 3, **facts})
    for header in headers:
        for step in steps:
            write_result(log, header, step)
    return read_logs(str(log.path))


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Two steps of the training split."""
    return write_log(tmp_path_factory.mktemp("logs"))


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """One step."""
    return write_log(tmp_path_factory.mktemp("one"), (0,))


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Two steps of the training split, and of the test split."""
    headers = ("H_TRAIN RESULT", "H_TEST RESULT")
    return write_log(tmp_path_factory.mktemp("both"), headers=headers, data_source="synthetic")


def lines(ax, label):
    """Return ``(x, y)`` of all lines of one label."""
    return [(list(ln.get_xdata()), list(ln.get_ydata()))
            for ln in ax.get_lines() if ln.get_label() == label]  # fmt: skip


def line(ax, label):
    (found,) = lines(ax, label)
    return found


def without_label(ax, **properties):
    """Return ``y`` of the lines that are in no legend, with these widths or styles."""
    nameless = [ln for ln in ax.get_lines() if ln.get_label().startswith("_")]
    for name, value in properties.items():
        nameless = [ln for ln in nameless if getattr(ln, f"get_{name}")() == value]
    return [list(ln.get_ydata()) for ln in nameless]


def band(collection):
    """Return the lower and the upper ends of what is shaded, in the order of ``x``."""
    ends = {}
    for x, y in collection.get_paths()[0].vertices:
        ends.setdefault(x, []).append(y)
    xs = sorted(ends)
    return xs, [min(ends[x]) for x in xs], [max(ends[x]) for x in xs]


def bands(ax):
    return [band(c) for c in ax.collections if len(c.get_paths()[0].vertices) > 4]


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def scales(ax):
    return ax.get_xscale(), ax.get_yscale()


# ----------------------------------------------------------- overlap


def test_overlap_over_k_of_one_step(one):
    figure, tables = draw("overlap_over_k", one, Options())
    (ax,) = figure.axes
    close(line(ax, "step 0 (3 parameters tie)"), (K, OVERLAP[0]))
    close(line(ax, "chance level k/D"), (K, [0.01, 0.02, 0.03, 0.04]))
    shades, random = bands(ax)
    close(shades, (K, [0.4, 0.3, 0.3, 0.3], [0.7, 0.5, 0.5, 0.5]))
    close(random, (K, LOW, HIGH))
    assert to_hex(ax.collections[1].get_facecolor()[0]) == BAND["color"]
    assert to_hex(ax.collections[0].get_facecolor()[0]) == COLOURS[0].lower()
    assert ax.collections[0].get_label() == "shades: estimated range of the exact overlap"
    assert ax.collections[1].get_label() == "random masks, ± 2 std. dev."
    assert (ax.get_xlabel(), ax.get_ylabel(), scales(ax)) == ("k", "overlap", ("log", "log"))
    close(ax.get_ylim(), (0.005, 1))
    assert ax.get_title() == "Hessian of the training split\nD = 100"
    assert figure.get_suptitle() == "x, seed 3"
    close(tables["overlap"]["z_score"][:2], [0.49 / 0.002, 0.38 / 0.003])


def test_overlap_over_k_of_several_steps(logs):
    figure, _ = draw("overlap_over_k", logs, Options())
    (ax,) = figure.axes
    for step, tied in ((0, "3"), (10, "1,200")):
        close(line(ax, f"step {step} ({tied} parameters tie)"), (K, OVERLAP[step]))
    close(without_label(ax, linestyle=":"), [HIGH, HIGH])
    colours = [to_hex(ln.get_color()) for ln in ax.get_lines() if ln.get_linestyle() == ":"]
    assert colours[:2] == [colour.lower() for colour in COLOURS[:2]]
    assert line(ax, "random masks, mean + 2 std. dev.") == ([], [])
    labels = [c.get_label() for c in ax.collections]
    assert labels == ["shades: estimated range of the exact overlap", "_"]
    assert len(bands(ax)) == 2


def test_chance_comes_without_a_band_where_logs_do_not_say_how_masks_spread(tmp_path):
    log = Writer(tmp_path, "[12a_x.py]")
    log("GLOBALS", {"num_params": D})
    log("H_TRAIN RESULT", {"step": 0, "frob_Qtop^2": CURVES[0]})
    (ax,) = draw("overlap_over_k", read_logs(str(log.path)), Options())[0].axes
    assert list(ax.collections) == []
    assert len(ax.get_lines()) == 2
    close(line(ax, "chance level k/D")[1], [0.01, 0.02, 0.03, 0.04])


def test_each_split_has_a_panel(both):
    figure, _ = draw("overlap_over_k", both, Options())
    note = "D = 100, synthetic data, not the full data set"
    assert [ax.get_title() for ax in figure.axes] == [
        f"Hessian of the training split\n{note}", f"Hessian of the test split\n{note}",
    ]  # fmt: skip


def test_ratio_over_k(logs):
    (ax,) = draw("ratio_over_k", logs, Options())[0].axes
    close(line(ax, "step 0 (3 parameters tie)"), (K, [50, 20, 40 / 3, 10]))
    close(line(ax, "step 10 (1,200 parameters tie)"), (K, [90, 40, 70 / 3, 15]))
    close(line(ax, "chance")[1], [1, 1])
    assert len(ax.get_lines()) == 3
    assert (ax.get_ylabel(), scales(ax)) == ("overlap / chance level", ("log", "log"))
    assert list(ax.collections) == []


def test_overlap_over_steps(logs):
    (ax,) = draw("overlap_over_steps", logs, Options((1, 3)))[0].axes
    close(line(ax, "k = 1"), ([0, 10], [0.5, 0.9]))
    close(line(ax, "k = 3"), ([0, 10], [0.4, 0.7]))
    dotted = [(to_hex(ln.get_color()), list(ln.get_ydata())) for ln in ax.get_lines()
              if ln.get_linestyle() == ":"]  # fmt: skip
    assert dotted == [(COLOURS[0].lower(), [0.01, 0.01]), (COLOURS[1].lower(), [0.03, 0.03])]
    close(line(ax, "chance level of the same k")[1], [0.03, 0.03])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("training step", "overlap")
    assert scales(ax) == ("linear", "log")


def test_ratio_over_steps(logs):
    (ax,) = draw("ratio_over_steps", logs, Options((1, 4)))[0].axes
    close(line(ax, "k = 1"), ([0, 10], [50, 90]))
    close(line(ax, "k = 4"), ([0, 10], [10, 15]))
    close(line(ax, "chance")[1], [1, 1])
    assert len(ax.get_lines()) == 3


@pytest.mark.parametrize(
    ("given", "n", "ranks"),
    [((), 100, [5, 20, 50, 100]), ((), 4, [1, 2, 4]), ((7, 2, 7), 7, [2, 7]), ((3, 9), 7, [3])],
)
def test_ranks(given, n, ranks):
    assert Options(given).ranks_up_to(n) == ranks


def test_ranks_beyond_the_curves_are_refused():
    with pytest.raises(InputError, match="end at k = 7, got 8"):
        Options((8, 9)).ranks_up_to(7)


def test_exact_and_sketched_overlap(logs):
    figure, tables = draw("exact_and_sketched_overlap", logs, Options((1, 4)))
    over_k, over_steps, ratio_k, ratio_steps = figure.axes
    by_k = {s: np.array(OVERLAP[s]) * D / K for s in (0, 10)}
    exact_by_k = {s: np.array(EXACT_OVERLAP[s]) * D / K for s in (0, 10)}
    labels = {0: "step 0 (3 parameters tie)", 10: "step 10 (1,200 parameters tie)"}
    for ax, sketched, exact in ((over_k, OVERLAP, EXACT_OVERLAP), (ratio_k, by_k, exact_by_k)):
        for step, label in labels.items():
            close(line(ax, label), (K, sketched[step]))
        close(without_label(ax, linewidth=6), [exact[0], exact[10]])
    close(line(over_steps, "k = 4"), ([0, 10], [0.4, 0.6]))
    close(without_label(over_steps, linewidth=6), [[0.6, 0.8], [0.5, 0.5]])
    close(without_label(over_steps, linestyle=":"), [[0.01, 0.01], [0.04, 0.04]])
    close(line(ratio_steps, "k = 4"), ([0, 10], [10, 15]))
    close(without_label(ratio_steps, linewidth=6), [[60, 80], [12.5, 12.5]])
    close(line(over_k, "chance level k/D")[1], [0.01, 0.02, 0.03, 0.04])
    for ax in (over_k, over_steps):
        names = {text.get_text() for text in ax.get_legend().get_texts()}
        assert {"sketched", "exact"} <= names
    for ax in (ratio_k, ratio_steps):
        close(line(ax, "chance")[1], [1, 1])
    ends = bands(over_k)
    close(ends[0][1:], ([0.4, 0.3, 0.3, 0.3], [0.7, 0.5, 0.5, 0.5]))
    labels = [(ax.get_xlabel(), ax.get_ylabel()) for ax in figure.axes]
    steps, ratio = "training step", "overlap / chance level"
    assert labels == [("", "overlap"), ("", "overlap"), ("k", ratio), (steps, ratio)]
    assert figure.get_suptitle() == "x, seed 3, Hessian of the training split, D = 100"
    for name in ("overlap", "ratio"):
        assert {name, f"{name}_sketched"} <= set(tables["overlap"])


# ----------------------------------------------------------- spectra, errors, recoveries


def test_overview(one):
    figure, tables = draw("overview", one, Options())
    overlap, spectrum, scree = figure.axes
    close(line(overlap, "step 0 (3 parameters tie)"), (K, OVERLAP[0]))
    close(without_label(spectrum, linestyle="-"), [[4, 3, 2, 1]])
    (negative,) = [
        ln for ln in spectrum.get_lines() if ln.get_marker() == "o" and len(ln.get_xdata())
    ]
    close((negative.get_xdata(), negative.get_ydata()), ([2, 4], [3, 1]))
    assert line(spectrum, "negative eigenvalue") == ([], [])
    assert spectrum.get_ylim()[0] == pytest.approx((1 + 0.02 * 3) / 2)  # half the 2 % quantile
    assert (spectrum.get_xlabel(), spectrum.get_ylabel()) == ("rank", "|eigenvalue|")
    assert scales(spectrum) == ("log", "log")
    lower, upper = SCREE[0]
    ranks = [0, 1, 2, 3]
    close(bands(scree), [(ranks, lower, upper)])
    close(without_label(scree), [upper, lower])
    close(scree.get_lines()[0].get_xdata(), ranks)
    assert (scree.get_yscale(), scree.get_ylim()) == ("log", (1e-4, 5))
    assert tables["spectrum"]["eigenvalue"].tolist() == SPECTRUM[0]
    assert tables["scree"]["rank"].tolist() == ranks
    assert figure.get_suptitle() == "Hessian of the training split, D = 100"


def test_overview_without_estimate_says_so(tmp_path):
    log = Writer(tmp_path, "[12a_x.py]")
    log("GLOBALS", {"num_params": D})
    log("H_TRAIN RESULT", {"step": 0, "frob_Qtop^2": CURVES[0], "core_S": [1.0, 0.0, 0.0, 0.0]})
    figure, tables = draw("overview", read_logs(str(log.path)), Options())
    assert [text.get_text() for text in figure.axes[2].texts] == ["no a-posteriori estimate"]
    assert tables["scree"].empty


def test_errors_are_square_roots_of_squared_norms(both):
    figure, tables = draw("errors", both, Options())
    error, bounds = figure.axes
    for split in ("train", "test"):
        close(line(error, f"step 0, {split}"), ([2, 4], [0.5, 0.3]))
    assert error.get_ylim()[0] == 0
    assert "|H - H_K| / |H|" in error.get_ylabel()
    close([bar.get_width() for bar in bounds.patches], [0.125, 0.5])
    assert [text.get_text() for text in bounds.get_yticklabels()] == [
        "at most 0.75 times the true square", "at least 1.25 times the true square",
    ]  # fmt: skip
    assert [text.get_text() for text in bounds.texts] == ["0.12", "0.5"]
    assert bounds.get_xlim() == (0, 1)
    assert bounds.get_title() == "How far chance may move an estimate"
    assert bounds.get_xlabel() == "probability, at most"
    caption = figure.get_supxlabel()
    assert "each estimated from products with 30 random vectors" in caption
    assert "It says nothing of this Hessian in particular" in caption
    assert tables["errors"]["relative_error"].tolist() == pytest.approx([0.5, 0.3] * 4)


def test_what_accuracy_found_is_no_error_of_the_recovered_hessian(tmp_path):
    log = Writer(tmp_path, "[10d_x.py]")
    log("GLOBALS", {"num_params": D})
    where = {"step": 0, "H_test": False}
    log("RESULT", {**where, "frob_Qtop^2": CURVES[0]})
    log("RESULT", {**where, "K": 4, "Frob(H)^2": 4.0, "Frob(H-H_K)^2": 1.0})
    log("RESULT", {**where, "K": 4, "overlap_error": 0.3, "wanted": 0.05, "num_products": 8})
    Writer(tmp_path, "[10e_x.py]")("RESULT", {**where, "K": 4, "overlap_error": None})
    logs = read_logs(str(tmp_path))
    figure, _ = draw("errors", logs, Options())
    close(line(figure.axes[0], "step 0, train"), ([4], [0.5]))
    assert not logs.left_out


def test_errors_without_bounds_have_one_panel(tmp_path):
    log = Writer(tmp_path, "[12a_x.py]")
    log("GLOBALS", {"num_params": D})
    body = {"K": 4, "Frob(H)^2": 4.0, "Frob(H-H_K)^2": 1.0, "P(err<=0x)": 0.0}
    log("H_TRAIN RESULT", {"step": 0, "frob_Qtop^2": CURVES[0], **body})
    figure, _ = draw("errors", read_logs(str(log.path)), Options())
    (error,) = figure.axes
    close(line(error, "step 0, train"), ([4], [0.5]))
    assert figure.get_supxlabel() == ""


def test_exact_against_sketched(both):
    figure, tables = draw("exact_against_sketched", both, Options())
    assert len(figure.axes) == 6
    for row, split in ((figure.axes[:3], "training"), (figure.axes[3:], "test")):
        overlap, eigenvalues, angles = row
        close(line(overlap, "step 0"), (K, OVERLAP[0]))
        close(without_label(overlap, linewidth=6), [EXACT_OVERLAP[0], EXACT_OVERLAP[10]])
        close(line(overlap, "chance level k/D")[1], [0.01, 0.02, 0.03, 0.04])
        assert overlap.get_ylabel() == f"overlap, {split} split"
        names = {text.get_text() for text in overlap.get_legend().get_texts()}
        assert {"sketched", "exact"} <= names
        for step in (0, 10):
            close(line(eigenvalues, f"step {step}"), (K, RELATIVE[step]))
            close(line(angles, f"step {step}"), ([1, 2, 3], [0, 30, 60]))
        assert (eigenvalues.get_yscale(), angles.get_ylim()) == ("log", (0, 90))
        assert len({ln.get_marker() for ln in eigenvalues.get_lines()}) == 2
    titles = [ax.get_title() for ax in figure.axes[:3]]
    assert titles[2] == "Angles between the top-3 eigenspaces"
    assert [ax.get_xlabel() for ax in figure.axes[3:]] == ["k", "rank", "principal angle number"]
    close(tables["overlap"]["sketched"][:4], OVERLAP[0])
    assert tables["angles"]["degrees"].tolist()[:3] == pytest.approx([0, 30, 60])


def test_recoveries_of_the_last_step(logs):
    figure, tables = draw("recoveries", logs, Options())
    frobenius, eigenvalues, rounds = figure.axes
    close(line(frobenius, "SEIGH"), ([20, 40], [10.5, 10.4]))
    close(line(frobenius, "block Krylov, 3 rounds"), ([20, 40], [10.3, 10.2]))
    close(line(eigenvalues, "SEIGH"), ([20, 40], [0.05, 0.04]))
    close(line(eigenvalues, "block Krylov, 3 rounds"), ([20, 40], [0.03, 0.02]))
    points = [(list(ln.get_xdata()), list(ln.get_ydata())) for ln in rounds.get_lines()[:2]]
    close(points, [([3], [10.3]), ([1], [10.5])])
    for ax in (frobenius, rounds):
        close(line(ax, "best possible")[1], [0.1, 0.1])
        assert (ax.get_ylabel(), ax.get_ylim()[0]) == ("relative Frobenius error, K = 4", 0)
    assert eigenvalues.get_ylabel() == "median relative error of the top 2 eigenvalues"
    assert (eigenvalues.get_yscale(), frobenius.get_yscale()) == ("log", "linear")
    assert frobenius.get_xlabel() == eigenvalues.get_xlabel() == "Hessian products"
    assert rounds.get_xlabel() == "rounds, with 20 products or a few more"
    assert list(rounds.get_xticks()) == [1, 3]
    assert [text.get_text() for text in rounds.get_xticklabels()] == ["1", "3"]
    assert figure.get_suptitle() == "Hessian of step 10, train, D = 100"
    assert len(tables["recoveries"]) == 8


# ----------------------------------------------------------- masks


def test_masks(both):
    figure, tables = draw("masks", both, Options())
    assert [ax.get_title() for ax in figure.axes] == [
        "step 0, train", "step 10, train", "step 0, test", "step 10, test",
    ]  # fmt: skip
    for ax, step in zip(figure.axes, (0, 10, 0, 10), strict=True):
        close(line(ax, "best mask"), (K, [0.95, 0.9, 0.9, 0.9]))
        close(line(ax, "magnitude mask"), (K, OVERLAP[step]))
        close(line(ax, "chance k/D"), (K, [0.01, 0.02, 0.03, 0.04]))
        close(bands(ax), [(K, [0.01, 0.02, 0.01, 0.01], [0.03, 0.04, 0.03, 0.05])])
        close(ax.get_ylim(), (0.005, 1.2))
        assert scales(ax) == ("log", "log")
    assert [ax.get_ylabel() for ax in figure.axes] == ["overlap", "", "overlap", ""]
    assert [ax.get_xlabel() for ax in figure.axes] == ["", "", "k", "k"]
    table = tables["overlap"][:4]
    close(table["random_mean"], [0.02, 0.03, 0.02, 0.03])
    close(table["random_std"], [0.01, 0.01, 0.01, 0.02])


def test_masks_of_many_steps_are_those_of_the_first_the_middle_and_the_last(tmp_path):
    log = Writer(tmp_path, "[12a_x.py]")
    log("GLOBALS", {"num_params": D})
    for step in range(6):
        for name in ("frob_Qtop^2", "frob_Qbest^2"):
            log("H_TRAIN RESULT", {"step": step, name: [0.1 * (step + 1)]})
    figure, _ = draw("masks", read_logs(str(log.path)), Options())
    assert [ax.get_title() for ax in figure.axes] == [f"step {s}, train" for s in (0, 2, 5)]
    close([line(ax, "best mask")[1][0] for ax in figure.axes], [0.1, 0.3, 0.6])


@pytest.fixture(scope="module")
def along(tmp_path_factory):
    """Masks and eigenspaces of three steps; both angles with the mask are pi / 3."""
    log = Writer(tmp_path_factory.mktemp("along"), "[12a_x.py]")
    log("GLOBALS", {"num_params": D, "PROBLEM": "x", "RANDOM_SEED": 3})
    for number, step in enumerate((5, 10, 20)):
        mask = list(range(number, number + 4))[::-1]
        log("H_TRAIN RESULT", {"step": step, "frob_Qtop^2": CURVES[0], "largest_absparams": mask})
        angles = {"1": [math.pi / 3], "2": [math.pi / 3, math.pi / 3]}
        body = {"step": step, "angles_with": "mask", "principal_angles": angles}
        log("H_TRAIN RESULT", body)
        for other in (5, 10)[:number]:
            curve = [0.01 * (step + other) * k for k in K]
            angles = {"2": [math.pi / 6, math.pi / 6 if other == 10 else math.pi / 2]}
            log("H_TRAIN RESULT", {"step": step, "angles_with": "eigenspace", "other_step": other,
                                   "frob_VtV^2": curve, "principal_angles": angles})  # fmt: skip
    return read_logs(str(log.path))


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_matrices_of_masks(along):
    figure, _ = draw("mask_stabilisation", along, Options((2, 4)))
    two, four, _ = figure.axes  # the third is the colour bar
    # The largest two of each are 3 2, 4 3 and 5 4.
    close(two.get_images()[0].get_array(), [[1, 1 / 3, 0], [1 / 3, 1, 1 / 3], [0, 1 / 3, 1]])
    near, far = 3 / 5, 2 / 6
    close(four.get_images()[0].get_array(), [[1, near, far], [near, 1, near], [far, near, 1]])
    assert texts(two) == ["1.00", ".33", ".00", ".33", "1.00", ".33", ".00", ".33", "1.00"]
    assert [to_rgb(text.get_color()) for text in two.texts[:2]] == [(0, 0, 0), (1, 1, 1)]
    assert two.get_images()[0].get_clim() == (0, 1)
    assert two.get_title() == f"k = 2 (chance {2 / 198:.2g})"
    assert [text.get_text() for text in two.get_xticklabels()] == ["5", "10", "20"]
    assert (two.get_xlabel(), two.get_ylabel()) == ("training step", "training step")
    assert figure.get_suptitle() == (
        "Intersection over union of the largest parameters of two steps\nx, seed 3, D = 100"
    )


def test_matrices_of_eigenspaces(along):
    figure, _ = draw("eigenspace_stabilisation", along, Options((2, 4)))
    two, four, _ = figure.axes
    a, b, c = 0.15, 0.25, 0.3
    for ax in (two, four):
        close(ax.get_images()[0].get_array(), [[1, a, b], [a, 1, c], [b, c, 1]])
    assert four.get_title() == "k = 4 (chance 0.04)"


def test_pairs_that_were_not_compared_stay_empty(tmp_path):
    log = Writer(tmp_path, "[12a_x.py]")
    log("GLOBALS", {"num_params": D})
    for step in (0, 1, 2):
        log("H_TRAIN RESULT", {"step": step, "frob_Qtop^2": CURVES[0]})
    body = {"angles_with": "eigenspace", "frob_VtV^2": [0.5, 0.8], "principal_angles": {}}
    log("H_TRAIN RESULT", {"step": 1, "other_step": 0, **body})
    log("H_TRAIN RESULT", {"step": 2, "other_step": 0, **body})
    figure, _ = draw("eigenspace_stabilisation", read_logs(str(log.path)), Options((2,)))
    ax = figure.axes[0]
    assert texts(ax) == ["1.00", ".40", ".40", ".40", "1.00", "", ".40", "", "1.00"]


def test_metrics_along_a_training(along):
    figure, _ = draw("grassmannian_along_training", along, Options())
    mask_1, mask_2, empty, successive = figure.axes
    geodesic, chordal = 1 - 2 / 3, 1 - 1 / 2**0.5
    for ax in (mask_1, mask_2):
        values = {"geodesic": geodesic, "chordal, 2-norm": chordal, "overlap": 0.25}
        for label, value in (values | {"projection, Frobenius": 1 - 3**0.5 / 2}).items():
            close(line(ax, label), ([5, 10, 20], [value] * 3))
    # Of successive steps alone: 10 with 5 (angles pi / 6 and pi / 2), 20 with 10 (pi / 6 twice).
    close(line(successive, "overlap"), ([10, 20], [0.375, 0.75]))
    close(line(successive, "projection, 2-norm"), ([10, 20], [0, 0.5]))
    assert line(empty, "overlap") == ([], [])
    assert [ax.get_title() for ax in figure.axes] == [
        f"{pair}, k = {k}" for pair in ("mask and eigenspace", "eigenspaces of successive steps")
        for k in (1, 2)
    ]  # fmt: skip
    assert [ax.get_xlabel() for ax in figure.axes] == ["", "", "training step", "training step"]
    assert [bool(ax.get_ylabel()) for ax in figure.axes] == [True, False, True, False]
    assert figure.get_suptitle() == "x, seed 3, training split, D = 100"


def test_metrics_with_the_mask_alone_are_one_row_with_a_legend(tmp_path):
    log = Writer(tmp_path, "[12a_x.py]")
    log("GLOBALS", {"num_params": D})
    log("H_TRAIN RESULT", {"step": 5, "frob_Qtop^2": CURVES[0]})
    angles = {"1": [math.pi / 3], "2": [math.pi / 3, math.pi / 3]}
    log("H_TRAIN RESULT", {"step": 5, "angles_with": "mask", "principal_angles": angles})
    figure, _ = draw("grassmannian_along_training", read_logs(str(log.path)), Options())
    assert [ax.get_title() for ax in figure.axes] == [
        f"mask and eigenspace, k = {k}" for k in (1, 2)
    ]
    (legend,) = figure.legends
    named = [text.get_text() for text in legend.get_texts()]
    assert named == [line.get_label() for line in figure.axes[0].get_lines()]
    assert {"geodesic", "overlap"} <= set(named)


# ----------------------------------------------------------- what is missing


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("masks", "no log has frob_Qbest"), ("errors", "no log has a-posteriori errors"),
        ("recoveries", "no log compares recoveries"), ("training", "no log has evaluations"),
        ("eigenspace_stabilisation", "no log compares eigenspaces of two steps"),
        ("grassmannian_along_training", "no log has principal angles with the mask"),
        ("mask_stabilisation", "only one step has masks"),
        ("overview", "no log has core_S"), ("exact_against_sketched", "no log has core_S"),
    ],
)  # fmt: skip
def test_what_logs_lack_is_said(tmp_path, name, message):
    log = Writer(tmp_path, "[12a_x.py]")
    log("GLOBALS", {"num_params": D})
    body = {"step": 0, "frob_Qtop^2": [0.1], "largest_absparams": [3], "H_frob_Qtop^2": [0.1]}
    log("H_TRAIN RESULT", body)
    with pytest.raises(MissingInLogsError, match=message):
        draw(name, read_logs(str(log.path)), Options())


def test_a_hessian_without_eigenvalues_keeps_its_colour_for_the_others(tmp_path):
    log = Writer(tmp_path, "[10d_x.py]")
    log("GLOBALS", {"num_params": D})
    for step in (0, 1):
        log("RESULT", {"step": step, "frob_Qtop^2": [0.1, 0.2]})
    log("RESULT", {"step": 1, "core_S": [2.0, 1.0]})
    figure, tables = draw("overview", read_logs(str(log.path)), Options())
    assert set(tables["spectrum"]["step"]) == {1}
    overlap, spectrum = (ax.get_lines() for ax in figure.axes[:2])
    assert spectrum[0].get_color() == overlap[1].get_color() != overlap[0].get_color()


def test_parts_are_the_whole_where_there_is_one_run(logs):
    assert [label for label, _ in parts("overview", logs)] == [""]
    assert CHANCE not in COLOURS
