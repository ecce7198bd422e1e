"""What `flowbench run` may be told: its options, in the order of their help."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from flowbench.cli import words

WHAT = (
    click.argument("method", required=False, type=words.Name("method")),
    click.option(
        "--dataset",
        type=words.Name("dataset"),
        help="See `datasets`; or a zip or folder of images.",
    ),
    click.option(
        "--suite",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Run what is missing of this file; --dataset and --seed choose among its runs.",
    ),
    click.option(
        "--jobs", type=click.IntRange(1), help="Of a suite at once.  [cores, or 1 on a GPU]"
    ),
    click.option(
        "--launcher",
        metavar="WORD",
        help="Of a suite: local, or slurm,partition=P,gpus=1,time=24h or ray,gpus=1.  [local]",
    ),
    click.option(
        "--max-jobs",
        type=click.IntRange(1),
        help="Of a suite on slurm or ray: queued or running at once.  [100]",
    ),
    click.option(
        "--threads",
        type=click.IntRange(1, 1024),
        help="Of a run on the processor.  [all cores; in a suite 1: the same bits at any --jobs]",
    ),
    click.option(
        "--timeout",
        type=words.Duration(),
        metavar="TIME",
        help="End a run after so long, with all that it started: 90, 30s, 5m, 2h.",
    ),
    click.option(
        "--max-hours",
        type=click.FloatRange(0, 10_000, min_open=True),
        metavar="HOURS",
        help="Of a suite: store where it is after so long, and exit with 4.",
    ),
    click.option(
        "--retries",
        type=click.IntRange(0, 100),
        help="Of a suite: new tries of a run after a fault of the machine.  [1]",
    ),
    click.option(
        "--token", is_flag=True, help="Of a suite: its runs at a size that only proves them."
    ),
)
LOOKS = (
    click.option("--dry-run", "dry", flag_value="plan", help="Print the plan and what it takes."),
    click.option("--explain", "dry", flag_value="stages", help="Print what is there, and why."),
    click.option("--smoke", is_flag=True, help="Try it at a tiny size, and keep nothing."),
    click.option("--pdb", "debug", is_flag=True, help="Debug a failure where the plugin failed."),
    click.option("--profile", is_flag=True, help="First, show which operators take the time."),
)
RUN = (
    click.option(
        "--preset",
        metavar="NAME",
        help="A paper's settings: see `methods METHOD`.  [that of the data set's name, or none]",
    ),
    click.option(
        "--nfe",
        type=words.NFE,
        help="Evaluations per sample; auto: an adaptive solver's.  [preset's, or 1,2,4,8]",
    ),
    click.option(
        "--seed",
        "seeds",
        type=words.SEEDS,
        default="0",
        show_default=True,
        help="Training seeds, each a run of its own.",
    ),
    click.option(
        "--samples",
        type=click.IntRange(2, 10**7),
        help="Samples per NFE.  [preset's, or the data set's]",
    ),
    click.option(
        "--sample-seed",
        "sample_seeds",
        type=words.SEEDS,
        default="0",
        show_default=True,
        help="Noise streams that samples start from; 0,1,2: their mean, sd and minimum.",
    ),
    click.option(
        "--steps", type=click.IntRange(1), help="Steps of training.  [preset's, or the data set's]"
    ),
    click.option("--images", type=click.IntRange(1), help="The same in examples: steps x batch."),
    click.option(
        "--batch", type=click.IntRange(1), help="Examples per step.  [preset's, or the data set's]"
    ),
    click.option(
        "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ..."
    ),
    click.option(
        "-o",
        "--option",
        "options",
        multiple=True,
        metavar="NAME=VALUE",
        help="An option of the method: see `flowbench methods METHOD`.",
    ),
    click.option(
        "--teacher", help="A method, an earlier run, or a file: see `flowbench import -h`."
    ),
    click.option(
        "--weights", type=words.FILE, help="Train nothing: examine the network of this file."
    ),
    click.option("--network", metavar="WORD", help="The backbone: see `flowbench networks`."),
    click.option(
        "--precision", type=click.Choice(["fp32", "bf16", "fp16"]), help="Of the backbone."
    ),
    click.option(
        "--optimizer",
        metavar="WORD",
        help="adam, or how else: radam,schedule=constant; see README.",
    ),
    click.option("--augment", metavar="WORD", help="none, flip, edm or edm:0.12.  [default: none]"),
    click.option("--unconditional", is_flag=True, help="Leave the labels out."),
    click.option("--micro-batch", type=click.IntRange(1), help="Examples at once.  [what fits]"),
    click.option("--compile", is_flag=True, help="Compile the backbone for training."),
    click.option("--deterministic", is_flag=True, help="On a GPU: the same bits every time."),
    click.option(
        "--reference", type=words.FILE, help="Statistics in the place of the training split's."
    ),
    click.option(
        "--reference-rows", type=click.IntRange(2), help="Of the training split.  [default: all]"
    ),
)
HOW = (
    words.inception,
    words.dinov2,
    words.clean,
    words.feature_weights,
    click.option(
        "--track",
        multiple=True,
        metavar="NAME[,OPTION=VALUE]",
        help="Log to tensorboard, wandb, mlflow or another observer, too.",
    ),
    click.option("--force", is_flag=True, help="Do it anew, teacher excepted; old numbers stay."),
    click.option("--quiet", is_flag=True, help="Print nothing but errors."),
    click.option(
        "--checkpoint-every",
        "every",
        type=click.FloatRange(0),
        default=20.0,
        show_default=True,
        metavar="SECONDS",
        help="How much work a crash may cost.",
    ),
    words.runs,
    words.data_root,
    words.database,
)


def declared(command: Callable[..., Any]) -> Callable[..., Any]:
    """The function with all options of `flowbench run`."""
    for option in reversed((*WHAT, *LOOKS, *RUN, *HOW)):
        command = option(command)
    return command


def limits(asked: dict[str, Any], suite: bool) -> Any:
    """What bounds the work; takes its words out of those of the command.

    Only a suite tries again unless it is told to.
    """
    from flowbench.limits import Limits

    timeout, hours, retries = (asked.pop(name) for name in ("timeout", "max_hours", "retries"))
    return Limits(timeout, hours, int(suite) if retries is None else retries)
