"""Where `flowbench run --suite` has its runs done, and how many at once."""

from dataclasses import dataclass
from typing import Any

import click

MOST = 100  # jobs that are queued or running at once, unless --max-jobs says otherwise


@dataclass(frozen=True)
class Launch:
    """A launcher, how many jobs it has at once (None: as many as fit here), and their device."""

    launcher: Any
    jobs: int | None
    device: str

    @property
    def far(self) -> bool:
        """Whether the jobs may run on other machines."""
        return self.launcher.far

    def fitting(self, device: str) -> int:
        """Jobs at once, where nobody has said how many."""
        from flowbench import processes

        return self.jobs or (1 if device.startswith("cuda") else processes.cores())

    def there(self, setup: Any) -> dict[str, Any]:
        """What of the machine is another for the jobs: each finds its own device."""
        return {"device": self.device, "folder": setup.folder.resolve()} if self.far else {}

    def threads(self, device: str, jobs: int) -> int:
        """Threads of each job: on a processor one, since its sums hang on their number.

        0 lets torch decide, on a GPU of another machine.
        """
        from flowbench import processes

        if self.far:
            return 0 if self.launcher.gpus or self.device.startswith("cuda") else 1
        return max(1, processes.cores() // jobs) if device.startswith("cuda") else 1


def of(ctx: click.Context) -> Launch:
    """What the words of `flowbench run` come to.

    Raises click.UsageError for a number of jobs that belongs to another launcher, and
    FlowbenchError for a launcher that is none.
    """
    from flowbench import launchers

    given = ctx.params
    launcher = launchers.parse(given["launcher"] or "local")
    far = launcher.far
    if far and given["jobs"] is not None:
        raise click.UsageError(
            f"--jobs is of this machine: with --launcher {launcher.name}, write --max-jobs"
            f" {given['jobs']}."
        )
    if not far and given["max_jobs"] is not None:
        raise click.UsageError(
            f"--max-jobs is of --launcher slurm or ray: on this machine, write --jobs"
            f" {given['max_jobs']}."
        )
    return Launch(launcher, (given["max_jobs"] or MOST) if far else given["jobs"], given["device"])
