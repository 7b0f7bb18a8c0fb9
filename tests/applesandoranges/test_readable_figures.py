"""What figures and the table of 13a show of the verdict, and of few steps."""

import numpy as np
import pytest
from matplotlib.collections import LineCollection

from applesandoranges.figures import Options, draw
from applesandoranges.figures.style import FAINT
from applesandoranges.results.collect import read_logs
from tests.conftest import run
from tests.small_logs import Writer

N, D = 6, 100
K = list(range(1, N + 1))
#: No value twice: they tell lines apart.
OVERLAP = {0: [0.61, 0.51, 0.42, 0.33, 0.31, 0.29], 10: [0.9, 0.8, 0.7, 0.6, 0.55, 0.45],
           20: [0.59, 0.49, 0.41, 0.39, 0.35, 0.25]}  # fmt: skip
#: Step 0 is readable up to 3 (of use up to 4), step 10 not at all, step 20 everywhere.
VERDICTS = {
    0: {"trustworthy": True, "verdict": "partly", "readable_overlap": [1, 3],
        "usable_overlap": [1, 4], "readable_eigenvalues": 2},
    10: {"trustworthy": False, "verdict": "not to be trusted", "readable_overlap": None,
         "usable_overlap": [1, 1], "readable_eigenvalues": 0},
    20: {"trustworthy": True, "verdict": "all", "readable_overlap": [1, 6],
         "usable_overlap": [1, 6], "readable_eigenvalues": 6},
}  # fmt: skip
LEGEND = "pale, dashed: {} not readable (verdict)"


def write(directory, steps, verdicts=VERDICTS, exact=False):
    log = Writer(directory, "[12a_x.py]")
    log("GLOBALS", {"num_params": D, "PROBLEM": "x", "RANDOM_SEED": 3})
    for step in steps:
        curve = [k * overlap for k, overlap in zip(K, OVERLAP[step], strict=True)]
        ends = {"frob_Qtop^2_lowest": [0.9 * c for c in curve],
                "frob_Qtop^2_highest": [1.2 * c for c in curve]}  # fmt: skip
        result = {"core_S": [6.0, -5.0, 4.0, 3.0, -2.0, 1.0], "frob_Qtop^2": curve, **ends}
        result |= {"frob_Qbest^2": curve}
        result |= (
            {"H_frob_Qtop^2": [0.5 * c for c in curve], "H_eigvals": [6.0] * N} if exact else {}
        )
        log("H_TRAIN RESULT", {"step": step, **result, **verdicts.get(step, {})})
        log("H_TRAIN RESULT", {"step": step, "K": 2, "principal_angles": [0.5, 0.1]})
    return log.path


@pytest.fixture
def logs(tmp_path):
    """``logs(*steps)``"""
    return lambda *steps, **more: read_logs(str(write(tmp_path, steps, **more)))


def is_faint(line):
    return line.get_alpha() == FAINT["alpha"] and line.is_dashed()


def points(lines):
    """Return ``{x: y}`` of what lines show, rounded."""
    pairs = [p for ln in lines for p in zip(ln.get_xdata(), ln.get_ydata(), strict=True)]
    return {int(x): round(float(y), 6) for x, y in pairs if not np.isnan(y)}


def drawn(ax, of):
    """Return what is drawn as usual, and what pale and dashed, of lines with these values."""
    values = {round(value, 6) for value in of}
    lines = [ln for ln in ax.get_lines() if values & set(points([ln]).values())]
    return points([ln for ln in lines if not is_faint(ln)]), points(filter(is_faint, lines))


def labels(ax):
    return ax.get_legend_handles_labels()[1]


@pytest.mark.parametrize("name", ["overlap_over_k", "overview", "masks"])
def test_curves_beyond_what_is_readable_are_pale_and_dashed(logs, name):
    ax = draw(name, logs(0), Options())[0].axes[0]
    usual, faint = drawn(ax, OVERLAP[0])
    if name == "masks":  # the best mask has the same curve here, and no verdict
        (line,) = [ln for ln in ax.get_lines() if ln.get_label() == "magnitude mask"]
        usual = points([line])
    assert usual == dict(zip(K[:4], OVERLAP[0][:4], strict=True))
    assert faint == dict(zip(K[3:], OVERLAP[0][3:], strict=True))  # joins the other at k = 4
    assert LEGEND.format("overlap") in labels(ax)


