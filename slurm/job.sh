# shellcheck shell=bash
# What the .slurm files and experiment.sh have in common: the environment, and checks of variables.
# Sourced from the project's directory, under "set -euo pipefail".

((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) ||
    { echo "${0##*/}: expected bash 4.4 or later, found $BASH_VERSION" >&2; exit 2; }

# fail STATUS MESSAGE
fail() {
    printf '%s: %s\n' "${0##*/}" "$2" >&2
    exit "$1"
}

# Sets PYTHON. ACTIVATE is a command that makes the environment available, e.g. "conda activate X".
find_python() {
    if [ -n "${ACTIVATE:-}" ]; then
        set +u # activation scripts of conda and of modules use unset variables
        eval "$ACTIVATE" || fail 2 "ACTIVATE=$ACTIVATE: failed"
        set -u
    fi
    if [ -z "${PYTHON:-}" ]; then
        PYTHON=python3
        if [ -n "${ACTIVATE:-}" ] && command -v python >/dev/null; then
            PYTHON=python
        elif [ -z "${ACTIVATE:-}" ] && [ -x .venv/bin/python ]; then
            PYTHON=.venv/bin/python
        fi
    fi
    command -v "$PYTHON" >/dev/null ||
        fail 2 "no $PYTHON here; set ACTIVATE (a command such as 'conda activate NAME') or PYTHON"
}

# require NAME...: these variables must be set and not empty.
require() {
    local name missing=()
    for name; do
        [ -n "${!name:-}" ] || missing+=("$name")
    done
    [ "${#missing[@]}" -eq 0 ] || fail 2 "set these variables: ${missing[*]}"
}

# require_integers NAME...: these must be whole numbers; checked before any arithmetic with them.
require_integers() {
    local name
    require "$@"
    for name; do
        [[ ${!name} =~ ^(0|[1-9][0-9]{0,17})$ ]] || fail 2 "$name: expected a whole number, got '${!name}'"
    done
}

# resolve NAME: the variable holds a path, or a pattern that exactly one path matches; it becomes
# that path. (Names of run directories hold the time of their start, unknown when jobs are chained.)
resolve() {
    local -n resolved=$1
    [ ! -e "$resolved" ] || return 0
    local IFS='' matches=()
    shopt -s nullglob
    # shellcheck disable=SC2206 # expanding the pattern is the purpose; IFS is empty
    matches=($resolved)
    shopt -u nullglob
    if [ "${#matches[@]}" -ne 1 ] || [ ! -e "${matches[0]}" ]; then
        [ "${#matches[@]}" -ne 1 ] || matches=()
        fail 2 "$1=$resolved: expected one file, found ${#matches[@]}"
    fi
    resolved=${matches[0]}
}

# optional NAME...: sets WORDS to NAME=VALUE for those variables that are not empty.
optional() {
    local name
    WORDS=()
    for name; do
        [ -z "${!name:-}" ] || WORDS+=("$name=${!name}")
    done
}

# The scripts take a quarter of the machine's memory by default (skerch/budget.py); a job may have less.
limit_memory() {
    local megabytes=${SLURM_MEM_PER_NODE:-}
    if [ -z "$megabytes" ] && [ -n "${SLURM_MEM_PER_CPU:-}" ]; then
        megabytes=$((SLURM_MEM_PER_CPU * ${SLURM_CPUS_ON_NODE:-1}))
    fi
    if [ -z "${MEMORY_BUDGET_GB:-}" ] && [ "${megabytes:-0}" -gt 0 ]; then
        MEMORY_BUDGET_GB=$((megabytes / 2000)).$(printf '%03d' $((megabytes % 2000 / 2)))
    fi
}
