"""What the workers of test_suites.py do: little, so that the processes around it are tested."""

import os
import signal
import time
from pathlib import Path

from flowbench.records import FlowbenchError
from flowbench.training import Progress


def obey(job, send):
    """Write down when the job began and ended, and do what it says in between."""
    with open(job["log"], "a") as log:
        log.write(f"begin {job['name']}\n")
    for step in range(job.get("steps", 0)):
        send(Progress("train", step + 1, job["steps"]))
        send("a note")
        time.sleep(0.05)
    deadline = time.monotonic() + 60
    while job.get("meet") and f"begin {job['meet']}\n" not in Path(job["log"]).read_text():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{job['meet']} does not run beside {job['name']}")
        time.sleep(0.01)
    word = job.get("end", "")
    if word == "raise":
        raise RuntimeError("out of luck")
    if word == "wrong":
        raise FlowbenchError("wrong words")
    if word == "exit":
        os._exit(7)
    if word == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    with open(job["log"], "a") as log:
        log.write(f"end {job['name']} {os.environ.get('FLOWBENCH_PLUGINS', '')}".rstrip() + "\n")
    return word
