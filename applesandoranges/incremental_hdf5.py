"""Door under the former name of training.params_file."""

from .training.params_file import Entry, IncrementalHDF5

__all__ = ["Entry", "IncrementalHDF5"]
