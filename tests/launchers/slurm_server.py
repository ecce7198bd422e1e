"""A private SLURM of one node: its daemons, its key and its files are in a folder of its own."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol", "squeue", "scancel")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={port}
SlurmdPort={other}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
JobRequeue=1
MpiDefault=none
SwitchType=switch/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
KillWait=30
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why there can be no SLURM here; empty if there can."""
    if any(program(name) is None for name in PROGRAMS):
        packages = "slurmctld slurmd slurm-client munge"
        return f"no SLURM here: install the packages {packages} (tests/setup.sh does)"
    return "" if os.getuid() == 0 else "SLURM's daemons start jobs as others, so they need root"


def program(name: str) -> str | None:
    """Where a program is; daemons are not in everybody's PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@contextmanager
def serving() -> Iterator[Path]:
    """The configuration of a SLURM that runs as long as it is needed."""
    folder = Path(tempfile.mkdtemp(prefix="fb-slurm-", dir="/tmp"))  # a socket has a short name
    folder.chmod(0o755)
    started: list[subprocess.Popen[bytes]] = []
    try:
        path = _made(folder)
        started.append(_munged(folder))
        _until(lambda: (folder / "munge/socket").exists(), folder)
        for name in ("slurmctld", "slurmd"):
            started.append(_start(folder, [program(name), "-D", "-f", str(path), "-c"]))
        _until(lambda: b"idle" in _sinfo(path), folder)
        yield path
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _made(folder: Path) -> Path:
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir(mode=0o755)
    key = folder / "munge" / "key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    path = folder / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    words = {"host": host, "folder": folder, "port": _free(), "other": _free()}
    path.write_text(CONFIGURATION.format(**words))
    return path


def _free() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _munged(folder: Path) -> subprocess.Popen[bytes]:
    place = folder / "munge"
    words = [program("munged"), "--foreground", "--force", f"--socket={place}/socket"]
    words += [f"--key-file={place}/key", f"--pid-file={place}/pid", f"--log-file={place}/log"]
    return _start(folder, [*words, f"--seed-file={place}/seed"])


def _start(folder: Path, words: list) -> subprocess.Popen[bytes]:
    with open(folder / "output", "ab") as output:
        return subprocess.Popen(words, stdout=output, stderr=output)


def _sinfo(path: Path) -> bytes:
    environment = os.environ | {"SLURM_CONF": str(path)}
    return subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True).stdout


def _until(condition, folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, (folder / "output").read_text()
        time.sleep(0.1)
