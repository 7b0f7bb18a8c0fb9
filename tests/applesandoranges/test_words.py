"""What people see of logs: whole screens, word by word, and the rules behind them."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from applesandoranges.app import events
from applesandoranges.app.result_tables import in_words
from applesandoranges.app.screen import show
from applesandoranges.app.words import Line, Narrator

SCREENS = Path(__file__).parent / "screens"
TIME = "2026-01-31_12:34:{:06.3f}+0100"


def rendered(lines):
    """Return the screen that the lines of a log make, without colours."""
    output, narrator = io.StringIO(), Narrator()
    console = Console(file=output, width=100, highlight=False, color_system=None)
    for line in lines:
        time, (header, body) = json.loads(line)
        show(console, narrator.tell(time, header, body))
    show(console, narrator.end())
    return "".join(f"{line.rstrip()}\n" for line in output.getvalue().splitlines())


@pytest.mark.parametrize("log", sorted(SCREENS.glob("*.log")), ids=lambda path: path.stem)
def test_screens(log):
    """The screens of a small run; ``python -m tests.screens`` writes them anew."""
    assert rendered(log.read_text().splitlines()) == log.with_suffix(".txt").read_text()


def test_there_are_screens():
    assert {path.stem for path in SCREENS.glob("*.txt")} == {"10a", "10c", "10d", "10e", "12a"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([7.1, *[1.0] * 353, 0.0201], "355 values, 7.1 ... 0.0201"),
        ([0, 300], "0, 300"),
        ([], "none"),
        ([[1, 2], [3, 4]], "2 of them"),
        ([None] * 9, "9 values, unknown ... unknown"),
        (7030, "7,030"),
        (0.89123, "0.891"),
        (True, "yes"),
        (None, "unknown"),
        ({"a": 1, "b": 2.5}, "a 1, b 2.5"),
        ({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}, "a 1, b 2, c 3, 2 more"),
        ("text", "text"),
    ],
    ids=str,
)
def test_values_in_words(value, words):
    assert in_words(value) == words


def told(*events_of_log):
    narrator = Narrator()
    lines = [line for at, (header, body) in enumerate(events_of_log)
             for line in narrator.tell(TIME.format(at), header, body)]  # fmt: skip
    return [*lines, *narrator.end()]


@pytest.mark.parametrize(
    ("header", "body", "text"),
    [
        ("SOMETHING NEW", {"a": 1, "b": [1] * 9}, "SOMETHING NEW: a 1, b 9 values, 1 ... 1"),
        (events.INFO, ["Something new", {"step": 3, "num": 5}], "Something new: num 5"),
        (events.INFO, ["Something new", {"step": 3, "H_test": True}], "Something new"),
        (events.WARNING, ["Beware", {}], "Warning: Beware"),
        (events.RESULT, {"step": 3, "H_test": True, "new": [1.0] * 9},
         "step 3, test: new 9 values, 1 ... 1"),
        ("H_TRAIN RESULT", {"step": 3, "new": 2}, "step 3, train: new 2"),
    ],
)  # fmt: skip
def test_events_without_words_of_their_own_are_shown_all_the_same(header, body, text):
    (line,) = told((header, body))
    assert (line.time, line.text) == ("12:34:00", text)


def test_every_event_has_a_line_or_is_counted():
    texts = {value for name, value in vars(events).items()
             if name.isupper() and isinstance(value, str)}  # fmt: skip
    for text in texts - events.OF_EACH_PRODUCT - events.STAGES:
        (line,) = told((events.INFO, [text, {}]))
        assert line.text.strip()


def test_many_measurements_are_one_line():
    each = [(events.INFO, [text, {"step": 0, "H_test": False, "idx": idx}])
            for idx in range(5, 25) for text in (events.MEASURING, events.MEASURED)]  # fmt: skip
    (line,) = told(*each)
    assert line == Line("12:34:39", "20 measured, indices 5 ... 24, in 38.0 s", "green")


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, False), (12.3, True)])
def test_long_stages_alone_have_a_line(seconds, shown):
    narrator = Narrator()
    for at, text in ((0, events.SOLVING), (seconds, events.ANALYSED)):
        lines = list(narrator.tell(TIME.format(at), events.INFO, [text, {"log": "a/b.log"}]))
    texts = [line.text for line in lines]
    assert texts == ["Solving the core: 12.3 s"] * shown + ["Analysis done, see a"]


def test_evaluations_of_short_epochs_do_not_fill_the_screen():
    events_of_log = [(events.EVAL_ROUND, {"epoch": epoch, "test_loss": 1.0}) for epoch in range(50)]
    lines = told(*events_of_log)  # one each second
    assert [line.text for line in lines] == [
        f"Epoch {epoch}: test loss 1" for epoch in range(0, 50, 10)
    ]


def test_a_verdict_that_forbids_is_not_green():
    bad = {
        "step": 0,
        "H_test": False,
        "verdict": "not to be trusted",
        "trustworthy": False,
        "remedies": ["raise NUM_INNER"],
    }
    S = {"core_S": [3.0, 2.0], "step": 0, "H_test": False}
    lines = told((events.RESULT, S), (events.RESULT, bad))
    title, _, verdict, remedy = lines
    assert title.text == "step 0, train: 2 eigenvalues, 3 ... 2"
    assert (verdict.text, verdict.style) == ("Verdict: not to be trusted", "bold red")
    assert remedy.text == "What helps: raise NUM_INNER"


@pytest.mark.parametrize(
    ("error", "more", "words"),
    [
        (None, None, "not yet known, wanted within 5.0%, of 12 products"),
        (0.38, None, "within 38.0%, wanted within 5.0%, of 12 products"),
        (0.1, 2, "within 10.0%, wanted within 5.0%, of 12 products; about 2 more rounds at this "
                 "pace"),
    ],
)  # fmt: skip
def test_accuracy_is_said_in_words(error, more, words):
    body = {"step": 1, "H_test": False, "round": 2, "K": 8, "overlap_error": error, "wanted": 0.05,
            "num_products": 12, "rounds_still_needed": more}  # fmt: skip
    (said,) = told((events.RESULT, body))
    assert said.text == f"step 1, train: overlap at k = 8 {words}"


def test_terminals_break_long_lines_at_blanks_and_keep_paths():
    output = io.StringIO()
    path = "output/" + "x" * 120
    line = Line("12:34:56", f"{'word ' * 30}see {path}", "")
    show(Console(file=output, width=60, force_terminal=True, color_system=None), [line])
    first, *others = output.getvalue().splitlines()
    assert first.startswith("12:34:56  word")
    assert all(other.startswith(" " * 10) for other in others)
    assert max(map(len, [first, *others[:-1]])) <= 60
    assert others[-1].strip() == path


def test_an_analysis_that_is_stopped_shows_what_it_had():
    lines = told((events.RESULT, {"core_S": [3.0, 2.0], "step": 0, "H_test": False}))
    assert lines[0].text == "step 0, train: 2 eigenvalues, 3 ... 2"
    assert len(lines) == 2
