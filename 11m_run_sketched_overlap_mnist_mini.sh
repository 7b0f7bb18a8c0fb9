#!/usr/bin/env bash
# Overlap of magnitudes and Hessian eigenspaces: mnist_mini, half an hour on a laptop; a few minutes
# with RECORD_EVERY=300 MEAS_PER_JOB=710, as each task starts Python, which takes seconds.
# Trains, then measures and analyses one Hessian per recorded step and split. See --help.
set -euo pipefail
# shellcheck source=slurm/experiment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/slurm/experiment.sh"

# The experiment. Each setting can also be given by a variable of its name.
: "${OBS_DATASETS_PATH:=$HOME/datasets/DeepOBS}"
: "${PROBLEM:=mnist_mini}" "${NUM_PARAMS:=7030}" "${RANDOM_SEED:=12345}" "${OPTIMIZER:=SGD}"
: "${NUM_HESSIAN_DATAPOINTS:=500}"
: "${RECORD_BEGINNING:=0}" "${RECORD_EVERY:=100}" "${MAX_RECORD_STEP:=1000}" "${MAX_STEPS:=$MAX_RECORD_STEP}"
: "${FIT_DEFAULTS:=true}" # data with fewer steps or points: the sizes that they can serve, instead of these
: "${WITH_EVAL:=true}" # evaluations of all splits, each epoch
: "${SPLITS:=train test}"
: "${NUM_OUTER:=355}" "${NUM_INNER:=710}" "${MEAS_PER_JOB:=71}"
: "${WITH_A_POSTERIORI:=true}" "${NUM_A_POSTERIORI:=30}"
: "${SYMMETRIZE_CORE:=true}" # false: one triangle of the core only, as published; less accurate
: "${EIGENVECTORS:=0}" # leading eigenvectors that each analysis keeps, and compares with other steps
: "${RECOVERY:=seigh}" "${NUM_ROUNDS:=}" "${BLOCK_SIZE:=}" # krylov, hmt, nystrom: more accurate
: "${TRACK:=false}" # each Hessian starts from the EIGENVECTORS of the step before (krylov, hmt)
: "${ACCURACY:=}" # relative error of the overlap at NUM_OUTER at which rounds end (krylov)
: "${CURVATURE:=}" "${PARAMETERS:=}" # ggn or fisher; of some parameters only, of which NUM_PARAMS is the number

# The cluster. What is empty is left to its defaults.
: "${PARTITION:=}" "${ACCOUNT:=}" "${GRES:=}" "${CPUS_PER_TASK:=1}" "${SBATCH_OPTIONS:=}"
: "${TIME_TRAIN:=01:00:00}" "${TIME_MEASURE:=01:00:00}" "${TIME_ANALYSE:=01:00:00}"
: "${MEM_TRAIN:=4G}" "${MEM_MEASURE:=4G}" "${MEM_ANALYSE:=4G}"
: "${ACTIVATE:=}" # e.g. 'source ~/miniconda3/bin/activate apples'; empty: .venv or python3

run_experiment "$@"
