"""Imported by the server of :mod:`tests.faults.processes`: what its processes need."""

from tests.conftest import ANALYSE, TRAIN
from tests.faults import processes
from tests.script_loader import load_script

__all__ = ["processes"]

for script in (TRAIN, ANALYSE):
    load_script(script)
