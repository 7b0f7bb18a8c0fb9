#!/usr/bin/env bash
# State of an experiment of an 11x script: what is done, failed and running of each Hessian, the time
# left, and the command that finishes it. Usage: ./11s_status.sh RUN_DIR
set -euo pipefail
# shellcheck source=slurm/experiment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/slurm/experiment.sh"

show_experiment "$@"
