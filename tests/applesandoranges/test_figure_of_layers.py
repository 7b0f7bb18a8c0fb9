"""The bars of the figure ``layers`` are the logged numbers as shares."""

import json

import numpy as np
import pytest

from applesandoranges.figures import MissingInLogsError, Options, draw
from applesandoranges.figures.layers import MOST_LAYERS, OTHERS, SHARES
from applesandoranges.results.collect import read_logs
from tests.small_logs import analysis_log, run_directory, training_log


def logs_of(root, layers, steps=(0,)):
    """Write a run with analyses of steps; each layer has more than the one before."""
    directory = run_directory(root, "mnist_mini")
    training_log(directory, 7030)
    for step in steps:
        path = analysis_log(directory, 7030, step)
        if not layers:
            continue
        weights = np.arange(1, layers + 1)
        body = {
            "K": 4, "layers": [f"layer{n}" for n in range(layers)],
            "layer_sizes": weights.tolist(), "layers_mask": (4 * weights / weights.sum()).tolist(),
            "layers_eigenspace": (4 * weights**3 / (weights**3).sum()).tolist(),
            "layers_overlap": (weights**2).tolist(),
        }  # fmt: skip
        line = path.read_text().splitlines()[-1]
        stamp = json.loads(line)[0]
        path.write_text(path.read_text() + json.dumps([stamp, ["RESULT", body]]) + "\n")
    return read_logs(str(directory))


def bars(figure):
    """Return the widths of the bars and their labels, by what the legend calls them."""
    (ax,) = figure.axes
    widths = {c.get_label(): [bar.get_width() for bar in c] for c in ax.containers}
    return widths, [label.get_text() for label in ax.get_yticklabels()]


def test_bars_are_shares(tmp_path):
    figure, tables = draw("layers", logs_of(tmp_path, 3), Options())
    widths, labels = bars(figure)
    assert labels == ["layer0", "layer1", "layer2"]
    expected = {
        "parameters": np.array([1, 2, 3]) / 6, "mask": np.array([1, 2, 3]) / 6,
        "eigenspace": np.array([1, 8, 27]) / 36, "overlap": np.array([1, 4, 9]) / 14,
    }  # fmt: skip
    for name, label in SHARES.items():
        np.testing.assert_allclose(widths[label], expected[name])
        np.testing.assert_allclose(tables["shares"][name], expected[name])
    assert figure.axes[0].get_title() == "step 0, test, k = 4"


def test_bars_of_a_layer_touch_and_are_centred_on_its_name(tmp_path):
    figure, _ = draw("layers", logs_of(tmp_path, 3), Options())
    (ax,) = figure.axes
    for layer, tick in enumerate(ax.get_yticks()):
        of_layer = [container[layer] for container in ax.containers]
        ends = [(bar.get_y(), bar.get_height()) for bar in of_layer]
        begins = tick - 0.4 + 0.8 / len(SHARES) * np.arange(len(SHARES))
        expected = [(begin, 0.8 / len(SHARES)) for begin in begins]
        np.testing.assert_allclose(ends, expected, atol=1e-12)


def test_of_many_layers_the_small_ones_are_one_bar(tmp_path):
    figure, tables = draw("layers", logs_of(tmp_path, 40), Options())
    widths, labels = bars(figure)
    assert len(labels) == MOST_LAYERS
    assert labels[-1] == OTHERS
    assert labels[0] == "layer17"
    assert all(sum(values) == pytest.approx(1) for values in widths.values())
    assert len(tables["shares"]) == 40


def test_logs_without_layers_are_named(tmp_path):
    with pytest.raises(MissingInLogsError, match="10d and 12a log it"):
        draw("layers", logs_of(tmp_path, 0), Options())


@pytest.mark.parametrize("steps", [(0, 100), (0, 100, 2000), (0, 100, 200, 2000)])
def test_of_several_steps_the_first_and_the_last_are_drawn(tmp_path, steps):
    figure, _ = draw("layers", logs_of(tmp_path, 3, steps), Options())
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == [f"step {step}, test, k = 4" for step in (steps[0], steps[-1])]
