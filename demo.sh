#!/usr/bin/env bash
# Trains mnist_mini on 5,000 real digits, sketches the Hessians of steps 0 and 300, and draws how much
# the largest parameters overlap with their top eigenspaces. Usage: ./demo.sh [DIRECTORY]
# SCREEN=json shows the lines of the logs instead of words.
set -euo pipefail
cd "$(dirname "$0")"

python=${PYTHON:-python3}
root=${1:-output/demo}
datasets=$root/datasets
screen=SCREEN=${SCREEN:-people}
case $screen in
    SCREEN=people | SCREEN=json) ;;
    *) echo "demo.sh: expected SCREEN=people or SCREEN=json, got ${screen#*=}" >&2; exit 2 ;;
esac
mkdir -p "$root"
work=$(mktemp -d "$root/$(date +%Y_%m_%d_%H_%M_%S).XXXX")
n_o=355 n_i=710

step() { printf '\n== %s\n' "$*"; }

step "Real digits in $datasets"
"$python" 09a_prepare_datasets.py "$screen" "OBS_DATASETS=$datasets" SOURCE=embedded

step "Training mnist_mini for 300 steps"
"$python" 10a_gather_params_grads.py "$screen" "OBS_DATASETS=$datasets" RANDOM_SEED=12345 \
    RECORD_STEPS='[0,300]' MAX_STEPS=300 NUM_HESSIAN_DATAPOINTS=500 "OUTPUT_DIR=$work"
log=$(echo "$work"/*/*'[10a_gather_params_grads.py].log')
params=$(echo "$work"/*/*__params.h5)

step "A store for $n_o outer and $n_i inner measurements"
store=$work/measurements
"$python" -m skerch create_hdf5_layout --hdf5dir "$store" --params "$params" \
    --outer $n_o --inner $n_i --sym

for at in 0 300; do
    step "Measuring the Hessian of step $at"
    "$python" 10c_hessian_hdf5_measurements.py "$screen" "OBS_DATASETS=$datasets" "TRAINING_LOGPATH=$log" \
        "PARAMS_PATH=$params" "MEASUREMENTS_DIR=$store" STEP=$at NUM_OUTER=$n_o NUM_INNER=$n_i \
        MEASUREMENT_IDXS=0-$((n_i - 1))
    step "Analysing the Hessian of step $at"
    "$python" 10d_core_and_analysis.py "$screen" "OBS_DATASETS=$datasets" "TRAINING_LOGPATH=$log" \
        "PARAMS_PATH=$params" STEP=$at \
        "INNER_VIRTUAL=$store/inner_ALL.h5" "OUTER_VIRTUAL=$store/leftouter_ALL.h5" \
        "INNER_MONOLITHIC=$store/inner_MERGED.h5" "OUTER_MONOLITHIC=$store/leftouter_MERGED.h5"
done

step "Figure and table"
"$python" 13a_plot_overlap.py "$screen" "LOGS=$(dirname "$log")" "OUTPUT_DIR=$work/figures"

step "Done"
echo "logs:    $(dirname "$log")"
echo "figures: $work/figures/overview.png"
