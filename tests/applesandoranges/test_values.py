"""Texts are read as they are written, or refused; never as other values."""

import math

import pytest
import yaml

from applesandoranges.app.values import LIST_HELP, AsWritten, read_value
from applesandoranges.training.settings import load_settings
from skerch.__main__ import main as skerch
from skerch.errors import InputError
from skerch.written import decimal_number, whole_number

READ = [
    (int, "010", 10), (int, "0009", 9), (int, "-007", -7), (int, "+3", 3), (int, " 4 ", 4),
    (int, 5, 5),
    (float, "010", 10.0), (float, "1e3", 1000.0), (float, "1.", 1.0), (float, ".5", 0.5),
    (float, "007.50e-01", 0.75), (float, "3", 3.0), (float, 3, 3.0), (float, "-.inf", -math.inf),
    (bool, "true", True), (bool, "FALSE", False), (bool, "yes", True), (bool, "No", False),
    (bool, "on", True), (bool, "off", False), (bool, "0", False), (bool, True, True),
    (int | None, "null", None), (int | None, "", None), (int | None, None, None),
    (int | None, "08", 8), (list[int] | None, "None", None),
    (list[int], "[007,008,009,010,011]", [7, 8, 9, 10, 11]), (list[int], "0,100", [0, 100]),
    (list[int], "[0, 100]", [0, 100]), (list[int], "012", [12]), (list[int], "[]", []),
    (list[int], "-1", [-1]), (list[int], "[0,1,]", [0, 1]), (list[int], "0,1,", [0, 1]),
    (list[int], "0-3", [0, 1, 2, 3]), (list[int], "0:3", [0, 1, 2]),
    (list[int], "008-010", [8, 9, 10]), (list[int], "0-2,7,10:12", [0, 1, 2, 7, 10, 11]),
    (list[int], ["010", 3], [10, 3]),
    (list[str], "train", ["train"]), (list[str], "[train, test]", ["train", "test"]),
    (list[str], "train,test", ["train", "test"]), (list[str], "['a', \"b c\"]", ["a", "b c"]),
    (list[str], "[010,yes,null]", ["010", "yes", "null"]), (list[float], "1e3,0.5", [1000.0, 0.5]),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "text", "value"), READ)
def test_read_as_written(annotation, text, value):
    found = read_value(text, annotation)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [(int, text) for text in ("1:30", "0x10", "0o10", "0b1", "1_000", "1e3", "1.0", "yes", "٣",
                              "²", "", "null", "--1", "1 2", ".inf", True, 1.0, None)]
    + [(float, text) for text in ("1:30", "0x10", "1_0.5", "1,5", "e3", ".", "yes", "", True)]
    + [(bool, text) for text in ("2", "maybe", "y", "", "1.0", 1, None)]
    + [(list[int], text) for text in ("[1:30]", "[0-3]", "3-1", "5:5", "0:99999999999", "[[0]]",
                                      "0,,1", ",", "[0", "0]", "", "null", "1:30:40", "0--3", "[a]",
                                      3, [True], ["1:30"])]
    + [(list[str], text) for text in ("", "[a", "{a: b}", "a,,b", "[[a]]", "'a'b")],
)  # fmt: skip
def test_anything_else_is_refused(annotation, text):
    with pytest.raises(ValueError, match=r"\w"):
        read_value(text, annotation)


def test_the_help_says_what_ranges_hold():
    assert read_value("0-99", list[int])[-1] == 99
    assert "0-99 (with 99)" in LIST_HELP
    assert read_value("0:100", list[int])[-1] == 99
    assert "0:100 (without 100)" in LIST_HELP


WRITTEN = "{batch_size: BATCH, num_epochs: 1, SGD: {opt_hpars: {lr: LR}}}"


def settings(tmp_path, batch="4", lr="1"):
    path = tmp_path / "conf.yaml"
    path.write_text("mnist_mini: " + WRITTEN.replace("BATCH", batch).replace("LR", lr))
    return load_settings(path, "mnist_mini", "SGD")


@pytest.mark.parametrize(
    ("text", "number"), [("010", 10), ("0128", 128), ('"4"', 4), ("!!int 010", 10)]
)
def test_numbers_of_a_settings_file(tmp_path, text, number):
    assert settings(tmp_path, batch=text).batch_size == number
    assert settings(tmp_path, lr=text).opt_hpars == {"lr": float(number)}


@pytest.mark.parametrize("text", ["1:30", "0x10", "1_0", "yes", "[4]", "!!int 1:30", "2026-01-01"])
def test_other_numbers_of_a_settings_file_are_refused(tmp_path, text):
    with pytest.raises(InputError, match=r"batch_size: expected int, got"):
        settings(tmp_path, batch=text)
    with pytest.raises(InputError, match=r"lr: expected float, got"):
        settings(tmp_path, lr=text)


def test_anchors_merges_and_interpolations_still_work(tmp_path):
    path = tmp_path / "conf.yaml"
    path.write_text(
        "fmnist_mlp: &base {batch_size: 08, num_epochs: 2, SGD: {opt_hpars: {lr: 0.1}}}\n"
        "mnist_mini: {<<: *base, num_epochs: '${fmnist_mlp.batch_size}'}\n"
    )
    found = load_settings(path, "mnist_mini", "SGD")
    assert (found.batch_size, found.num_epochs) == (8, 8)


@pytest.mark.parametrize("text", ["a: 1\na: 2", "x: {b: 1, b: 1}"])
def test_a_key_that_stands_twice_is_refused(text):
    with pytest.raises(yaml.YAMLError, match="twice"):
        yaml.load(text, Loader=AsWritten)


@pytest.mark.parametrize("number", [0, 7, 10, 100, 123456789])
@pytest.mark.parametrize("zeros", ["", "0", "000"])
def test_leading_zeros_mean_nothing(number, zeros):
    assert whole_number(f"{zeros}{number}") == number == decimal_number(f"{zeros}{number}")


@pytest.mark.parametrize("text", ["1_000", "0x10", "1:30", "٣"])
def test_the_command_line_of_skerch_refuses_the_same(capsys, text):
    with pytest.raises(SystemExit) as end:
        skerch(["prio_hpars", "--shape", "10,10", "--budget", text])
    assert end.value.code == 2
    assert text in capsys.readouterr().err
