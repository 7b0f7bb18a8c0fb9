"""Trains mnist_mini and compares sketched with exact eigendecompositions of its Hessian.

At each recorded step, for the training and the test split: the full Hessian, column by column, its
exact eigendecomposition, and the sketched one of 10c and 10d, all in memory. The log has the lines
of 10a, and result lines as those of 10d (headers H_TRAIN RESULT and H_TEST RESULT), with the exact
quantities beside them.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from applesandoranges.analysis.keys import AnalysisConfig
from applesandoranges.app.keys import key, run_script, starting
from applesandoranges.hessian.keys import ProductConfig
from applesandoranges.training.keys import TrainingConfig


@dataclass
class Config(AnalysisConfig, ProductConfig, TrainingConfig):
    """Keys of this script."""

    WITH_TRAIN_HESSIAN: bool = key("analyse the Hessian of the training split", True)
    WITH_TEST_HESSIAN: bool = key("analyse the Hessian of the test split", True)
    NUM_OUTER: int = key("outer measurements n_o of the sketch, its rank", 355)
    NUM_INNER: int = key("inner measurements n_i of the sketch", 700)
    COMPARE_RECOVERIES: bool = key("also recover by other methods, at equal products", False)
    EIGENVECTORS: int = key("leading exact eigenvectors to write, by parameter name", 0)


with starting(__name__, Config):  # --help and wrong keys end here, before PyTorch is loaded
    import torch

    from applesandoranges.analysis.comparing import compare_recoveries
    from applesandoranges.analysis.eigenspaces import (
        EigenvectorFiles,
        check_number,
        compare_eigenspaces,
        save_eigenvectors,
    )
    from applesandoranges.analysis.exact import (
        check_exact_memory,
        dense_matrix,
        exact_eigh,
        exact_results,
    )
    from applesandoranges.analysis.keys import check_analysis
    from applesandoranges.analysis.overlap import truncation_ranks
    from applesandoranges.analysis.report import AnalysedHessian, log_analysis, overlap_results
    from applesandoranges.app import events
    from applesandoranges.app.log import logs_stop
    from applesandoranges.app.machine import allow_tf32, budget_bytes, parse_device
    from applesandoranges.app.spelling import check_name
    from applesandoranges.hessian.engines import product_settings
    from applesandoranges.hessian.operator import CURVATURES, make_hessian
    from applesandoranges.measurement.sizes import curvature_facts
    from applesandoranges.problems.parameters import parameter_shapes, parameter_vector, select
    from applesandoranges.problems.problem import num_params
    from applesandoranges.training.loop import train
    from applesandoranges.training.run import TrainingRun, prepare_run
    from skerch.decompositions import check_sizes, seigh
    from skerch.errors import InputError
    from skerch.results import Eigh


def main(config: Config) -> None:
    """Train; decompose at each recorded step."""
    check_analysis(config)
    check_number(config.EIGENVECTORS)
    splits = ["train"] * config.WITH_TRAIN_HESSIAN + ["test"] * config.WITH_TEST_HESSIAN
    if not splits:
        raise InputError("WITH_TRAIN_HESSIAN and WITH_TEST_HESSIAN are both switched off")
    check_name("CURVATURE", config.CURVATURE, CURVATURES)
    dim = num_params(config.PROBLEM, config.PARAMETERS)
    check_sizes((dim, dim), config.NUM_OUTER, config.NUM_INNER)
    check_exact_memory(dim, budget_bytes(config.MEMORY_BUDGET_GB))
    product_settings(config, dim, parse_device(config.DEVICE))
    allow_tf32(config.ALLOW_TF32)
    run = prepare_run(config, Path(__file__).name)

    done: list[tuple[int, str]] = []
    # Exact eigenvectors of the steps so far: small beside the exact Hessian.
    earlier: dict[str, dict[int, torch.Tensor]] = {split: {} for split in splits}

    def analyse(step: int) -> None:
        for split in splits:
            earlier[split][step] = analyse_hessian(config, run, step, split, earlier[split])
            done.append((step, split))

    with run.log, logs_stop(run.log, lambda: {"analysed": done}):
        # As published; those of 10c and 10d are one seed further.
        run.log.info(events.TEST_MATRICES, {"seed_phi": run.seed, "seed_psi": run.seed + 1})
        train(run, analyse)
        run.log.info(events.TESTED, {"log": run.log.path})


def sketch_hessian(
    config: Config, run: TrainingRun, step: int, split: str
) -> tuple[AnalysedHessian, Eigh]:
    """Make the operator of a Hessian, sketch it, and log what the sketch says."""
    problem, where, header = run.problem, {"step": step}, events.SPLIT_RESULTS[split]
    names = select(problem.net, config.PARAMETERS)
    params = parameter_vector(problem.net, names).cpu()
    operator = make_hessian(
        problem.net,
        problem.criterion,
        problem.hessian_data(split, run.num_hessian),
        run.num_hessian,
        product_settings(config, len(params), problem.device),
        curvature=config.CURVATURE,
        names=names,
        known=problem.known,
    )
    vectors = operator.plan.vectors
    run.log.info(events.PRODUCTS, where | operator.plan.summary())
    run.log.info(events.SKETCHING, where | {"split": split})
    sketch = seigh(
        operator,
        config.NUM_OUTER,
        config.NUM_INNER,
        run.seed,
        torch.float32,
        device=problem.device,
        batch_size=vectors,
        symmetrize=config.SYMMETRIZE_CORE,
        memory_budget=budget_bytes(config.MEMORY_BUDGET_GB),
    )
    if config.PARAMETERS.strip():
        run.log(header, where | {"num_selected_params": len(params), "parameter_names": names})
    shapes = parameter_shapes(problem.net, names)
    hessian = AnalysedHessian(operator, params, run.seed, vectors, shapes)
    log_analysis(run.log, header, where, sketch, hessian, config)
    return hessian, sketch


def exact_curves(config: Config, hessian: AnalysedHessian, eigh: Eigh) -> Iterator[dict[str, Any]]:
    """Yield the overlap of the exact eigenvectors, and what it is compared with."""
    for body in overlap_results(eigh, hessian.params, config.NUM_RANDOM_MASKS, hessian.seed):
        curves = {
            f"H_{name}": value
            for name, value in body.items()
            if name.startswith(("frob", "z_scores"))
        }
        if curves:
            yield curves


def analyse_hessian(
    config: Config, run: TrainingRun, step: int, split: str, earlier: dict[int, torch.Tensor]
) -> torch.Tensor:
    """Decompose one Hessian both ways, log the results, and return the exact eigenvectors."""
    hessian, sketch = sketch_hessian(config, run, step, split)
    where, device = {"step": step}, run.problem.device

    def log(body: dict[str, Any]) -> None:
        run.log(events.SPLIT_RESULTS[split], where | body)

    run.log.info(events.DECOMPOSING, where | {"split": split})
    exact = exact_eigh(dense_matrix(hessian.operator, hessian.vectors, device), config.NUM_OUTER)
    eigh = exact.as_eigh()
    for body in chain(
        exact_results(exact, sketch),
        exact_curves(config, hessian, eigh),
        compare_eigenspaces(eigh, earlier, truncation_ranks(config.NUM_OUTER)),
    ):
        log(body)
    if config.EIGENVECTORS:
        names = list(hessian.shapes)
        chosen = curvature_facts(config.CURVATURE, config.PARAMETERS, names)
        facts = run.hessian_facts(step, split) | chosen
        files = EigenvectorFiles(run.run_dir, facts, hessian.shapes, {"recovery": "exact"})
        log(save_eigenvectors(files, eigh, config.EIGENVECTORS))
    if config.COMPARE_RECOVERIES:
        run.log.info(events.COMPARING, where | {"split": split})
        budget = budget_bytes(config.MEMORY_BUDGET_GB)
        for body in compare_recoveries(
            hessian.operator, exact, config.NUM_INNER, run.seed, device, hessian.vectors, budget
        ):
            log(body)
    return exact.V.float()


if __name__ == "__main__":
    sys.exit(run_script(__file__, Config, main))