def test_a_hessian_that_is_not_trusted_is_pale_throughout_and_named(logs):
    ax = draw("overlap_over_k", logs(10), Options())[0].axes[0]
    usual, faint = drawn(ax, OVERLAP[10])
    assert (usual, faint) == ({}, dict(zip(K, OVERLAP[10], strict=True)))
    assert "step 10, not readable" in labels(ax)


@pytest.mark.parametrize("verdicts", [VERDICTS, {}], ids=["readable", "published"])
@pytest.mark.parametrize(
    "name", ["overlap_over_k", "ratio_over_k", "overlap_over_steps", "overview"]
)
def test_without_a_doubt_nothing_is_pale(logs, name, verdicts):
    figure, tables = draw(name, logs(20, verdicts=verdicts), Options())
    assert not [ln for ax in figure.axes for ln in ax.get_lines() if is_faint(ln)]
    assert not [text for ax in figure.axes for text in labels(ax) if "readable" in text]
    known = tables["overlap"]["known_within"]
    assert (known == 0.05).all() if verdicts else known.isna().all()


def test_ratios_are_as_readable_as_overlaps(logs):
    ax = draw("ratio_over_k", logs(0), Options())[0].axes[0]
    ratios = [overlap * D / k for k, overlap in zip(K, OVERLAP[0], strict=True)]
    usual, faint = drawn(ax, ratios)
    assert (list(usual), list(faint)) == (K[:4], K[3:])
    assert LEGEND.format("overlap") in labels(ax)


def test_spectra_end_where_eigenvalues_are_not_readable(logs):
    spectrum = draw("overview", logs(0), Options())[0].axes[1]
    lines = [ln for ln in spectrum.get_lines() if len(ln.get_xdata()) == N]
    assert points(ln for ln in lines if not is_faint(ln)) == {1: 6, 2: 5}
    assert points(filter(is_faint, lines)) == {2: 5, 3: 4, 4: 3, 5: 2, 6: 1}
    assert LEGEND.format("eigenvalues") in labels(spectrum)


def test_points_over_steps_are_as_readable_as_their_curves(logs):
    ax = draw("overlap_over_steps", logs(0, 10, 20), Options((4, 5)))[0].axes[0]
    usual, faint = drawn(ax, [OVERLAP[s][3] for s in (0, 10, 20)])
    assert (list(usual), list(faint)) == ([0, 20], [0, 10, 20])
    (line,) = [ln for ln in filter(is_faint, ax.get_lines()) if points([ln]).get(10) == 0.6]
    assert line.get_markevery() == [1]  # the markers of the others are drawn as usual
    usual, _ = drawn(ax, [OVERLAP[s][4] for s in (0, 10, 20)])
    assert list(usual) == [20]
    assert LEGEND.format("overlap") in labels(ax)


def test_pale_points_that_no_line_connects_are_named_as_such(logs):
    ax = draw("overlap_over_steps", logs(0, 10), Options((4,)))[0].axes[0]
    assert "pale: overlap not readable (verdict)" in labels(ax)
    usual, faint = drawn(ax, [OVERLAP[s][3] for s in (0, 10)])
    assert list(usual | faint) == [0, 10]
    assert {ln.get_linestyle() for ln in series(ax)} == {"None"}


def test_exact_and_sketched(logs):
    figure, tables = draw("exact_and_sketched_overlap", logs(0, 10, exact=True), Options((1, 4)))
    usual, faint = drawn(figure.axes[0], OVERLAP[0])
    assert (list(usual), list(faint)) == (K[:4], K[3:])
    exact, hidden = drawn(figure.axes[0], [0.5 * overlap for overlap in OVERLAP[0]])
    assert (list(exact), hidden) == (K, {})
    assert LEGEND.format("overlap") in labels(figure.axes[0])
    sketched = tables["overlap"]["known_within_sketched"].tolist()
    assert sketched == [0.05] * 3 + [0.2] + [np.inf] * 8
    figure, _ = draw("exact_against_sketched", logs(0, exact=True), Options())
    usual, faint = drawn(figure.axes[0], OVERLAP[0])
    assert (list(usual), list(faint)) == (K[:4], K[3:])


# ----------------------------------------------------------- few steps


