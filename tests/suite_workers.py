"""What the workers of test_suites.py do: little, so that the processes around it are tested."""

import errno
import os
import signal
import subprocess
import time
from pathlib import Path

from flowbench.execution import Ended, Opened
from flowbench.records import FlowbenchError
from flowbench.training import Progress

SIGNALS = {
    "kill": signal.SIGKILL,
    "segv": signal.SIGSEGV,
    "bus": signal.SIGBUS,
    "abort": signal.SIGABRT,
    "term": signal.SIGTERM,
}


def obey(job, send):
    """Write down when the job began and ended, and do what it says in between."""
    with open(job["log"], "a") as log:
        log.write(f"begin {job['name']}\n")
    if job.get("attempt"):
        send(Opened(job["attempt"]))
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
    begun = Path(job["log"]).read_text().count(f"begin {job['name']}\n")
    if word == "once":
        word = "kill" if begun == 1 else ""
    if word in SIGNALS:
        os.kill(os.getpid(), SIGNALS[word])
        time.sleep(60)
    if word == "disk":
        raise OSError(errno.EIO, "the disk is gone")
    if word == "full":
        raise OSError(errno.ENOSPC, "no room")
    if word == "held":
        return Ended("held by another") if begun > 1 else Ended("held by another", "elsewhere")
    with open(job["log"], "a") as log:
        log.write(f"end {job['name']} {os.environ.get('FLOWBENCH_PLUGINS', '')}".rstrip() + "\n")
    return word


def resist(job, send):
    """Ignore SIGTERM, start a child and one with a session of its own, and wait for ever."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "600"])
    other = subprocess.Popen(["sleep", "600"], start_new_session=True)
    part = Path(job["pids"] + ".part")
    part.write_text(f"{os.getpid()} {child.pid} {other.pid}")
    part.rename(job["pids"])
    send(Opened(7))
    while True:
        time.sleep(600)
