"""The range finder with Rayleigh-Ritz, in two rounds [HMT2011]."""

from __future__ import annotations

from .rounds import Krylov


class Hmt(Krylov):
    """Range finder, then Rayleigh-Ritz [HMT2011, 4.1 and 5.3]: the second block alone."""

    basis_begin = 1
