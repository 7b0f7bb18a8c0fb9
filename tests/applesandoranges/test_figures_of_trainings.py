"""What stands in the axes of the figures of trainings, times and random subspaces."""

from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from applesandoranges.app import events
from applesandoranges.figures import MissingInLogsError, Options, draw
from applesandoranges.figures.grassmannian import study_figure
from applesandoranges.figures.training import measurement_times, seconds_in_words, stage_times
from applesandoranges.results.collect import read_logs
from applesandoranges.subspaces.grassmannian import MASK_METRICS, METRICS, Grid
from tests.small_logs import Writer


def line(ax, label):
    (found,) = [ln for ln in ax.get_lines() if ln.get_label() == label]
    return list(found.get_xdata()), list(found.get_ydata())


class Timed(Writer):
    """Writes lines at the seconds that are given."""

    def at(self, second, header, body):
        self.time = datetime(2024, 2, 1) + timedelta(seconds=second - 10)
        self(header, body)


# ----------------------------------------------------------- trainings

FACTS = {"num_params": 9, "PROBLEM": "x", "RANDOM_SEED": 3, "run_id": "a"}


def train(directory, evaluated=True):
    log = Writer(directory, "[10a_x.py]")
    log("GLOBALS", FACTS | {"data_source": "embedded"})
    for step in (0, 6):
        recorded = {"batch_loss": 3 - step / 6, "H_train_loss": 2.5, "H_test_loss": 2.75}
        log("TRAINING BATCH", {"global_step": step, **recorded})
    for step, header in ((0, "EVAL ROUND"), (5, "EVAL ROUND"), (10, "FINAL EVALUATION")):
        if evaluated:
            body = {f"{part}_{what}": 10 * j + i + step
                    for i, part in enumerate(("train", "xv", "test"))
                    for j, what in enumerate(("loss", "acc"))}  # fmt: skip
            log(header, {"global_step": step, **body})
    return read_logs(str(log.path))


def test_training(tmp_path):
    figure, tables = draw("training", train(tmp_path), Options())
    loss, accuracy = figure.axes
    for i, name in enumerate(("training", "validation", "test")):
        assert line(loss, name) == ([0, 5, 10], [i, i + 5, i + 10])
        assert line(accuracy, name) == ([0, 5, 10], [10 + i, 15 + i, 20 + i])
    for ax in (loss, accuracy):
        dotted = [ln.get_xdata() for ln in ax.get_lines() if ln.get_linestyle() == ":"]
        assert dotted == [[0, 0], [6, 6]]
        assert ax.get_xlabel() == "training step"
    assert [text.get_text() for text in loss.get_legend().texts] == [
        "training", "validation", "test", "recorded steps",
    ]  # fmt: skip
    assert loss.get_ylabel() == "loss, with the L2 term if there is one"
    assert accuracy.get_ylabel() == "accuracy"
    assert figure.get_suptitle() == "x, seed 3, embedded data, not the full data set"
    assert tables["recorded_steps"]["global_step"].tolist() == [0, 6]


def test_training_without_evaluations(tmp_path):
    figure, _ = draw("training", train(tmp_path, evaluated=False), Options())
    (ax,) = figure.axes
    assert line(ax, "mini-batch") == ([0, 6], [3, 2])
    assert line(ax, "Hessian data, training") == ([0, 6], [2.5, 2.5])
    assert line(ax, "Hessian data, test") == ([0, 6], [2.75, 2.75])
    assert ax.get_ylabel() == "loss at recorded steps, without the L2 term"
    assert figure.get_suptitle().endswith("; the log has no evaluations")


# ----------------------------------------------------------- times


def measured(directory):
    """Write two measurements: begun at second 10, done at 40 and 70; six would be made."""
    log = Timed(directory, "[10c_x.py]")
    log.at(0, "CONFIG", {"NUM_INNER": 6})
    log.at(1, "GLOBALS", FACTS)
    log.at(3, "INFO", ["Building the problem"])
    log.at(10, "INFO", ["Performing measurement", {"idx": 0}])
    log.at(40, "INFO", ["Measurement successful!", {"idx": 0}])
    log.at(41, "INFO", ["Performing measurement", {"idx": 1}])
    log.at(70, "INFO", ["Measurement successful!", {"idx": 1}])
    return log


def analysed(directory, name, seconds):
    log = Timed(directory, f"[10d_x.py]{name}")
    log.at(100, "CONFIG", {"STEP": 0})
    log.at(101, "GLOBALS", FACTS)
    log.at(102, "INFO", [f"Merging inner measurements ({name})..."])
    log.at(102 + seconds, "INFO", ["Solving SEIGH core"])
    log.at(102 + seconds, "RESULT", {"step": 0, "H_test": False, "core_S": [2.0, 1.0]})
    log.at(202, "RESULT", {"step": 0, "H_test": False, "frob_Qtop^2": [0.5, 1]})
    log.at(203, "INFO", ["Analysis done"])
    return log


