#!/usr/bin/env bash
# Overlap of magnitudes and Hessian eigenspaces: 3c3d on CIFAR-10.
# Trains, then measures and analyses one Hessian per recorded step and split. See --help.
set -euo pipefail
# shellcheck source=slurm/experiment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/slurm/experiment.sh"

# The experiment. Each setting can also be given by a variable of its name.
: "${OBS_DATASETS_PATH:=$HOME/datasets/DeepOBS}"
: "${PROBLEM:=cifar10det_3c3d}" "${NUM_PARAMS:=895210}" "${RANDOM_SEED:=12345}" "${OPTIMIZER:=SGD}"
: "${NUM_HESSIAN_DATAPOINTS:=500}"
: "${RECORD_BEGINNING:=0}" "${RECORD_EVERY:=2000}" "${MAX_RECORD_STEP:=8000}"
: "${MAX_STEPS:=}" # empty: one step after the last recorded one; 8001, as published
: "${WITH_EVAL:=true}" # evaluations of all splits, each epoch
: "${SPLITS:=train test}"
: "${NUM_OUTER:=1000}" "${NUM_INNER:=2000}" "${MEAS_PER_JOB:=400}"
# Off, as published; true also estimates the error of each sketch, by so many more products.
: "${WITH_A_POSTERIORI:=false}" "${NUM_A_POSTERIORI:=30}"
: "${SYMMETRIZE_CORE:=true}" # false: one triangle of the core only, as published; less accurate
: "${EIGENVECTORS:=0}" # leading eigenvectors that each analysis keeps, and compares with other steps
: "${RECOVERY:=seigh}" "${NUM_ROUNDS:=}" "${BLOCK_SIZE:=}" # krylov, hmt, nystrom: more accurate
: "${TRACK:=false}" # each Hessian starts from the EIGENVECTORS of the step before (krylov, hmt)
: "${ACCURACY:=}" # relative error of the overlap at NUM_OUTER at which rounds end (krylov)
: "${CURVATURE:=}" "${PARAMETERS:=}" # ggn or fisher; of some parameters only, of which NUM_PARAMS is the number

# The cluster. What is empty is left to its defaults.
: "${PARTITION:=}" "${ACCOUNT:=}" "${GRES:=}" "${CPUS_PER_TASK:=4}" "${SBATCH_OPTIONS:=}"
: "${TIME_TRAIN:=12:00:00}" "${TIME_MEASURE:=12:00:00}" "${TIME_ANALYSE:=12:00:00}"
: "${MEM_TRAIN:=8G}" "${MEM_MEASURE:=16G}" "${MEM_ANALYSE:=32G}"
: "${ACTIVATE:=}" # e.g. 'source ~/miniconda3/bin/activate apples'; empty: .venv or python3

run_experiment "$@"
