"""The words of log events: headers, and the texts of INFO and WARNING lines.

Whoever writes an event and whoever looks for it (resume, status, figures) take its name from here.
Words of published logs and of earlier versions are translated where logs are read.
"""

# --- headers

CONFIG = "CONFIG"
GLOBALS = "GLOBALS"
INFO = "INFO"
WARNING = "WARNING"
ERROR = "ERROR"
RESULT = "RESULT"
HDF5 = "HDF5"
EVAL_ROUND = "EVAL ROUND"
TRAINING_BATCH = "TRAINING BATCH"
FINAL_EVALUATION = "FINAL EVALUATION"

#: Results of 12a, by split.
SPLIT_RESULTS = {"train": "H_TRAIN RESULT", "test": "H_TEST RESULT"}

# --- training (10a, 12a)

RESUMED = "Going on with an earlier training"
FROM_CHECKPOINT = "Going on from a checkpoint"
TRAINING_DONE = "Training done"

# --- measuring (10c)

PRODUCTS = "Hessian products"
MEASURING = "Performing measurement"
MEASURED = "Measurement successful!"
SKIPPING = "Skipping measurements that are done"
NOTHING_TO_MEASURE = "Nothing to measure: all requested measurements are done"

# --- between rounds (10e)

NEXT_BLOCK = "Next block made"
BLOCK_IS_THERE = "Nothing to do: the next block is there already"
INVARIANT = "The basis is invariant under the Hessian: no round is left"

# --- analysis (10d)

REMEASURED = "Some measurements were made again and agree"
MERGING = "Merging {} measurements"  # inner, outer
MERGED_BEFORE = "The {} measurements were merged before"
ORTHOGONALISING = "Orthogonalising"
SOLVING = "Solving the core"
ESTIMATING = "Estimating the error"
OVERLAP = "Computing the overlap"
WRITING_EIGENVECTORS = "Writing eigenvectors"
ANALYSED = "Analysis done"

# --- exhaustive test (12a)

SKETCHING = "Sketching"
DECOMPOSING = "Decomposing exactly"
COMPARING = "Comparing recoveries"
TESTED = "Test done"

# --- any script

STOPPED = "Stopped before the end"
