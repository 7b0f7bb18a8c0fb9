#!/usr/bin/env bash
# State of an experiment of an 11x script: what is done, failed and running of each Hessian, the time
# left, and the command that finishes it. Usage: ./11s_status.sh RUN_DIR
set -euo pipefail
if [ $# -ne 1 ] || [ "$1" = --help ] || [ "$1" = -h ]; then
    echo "Usage: ./${0##*/} RUN_DIR    (the run directory of 10a, or the experiment's around it)" >&2
    exit 2
fi
RUN_DIR=$1
# shellcheck source=slurm/orchestration.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/slurm/orchestration.sh"

[ -e "$EXPERIMENT_DIR/settings" ] || fail 2 "$EXPERIMENT_DIR: was not started by an 11x script"
STORE_DIR=${MEAS_DIR:-$EXPERIMENT_DIR/measurements}
resume_command
resume=$REPLY
find_python
"$PYTHON" -m applesandoranges.cluster.progress status --settings "$EXPERIMENT_DIR/settings" \
    --run_dir "$RUN_DIR" --store "$STORE_DIR" --queue <(queue_lines) --resume_command "$resume"