@pytest.fixture
def timed(tmp_path):
    measured(tmp_path)
    for name, seconds in (("a", 2), ("b", 4), ("c", 8)):
        analysed(tmp_path, name, seconds)
    return read_logs(str(tmp_path))


def test_stages_last_until_the_next_line(timed):
    log = timed.analysing[0]
    table = stage_times(log).set_index("stage")["seconds"]
    assert table["Merging inner measurements"] == pytest.approx(
        {"a": 2, "b": 4, "c": 8}[log.path.stem[-1]]
    )
    assert table["Solving the core"] == 0
    assert table["Computing the overlap"] > 0  # published logs do not announce it


def test_the_time_of_a_measurement_is_that_from_the_first_on(timed):
    rows = {row["stage"]: row["seconds"] for row in measurement_times(timed.measuring[0])}
    assert rows == {"one measurement": 30, "all measurements, in sequence": 180}


def test_a_log_without_measurements_has_no_time_of_one(timed):
    assert measurement_times(timed.analysing[0]) == []


def test_run_times(tmp_path):
    measured(tmp_path)
    analysed(tmp_path, "c", 8)
    figure, tables = draw("run_times", read_logs(str(tmp_path)), Options())
    (ax,) = figure.axes
    stages = [text.get_text() for text in ax.get_yticklabels()]
    assert stages[:3] == [
        "one measurement", "all measurements, in sequence", "building the problem",
    ]  # fmt: skip
    assert not any(stage.startswith(("Performing", "Measurement")) for stage in stages)
    drawn = [ln for ln in ax.get_lines() if ln.get_marker() == "o" and len(ln.get_xdata())]
    times = {stages[round(ln.get_ydata()[0])]: list(ln.get_xdata()) for ln in drawn}
    assert times["one measurement"] == [30]
    assert times["building the problem"] == [7]
    assert times["merging the inner measurements into one file"] == [8]
    assert "overlap with the largest parameters" in stages
    # Solving the core begins and ends with one time stamp: not in the figure, but in the table.
    assert "solving the core for the eigenpairs" not in stages
    assert "left out: what takes at most 0.001 s" in figure.get_suptitle()
    assert "Solving the core" in set(tables["seconds"]["stage"])
    assert all(abs(y - round(y)) < 1e-9 for ln in drawn for y in ln.get_ydata())
    assert [text.get_text() for text in ax.texts][:3] == ["30 s", "180 s", "7 s"]
    assert (ax.get_xlabel(), ax.get_xscale()) == ("seconds", "log")
    assert ax.get_ylim() == (len(stages) - 0.5, -0.5)  # the first stage is at the top
    between = [ln.get_ydata()[0] for ln in ax.get_lines() if len(ln.get_xdata()) == 2]
    assert between == [n + 0.5 for n in range(len(stages) - 1)]
    assert set(tables["seconds"]["run"]) == {"x, seed 3"}


def test_bars_are_medians_and_runs_stand_beside_each_other(tmp_path):
    for number, run_id in enumerate(("a", "b")):
        for name, seconds in (("p", 1), ("q", 2), ("r", 9)):
            log = Timed(tmp_path / run_id, f"[10d_x.py]{name}")
            log.at(0, "GLOBALS", FACTS | {"run_id": run_id, "RANDOM_SEED": number})
            log.at(1, "INFO", ["Solving the core"])
            log.at(1 + seconds + number, "INFO", ["Estimating the error"])
            body = {"step": ord(name), "H_test": False}
            log.at(30, "RESULT", body | {"frob_Qtop^2": [0.5]})
    figure, _ = draw("run_times", read_logs(str(tmp_path)), Options())
    (ax,) = figure.axes
    bars = [
        (ln.get_xdata()[0], ln.get_ydata()[0]) for ln in ax.get_lines() if ln.get_marker() == "|"
    ]
    assert [x for x, _ in bars[:1]] == [2]
    solving = [(x, y) for x, y in bars if abs(y) < 0.5]
    assert [x for x, _ in solving] == [2, 3]
    assert [y for _, y in solving] == pytest.approx([-1 / 6, 1 / 6])


def test_a_stage_that_is_mostly_below_the_resolution_is_left_out(tmp_path):
    for name, seconds in (("p", 0), ("q", 0), ("r", 9)):
        log = Timed(tmp_path, f"[10d_x.py]{name}")
        log.at(0, "GLOBALS", FACTS)
        log.at(1, "INFO", ["Solving the core"])
        log.at(1 + seconds, "INFO", ["Estimating the error"])
        log.at(30, "RESULT", {"step": ord(name), "H_test": False, "frob_Qtop^2": [0.5]})
    figure, _ = draw("run_times", read_logs(str(tmp_path)), Options())
    (ax,) = figure.axes
    stages = [text.get_text() for text in ax.get_yticklabels()]
    assert stages == ["estimating the error with more products"]


