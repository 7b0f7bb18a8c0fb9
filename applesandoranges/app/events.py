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

# --- test matrices (10c, 10d, 12a)

#: As in published runs, of which nobody who gives both the same RANDOM_SEED would think.
TEST_MATRICES = "Test matrices: 12a draws others than 10c and 10d from the same RANDOM_SEED"

# --- measuring (10c)

PRODUCTS = "Hessian products"
MEASURING = "Performing measurement"
MEASURED = "Measurement successful!"
#: There may be thousands of these.
OF_EACH_PRODUCT = {MEASURING, MEASURED}
SKIPPING = "Skipping measurements that are done"
NOTHING_TO_MEASURE = "Nothing to measure: all requested measurements are done"

# --- between rounds (10e)

NEXT_BLOCK = "Next block made"
BLOCK_IS_THERE = "Nothing to do: the next block is there already"
NO_ROUND_LEFT = "No round is left"
ACCURATE = "The overlap is accurate enough: no other round is needed"
NOT_ACCURATE = "The overlap is not accurate enough yet"

# --- analysis (10d)

SEVERAL_WAYS = "Measurements were computed in several ways"
REMEASURED = "Some measurements were made again and agree"
MERGING = "Merging {} measurements"  # inner, outer
MERGED_BEFORE = "The {} measurements were merged before"
ORTHOGONALISING = "Orthogonalising"
SOLVING = "Solving the core"
ESTIMATING = "Estimating the error"
OVERLAP = "Computing the overlap"
TIES = "Up to {} parameters are equally large where the mask is cut: see num_tied"
WRITING_EIGENVECTORS = "Writing eigenvectors"
OTHER_RECOVERY = "Eigenvectors of another step are of another recovery"
REPLACING_EIGENVECTORS = "Eigenvectors of another recovery will be replaced"
ANALYSED = "Analysis done"

# --- exhaustive test (12a)

SKETCHING = "Sketching"
DECOMPOSING = "Decomposing exactly"
COMPARING = "Comparing recoveries"
TESTED = "Test done"

#: Stages that take a while, or no time at all; each ends with the next event.
STAGES = {
    MERGING.format("inner"), MERGING.format("outer"), ORTHOGONALISING, SOLVING, ESTIMATING, OVERLAP,
    WRITING_EIGENVECTORS, SKETCHING, DECOMPOSING, COMPARING,
}  # fmt: skip

# --- any script

STOPPED = "Stopped before the end"
FAILED = "Stopped by an error in a file of the user"
