"""From a recorded step to eigenpairs: which vectors, measure, advance, solve.

One file for each recovery, and `sizes` has those of all of them.
What the eigenpairs mean is in :mod:`applesandoranges.analysis`.
"""
