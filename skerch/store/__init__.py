"""Measurements and bases in HDF5: what is written appears whole or not at all, and is verified.

Knows layout, provenance and checksums of files; the only part of the package that imports h5py.
What is computed of the files is in :mod:`skerch.core`, which knows nothing of them.
"""

import os

# HDF5 reads this variable once, when it is loaded, and then it goes before ``locking=False``.
if "HDF5_USE_FILE_LOCKING" in os.environ:
    os.environ["HDF5_USE_FILE_LOCKING"] = "FALSE"
