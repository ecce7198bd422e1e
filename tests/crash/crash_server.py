"""A warm process that has imported all that is slow, and forks a victim for each command line.

So a kill costs a fraction of a second, and not the start of a process. It runs no threads.
"""

import functools
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PRELOAD = (
    *("flowbench.cli.run", "flowbench.cli.doing", "flowbench.execution", "flowbench.metrics"),
    *("flowbench.metrics.frechet", "flowbench.store", "flowbench.store.schema", "alembic.command"),
    *("flowbench.bundle", "flowbench.cli.bundle", "flowbench.cli.tables", "flowbench.report"),
    *("flowbench.report.terminal", "flowbench.comparison.build", "ot", "torch", "sqlite3"),
    *("flowbench.losses.build", "flowbench.losses.perceptual", "flowbench.losses.adversarial"),
    *("sqlalchemy.dialects.sqlite", "torch._dynamo", "flowbench.cli.suite", "timm", "torchvision"),
)


class Server:
    """The warm process, seen from outside."""

    def __init__(self) -> None:
        environment = os.environ | dict.fromkeys(LIMITS, "1")
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        words = [sys.executable, __file__]
        self.process = subprocess.Popen(words, env=environment, text=True, **pipes)
        assert self.process.stdout and self.process.stdout.readline() == "ready\n"

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Let a victim live: its `code` (negative for a signal) and `seconds`, `killed` when."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("the server of victims has died")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def serve() -> None:
    """Fork a victim for each line of the input, and say how it ended."""
    from importlib import import_module

    for name in PRELOAD:
        import_module(name)
    threads = len(os.listdir("/proc/self/task")) if Path("/proc/self/task").exists() else 1
    if threads != 1:
        raise RuntimeError(f"a process with {threads} threads cannot be forked")
    print("ready", flush=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who asks
    for line in sys.stdin:
        request = json.loads(line)
        ready, up = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                import crash_victim

                code = crash_victim.live(request, functools.partial(os.close, up))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(up)
        os.read(ready, 1)  # ends when the victim is what was asked for
        os.close(ready)
        print(json.dumps(_watched(pid, request)), flush=True)


def _watched(pid: int, request: dict[str, Any]) -> dict[str, Any]:
    """How the process ended, which is killed when its time has come, if it has one."""
    begun, killed = time.monotonic(), []

    def strike(number: int, frame: object) -> None:
        killed.append(time.monotonic())
        with suppress(ProcessLookupError):
            os.kill(pid, request["kill"]["signal"])

    moment = (request["kill"] or {}).get("after")
    if moment is not None:
        signal.signal(signal.SIGALRM, strike)
        signal.setitimer(signal.ITIMER_REAL, moment)
    _, status, used = os.wait4(pid, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    now = time.monotonic()
    code = os.waitstatus_to_exitcode(status)
    cpu = used.ru_utime + used.ru_stime
    return {"code": code, "seconds": now - begun, "cpu": cpu, "ended": now, "killed": killed}


if __name__ == "__main__":
    serve()
