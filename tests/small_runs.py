"""Small runs through the command line, and a method that fails while it samples."""

from click.testing import CliRunner


def ran(folder, *runs):
    """The folder, in which there are these runs: each the words after `flowbench run`."""
    from flowbench.cli import cli

    for words in runs:
        asked = ["run", *words, "--quiet", "--db", str(folder / "results.db")]
        result = CliRunner().invoke(cli, asked)
        assert result.exit_code == 0, result.output
    return folder


def failing(monkeypatch, error):
    """A method whose sampler raises at its second NFE."""
    from flowbench_plugins.cfm import CFM

    from flowbench import hookimpl, solvers

    @hookimpl
    def sample(self, network, noise, labels, nfe):
        if nfe == 2:
            raise error
        return solvers.euler(network, noise, labels, nfe)

    monkeypatch.setattr(CFM, "sample", sample)
