"""`flowbench methods`, `datasets` and `networks`: what there is, and what each takes."""

import click

from flowbench.cli import words


@click.command()
@click.argument("name", required=False, type=words.Name("method"))
@click.option("--preset", metavar="PRESET", help="Print a paper's settings, each with its source.")
def methods(name, preset) -> None:
    """List the installed methods, or describe one: its options, defaults, presets and source."""
    from flowbench import options, plugins

    if preset is not None:
        return _preset(name, preset)
    if name is None:
        for method, point in plugins.methods().items():
            click.echo(f"{method:12s} {plugins.summary(point)}  [{point.origin}]")
        return
    cls = plugins.method_class(name)
    point = plugins.methods()[name]
    click.echo(f"{name}: {plugins.description(cls)}\n{plugins.source(cls)}\n[{point.origin}]")
    teacher = getattr(cls, "teacher", None)
    if isinstance(teacher, property):
        click.echo("\nLearns from a teacher with some of its options.")
    elif teacher:
        click.echo(f"\nLearns from a teacher: {teacher}, unless --teacher names another.")
    click.echo("\nOptions (-o NAME=VALUE):")
    for option in options.describe(cls):
        default = (
            ",".join(map(str, option.default)) if option.type.endswith("commas") else option.default
        )
        click.echo(f"  {option.name} = {'none' if default is None else default}  ({option.type})")
        if option.help:
            click.echo(f"      {option.help}")
    _presets(name)


def _presets(name: str) -> None:
    """List the presets of a method."""
    from flowbench import presets

    known = presets.of(name)
    if known:
        click.echo(f"\nPresets (run {name} --preset NAME; methods {name} --preset NAME):")
    for word, preset in known.items():
        click.echo(f"  {word}: {preset.title}")


def _preset(name: str | None, word: str) -> None:
    """Print a preset: what to type for each value, and where it comes from."""
    from flowbench import presets

    if name is None:
        raise click.UsageError("--preset belongs to a METHOD: methods METHOD --preset PRESET")
    preset = presets.get(name, word)
    click.echo(f"{name} --preset {word}: {preset.title}")
    run = {
        f"--{key} {v.word}" if v.value is not True else f"--{key}": v
        for key, v in preset.run.items()
    }
    parts = {
        "Of the run": run,
        "Options of the method": {f"-o {key}={v.word}": v for key, v in preset.options.items()},
        "Not to be changed": {f"{key}: {v.word}": v for key, v in preset.fixed.items()},
    }
    for title, values in parts.items():
        if values:
            click.echo(f"\n{title}:")
        for text, value in values.items():
            click.echo(f"  {text}\n      {value.source}")


@click.command()
@click.argument("name", required=False, type=words.Name("dataset"))
@words.data_root
def datasets(name, data_root) -> None:
    """List the data sets, or load one and describe it."""
    from flowbench import plugins

    if name is None:
        for entry in plugins.datasets().values():
            needs = f"  (needs {entry.needs})" if entry.needs else ""
            click.echo(f"{entry.name:13s} {entry.summary}{needs}")
        return
    from flowbench import planning

    entry = planning.dataset(name)
    data = planning.load_data(name, "cpu", data_root)
    held_out = len(data.test) if data.test is not None else 0
    click.echo(f"{name}: {entry.summary}")
    click.echo(f"  {data.kind} {data.shape}, {data.classes} classes")
    click.echo(f"  {len(data.train)} training rows, {held_out} held out, std {data.std:.4f}")
    click.echo(f"  sha256 of the decoded data: {data.sha256}")
    steps, batch = entry.budget.steps, entry.budget.batch
    click.echo(f"  default budget: {steps} steps of {batch}; {entry.samples} samples")
    if entry.remark:
        click.echo(f"  {entry.remark}")


@click.command()
@click.argument("word", required=False, metavar="[WORD]")
def networks(word) -> None:
    """List the backbones, or describe one, such as `ddpmpp` or `adm,channels=64`.

    `run --network WORD` gives one to every method; `small` is the network of small data.
    """
    from flowbench import options, plugins
    from flowbench.discovery import catalogues
    from flowbench.nets import settings

    claims = catalogues.claims("networks")
    if word is None:
        for name, [(plugin, cls), *_] in claims.items():
            summary = plugins.description(cls).partition("\n")[0]
            click.echo(f"{name:8s} {summary}  [{plugin.origin}]")
        return
    chosen = settings.parse(word, {name: cls for name, [(_, cls), *_] in claims.items()})
    plugin = claims[chosen.name][0][0]
    click.echo(f"{word}: {plugins.description(type(chosen))}\n[{plugin.origin}]")
    click.echo("\nSettings (NAME,setting=value,...; a list as 1-2-2):")
    for option in options.describe(type(chosen)):
        value = getattr(chosen, option.name)
        text = "-".join(map(str, value)) if isinstance(value, tuple) else value
        click.echo(f"  {option.name} = {text}  ({option.type.replace('commas', 'dashes')})")
        if option.help:
            click.echo(f"      {option.help}")
