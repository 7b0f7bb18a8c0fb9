"""From a recorded step to eigenpairs: which vectors, measure, advance, solve.

One file for each recovery, and one home for sizes, layout and provenance of the store.
What the eigenpairs mean is in :mod:`applesandoranges.analysis`.
"""
