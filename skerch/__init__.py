"""Sketched, matrix-free decompositions of linear operators with PyTorch.

The mathematics follows Tropp, Yurtsever, Udell and Cevher 2019, "Streaming Low-rank Matrix
Approximation with an Application to Scientific Simulation" (arXiv 1902.08651), quoted as
[TYUC2019] throughout, specialised to symmetric operators.
"""

#: File names of the measurements in a store: outer from the left and the right, and inner ones; and
#: of the blocks of a basis.
LO_FMT = "leftouter_{}.h5"
RO_FMT = "rightouter_{}.h5"
INNER_FMT = "inner_{}.h5"
BASIS_FMT = "basis_{}.h5"
