# shellcheck shell=bash
# Chains the jobs of one experiment, on Slurm or on this machine. Sourced by the 11x scripts, which
# then set their settings and call run_experiment.
#
# Everything of an experiment lies in its directory, OUTPUT_DIR/<script>_<time>: the run directory of
# 10a, measurements/, slurm_logs/ and the file "settings". The chain needs no process: each job
# names those that it comes after, and jobs find the run directory of 10a by a pattern.
set -euo pipefail

CALLER_DIR=$PWD GIVEN='' LOCATED=''
unset RESUME # a variable of 10a.slurm, set only here
for name in ACTIVATE PYTHON; do
    [ -z "${!name:-}" ] || GIVEN+="$name "
done
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
PROJECT_DIR=$PWD
# shellcheck source=slurm/job.sh
source slurm/job.sh

# Settings that belong to an experiment. They are kept with it; those in the environment go first.
SETTINGS=(
    PROBLEM NUM_PARAMS RANDOM_SEED OPTIMIZER TUNING_CONF OBS_DATASETS_PATH NUM_HESSIAN_DATAPOINTS
    RECORD_BEGINNING RECORD_EVERY MAX_RECORD_STEP MAX_STEPS WITH_EVAL SPLITS
    NUM_OUTER NUM_INNER MEAS_PER_JOB MEAS_FLAG DTYPE WITH_A_POSTERIORI NUM_A_POSTERIORI
    SYMMETRIZE_CORE EIGENVECTORS MEAS_DIR KEEP_MEASUREMENTS DEVICE VECTORS_PER_PRODUCT MEMORY_BUDGET_GB
    RECOVERY NUM_ROUNDS BLOCK_SIZE PER_ROUND
    LAUNCHER LOCAL_JOBS PARTITION ACCOUNT GRES CPUS_PER_TASK SBATCH_OPTIONS MAX_RUNNING
    TIME_TRAIN TIME_MEASURE TIME_ANALYSE TIME_SMALL MEM_TRAIN MEM_MEASURE MEM_ANALYSE MEM_SMALL
)
INTEGERS=(
    NUM_PARAMS RANDOM_SEED NUM_HESSIAN_DATAPOINTS RECORD_BEGINNING RECORD_EVERY MAX_RECORD_STEP
    NUM_OUTER NUM_INNER MEAS_PER_JOB EIGENVECTORS
)

