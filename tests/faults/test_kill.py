"""SIGKILL at random moments: five repeats of each stage (``make faults`` makes fifty)."""

import pytest

from tests.faults.kill import STAGES, harass, make_materials

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("faults_kill")]


@pytest.fixture(scope="module")
def materials(tmp_path_factory):
    return make_materials(tmp_path_factory.mktemp("kill"))


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_gives_the_same_numbers_when_it_is_run_again(tmp_path, materials, stage):
    count = harass(stage, materials, repeats=5, seed=1, root=tmp_path)
    assert not count.failures
    assert count.same_numbers == 5
    assert count.killed > 0
