"""Trains mnist_mini and compares sketched with exact eigendecompositions of its Hessian.

At each recorded step, for the training and the test split: the full Hessian, column by column, its
exact eigendecomposition, and the sketched one of 10c and 10d, all in memory. The log has the lines
of 10a, and result lines as those of 10d (headers H_TRAIN RESULT and H_TEST RESULT), with the exact
quantities beside them.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from applesandoranges.analysis.comparing import compare_recoveries
from applesandoranges.analysis.eigenspaces import compare_eigenspaces
from applesandoranges.analysis.exact import (
    check_exact_memory,
    dense_matrix,
    exact_eigh,
    exact_results,
)
from applesandoranges.analysis.overlap import truncation_ranks
from applesandoranges.analysis.report import (
    AnalysedHessian,
    AnalysisConfig,
    check_analysis,
    log_analysis,
    overlap_results,
)
from applesandoranges.app import events
from applesandoranges.app.config import key, run_script
from applesandoranges.app.log import logs_stop
from applesandoranges.app.machine import allow_tf32, budget_bytes, parse_device
from applesandoranges.hessian.engines import ProductConfig
from applesandoranges.hessian.operator import make_hessian
from applesandoranges.problems.parameters import parameter_vector
from applesandoranges.problems.registry import PROBLEMS, check_problem
from applesandoranges.training.loop import TrainingConfig, TrainingRun, prepare_run, train
from skerch.decompositions import check_sizes, seigh
from skerch.errors import InputError


@dataclass
class Config(AnalysisConfig, ProductConfig, TrainingConfig):
    """Keys of this script."""

    WITH_TRAIN_HESSIAN: bool = key("analyse the Hessian of the training split", True)
    WITH_TEST_HESSIAN: bool = key("analyse the Hessian of the test split", True)
    NUM_OUTER: int = key("outer measurements n_o of the sketch, its rank", 355)
    NUM_INNER: int = key("inner measurements n_i of the sketch", 700)
    COMPARE_RECOVERIES: bool = key("also recover by other methods, at equal products", False)


def main(config: Config) -> None:
    """Train; decompose at each recorded step."""
    check_analysis(config)
    splits = ["train"] * config.WITH_TRAIN_HESSIAN + ["test"] * config.WITH_TEST_HESSIAN
    if not splits:
        raise InputError("WITH_TRAIN_HESSIAN and WITH_TEST_HESSIAN are both switched off")
    check_problem(config.PROBLEM)
    dim = PROBLEMS[config.PROBLEM].num_params
    check_sizes((dim, dim), config.NUM_OUTER, config.NUM_INNER)
    check_exact_memory(dim, budget_bytes(config.MEMORY_BUDGET_GB))
    config.product_settings(dim, parse_device(config.DEVICE))
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
        train(run, analyse)
        run.log.info(events.TESTED, {"log": run.log.path})


def analyse_hessian(
    config: Config, run: TrainingRun, step: int, split: str, earlier: dict[int, torch.Tensor]
) -> torch.Tensor:
    """Decompose one Hessian both ways, log the results, and return the exact eigenvectors."""
    problem, where = run.problem, {"step": step}
    data = problem.hessian_data(split, run.num_hessian)
    params = parameter_vector(problem.net).cpu()
    settings = config.product_settings(len(params), problem.device)
    operator = make_hessian(problem.net, problem.criterion, data, run.num_hessian, settings)
    vectors, budget = operator.plan.vectors, budget_bytes(config.MEMORY_BUDGET_GB)
    run.log.info(events.PRODUCTS, where | operator.plan.summary())
    run.log.info(events.SKETCHING, where | {"split": split})
    sketch = seigh(
        operator,
        config.NUM_OUTER,
        config.NUM_INNER,
        run.seed,
        torch.float32,
        problem.device,
        vectors,
        config.SYMMETRIZE_CORE,
        budget,
    )
    header = events.SPLIT_RESULTS[split]
    hessian = AnalysedHessian(operator, params, run.seed, vectors)
    log_analysis(run.log, header, where, sketch, hessian, config)
    run.log.info(events.DECOMPOSING, where | {"split": split})
    H = dense_matrix(operator, vectors, problem.device)
    exact = exact_eigh(H, config.NUM_OUTER)
    for body in exact_results(exact, sketch):
        run.log(header, where | body)
    for body in overlap_results(exact.as_eigh(), params, config.NUM_RANDOM_MASKS, run.seed):
        curves = {f"H_{name}": value for name, value in body.items() if name.startswith("frob")}
        if curves:
            run.log(header, where | curves)
    for body in compare_eigenspaces(exact.as_eigh(), earlier, truncation_ranks(config.NUM_OUTER)):
        run.log(header, where | body)
    if config.COMPARE_RECOVERIES:
        run.log.info(events.COMPARING, where | {"split": split})
        for body in compare_recoveries(
            operator, exact, config.NUM_INNER, run.seed, problem.device, vectors, budget
        ):
            run.log(header, where | body)
    return exact.V.float()


if __name__ == "__main__":
    sys.exit(run_script(__file__, Config, main))
