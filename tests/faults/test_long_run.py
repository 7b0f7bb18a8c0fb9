"""A run of 1,000 products in one process needs no more memory and files at its end than before."""

import json
import os
from pathlib import Path

import pytest

from applesandoranges.app import log as jsonlog
from skerch.store.measurements import DistributedHDF5
from tests.conftest import MEASURE, Pipeline
from tests.faults.processes import SAME_NUMBERS, finish

pytestmark = pytest.mark.slow

BLOCKS, WARM = 1000, 50


class Sample:
    """Samples memory and open files of the process at each measurement that was logged."""

    def __init__(self, path: Path):
        self.path, self.samples = path, []

    def __call__(self) -> None:
        log = jsonlog.JsonLog.__call__

        def sampling_log(this, header, body):
            log(this, header, body)
            if isinstance(body, list) and body[0] == "Measurement successful!":
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                self.samples.append((pages, len(os.listdir("/proc/self/fd"))))
                if len(self.samples) == BLOCKS:
                    self.path.write_text(json.dumps(self.samples))

        jsonlog.JsonLog.__call__ = sampling_log


def test_memory_and_open_files_stay_constant(trained, tmp_path):
    pipeline = Pipeline(tmp_path, trained.datasets, 500, BLOCKS)
    trained.copy_training(tmp_path / "output" / trained.run_dir.name)
    store, samples = pipeline.lay_out(), tmp_path / "samples.json"
    words = pipeline.measurement_words(store, **SAME_NUMBERS)
    assert finish([MEASURE, *words], tmp_path / "terminal", Sample(samples)) == 0
    memory, files = zip(*json.loads(samples.read_text()), strict=True)
    assert len(memory) == BLOCKS
    assert max(memory[WARM:]) <= 1.05 * memory[WARM - 1]
    assert set(files[WARM:]) == {files[WARM]}
    report = DistributedHDF5.analyze_virtual(store / "inner_ALL.h5", "measured")
    assert len(report.measured) == BLOCKS
