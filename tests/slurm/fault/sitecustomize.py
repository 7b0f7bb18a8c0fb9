"""Stops a process in the middle of writing one file, once; on the PYTHONPATH of the jobs.

FAULT_FILE names the file by the end of its path and FAULT_JOB the job by the begin of its name; in
FAULT_DIR this leaves the mark ``hit``.
FAULT_ACTION ``kill`` cuts the half-written file and kills the process, ``pause`` holds it until the
file ``go`` appears in FAULT_DIR.
"""

import os
import signal
import sys
import time


def _stop_in_the_middle(event: str, args: tuple) -> None:
    # Files appear under their names by renaming: at this moment the new one lies aside.
    if event != "os.rename" or not os.fsdecode(args[1]).endswith(os.environ["FAULT_FILE"]):
        return
    directory = os.environ["FAULT_DIR"]
    try:
        mark = os.open(f"{directory}/hit.part", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return
    os.write(mark, f"{os.getpid()} {os.environ.get('SLURMD_NODENAME', '')}".encode())
    os.close(mark)
    if os.environ["FAULT_ACTION"] == "kill":
        os.truncate(args[0], os.path.getsize(args[0]) // 2)
        os.link(f"{directory}/hit.part", f"{directory}/hit")
        os.kill(os.getpid(), signal.SIGKILL)
    os.link(f"{directory}/hit.part", f"{directory}/hit")
    while not os.path.exists(f"{directory}/go"):
        time.sleep(0.05)


if os.environ.get("SLURM_JOB_NAME", "").startswith(os.environ.get("FAULT_JOB", "-")):
    sys.addaudithook(_stop_in_the_middle)
