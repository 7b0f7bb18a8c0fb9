"""What the experiment scripts share: problems, data, the Hessian operator, logs, overlap, plots."""

import warnings
from pathlib import Path

#: Where scripts, settings and packages lie.
REPOSITORY = Path(__file__).parent.parent

# Packages that curvlinops imports use torch.jit, which torch 2.14 deprecates; users can do nothing.
warnings.filterwarnings("ignore", message="`torch.jit", module="torch")
