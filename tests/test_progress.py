"""How a run shows how far it is."""

from flowbench.cli import progress
from flowbench.training import Progress


def test_a_line_names_step_loss_rate_and_time_left():
    shown = progress.line(Progress("lines", 50, 200, 0.12345, 321.4, 17.2))
    assert shown == "lines: 50/200  loss 0.1235  321 images/s  ETA 17 s"
    assert progress.line(Progress("pairs", 5, 9)) == "pairs: 5/9"


def test_plain_lines_do_not_flood(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    watch = progress.Lines()
    for step in range(1, 1001):
        now[0] += 0.1
        watch(Progress("train", step, 1000))
    lines = capsys.readouterr().err.splitlines()
    assert 10 <= len(lines) <= 12
    assert lines[-1] == "train: 1000/1000"


def test_quiet_and_bar(capsys):
    with progress.watcher(quiet=True, terminal=True) as watch:
        watch(Progress("train", 1, 2))
    assert capsys.readouterr() == ("", "")
    with progress.watcher(quiet=False, terminal=True) as watch:
        watch(Progress("teacher edm: train", 1, 2, 0.5))
        watch(Progress("teacher edm: train", 2, 2, 0.5))
