"""Runs an experiment or shows its state, for the 11x scripts, which hand over what was set.

``python -m applesandoranges.cluster run SCRIPT [--dry-run] [--wait]``, or
``python -m applesandoranges.cluster status SCRIPT RUN_DIR``.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence

from skerch.streams import outlive_readers

USAGE = {
    "run": """\
Usage: [NAME=VALUE ...] ./{} [--dry-run] [--wait]

  --dry-run   print every command, do nothing
  --wait      follow the jobs, a line for each change; without it the jobs go on by themselves

  RUN_DIR=DIRECTORY   go on with an experiment that was stopped: only what is missing is done
  VERIFY=true         with RUN_DIR: also look for damaged measurements, and measure them again
  LAUNCHER=slurm      submit jobs (default where sbatch exists)
  LAUNCHER=local      run the same jobs on this machine, LOCAL_JOBS of them side by side (default 1)
  ACTIVATE=COMMAND    makes Python available, e.g. 'source ~/conda/bin/activate NAME'
  SCREEN=json         the logs of jobs show the lines of the logs instead of words
  PYTHON=PROGRAM      default: .venv/bin/python where it exists, else python3

Settings: at the top of the script, and all of them in docs/cluster.md; each can be set by a
variable of its name.
""",
    "status": """\
Usage: ./{} RUN_DIR    (the run directory of 10a, or the experiment's around it)
""",
}


def main(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run one command; return its exit status: 0, 2 for wrong input, 1 for a failure."""
    command, script, *words = argv
    usage = USAGE[command].format(script)
    if {"-h", "--help"} & {*words}:
        print(usage, end="")
        return 0
    if command == "status" and len(words) != 1:
        print(f"{script}: expected one RUN_DIR, got {len(words)}; see --help", file=sys.stderr)
        return 2
    for word in words:
        if command == "run" and word not in ("--dry-run", "--wait"):
            hint = "see --help; settings are variables in front: NAME=VALUE ./" + script
            print(f"{script}: unknown option '{word}'; {hint}", file=sys.stderr)
            return 2
    try:
        from .run import call
    except (ImportError, SyntaxError, TypeError) as error:
        hint = "set ACTIVATE (a command such as 'conda activate NAME') or PYTHON, or make .venv"
        print(f"{script}: {sys.executable} cannot run this ({error}); {hint}", file=sys.stderr)
        return 2
    return call(command, script, words, environ)


if __name__ == "__main__":
    outlive_readers()
    # Names of files may be no text, and whoever reads along wants whole lines at once.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="surrogateescape", line_buffering=True)  # type: ignore[union-attr]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # of a terminal that is closed
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    sys.exit(main(sys.argv[1:]))
