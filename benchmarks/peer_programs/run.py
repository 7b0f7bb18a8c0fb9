"""Run one program: ``run.py PROGRAM INPUT OUTPUT K REPEATS``; knows nothing of this repository."""

import copy
import importlib.util
import sys
import time
import warnings

import numpy as np
import torch


def main(program: str, source: str, target: str, k: str, repeats: str) -> None:
    """Write eigenpairs, number of products (-1 if unknown) and seconds into ``target``."""
    spec = importlib.util.spec_from_file_location("program", program)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # The file was written a moment before by the benchmark that starts this program.
    given = torch.load(source, weights_only=False)
    warnings.simplefilter("ignore")
    seconds = []
    for _ in range(int(repeats)):
        torch.manual_seed(0)
        net = copy.deepcopy(given["net"])
        begin = time.perf_counter()
        S, V, products = module.eigenpairs(net, given["loss"], given["X"], given["y"], int(k))
        seconds.append(time.perf_counter() - begin)
    S, V = (np.asarray(torch.as_tensor(x).detach().cpu(), dtype=np.float64) for x in (S, V))
    np.savez(target, S=S, V=V, products=-1 if products is None else products, seconds=min(seconds))


if __name__ == "__main__":
    sys.path.pop(0)  # the directory of the programs
    main(*sys.argv[1:])