def series(ax):
    """Return the lines that show values of steps."""
    chance = ("chance", "_child")
    return [ln for ln in ax.get_lines() if ln.get_label().startswith("k = ")
            and not ln.get_label().startswith(chance)]  # fmt: skip


@pytest.mark.parametrize(("steps", "connected"), [((0, 20), False), ((0, 10, 20), True)])
@pytest.mark.parametrize("name", ["overlap_over_steps", "ratio_over_steps"])
def test_no_line_connects_two_points(logs, name, steps, connected):
    ax = draw(name, logs(*steps, verdicts={}), Options((1, 4)))[0].axes[0]
    lines = series(ax)
    assert len(lines) == 2
    for line in lines:
        assert list(line.get_xdata()) == list(steps)
        assert (line.get_linestyle() != "None") == connected
        assert line.get_marker() == "o"


def test_exact_results_of_two_steps_are_not_connected_either(logs):
    figure, _ = draw("exact_and_sketched_overlap", logs(0, 20, exact=True), Options((1, 4)))
    broad = [ln for ln in figure.axes[1].get_lines() if ln.get_markeredgewidth() == 6]
    assert [ln.get_linestyle() for ln in broad] == ["None", "None"]
    assert [ln.get_marker() for ln in broad] == ["_", "_"]


@pytest.mark.parametrize("steps", [(0, 20), (0, 10, 20)], ids=["points", "bands"])
def test_ends_over_steps_are_shaded(logs, steps):
    ax = draw("overlap_over_steps", logs(*steps), Options((1, 4)))[0].axes[0]
    found = []
    for shade in ax.collections:
        vertices = np.concatenate([path.vertices for path in shade.get_paths()])
        of = {step: vertices[vertices[:, 0] == step, 1] for step in steps}
        found.append({step: (min(y), max(y)) for step, y in of.items()})
    expected = [
        {s: pytest.approx((0.9 * OVERLAP[s][k - 1], 1.2 * OVERLAP[s][k - 1])) for s in steps}
        for k in (1, 4)
    ]
    assert found == expected
    bands = len(steps) > 2  # between two steps nothing is known
    assert [isinstance(shade, LineCollection) for shade in ax.collections] == [not bands] * 2
    shades = [text for text in labels(ax) if text.startswith("shades")]
    assert shades == ["shades: estimated range of the exact overlap"]


# ----------------------------------------------------------- the table of 13a


def table(tmp_path, capsys, *steps, **more):
    path = write(tmp_path / "logs", steps, **more)
    words = [f"LOGS={path}", f"OUTPUT_DIR={tmp_path / 'f'}", "FIGURES=overlap_over_k"]
    assert run("13a_plot_overlap.py", *words) == 0
    lines = capsys.readouterr().out.splitlines()
    begin = next(i for i, line in enumerate(lines) if line.split()[:2] == ["Hessian", "k"])
    assert max(map(len, lines[begin:])) <= 100
    rows = [line.split(maxsplit=4) for line in lines[begin + 1 :] if line.startswith(" step")]
    by_step_and_k = {(int(r[1][:-1]), int(r[3])): r[4].split(maxsplit=3) for r in rows}
    return lines[begin].split(), by_step_and_k, lines


def test_the_table_says_how_far_to_read(tmp_path, capsys):
    header, rows, lines = table(tmp_path, capsys, 0, 10, 20)
    assert header[-1] == "readable"
    assert "exact" not in header
    words = {key: row[-1].strip() for key, row in rows.items()}
    assert words[0, 2] == "within 5%"
    assert words[0, 5] == words[10, 1] == words[10, 6] == "not readable"
    assert words[20, 6] == "within 5%"
    assert lines[-3:] == [
        "step 0, train: partly", "step 10, train: not to be trusted", "step 20, train: all",
    ]  # fmt: skip


def test_the_exact_overlap_stands_beside_the_sketched_one(tmp_path, capsys):
    header, rows, _ = table(tmp_path, capsys, 0, exact=True)
    assert header[2:4] == ["overlap", "exact"]
    assert rows[0, 2][:2] == ["0.51", "0.255"]


def test_logs_without_a_verdict_say_so(tmp_path, capsys):
    _, rows, lines = table(tmp_path, capsys, 0, verdicts={})
    assert {row[-1].strip() for row in rows.values()} == {"no verdict in the log"}
    assert lines[-1].split()[3] == "6"
