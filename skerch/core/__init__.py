"""What the recoveries are made of: row blocks, orthonormal bases, solves of the core, Krylov bases.

All of it works on tensors and on HDF5 data sets alike, by blocks of rows, and opens no file.
Calls that people make are one floor up, :mod:`skerch.decompositions`; files in
:mod:`skerch.store`.
"""