usage() {
    cat <<EOF
Usage: [NAME=VALUE ...] ./${0##*/} [--dry-run] [--wait]

  --dry-run   print every command, do nothing
  --wait      follow the jobs, a line for each change; without it the jobs go on by themselves

  RUN_DIR=DIRECTORY   go on with an experiment that was stopped: only what is missing is done
  VERIFY=true         with RUN_DIR: also look for damaged measurements, and measure them again
  LAUNCHER=slurm      submit jobs (default where sbatch exists)
  LAUNCHER=local      run the same jobs on this machine, LOCAL_JOBS of them side by side (default 1)
  ACTIVATE=COMMAND    makes Python available, e.g. 'source ~/conda/bin/activate NAME'
  PYTHON=PROGRAM      default: .venv/bin/python where it exists, else python3

All settings are listed at the top of the script; each can be set by a variable of its name.
EOF
}

# --- places -----------------------------------------------------------------------------------------

# absolute NAME: a path of the caller becomes an absolute one.
absolute() {
    local -n absolute_=$1
    [ -z "$absolute_" ] || [[ $absolute_ = /* ]] || absolute_=$CALLER_DIR/$absolute_
}

# Sets REPLY to $1 as a pattern that matches nothing but $1.
as_pattern() {
    local i
    REPLY=
    for ((i = 0; i < ${#1}; i++)); do
        [[ ${1:i:1} != [][*?\\] ]] || REPLY+=\\
        REPLY+=${1:i:1}
    done
}

# Finds the experiment that RUN_DIR belongs to: its directory, or the run directory of 10a in it. A run
# directory that 10a made by hand is an experiment of its own.
locate_experiment() {
    local logs
    absolute RUN_DIR
    RUN_DIR=${RUN_DIR%/}
    [ -d "$RUN_DIR" ] || fail 2 "RUN_DIR=$RUN_DIR: no such directory"
    EXPERIMENT_DIR=$RUN_DIR
    if [ -e "$RUN_DIR/settings" ]; then
        logs=("$RUN_DIR"/*/*'[10a_gather_params_grads.py].log')
        [ "${#logs[@]}" -eq 1 ] ||
            fail 2 "$RUN_DIR: expected one run directory of 10a, found ${#logs[@]}; name one of them"
        if [ -e "${logs[0]}" ]; then
            RUN_DIR=${logs[0]%/*}
        elif logs=("$RUN_DIR"/*'[10a_gather_params_grads.py].log') && [ ! -e "${logs[0]}" ]; then
            RUN_DIR= # the training has not begun
        fi
    elif [ -e "${RUN_DIR%/*}/settings" ]; then
        EXPERIMENT_DIR=${RUN_DIR%/*}
    else
        logs=("$RUN_DIR"/*'[10a_gather_params_grads.py].log')
        [ -e "${logs[0]}" ] || fail 2 "RUN_DIR=$RUN_DIR: expected a run directory of 10a or an experiment"
    fi
    LOCATED=yes
    name_experiment
}

new_experiment() {
    : "${OUTPUT_DIR:=$PROJECT_DIR/output}"
    absolute OUTPUT_DIR
    EXPERIMENT_DIR=${OUTPUT_DIR%/}/${SCRIPT%%_*}_$(date +%Y_%m_%d_%H_%M_%S)
    RUN_DIR=
    name_experiment
}

name_experiment() {
    EXPERIMENT=${EXPERIMENT_DIR##*/}
    EXPERIMENT=${EXPERIMENT//[!A-Za-z0-9._-]/_} # part of job names
    JOB_LOGS=$EXPERIMENT_DIR/slurm_logs
}

load_settings() {
    local entry name
    [ -e "$EXPERIMENT_DIR/settings" ] || return 0
    while IFS= read -r -d '' entry; do
        name=${entry%%=*}
        if [[ " ${SETTINGS[*]} " = *" $name "* ]] && [ -z "${!name+x}" ]; then
            printf -v "$name" %s "${entry#*=}"
        elif [ "$name" = SCRIPT ]; then
            SCRIPT=${entry#*=}
        fi
    done <"$EXPERIMENT_DIR/settings"
}

# All settings, each ended by a NUL, so that values may hold anything.
print_settings() {
    local name
    printf '%s\0' "SCRIPT=$SCRIPT"
    for name in "${SETTINGS[@]}"; do
        printf '%s\0' "$name=${!name:-}"
    done
}

# Sets REPLY to the command that goes on with this experiment.
resume_command() {
    local name
    REPLY=
    for name in $GIVEN; do REPLY+="$name=$(printf %q "${!name}") "; done
    REPLY+="RUN_DIR=$(printf %q "$EXPERIMENT_DIR") ./$SCRIPT"
}

# --- jobs -------------------------------------------------------------------------------------------

# Every job is submitted by
#     submit STAGE NAME TASKS SCRIPT VARIABLE=VALUE...
# TASKS is empty, or those of an array ("1-5,7"). It comes after the jobs in AFTER (ids, separated by
# colons), and only if all of them succeeded. Sets JOB.
submit() {
    local word words=("${@:1:4}")
    for word in "${@:5}"; do
        [ -z "${word#*=}" ] || words+=("$word")
    done
    "submit_$LAUNCHER" "${words[@]}"
}

say() { printf '%(%H:%M:%S)T  %s\n' -1 "$*"; }

# print_command TITLE WORD...: as it could be typed.
print_command() {
    local word line=''
    printf '\n# %s\n' "$1"
    for word in "${@:2}"; do
        [[ $word =~ ^[A-Za-z0-9_./:=,%+-]+$ ]] || word=${word@Q}
        if [ "$((${#line} + ${#word}))" -gt 98 ] || [ "$word" = sbatch ]; then
            printf '%s \\\n' "$line"
            line='   '
        fi
        line+=${line:+ }$word
    done
    printf '%s\n' "$line"
}

submit_slurm() {
    local stage=$1 name=$2 tasks=$3 script=$4 id=%j option extra
    shift 4
    [ -z "$tasks" ] || id=%A_%a
    local time=TIME_$stage memory=MEM_$stage
    local options=(
        --parsable --export=ALL --requeue --kill-on-invalid-dep=yes --open-mode=append
        "--job-name=$name.$EXPERIMENT" "--output=${JOB_LOGS//%/%%}/${name}_$id.log"
    )
    [ -z "$AFTER" ] || options+=("--dependency=afterok:$AFTER")
    [ -z "$tasks" ] || options+=("--array=$tasks${MAX_RUNNING:+%$MAX_RUNNING}")
    [ -z "${!time:-}" ] || options+=("--time=${!time}")
    [ -z "${!memory:-}" ] || options+=("--mem=${!memory}")
    [ -z "$CPUS_PER_TASK" ] || options+=("--cpus-per-task=$CPUS_PER_TASK")
    [ -z "$PARTITION" ] || options+=("--partition=$PARTITION")
    [ -z "$ACCOUNT" ] || options+=("--account=$ACCOUNT")
    [ -z "$GRES" ] || [ "$stage" = SMALL ] || options+=("--gres=$GRES")
    read -r -d '' -a extra <<<"$SBATCH_OPTIONS" || true
    for option in ${extra[@]+"${extra[@]}"}; do options+=("$option"); done
    local command=(env "$@" sbatch "${options[@]}" "$script")
    if [ -n "$DRY_RUN" ]; then
        JOB=JOB_ID_OF_$name
        print_command "$name${tasks:+, tasks $tasks}" "${command[@]}"
        return
    fi
    if ! JOB=$("${command[@]}"); then
        resume_command
        fail 1 "sbatch refused $name (see above). The ${#JOBS[@]} jobs before it are submitted and go on; \
when they have ended, this submits the rest:
    $REPLY"
    fi
    JOB=${JOB%%;*}
    JOBS+=("$JOB")
    NAMES+=("$name")
    say "submitted job $JOB: $name${tasks:+, tasks $tasks}"
}

# Runs the job and returns when it has succeeded.
submit_local() {
    local stage=$1 name=$2 tasks=$3 script=$4 task range numbers=() begun=$SECONDS
    shift 4
    JOB=local
    for range in ${tasks//,/ }; do
        for ((task = ${range%-*}; task <= ${range#*-}; task++)); do numbers+=("$task"); done
    done
    [ -n "$tasks" ] || numbers=('')
    if [ -n "$DRY_RUN" ]; then
        for task in "${numbers[@]}"; do
            print_command "$name${task:+, task $task}" env "$@" "SLURM_JOB_ID=$LOCAL_ID" ${task:+"SLURM_ARRAY_TASK_ID=$task"} bash "$script"
        done
        return
    fi
    say "$name${tasks:+: ${#numbers[@]} tasks, at most $LOCAL_JOBS side by side}"
    FAILED_TASKS=$(mktemp)
    set -m # each task becomes a process group, which can be stopped as a whole
    for task in "${numbers[@]}"; do
        while [ "$(jobs -pr | wc -l)" -ge "$LOCAL_JOBS" ]; do wait -n || true; done
        [ ! -s "$FAILED_TASKS" ] || break
        run_task "$name" "$task" "$script" "$@" </dev/null &
    done
    wait
    set +m
    if [ -s "$FAILED_TASKS" ]; then
        local log
        while IFS= read -r -d '' log; do
            show_end "$log" "$name failed"
        done <"$FAILED_TASKS"
        rm -f -- "$FAILED_TASKS"
        stopped 1 "$name failed"
    fi
    rm -f -- "$FAILED_TASKS"
    say "$name: done in $((SECONDS - begun)) s"
}

run_task() {
    local name=$1 task=$2 script=$3 log=$JOB_LOGS/$1_$LOCAL_ID${2:+_$2}.log status=0
    local mark=$EXPERIMENT_DIR/running/$HOSTNAME.$BASHPID
    shift 3
    trap - EXIT INT TERM HUP
    printf '%s\t%s\t%s\n' "$name" RUNNING "$task" >"$mark"
    unset SLURM_ARRAY_TASK_ID SLURM_RESTART_COUNT
    env "$@" "SLURM_JOB_ID=$LOCAL_ID" "SLURM_JOB_NAME=$name" ${task:+"SLURM_ARRAY_TASK_ID=$task"} bash "$script" >>"$log" 2>&1 ||
        status=$?
    rm -f -- "$mark"
    if [ "$status" -ne 0 ]; then
        printf '%s\0' "$log" >>"$FAILED_TASKS"
        exit 1
    fi
    [ -z "$task" ] || say "$name: task $task done"
}

stop_tasks() {
    local pid
    trap - INT TERM HUP
    for pid in $(jobs -pr); do kill -TERM -- "-$pid" 2>/dev/null || true; done
    { wait; } 2>/dev/null
    rm -f -- "${FAILED_TASKS:-}" "$EXPERIMENT_DIR/running/$HOSTNAME".*
    stopped "$1" "stopped by a signal"
}

# show_end LOG WHAT: the last lines of the log of a job that went wrong.
show_end() {
    printf '\n%s; the end of %q:\n' "$2" "$1"
    [ ! -e "$1" ] || tail -n 5 -- "$1" | cut -c 1-300 | sed 's/^/    /'
} >&2

# stopped STATUS WHY
stopped() {
    resume_command
    printf '\n%s: %s. Once its reason is mended, this goes on where it stopped:\n    %s\n' \
        "${0##*/}" "$2" "$REPLY" >&2
    exit "$1"
}

# --- the experiment, stage by stage ------------------------------------------------------------------

train() {
    submit TRAIN 10a_train "" 10a_gather_params_grads.slurm "PROJECT_DIR=$PROJECT_DIR" \
        "ACTIVATE=${ACTIVATE:-}" "PYTHON=$JOB_PYTHON" "RESUME=$RUN_DIR" \
        "OBS_DATASETS_PATH=$OBS_DATASETS_PATH" "PROBLEM=$PROBLEM" "OPTIMIZER=$OPTIMIZER" \
        "TUNING_CONF=$TUNING_CONF" "RANDOM_SEED=$RANDOM_SEED" "OUTPUT_DIR=$EXPERIMENT_DIR" \
        "RECORD_BEGINNING=$RECORD_BEGINNING" "RECORD_EVERY=$RECORD_EVERY" \
        "MAX_RECORD_STEP=$MAX_RECORD_STEP" "MAX_STEPS=$MAX_STEPS" "WITH_EVAL=$WITH_EVAL" \
        "NUM_HESSIAN_DATAPOINTS=$NUM_HESSIAN_DATAPOINTS" "DEVICE=$DEVICE"
    AFTER=$JOB
}

lay_out() {
    submit SMALL 10b_layout "" 10b_prepare_hdf5_measurements.slurm "PROJECT_DIR=$PROJECT_DIR" \
        "ACTIVATE=${ACTIVATE:-}" "PYTHON=$JOB_PYTHON" "MEAS_DIR=$STORE_DIR" "DTYPE=$DTYPE" \
        "NUM_PARAMS=$NUM_PARAMS" "NUM_OUTER=$NUM_OUTER" "NUM_INNER=$NUM_INNER" \
        "RECOVERY=$RECOVERY" "BLOCK_SIZE=$BLOCK_SIZE"
    AFTER=$JOB
}

# one_hessian STEP SPLIT TASKS ROUND: its measurements from ROUND on, of which TASKS are needed, then its
# analysis. All Hessians share one store, so the next one's measurements come after this analysis.
one_hessian() {
    local name=step$1_$2 tasks=$3 round part
    # What 10c and 10d have in common.
    HESSIAN=(
        "PROJECT_DIR=$PROJECT_DIR" "ACTIVATE=${ACTIVATE:-}" "PYTHON=$JOB_PYTHON"
        "OBS_DATASETS_PATH=$OBS_DATASETS_PATH" "PARAMS_PATH=$PARAMS_PATH" "LOG_PATH=$LOG_PATH"
        "STEP=$1" "TEST_HESSIAN=$([ "$2" = test ] && echo true || echo false)"
        "MEAS_FLAG=$MEAS_FLAG" "DEVICE=$DEVICE" "MEMORY_BUDGET_GB=$MEMORY_BUDGET_GB"
        "RECOVERY=$RECOVERY" "NUM_OUTER=$NUM_OUTER" "NUM_INNER=$NUM_INNER"
    )
    if [ "$RECOVERY" != seigh ]; then HESSIAN+=("NUM_ROUNDS=$NUM_ROUNDS" "BLOCK_SIZE=$BLOCK_SIZE"); fi
    for ((round = $4; round < NUM_ROUNDS; round++)); do
        part=$name
        if [ "$RECOVERY" != seigh ]; then part+=_round$round; fi
        [ "$tasks" = none ] || measure "$part" "$tasks" "$round"
        tasks=1-$MEAS_ARRSIZE
        [ "$((round + 1))" -eq "$NUM_ROUNDS" ] || next_block "$part" "$round"
    done
    analyse "$name"
}

# next_block NAME ROUND: between two rounds of a recovery in rounds.
next_block() {
    submit ANALYSE "10e_$1" "" 10e_next_krylov_block.slurm "${HESSIAN[@]}" "MEAS_DIR=$STORE_DIR" "ROUND=$2"
    AFTER=$JOB
}

# measure NAME TASKS ROUND: one array, or several side by side where the cluster allows no such large one.
measure() {
    local name=$1 ids='' offset tasks
    while read -r offset tasks; do
        submit MEASURE "10c_$name$([ "$offset" -eq 0 ] || echo "_from$offset")" "$tasks" \
            10c_hessian_hdf5_measurements.slurm "${HESSIAN[@]}" "MEAS_DIR=$STORE_DIR" \
            "MEAS_ARRSIZE=$MEAS_ARRSIZE" "MEAS_PER_JOB=$MEAS_PER_JOB" "TASK_OFFSET=$offset" \
            "ROUND=$3" "VECTORS_PER_PRODUCT=$VECTORS_PER_PRODUCT"
        ids+=${ids:+:}$JOB
    done < <(split_tasks "$2" "$MAX_TASK")
    AFTER=$ids
}

# split_tasks TASKS MAX: lines "OFFSET TASKS" with numbers from 1 to MAX, OFFSET to be added to them.
split_tasks() {
    local range first last offset part=-1 list='' end
    for range in ${1//,/ }; do
        first=${range%-*} last=${range#*-}
        while [ "$first" -le "$last" ]; do
            offset=$(((first - 1) / $2 * $2))
            end=$((last < offset + $2 ? last : offset + $2))
            if [ "$offset" -ne "$part" ]; then
                [ -z "$list" ] || echo "$part $list"
                part=$offset list=
            fi
            list+=${list:+,}$((first - offset))
            [ "$end" -eq "$first" ] || list+=-$((end - offset))
            first=$((end + 1))
        done
    done
    echo "$part $list"
}

analyse() {
    local inner=()
    if [ "$RECOVERY" = seigh ]; then
        inner=("INNER_VIRTUAL=$STORE_DIR/inner_ALL.h5" "INNER_MONOLITHIC=$STORE_DIR/inner_MERGED.h5"
            "SYMMETRIZE_CORE=$SYMMETRIZE_CORE")
    fi
    submit ANALYSE "10d_$1" "" 10d_core_and_analysis.slurm "${HESSIAN[@]}" ${inner[@]+"${inner[@]}"} \
        "OUTER_VIRTUAL=$STORE_DIR/leftouter_ALL.h5" "OUTER_MONOLITHIC=$STORE_DIR/leftouter_MERGED.h5" \
        "WITH_A_POSTERIORI=$WITH_A_POSTERIORI" "NUM_A_POSTERIORI=$NUM_A_POSTERIORI" \
        "EIGENVECTORS=$EIGENVECTORS"
    AFTER=$JOB
}

remove_measurements() {
    submit SMALL remove_measurements "" slurm/remove_measurements.slurm \
        "PROJECT_DIR=$PROJECT_DIR" "MEAS_DIR=$STORE_DIR"
    AFTER=$JOB
}

run_experiment() {
    local word hessians=()
    DRY_RUN='' WAIT='' AFTER='' JOBS=() NAMES=()
    for word; do
        case $word in
        --dry-run) DRY_RUN=yes ;;
        --wait) WAIT=yes ;;
        -h | --help) usage && exit ;;
        *) usage >&2 && fail 2 "unknown option '$word'" ;;
        esac
    done
    check_settings
    make_plan
    refuse_if_queued
    local what=${#PENDING[@]}
    if [ -z "$DRY_RUN" ]; then
        mkdir -p -- "${EXPERIMENT_DIR%/*}"
        [ -n "$LOCATED" ] || mkdir -- "$EXPERIMENT_DIR" # refuses if two start in one second
        mkdir -p -- "$JOB_LOGS" "$EXPERIMENT_DIR/running"
        print_settings >"$EXPERIMENT_DIR/settings.new"
        mv -f -- "$EXPERIMENT_DIR/settings.new" "$EXPERIMENT_DIR/settings"
        printf 'Experiment: %q\n' "$EXPERIMENT_DIR"
        resume_command
        printf 'Its state, at any time: ./11s_status.sh %q\nTo go on if it is stopped: %s\n\n' \
            "$EXPERIMENT_DIR" "$REPLY"
    fi
    say "$what of $NUM_HESSIANS Hessians to do, launcher $LAUNCHER"
    trap 'stop_tasks 130' INT
    trap 'stop_tasks 143' TERM HUP
    [ "$TRAINING" = "done" ] || train
    if [ "$what" -gt 0 ]; then
        [ "$STORE" = ready ] || lay_out
        for word in "${PENDING[@]}"; do
            read -r -a hessians <<<"$word"
            one_hessian "${hessians[@]}"
        done
    fi
    if [ "$KEEP_MEASUREMENTS" != true ] && { [ "$what" -gt 0 ] || [ -d "$STORE_DIR" ]; }; then
        remove_measurements
    fi
    trap - INT TERM HUP
    if [ -n "$DRY_RUN" ]; then
        return
    elif [ "$LAUNCHER" = slurm ] && [ -z "$WAIT" ]; then
        say "${#JOBS[@]} jobs are submitted and go on by themselves"
    else
        [ "$LAUNCHER" = local ] || follow
        finish
    fi
}

check_settings() {
    local name split
    if [ -z "${LAUNCHER:-}" ]; then
        LAUNCHER=local
        if command -v sbatch >/dev/null; then LAUNCHER=slurm; fi
    fi
    : "${LOCAL_JOBS:=1}" "${VERIFY:=false}" "${KEEP_MEASUREMENTS:=false}" "${DTYPE:=float32}"
    : "${MEAS_FLAG:=measured}" "${RECOVERY:=seigh}" "${WITH_EVAL:=true}" "${SYMMETRIZE_CORE:=true}" "${EIGENVECTORS:=0}"
    : "${TIME_SMALL:=30}" "${MEM_SMALL:=2G}"
    for name in "${SETTINGS[@]}"; do # the others may be empty
        [ -n "${!name:-}" ] || printf -v "$name" %s ''
    done
    [[ $LAUNCHER = slurm || $LAUNCHER = local ]] || fail 2 "LAUNCHER: expected slurm or local, got '$LAUNCHER'"
    require_integers "${INTEGERS[@]}" LOCAL_JOBS
    for name in RECORD_EVERY MEAS_PER_JOB NUM_INNER NUM_OUTER LOCAL_JOBS; do
        [ "${!name}" -gt 0 ] || fail 2 "$name must be at least 1"
    done
    check_recovery
    : "${MAX_STEPS:=$((MAX_RECORD_STEP + 1))}"
    [ "$MAX_RECORD_STEP" -ge "$RECORD_BEGINNING" ] || fail 2 "MAX_RECORD_STEP is below RECORD_BEGINNING"
    require SPLITS
    for split in $SPLITS; do
        [[ $split = train || $split = test ]] || fail 2 "SPLITS: expected train, test or both, got '$SPLITS'"
    done
    for name in KEEP_MEASUREMENTS VERIFY WITH_EVAL SYMMETRIZE_CORE; do
        [[ ${!name} = true || ${!name} = false ]] || fail 2 "$name: expected true or false, got '${!name}'"
    done
    absolute OBS_DATASETS_PATH
    absolute TUNING_CONF
    absolute MEAS_DIR
    STORE_DIR=${MEAS_DIR%/}
    : "${STORE_DIR:=$EXPERIMENT_DIR/measurements}"
    if [[ ${PYTHON:-} = */* && -x $CALLER_DIR/$PYTHON ]]; then absolute PYTHON; fi
    require OBS_DATASETS_PATH
    if [ ! -d "$OBS_DATASETS_PATH" ]; then
        local note="OBS_DATASETS_PATH=$OBS_DATASETS_PATH: no such directory; 09a_prepare_datasets.py fills one"
        [ "$LAUNCHER" = slurm ] || [ -n "$DRY_RUN" ] || fail 2 "$note"
        printf '%s: note: %s (jobs look for it where they run)\n' "${0##*/}" "$note" >&2
    fi
    MAX_TASK=1000000000
    if [ "$LAUNCHER" = slurm ]; then
        # Slurm has no way to write a backslash in the path of a job's output.
        [[ $EXPERIMENT_DIR != *\\* ]] || fail 2 "$EXPERIMENT_DIR: Slurm cannot write into a path with a backslash"
        [ -n "$DRY_RUN" ] || command -v sbatch >/dev/null || fail 2 "no sbatch here; LAUNCHER=local does without"
        MAX_TASK=$(scontrol show config 2>/dev/null | sed -n 's/^MaxArraySize *= *\([0-9]*\).*/\1/p') || true
        MAX_TASK=$((${MAX_TASK:-1001} - 1)) # the limit is for the largest index plus one; ours count from 1
        [ "$MAX_TASK" -gt 0 ] || fail 2 "this cluster allows no job arrays"
    fi
    if [ "$LAUNCHER" = local ] && [ "$LOCAL_JOBS" -gt 1 ] && [ -z "${OMP_NUM_THREADS:-}" ]; then
        local cpus
        cpus=$(nproc)
        export OMP_NUM_THREADS=$((cpus > LOCAL_JOBS ? cpus / LOCAL_JOBS : 1))
    fi
    MEAS_ARRSIZE=$(((PER_ROUND + MEAS_PER_JOB - 1) / MEAS_PER_JOB))
    LOCAL_ID=local$$
    JOB_PYTHON=${PYTHON:-}
}

# Sets NUM_ROUNDS, BLOCK_SIZE and PER_ROUND, the measurements of a round.
check_recovery() {
    case $RECOVERY in
    seigh) NUM_ROUNDS=1 BLOCK_SIZE='' PER_ROUND=$NUM_INNER && return ;;
    hmt) NUM_ROUNDS=2 ;;
    krylov) : "${NUM_ROUNDS:=4}" ;;
    *) fail 2 "RECOVERY: expected seigh, hmt or krylov, got '$RECOVERY'" ;;
    esac
    require_integers NUM_ROUNDS
    [ "$NUM_ROUNDS" -gt 0 ] || fail 2 "NUM_ROUNDS must be at least 1"
    : "${BLOCK_SIZE:=$(((NUM_INNER + NUM_ROUNDS - 1) / NUM_ROUNDS))}"
    require_integers BLOCK_SIZE
    [ "$BLOCK_SIZE" -gt 0 ] || fail 2 "BLOCK_SIZE must be at least 1"
    PER_ROUND=$BLOCK_SIZE
}

# Sets TRAINING, STORE and PENDING: lines "STEP SPLIT TASKS ROUND", for each Hessian that is not analysed.
make_plan() {
    local step split state tasks round kind
    NUM_HESSIANS=0 PENDING=() TRAINING=absent STORE=absent
    as_pattern "${RUN_DIR:-$EXPERIMENT_DIR}"
    [ -n "$RUN_DIR" ] || REPLY+="/*"
    PARAMS_PATH="$REPLY/*__params.h5"
    LOG_PATH="$REPLY/*\[10a_gather_params_grads.py\].log"
    if [ ! -e "$EXPERIMENT_DIR" ]; then
        for step in $(seq "$RECORD_BEGINNING" "$RECORD_EVERY" "$MAX_RECORD_STEP"); do
            for split in $SPLITS; do
                PENDING+=("$step $split 1-$MEAS_ARRSIZE 0")
                NUM_HESSIANS=$((NUM_HESSIANS + 1))
            done
        done
        return
    fi
    local lines
    find_python
    lines=$("$PYTHON" -m applesandoranges.cluster.progress plan --settings <(print_settings) --run_dir "$RUN_DIR" \
        --store "$STORE_DIR") || exit "$?"
    while read -r kind step split state tasks round; do
        case $kind in
        training) TRAINING=$step ;;
        store) STORE=$step ;;
        hessian)
            NUM_HESSIANS=$((NUM_HESSIANS + 1))
            [ "$VERIFY" != true ] || tasks=1-$MEAS_ARRSIZE
            [ "$state" = "done" ] || PENDING+=("$step $split $tasks $round")
            ;;
        esac
    done <<<"$lines"
}

# --- the queue --------------------------------------------------------------------------------------

# Lines "NAME<tab>STATE<tab>TASK" of this experiment's jobs, each task of an array on its own line.
queue_lines() {
    local name state task id mark lines=''
    if [ "${LAUNCHER:-}" != local ] && command -v squeue >/dev/null; then
        if ! lines=$(squeue -u "$(id -un)" -h -r -o '%j|%T|%K|%F' 2>&1); then
            printf '%s: the queue cannot be read: %s\n' "${0##*/}" "${lines##*$'\n'}" >&2
            [ "${LAUNCHER:-}" != slurm ] || return 1
            lines=
        fi
        while IFS='|' read -r name state task id; do
            [[ $name = *".$EXPERIMENT" ]] || continue
            [[ $task = [0-9]* ]] || task=
            printf '%s\t%s\t%s\t%s\n' "${name%".$EXPERIMENT"}" "$state" "$task" "job $id"
        done <<<"$lines"
    fi
    for mark in "$EXPERIMENT_DIR/running/$HOSTNAME".*; do
        if [ -e "$mark" ] && kill -0 "${mark##*.}" 2>/dev/null; then
            printf '%s\tprocess %s\n' "$(<"$mark")" "${mark##*.}"
        fi
    done
}

refuse_if_queued() {
    local lines
    [ -z "$DRY_RUN" ] && [ -e "$EXPERIMENT_DIR" ] || return 0
    lines=$(queue_lines) || exit 1
    if [ -n "$lines" ]; then
        lines=$(cut -f 1,4 <<<"$lines" | sort -u | sed 's/\(.*\)\t\(.*\)/\1 (\2)/' | paste -sd,)
        fail 2 "jobs of this experiment run or wait already; wait for them, or stop them first: ${lines//,/, }"
    fi
}

# Follows the jobs until none of them is in the queue, a line for each change.
follow() {
    local i lines job task state summary active failed_log='' pause=${WAIT_SECONDS:-10}
    local -A last=() states=()
    trap 'printf "\nThe jobs go on; their state: ./11s_status.sh %q\n" "$EXPERIMENT_DIR"; exit 130' INT
    while :; do
        if ! lines=$(squeue -u "$(id -un)" -h -r -t all -o '%F %K %T'); then
            say "squeue does not answer; asking again in $pause s"
            sleep "$pause"
            continue
        fi
        active='' states=()
        while read -r job task state; do
            [ -z "$job" ] || states[$job]+="$state $task"$'\n'
        done <<<"$lines"
        for i in "${!JOBS[@]}"; do
            job=${JOBS[i]}
            summary=$(cut -d ' ' -f 1 <<<"${states[$job]:-}" | sort | uniq -c | awk 'NF == 2 {print $1, $2}' | paste -sd,)
            summary=${summary//,/, }
            : "${summary:=not in the queue any more}"
            if [ "${last[$job]:-}" != "$summary" ]; then
                say "job $job  ${NAMES[i]}: ${summary,,}"
                last[$job]=$summary
            fi
            while read -r state task; do
                case $state in
                '' | COMPLETED | CANCELLED | REVOKED) ;;
                BOOT_FAIL | DEADLINE | FAILED | NODE_FAIL | OUT_OF_MEMORY | TIMEOUT)
                    [[ $task = [0-9]* ]] && task=_$task || task=
                    : "${failed_log:=$JOB_LOGS/${NAMES[i]}_$job$task.log}"
                    ;;
                *) active=yes ;; # pending, running, or on the way from one to the other
                esac
            done <<<"${states[$job]:-}"
        done
        [ -n "$active" ] || break
        sleep "$pause"
    done
    trap - INT
    [ -z "$failed_log" ] || show_end "$failed_log" "the first job that failed"
}

# Says whether all is done; the logs and the store count, not what became of the jobs.
finish() {
    RUN_DIR=$EXPERIMENT_DIR
    locate_experiment
    make_plan
    [ "${#PENDING[@]}" -eq 0 ] || stopped 1 "${#PENDING[@]} of $NUM_HESSIANS Hessians are not analysed"
    [ "$KEEP_MEASUREMENTS" = true ] || [ ! -d "$STORE_DIR" ] ||
        stopped 1 "all Hessians are analysed, but $STORE_DIR was not removed"
    say "all $NUM_HESSIANS Hessians are analysed"
    printf '\nLogs: %q\nFigures: %q 13a_plot_overlap.py LOGS=%q OUTPUT_DIR=%q\n' \
        "$RUN_DIR" "$PYTHON" "$RUN_DIR" "$RUN_DIR/figures"
}

# --- what a script that sources this file starts with ------------------------------------------------

SCRIPT=${0##*/}
if [ -n "${RUN_DIR:-}" ]; then
    locate_experiment
    load_settings
    [ "$SCRIPT" = "${0##*/}" ] || [ "${0##*/}" = 11s_status.sh ] ||
        fail 2 "$EXPERIMENT_DIR: is an experiment of $SCRIPT"
else
    new_experiment
fi
