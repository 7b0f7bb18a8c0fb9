"""Names in a store: of its files, and of the data sets and attributes in them. Imports nothing."""

#: Files of measurements: outer ones from the left and the right, and inner ones; and of the blocks
#: of a basis. ``{}`` is the number of the measurement, written by :data:`NUMBER`, or a word.
LO_FMT = "leftouter_{}.h5"
RO_FMT = "rightouter_{}.h5"
INNER_FMT = "inner_{}.h5"
BASIS_FMT = "basis_{}.h5"
NUMBER = "{:010d}"
#: The word for the virtual file over all measurements, and for the one that holds copies of all.
ALL, MERGED = "ALL", "MERGED"
#: Data sets of a measurement and of the files over many of them.
DATA, FLAGS = "data", "flags"
#: Data sets of a saved decomposition: values, vectors (of one or two sides), residual norms; and
#: the attribute with what else there is to say.
VALUES, VECTORS, LEFT, RIGHT, RESIDUALS = "S", "vectors", "left", "right", "residual_norms"
FACTS = "facts"
#: Attributes: what the data are of, the software that wrote them, and their sum.
PROVENANCE, MADE_WITH, CHECKSUM = "provenance", "made_with", "crc32"
#: Attributes: what kind of thing a file holds, and which measurement (for monolithic files the
#: kind alone); of monolithic files also the hash over the checksums of the measurements that they
#: were made of, and, where these said nothing of themselves, what they were taken for.
KIND, INDEX, SOURCES, ON_TRUST = "kind", "index", "sources_sha256", "taken_on_trust_for"
#: Of blocks of a basis: the hash of all that they hold.
CONTENT = "content_sha256"
#: Flag of a measurement that was not made yet.
INITIAL_FLAG = "initialized"


def kind_of_files(fmt: str) -> str:
    """Return the kind of measurements whose files have names of this format: ``leftouter`` ..."""
    return fmt.removesuffix("_{}.h5")
