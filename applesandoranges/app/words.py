"""Events of logs in words for people: a short line each, and results as small tables.

What has no words of its own is shown as it is called in the log, with its first facts. Of the
results of an analysis the table shows what is read first; the log has all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath
from typing import Any

from rich.table import Table

from . import events
from .result_tables import ROWS, Analysis, Body, Rows, facts_in_words, in_words

#: Seconds from an evaluation that is shown to the next one: short epochs would fill the screen.
BETWEEN_EVALUATIONS = 10.0
#: Seconds of a stage that is worth a line; while it runs, the bottom of the screen says so.
SHORTEST_STAGE = 3.0


@dataclass(frozen=True)
class Line:
    """A line: when, what, and its style in the terms of rich."""

    time: str
    text: str
    style: str = ""


def of_hessian(body: Body, header: str = "") -> str:
    """Return which Hessian an event is about: ``step 300, train``; empty if none."""
    named = {name: split for split, name in events.SPLIT_RESULTS.items()}
    split = body.get("split") or named.get(header)
    if split is None and "H_test" in body:
        split = "test" if body["H_test"] else "train"
    texts = [f"step {body['step']}"] if "step" in body else []
    return ", ".join(texts + ([str(split)] if split else []))


#: Facts that say of which Hessian an event is, and what only machines want to know.
_OF_HESSIAN = frozenset({"step", "split", "H_test", "info", "sha256", "meas_idx"})


# --- words of the lines that begin a log

_GLOBALS: dict[str, str] = {
    "problem": "{}",
    "recovery": "{}",
    "num_params": "{} parameters",
    "data_source": "{} data",
    "num_hessian_datapoints": "{} data points",
    "num_epochs": "{} epochs",
    "steps_per_epoch": "{} steps per epoch",
    "opt_name": "{}",
}


def _globals(body: Body) -> str:
    found = [form.format(in_words(body[name])) for name, form in _GLOBALS.items() if name in body]
    return ", ".join(found) or facts_in_words(body)


def _config(body: Body) -> str:
    if "STEP" in body:
        split = "test" if body.get("TEST_HESSIAN") else "train"
        return f"Hessian of step {body['STEP']}, {split}"
    if "PROBLEM" in body and "RANDOM_SEED" in body:
        return f"{body['PROBLEM']}, seed {body['RANDOM_SEED']}"
    return f"{len(body)} keys"


# --- words of a training


def _evaluation(body: Body) -> str:
    texts = [f"Epoch {body.get('epoch')}"]
    for name, what in (("train_loss", "training loss"), ("test_loss", "test loss")):
        if name in body:
            texts.append(f"{what} {in_words(body[name])}")
    if body.get("test_acc") is not None:
        texts.append(f"test accuracy {100 * body['test_acc']:.1f} %")
    return f"{texts[0]}: {', '.join(texts[1:]) or 'evaluated'}"


def _training_batch(body: Body) -> str:
    names = {"batch_loss": "batch", "H_train_loss": "training data", "H_test_loss": "test data"}
    losses = [f"{in_words(body[name])} ({what})" for name, what in names.items() if name in body]
    return f"Recorded step {body.get('global_step')}: loss {', '.join(losses)}"


def _saved(body: Body) -> str:
    what = str(body.get("matrix", "")).replace("_", " ")
    return f"Step {body.get('global_step')}: {what} {body.get('status', '')}"


#: By header.
_HEADERS: dict[str, tuple[Callable[[Body], str], str]] = {
    events.GLOBALS: (_globals, "bold"),
    events.EVAL_ROUND: (_evaluation, ""),
    events.FINAL_EVALUATION: (lambda body: f"At the end, e{_evaluation(body)[1:]}", "bold"),
    events.TRAINING_BATCH: (_training_batch, "cyan"),
    events.HDF5: (_saved, ""),
}


# --- words of what happens


def _products(body: Body) -> str:
    engine, seconds = body.get("engine"), body.get("seconds_per_product") or {}
    text = f"Products by {engine}, {in_words(body.get('vectors_per_product'))} at a time"
    if isinstance(seconds, Mapping) and seconds.get(str(engine)) is not None:
        text += f", about {1000 * seconds[str(engine)]:.3g} ms each"
    return text


def _stopped(body: Body) -> str:
    names = {"recorded": "Recorded steps", "to go on": "To go on"}
    rest = [(names.get(name, name), value) for name, value in body.items() if name != "by"]
    said = [f"{name}: {in_words(value) or 'none'}" for name, value in rest]
    return ". ".join([f"Stopped by {body.get('by')}", *said])


def _directory(path: Any) -> str:
    return str(PurePath(str(path)).parent)


_ENDS: dict[str, Callable[[Body], str]] = {
    events.PRODUCTS: _products,
    events.TRAINING_DONE: lambda body: f"Training done, see {_directory(body.get('log'))}",
    events.TESTED: lambda body: f"Test done, see {_directory(body.get('log'))}",
    events.ANALYSED: lambda body: (
        f"Analysis done, see {PurePath(_directory(body.get('log'))).name}"
    ),
    events.SKIPPING: lambda body: f"{in_words(body.get('num'))} measurements are done already",
    events.STOPPED: _stopped,
    events.NOTHING_TO_MEASURE: lambda body: events.NOTHING_TO_MEASURE,
    events.SEVERAL_WAYS: lambda body: (
        f"{events.SEVERAL_WAYS}: {'; '.join(body.get('measurements', {}))}"
    ),
    events.TEST_MATRICES: lambda body: (
        f"Random vectors of seeds {', '.join(map(str, body.values()))} "
        "(12a draws others than 10c and 10d)"
    ),
    events.NEXT_BLOCK: lambda body: f"Next block made: {in_words(body.get('columns'))} columns",
}
_DONE = {events.TRAINING_DONE, events.TESTED, events.ANALYSED, events.NEXT_BLOCK}


def _info(text: str, body: Body) -> str:
    if text in _ENDS:
        return _ENDS[text](body)
    facts = facts_in_words(body, _OF_HESSIAN)
    return f"{text}: {facts}" if facts else text


def _accuracy(body: Body) -> str:
    """Return how accurate the overlap is after some rounds (ACCURACY)."""
    error, wanted = body["overlap_error"], body.get("wanted")
    known = "not yet known" if error is None else f"within {error:.1%}"
    aim = "" if wanted is None else f", wanted within {wanted:.1%}"
    text = f"overlap at k = {in_words(body.get('K'))} {known}{aim}"
    text += f", of {in_words(body.get('num_products'))} products"
    more = body.get("rounds_still_needed")
    return f"{text}; about {in_words(more)} more rounds at this pace" if more else text


# --- all of it


class Narrator:
    """Turns the events of one log, in their order, into lines and tables."""

    def __init__(self) -> None:
        self._measured: list[tuple[str, int]] = []  # time and index
        self._rows: tuple[Rows, list[Body]] | None = None
        self._analysis: Analysis | None = None
        self._stage: tuple[str, float] | None = None  # which, and since when
        self._evaluated = -math.inf  # when an evaluation was shown
        self._where, self._time, self._config = "", "", ""

    def tell(self, time: str, header: str, body: Any) -> Iterator[Line | Table]:
        """Yield what is to be shown of an event.

        Args:
            time: As it stands in logs.
            header: Of the event.
            body: As it stands in logs: ``{body}`` or ``[text, {body}]``.
        """
        text, facts = body if isinstance(body, list) else ("", body)
        if text in events.OF_EACH_PRODUCT:
            self._measured += [(time, facts.get("idx", 0))] if text == events.MEASURED else []
            return
        if self._rows is None or self._rows[0].mark not in facts:
            yield from self._gathered()
        yield from self._stage_over(time)
        if text in events.STAGES:
            self._stage = text, _seconds(time)
            return
        if not text and self._is_left_out(time, header, facts):
            return
        self._time = _clock(time)
        if header == events.RESULT or header in events.SPLIT_RESULTS.values():
            yield from self._result(header, facts)
        elif text:
            yield self._happens(header, text, facts)
        elif header in _HEADERS:
            words, style = _HEADERS[header]
            begin, self._config = self._config, ""
            yield Line(self._time, begin + words(facts), style)
        else:
            yield Line(self._time, f"{header}: {facts_in_words(facts)}")

    def end(self) -> Iterator[Line | Table]:
        """Yield what was still waiting for more."""
        yield from self._gathered()
        if self._analysis is not None:
            yield from self._analysed()

    def _stage_over(self, time: str) -> Iterator[Line]:
        if self._stage is not None:
            (text, since), self._stage = self._stage, None
            if _seconds(time) - since >= SHORTEST_STAGE:
                yield Line(_clock(time), f"{text}: {_seconds(time) - since:.1f} s")

    def _is_left_out(self, time: str, header: str, body: Body) -> bool:
        """Say whether others tell of an event: what a log begins with is one line."""
        if header == events.CONFIG:
            self._config = f"{_config(body)}: "
        if header == events.EVAL_ROUND:
            if _seconds(time) - self._evaluated < BETWEEN_EVALUATIONS:
                return True
            self._evaluated = _seconds(time)
        parameters = header == events.HDF5 and body.get("matrix") == "batch_parameters"
        return parameters or header == events.CONFIG

    def _happens(self, header: str, text: str, facts: Body) -> Line:
        words = text if header == events.ERROR else _info(text, facts)  # no traceback here
        if header == events.WARNING:
            return Line(self._time, f"Warning: {words}", "yellow")
        if header == events.ERROR or text == events.STOPPED:
            return Line(self._time, words, "bold red")
        return Line(self._time, words, "green" if text in _DONE else "")

    def _gathered(self) -> Iterator[Line | Table]:
        """Yield one line for many products, and the table of rows."""
        if self._measured:
            begin, end = (_seconds(self._measured[at][0]) for at in (0, -1))
            idxs, self._time = [idx for _, idx in self._measured], _clock(self._measured[-1][0])
            text = f"{len(idxs):,} measured, indices {min(idxs)} ... {max(idxs)}"
            yield Line(self._time, f"{text}, in {end - begin:.1f} s", "green")
            self._measured = []
        if self._rows is not None:
            rows, bodies = self._rows
            yield rows.table(bodies)
            self._rows = None

    def _result(self, header: str, body: Body) -> Iterator[Line | Table]:
        self._where = of_hessian(body, header)
        if "core_S" in body:
            self._analysis = Analysis()
        if self._analysis is not None:
            self._analysis.add(body)
            if "verdict" in body:
                yield from self._analysed()
                yield from self._verdict(body)
            return
        if "overlap_error" in body:
            yield Line(self._time, f"{self._where}: {_accuracy(body)}")
            return
        for rows in ROWS:
            if rows.mark in body:
                before = self._rows[1] if self._rows is not None else []
                self._rows = rows, [*before, body]
                return
        yield Line(self._time, f"{self._where}: {facts_in_words(body, _OF_HESSIAN)}")

    def _analysed(self) -> Iterator[Line | Table]:
        assert self._analysis is not None
        yield Line(self._time, self._analysis.title(self._where), "bold")
        yield self._analysis.table()
        self._analysis = None

    def _verdict(self, body: Body) -> Iterator[Line]:
        style = "green" if body.get("trustworthy") else "bold red"
        yield Line(self._time, f"Verdict: {body['verdict']}", style)
        for remedy in body.get("remedies", []):
            yield Line(self._time, f"What helps: {remedy}", style)


def _clock(time: str) -> str:
    """Return the time of day of a time in logs."""
    return time.partition("_")[2][:8]


def _seconds(time: str) -> float:
    return datetime.strptime(time[:23], "%Y-%m-%d_%H:%M:%S.%f").timestamp()
