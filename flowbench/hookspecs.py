"""The hooks of flowbench. An implementation names only the arguments that it needs."""

import pluggy

hookspec = pluggy.HookspecMarker("flowbench")
hookimpl = pluggy.HookimplMarker("flowbench")


@hookspec(firstresult=True)
def train(data, run, teacher, meter):
    """Learn from `data` through `run.batches`; return the trained network.

    `teacher` is a `training.Teacher` for methods that declare one, else None. One forward of the
    returned `torch.nn.Module` on a batch counts as one evaluation for each of its rows.
    """


@hookspec(firstresult=True)
def sample(network, noise, labels, nfe, rng, meter):
    """Turn `noise` (B, *shape) into samples with exactly `nfe` network evaluations per sample.

    `labels` is (B,) int64 or None. `nfe` is at least 1, or None: as many as an adaptive solver
    takes. `rng()` gives fresh unit noise shaped like `noise`, a stream of its own for each sample.
    """


@hookspec(firstresult=True)
def velocity(network, z, t, labels):
    """The canonical field dz/dt at states `z` (B, *shape) and times `t` (B,): 0 noise, 1 data.

    Straightness comes from it. A method whose samples follow no ODE leaves it out.
    """


@hookspec(firstresult=True)
def measure(network, data, run, teacher):
    """Return {name: number}: what only this method knows of itself, such as how far it drifted.

    Called once after training; each number becomes a score of the whole run.
    """


@hookspec
def datasets():
    """Return a list of `entries.Dataset`: data by name, for `--dataset`."""


@hookspec
def networks():
    """Return a list of subclasses of `nets.settings.Network`: backbones, for `--network`."""


@hookspec
def metrics():
    """Return a list of `entries.Metric`: numbers made from samples."""


@hookspec
def reports():
    """Return a list of `entries.ReportFormat`, for `report --format`."""


@hookspec
def observe(spec, event, folder):
    """Hear of what happens in the run `spec`: an `events.Begun`, `Point`, `Ended` or a `Score`.

    `folder` is the run's own, for files of the observer. What is raised here ends the observer,
    not the run. Whether an observer is always on or asked for by `--track` is its own choice.
    """
