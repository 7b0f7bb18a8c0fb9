"""Programs of one purpose each: the top eigenpairs of a network's loss Hessian, by one package.

Each file is what a user of that package writes, and is run on its own by ``run.py``: packages of
the same name as ours must not meet it. ``eigenpairs`` takes a network, a loss (a mean), one
mini-batch and ``k``, and returns eigenvalues ``[k]``, eigenvectors ``[D, k]`` and how many products
it took.
"""
