"""What eigenpairs say: errors, verdict, overlap with the largest parameters, the exact answer.

Everything that 10d and 12a log is computed here; nothing is measured, merged or drawn.
Formulas about random subspaces are in :mod:`applesandoranges.subspaces`.
"""
