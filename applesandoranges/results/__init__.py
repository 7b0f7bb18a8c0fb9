"""What logs say: of which run they are, and the results of each Hessian in them.

Reads our logs and published ones; computes and draws nothing.
Logs as such, line by line, are in :mod:`applesandoranges.app.log`.
"""

from .collect import read_logs

__all__ = ["read_logs"]
