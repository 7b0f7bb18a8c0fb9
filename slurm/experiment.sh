# shellcheck shell=bash
# Hands an experiment over to applesandoranges/cluster. Sourced by the 11x scripts before they set
# anything: what is in the environment by then was given, and goes before settings that were kept.
set -euo pipefail

GIVEN=$(compgen -e) CALLER_DIR=$PWD
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
PROJECT_DIR=$PWD
# shellcheck source=slurm/job.sh
source slurm/job.sh

run_experiment() { hand_over run "$@"; }
show_experiment() { hand_over status "$@"; }

# hand_over COMMAND WORD...
hand_over() {
    set +a
    if [[ ${PYTHON:-} = [!/]*/* && -x $CALLER_DIR/$PYTHON ]]; then PYTHON=$CALLER_DIR/$PYTHON; fi
    JOB_PYTHON=${PYTHON:-}
    if [ -x "${PYTHON:-}" ]; then # then ACTIVATE may be of use to the jobs alone
        set +u
        eval "${ACTIVATE:-}" || true
        set -u
    else
        find_python
    fi
    export CALLER_DIR GIVEN JOB_PYTHON PROJECT_DIR PYTHON
    exec "$PYTHON" -m applesandoranges.cluster "$1" "${0##*/}" "${@:2}"
}

set -a # what follows are settings
