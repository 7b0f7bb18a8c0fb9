"""What the experiment scripts share: problems, data, the Hessian operator, logs, overlap, plots."""

import sys
import warnings
from pathlib import Path

import skerch.store  # noqa: F401, before h5py: it sees to file locks
from skerch.streams import failures_to_load_in_one_line

#: Where scripts, settings and packages lie.
REPOSITORY = Path(__file__).parent.parent

# Packages that curvlinops imports use torch.jit, which torch 2.14 deprecates; users can do nothing.
warnings.filterwarnings("ignore", message="`torch.jit", module="torch")

# The numbered scripts: whoever runs one under low limits wants to know which, not where.
_main = Path(getattr(sys.modules["__main__"], "__file__", None) or "")
if _main.resolve().parent == REPOSITORY.resolve() and _main.suffix == ".py":
    failures_to_load_in_one_line(_main.name)