def test_without_a_stage_that_can_be_resolved_there_is_no_figure(tmp_path):
    log = Timed(tmp_path, "[10d_x.py]")
    log.at(0, "GLOBALS", FACTS)
    log.at(1, "INFO", ["Solving the core"])
    log.at(1, "RESULT", {"step": 0, "H_test": False, "frob_Qtop^2": [0.5]})
    with pytest.raises(MissingInLogsError, match=r"no stage takes longer than 0\.001 s"):
        draw("run_times", read_logs(str(tmp_path)), Options())


def test_seeds_of_test_matrices_are_no_stage(tmp_path):
    log = Timed(tmp_path, "[10d_x.py]")
    log.at(0, "GLOBALS", FACTS)
    log.at(1, "INFO", [events.TEST_MATRICES, {"seed_psi": 2}])
    log.at(5, "INFO", ["Solving the core"])
    log.at(9, "RESULT", {"step": 0, "H_test": False, "frob_Qtop^2": [0.5]})
    stages = stage_times(read_logs(str(tmp_path)).analysing[0])
    assert stages["stage"].tolist() == ["Solving the core"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(999.4, "999"), (1000, "1,000"), (12345.6, "12,346"), (0.0123456, "0.0123"), (2, "2")],
)
def test_seconds_in_words(seconds, text):
    assert seconds_in_words(seconds) == text


# ----------------------------------------------------------- random subspaces

GRIDS = {
    "dim": (Grid("dim", (8, 16), (0.5, 0.25)), "ratio", {0.5: "k/D = 0.5", 0.25: "k/D = 0.25"}),
    "ratio": (Grid("ratio", (8, 16), (0.5, 0.25)), "dim", {8: "D = 8", 16: "D = 16"}),
}


def summary(case, grid):
    """Make up medians and bands that tell cells and metrics apart; of another case, too."""
    rows = []
    for other in ("OO", "OB", "BB"):
        for dim, ratio, k in grid.cells():
            for number, name in enumerate(METRICS):
                if name in MASK_METRICS and other != "BB":
                    continue
                median = 0.1 * number + ratio / 10 + dim / 1000 + (other != case) / 2
                rows.append((other, dim, ratio, k, name, median - 0.01, median, median + 0.02))
    columns = ["case", "dim", "ratio", "k", "metric", "low", "median", "high"]
    return pd.DataFrame(rows, columns=columns)


@pytest.mark.parametrize("case", ["OO", "OB", "BB"])
@pytest.mark.parametrize("against", GRIDS)
def test_study_figure(against, case):
    grid, series, labels = GRIDS[against]
    figure = study_figure(summary(case, grid), grid, case)
    legend, *cells = figure.axes
    metrics = [metric for metric in METRICS.values() if metric.name not in MASK_METRICS]
    assert [ax.get_title() for ax in cells] == [metric.label for metric in metrics]
    points = grid.dims if against == "dim" else sorted(grid.ratios)
    for number, ax in enumerate(cells):
        for value, label in labels.items():
            both = [(p, value) if against == "dim" else (value, p) for p in points]
            medians = [0.1 * number + ratio / 10 + dim / 1000 for dim, ratio in both]
            x, y = line(ax, label)
            np.testing.assert_allclose(x, points)
            np.testing.assert_allclose(y, medians)
        shaded = [c.get_paths()[0].vertices for c in ax.collections if c.get_paths()
                  and len(c.get_paths()[0].vertices) > 4][: len(labels)]  # fmt: skip
        assert len(shaded) == len(labels)
        for vertices in shaded:
            assert np.ptp(vertices[vertices[:, 0] == vertices[0, 0], 1]) == pytest.approx(0.03)
        assert ax.get_ylim() == pytest.approx((-0.03, 1.03))
        assert ax.get_xscale() == ("log" if against == "dim" else "linear")
    names = [text.get_text() for text in legend.get_legend().texts]
    # From the largest ratio on, as the lines stand.
    assert names[:2] == list(labels.values())
    assert names[2:4] == ["5 to 95 % of pairs", "exact mean k/D ± 2 std. dev."]
    assert len(names) == 4 + (case == "BB")
    exact = cells[-1].containers
    assert [len(container[0].get_xdata()) for container in exact] == [2, 2, 0]
    for container, value in zip(exact[:2], labels, strict=True):
        for n, p in enumerate(points):
            dim, ratio = (p, value) if series == "ratio" else (value, p)
            k = round(ratio * dim)
            variance = 2 * (dim - k) ** 2 / (dim**2 * (dim - 1) * (dim + 2))
            if case == "BB":
                variance = (dim - k) ** 2 / (dim**2 * (dim - 1))
            assert container[0].get_ydata()[n] == pytest.approx(k / dim)
            (ends,) = container[2]
            low, high = ends.get_segments()[n][:, 1]
            assert (high - low) / 4 == pytest.approx(variance**0.5)
    assert [ax.get_xlabel() for ax in cells[3:]] == [
        "dimension D" if against == "dim" else "ratio k/D"
    ] * 4
    assert [bool(ax.get_ylabel()) for ax in cells] == [True, *[False] * 2, True, *[False] * 3]
    assert figure.get_suptitle().startswith(f"{case}: ")
