#!/usr/bin/env bash
# Overlap of magnitudes and Hessian eigenspaces: ResNet-18 on ImageNet.
# Trains, then measures and analyses one Hessian per recorded step and split. See --help.
set -euo pipefail
# shellcheck source=slurm/experiment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/slurm/experiment.sh"

# The experiment. Each setting can also be given by a variable of its name.
: "${OBS_DATASETS_PATH:=$HOME/datasets/DeepOBS}"
: "${PROBLEM:=imagenetdet_resnet18}" "${NUM_PARAMS:=11689512}" "${RANDOM_SEED:=12345}" "${OPTIMIZER:=SGD}"
: "${NUM_HESSIAN_DATAPOINTS:=5000}"
: "${RECORD_BEGINNING:=0}" "${RECORD_EVERY:=2000}" "${MAX_RECORD_STEP:=8000}"
: "${MAX_STEPS:=}" # empty: one step after the last recorded one; 8001, as published
: "${WITH_EVAL:=false}" # as published; true evaluates all splits, 150,000 images at each epoch
: "${SPLITS:=test}"
: "${NUM_OUTER:=1500}" "${NUM_INNER:=3000}" "${MEAS_PER_JOB:=100}"
# Off, as published; true also estimates the error of each sketch, by so many more products.
: "${WITH_A_POSTERIORI:=false}" "${NUM_A_POSTERIORI:=30}"
: "${SYMMETRIZE_CORE:=true}" # false: one triangle of the core only, as published; less accurate
: "${EIGENVECTORS:=0}" # leading eigenvectors that each analysis keeps, and compares with other steps
: "${RECOVERY:=seigh}" "${NUM_ROUNDS:=}" "${BLOCK_SIZE:=}" # krylov, hmt, nystrom: more accurate
: "${TRACK:=false}" # each Hessian starts from the EIGENVECTORS of the step before (krylov, hmt)
: "${ACCURACY:=}" # relative error of the overlap at NUM_OUTER at which rounds end (krylov)
: "${CURVATURE:=}" "${PARAMETERS:=}" # ggn or fisher; of some parameters only, of which NUM_PARAMS is the number

# The cluster. What is empty is left to its defaults. The published training took 31 hours.
: "${PARTITION:=}" "${ACCOUNT:=}" "${GRES:=}" "${CPUS_PER_TASK:=8}" "${SBATCH_OPTIONS:=}"
: "${TIME_TRAIN:=48:00:00}" "${TIME_MEASURE:=24:00:00}" "${TIME_ANALYSE:=24:00:00}"
: "${MEM_TRAIN:=32G}" "${MEM_MEASURE:=32G}" "${MEM_ANALYSE:=64G}"
: "${ACTIVATE:=}" # e.g. 'source ~/miniconda3/bin/activate apples'; empty: .venv or python3

run_experiment "$@"
