"""Measurements and bases in HDF5: what is written appears whole or not at all, and is verified.

Knows layout, provenance and checksums of files; the only part of the package that imports h5py.
What is computed of the files is in :mod:`skerch.core`, which knows nothing of them.
"""
