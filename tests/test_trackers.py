"""Trackers hold what observers were told, by their own libraries' word; nothing leaves the machine.

Each library writes its local files here, and reads them back.
"""

import json
import math
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flowbench import execution, observation, planning, plugins, training_log
from flowbench.events import Begun, Point
from flowbench.plans import Plan, Request, Setup
from flowbench.records import ADAPTIVE, Budget, Diverged, FlowbenchError, Protocol, Score, Spec
from flowbench.store import Store
from flowbench.testing import toy
from flowbench.training import Run, fit

pytestmark = pytest.mark.usefixtures("coarse_likelihood")

NAMES = ("tensorboard", "wandb", "mlflow")
STEPS = 40
SPEC = Spec(
    *("cfm", "moons", 0, Budget(STEPS, 4)),
    options={"lr": 2e-3, "width": None, "path": "linear", "mult": [1, 2]},
    setting={"network": "ddpmpp"},
    version="flowbench 0.1.0",
)
PLAN: Any = Plan(SPEC, Protocol(50), (1,), method=None, data=None)  # type: ignore[arg-type]
SCORES = [
    *[Score("fd", 1 / nfe, nfe, n=50) for nfe in (1, 2, 4)],
    Score("fd", 0.1, ADAPTIVE, n=50),
    Score("fd", 0.05, n=50, subject="floor"),
    Score("fd", 0.7, 1, n=50, seed=3),
    Score("train-seconds:sot", 2.5),
    Score("w2", math.nan, 1, n=50),
]
NAMED = {
    "fd n50": {1: 1.0, 2: 0.5, 4: 0.25},
    "fd n50 adaptive": {0: 0.1},
    "fd floor n50": {0: 0.05},
    "fd n50 stream3": {1: 0.7},
    "train-seconds:sot": {0: 2.5},
    "w2 n50": {1: math.nan},
}


class Gone(Exception):
    """Ends a training in the middle."""


@pytest.fixture(autouse=True)
def here_only(monkeypatch, tmp_path):
    """No variable of the user's reaches the libraries, and nobody but this machine is reached."""
    for name in [n for n in os.environ if n.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with listening() as (address, calls):
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, address)
        monkeypatch.setattr(socket.socket, "connect", refuse_strangers(socket.socket.connect))
        yield
    assert calls == [], "a library wanted to reach the network"


@contextmanager
def listening():
    """The address of a proxy, where whoever asks for the network is noted."""
    calls: list = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        ended = threading.Event()

        def wait():
            while not ended.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.settimeout(1)
                    calls.append(connection.recv(200))

        thread = threading.Thread(target=wait)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", calls
        finally:
            ended.set()
            thread.join()


def refuse_strangers(connect):
    def own(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            pytest.fail(f"a connection to {address} was tried")
        return connect(self, address)

    return own


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A database of MLflow's with no run in it: its tables take seconds to make."""
    from flowbench.trackers import mlflow, quiet

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with quiet():
        mlflow._client(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def setup(tmp_path):
    return Setup(folder=tmp_path / "runs", note=pytest.fail)


@pytest.fixture
def known(setup, empty):
    """A setup whose folder has MLflow's database already."""
    setup.folder.mkdir()
    shutil.copy(empty, setup.folder)
    return setup


def attempt(setup, words, number=1, stop=None, begin=None, spec=SPEC):
    """Train the toy network in two stages, until step `stop` of the second, and hand on scores."""
    plan = replace(PLAN, spec=spec)
    with observation.observed(plan, setup, observation.asked(words), Begun(number)) as heard:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Linear(4, 64))
        budget = Budget(2 * STEPS, 4)
        run = Run(budget, plan.folder(setup), every=0.2, observe=heard.observe)
        for stage in (run.stage("lines", 0.5), run.stage("sot", 0.5, 0.5)):
            fit(net, loss_of(net, stop if stage.name == "sot" else None), toy().train, stage)
        for score in SCORES:
            heard.observe(score)


def loss_of(net, stop):
    steps = []

    def loss(x, y):
        steps.append(1)
        if len(steps) == stop:
            raise Gone("a cable was pulled")
        return (net(x + torch.randn_like(x)) - x.flatten(1)).square().mean()

    return loss


def expected(setup):
    """The losses by stage as the training log has them."""
    points = training_log.read(PLAN.folder(setup) / training_log.FILE)
    return {
        stage: [(p.step, p.images, p.loss) for p in points if p.stage == stage]
        for stage in ("lines", "sot")
    }


class TensorBoardReader:
    """What TensorBoard's own reader finds of a run."""

    def __init__(self, setup, folder=None):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        self.folder = folder or PLAN.folder(setup) / "tensorboard"
        self.found = EventAccumulator(str(self.folder), size_guidance={"scalars": 0})
        self.found.Reload()

    def curve(self, tag):
        return [(event.step, event.value) for event in self.found.Scalars(tag)]

    def losses(self, stage):
        by_images = self.curve(f"loss by images/{stage}")
        return [
            (step, images, loss)
            for (step, loss), (images, _) in zip(
                self.curve(f"loss/{stage}"), by_images, strict=True
            )
        ]

    def scores(self):
        tags = [tag for tag in self.found.Tags()["scalars"] if tag.startswith("scores/")]
        return {tag.removeprefix("scores/"): dict(self.curve(tag)) for tag in tags}

    def outcome(self):
        return self.found.Tensors("outcome")[-1].tensor_proto.string_val[0].decode()

    def parameters(self):
        from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data

        content = self.found.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        found = parse_session_start_info_plugin_data(content).hparams
        return {name: getattr(v, v.WhichOneof("kind")) for name, v in found.items()}


class WandBReader:
    """What the records of W&B's offline files hold, by the library's own message types."""

    def __init__(self, setup):
        found = (PLAN.folder(setup) / "wandb").glob("offline-*/*.wandb")
        files = sorted(found, key=lambda path: path.stat().st_mtime_ns)
        deadline = time.monotonic() + 10
        while not any(r.WhichOneof("record_type") == "exit" for r in _records(files[-1])):
            assert time.monotonic() < deadline, "the library's own process never wrote the end"
            time.sleep(0.05)
        self.records = [record for file in files for record in _records(file)]
        self.rows = [r for r in map(self._row, self.records) if r]

    def _row(self, record):
        return {"/".join(i.nested_key) or i.key: json.loads(i.value_json)
                for i in record.history.item}  # fmt: skip

    def losses(self, stage):
        rows = [row for row in self.rows if f"loss/{stage}" in row]
        return [(r[f"step/{stage}"], r[f"images/{stage}"], r[f"loss/{stage}"]) for r in rows]

    def scores(self):
        found: dict = {}
        for row in self.rows:
            for name in (n for n in row if n.startswith("scores/")):
                value = math.nan if row[name] == "NaN" else row[name]
                found.setdefault(name.removeprefix("scores/"), {})[row["nfe"]] = value
        return found

    def summary(self):
        found = {}
        for record in self.records:
            for item in record.summary.update:
                found["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
        return found

    def outcome(self):
        summary = self.summary()
        return ": ".join(filter(None, (summary["outcome"], summary["error"])))

    def parameters(self):
        found = {}
        for record in (r for r in self.records if r.WhichOneof("record_type") == "run"):
            for item in record.run.config.update:
                found["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
        return {n: v for n, v in found.items() if n != "_wandb" and "version." not in n}

    def identities(self):
        return {r.run.run_id for r in self.records if r.WhichOneof("record_type") == "run"}


def _records(path):
    """The messages of a file of W&B: LevelDB's log, 32 KiB blocks of whole or split records."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if at % 32768 > 32768 - 7:
            at += -at % 32768
            continue
        size, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        parts += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last of several
            yield Record.FromString(parts)
            parts = b""


class MLflowReader:
    """What MLflow's own client finds of a run."""

    def __init__(self, setup):
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the library's own, about what it stands on
            from mlflow import MlflowClient

            self.client = MlflowClient(tracking_uri=f"sqlite:///{setup.folder / 'mlflow.db'}")
            (experiment,) = self.client.search_experiments(filter_string="name = 'moons'")
            (self.run,) = self.client.search_runs([experiment.experiment_id])
            self.metrics = {
                name: [(m.step, m.value) for m in self.client.get_metric_history(self.id, name)]
                for name in self.run.data.metrics
            }

    @property
    def id(self):
        return self.run.info.run_id

    def losses(self, stage):
        pairs = zip(
            *(self.metrics[f"{what}/{stage}"] for what in ("loss", "loss by images")), strict=True
        )
        return [(step, images, loss) for (step, loss), (images, _) in pairs]

    def scores(self):
        found = {n: dict(v) for n, v in self.metrics.items() if n.startswith("scores/")}
        return {name.removeprefix("scores/"): values for name, values in found.items()}

    def outcome(self):
        tags = self.run.data.tags
        return ": ".join(filter(None, (tags["flowbench.outcome"], tags.get("flowbench.error"))))

    def parameters(self):
        return self.run.data.params


READERS: dict[str, Any] = {
    "tensorboard": TensorBoardReader,
    "wandb": WandBReader,
    "mlflow": MLflowReader,
}


def close(found, wanted):
    """Equal to float32, which is what TensorBoard keeps; NaN equals NaN."""
    return np.testing.assert_array_equal(
        np.asarray(found, dtype=np.float32), np.asarray(wanted, dtype=np.float32)
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_is_one_run_with_each_step_once(setup, name):
    with pytest.raises(Gone):
        attempt(setup, [name], stop=25)
    assert READERS[name](setup).outcome() == "failed: Gone: a cable was pulled"
    attempt(setup, [name], number=2)
    whole = replace(setup, folder=setup.folder / "continuous")
    attempt(whole, [])
    found = READERS[name](setup)
    for stage, points in expected(whole).items():
        close(found.losses(stage), points)
        assert len(points) == STEPS
    scores = found.scores()
    assert scores.keys() == NAMED.keys()
    for score, values in NAMED.items():
        assert scores[score].keys() == values.keys()
        close(list(scores[score].values()), list(values.values()))
    assert found.outcome() == "ok"
    wanted = {
        **{"method": "cfm", "dataset": "moons", "seed": 0, "steps": STEPS, "batch": 4},
        **{"option.lr": 2e-3, "option.width": "none", "option.path": "linear"},
        **{"option.mult": "[1, 2]", "setting.network": "ddpmpp"},
    }
    text = name == "mlflow"
    assert found.parameters() == {n: str(v) if text else v for n, v in wanted.items()}


def test_the_summary_of_wandb_has_every_score_under_one_id(setup):
    attempt(setup, ["wandb"])
    attempt(setup, ["wandb"], number=2)
    found = WandBReader(setup)
    assert found.identities() == {SPEC.name}
    summary = found.summary()
    assert summary["fd n50 nfe4"] == 0.25 and summary["fd floor n50"] == 0.05
    numbers = [row["_step"] for row in found.rows]
    assert numbers == sorted(set(numbers)), "no row takes the place of another"


def test_the_text_of_tensorboard_names_what_was_run(setup, tmp_path):
    attempt(setup, [f"tensorboard,folder={tmp_path / 'board'}"])
    found = TensorBoardReader(setup, tmp_path / "board" / SPEC.name).found
    (event,) = found.Tensors("run")
    text = event.tensor_proto.string_val[0].decode()
    assert "|option.lr|0.002|" in text and "|version.method|flowbench 0.1.0|" in text
    assert not (PLAN.folder(setup) / "tensorboard").exists()


def test_a_torn_event_file_costs_only_what_was_torn(setup):
    with pytest.raises(Gone):
        attempt(setup, ["tensorboard"], stop=25)
    (file,) = (PLAN.folder(setup) / "tensorboard").iterdir()
    with file.open("ab") as torn:
        torn.write(b"\x18\x00\x00\x00\x00\x00\x00\x00\xa3\x7f")
    attempt(setup, ["tensorboard"], number=2)
    close(TensorBoardReader(setup).losses("sot"), expected(setup)["sot"])


def test_mlflow_shows_how_a_run_ended(known):
    setup = known
    with pytest.raises(Gone):
        attempt(setup, ["mlflow"], stop=5)
    first = MLflowReader(setup)
    assert first.run.info.status == "FAILED"
    ends = [
        (KeyboardInterrupt(), "KILLED", "interrupted"),
        (Diverged("x"), "FAILED", "diverged"),
    ]
    for number, (error, status, outcome) in enumerate(ends, 2):
        with (
            pytest.raises(type(error)),
            observation.observed(PLAN, setup, observation.asked(["mlflow"]), Begun(number)),
        ):
            running = MLflowReader(setup).run
            assert running.info.status == "RUNNING"
            raise error
        found = MLflowReader(setup)
        assert found.run.info.status == status and found.outcome().startswith(outcome)
    assert found.id == first.id and found.run.data.tags["flowbench.attempt"] == "3"
    assert not Path("mlruns").exists() and not Path("mlflow.db").exists()


def test_mlflow_takes_another_store_and_experiment(setup, tmp_path, monkeypatch):
    from flowbench.trackers import mlflow as tracker

    asked, notes = [], []

    def unreachable(uri):
        asked.append(uri)
        raise OSError("no such host")

    monkeypatch.setattr(tracker, "_client", unreachable)
    own = replace(setup, note=notes.append)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.invalid")
    for word in ("mlflow", "mlflow,uri=http://other.invalid"):
        with observation.observed(PLAN, own, observation.asked([word]), Begun(1)):
            pass
    assert asked == ["http://mlflow.invalid", "http://other.invalid"]
    assert notes == ["mlflow failed and hears no more of this run: OSError: no such host"] * 2


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_is_told_before_anything_is_trained(setup, tmp_path, monkeypatch, name):
    find = util.find_spec
    monkeypatch.setattr("flowbench.trackers.find_spec", lambda n: None if n == name else find(n))
    plan = planning.plan(Request("cfm", "moons", steps=1, batch=2, samples=2), setup)
    store = Store(f"sqlite:///{tmp_path}/r.db")
    failure = execution.execute(store, plan, replace(setup, track=(name,)))
    (need,) = plugins.find("observer", name).needs
    assert failure.endswith(f"pip install '{need}'") and "\n" not in failure
    assert store.tried("moons") == [] and not setup.folder.exists()


def test_wandb_online_needs_a_login_and_asks_for_none(setup, tmp_path, monkeypatch):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for word, mode in (("wandb,mode=online", ""), ("wandb", "online")):
        monkeypatch.setenv("WANDB_MODE", mode)
        with pytest.raises(FlowbenchError, match="wandb login"):
            observation.asked([word])
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password secret\n")
    observation.asked(["wandb"])
    (tmp_path / "netrc").write_text("machine elsewhere\n  login user\n  password secret\n")
    with pytest.raises(FlowbenchError, match="wandb login"):
        observation.asked(["wandb"])
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    observation.asked(["wandb"])
    monkeypatch.setenv("WANDB_MODE", "onlin")
    with pytest.raises(FlowbenchError, match="did you mean online"):
        observation.asked(["wandb"])


def test_a_name_is_made_fit_for_each_library():
    from flowbench.trackers import mlflow, wandb

    assert wandb._identity("a/b\\c#d?e%f:g") == "a-b-c-d-e-f-g"
    assert len(wandb._identity("x" * 300)) == 128
    assert mlflow._name("loss/teacher edm: train") == "loss/teacher edm: train"
    assert mlflow._name("a=b@c") == "a_b_c"


def test_a_run_of_all_trackers_has_the_scores_of_one_without(setup, empty, tmp_path):
    words = {"steps": 20, "batch": 32, "samples": 50, "nfe": (1, 2), "options": {"width": 8}}
    plan = planning.plan(Request("cfm", "moons", **words), setup)
    rows = []
    for number, track in enumerate([(), NAMES]):
        store = Store(f"sqlite:///{tmp_path}/{number}.db")
        own = replace(setup, folder=tmp_path / f"runs-{number}", track=track)
        own.folder.mkdir()
        shutil.copy(empty, own.folder)
        assert execution.execute(store, plan, own) == ""
        times = ("seconds", "ms-per-sample", "peak-mib")  # these are of the process and the hour
        rows.append(
            [r.score for r in store.measured("moons") if not any(t in r.score.name for t in times)]
        )
    assert rows[0] == rows[1] and len(rows[0]) > 10


LIFE = """
import os, signal, sys, time
from pathlib import Path
from flowbench import observation
from flowbench.events import Begun, Point
from flowbench.plans import Plan, Setup
from flowbench.records import Budget, Protocol, Score, Spec

def strangers(event, words):
    if event == "socket.connect" and isinstance(words[1], tuple):
        assert words[1][0] in ("127.0.0.1", "::1"), words
    assert event != "builtins.input", "a question was asked"

sys.addaudithook(strangers)
names, last = sys.argv[2].split(","), int(sys.argv[3])
plan = Plan(Spec("cfm", "moons", 0, Budget(40, 4)), Protocol(50), (1,), None, None)
setup = Setup(folder=Path(sys.argv[1]), note=lambda text: print(text, file=sys.stderr))
with observation.observed(plan, setup, observation.asked(names), Begun(1 + (last == 40))) as heard:
    for step in range(1, last + 1):
        heard.observe(Point("train", step, 4 * step, 1 / step, 0.1))
    if last < 40:
        time.sleep(1.0)  # longer than a row of W&B waits
        os.kill(os.getpid(), signal.SIGKILL)
    heard.observe(Score("fd", 0.5, 1, n=50))
print(sorted(n for n in sys.modules if n in ("torch.utils.tensorboard", "tensorflow")))
"""


@pytest.mark.slow
def test_a_killed_process_loses_nothing_and_no_library_talks_or_asks(tmp_path):
    """In processes that look like a user's: no library knows that it is tested."""
    known = ("PYTEST", "CI", "GITHUB", "WANDB", "MLFLOW")
    given = {n: v for n, v in os.environ.items() if not n.startswith(known)}
    runs = tmp_path / "runs"
    for last, code in ((25, -9), (40, 0)):
        words = [sys.executable, "-c", LIFE, str(runs), ",".join(NAMES), str(last)]
        done = subprocess.run(
            words, env=given, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert (done.returncode, done.stderr) == (code, "")
    spec = Spec("cfm", "moons", 0, Budget(40, 4))
    assert done.stdout == "[]\n"
    for name, reader in READERS.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(globals(), "PLAN", replace(PLAN, spec=spec))
            found = reader(Setup(folder=runs))
            close(found.losses("train"), [(s, 4 * s, 1 / s) for s in range(1, 41)])
            assert found.outcome() == "ok", name
    assert not {"mlruns", "mlflow.db", "wandb"} & {path.name for path in tmp_path.iterdir()}


def test_a_library_that_asks_for_the_network_would_be_seen():
    import urllib.request

    with listening() as (address, calls), pytest.raises(OSError):
        handler = urllib.request.ProxyHandler({"http": address})
        urllib.request.build_opener(handler).open("http://wandb.invalid/", timeout=5)
    assert b"wandb.invalid" in calls[0]


def test_help_takes_no_tracker():
    code = (
        "import sys; from flowbench.trackers import mlflow, tensorboard, wandb;"
        "assert not {'mlflow', 'tensorboard', 'wandb', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_point_of_a_stage_that_diverged_is_a_gap_and_no_failure(known):
    setup = known
    with observation.observed(PLAN, setup, observation.asked(NAMES), Begun(1)) as heard:
        heard.observe(Point("train", 1, 4, math.nan, 0.1))
    for reader in READERS.values():
        ((step, images, loss),) = reader(setup).losses("train")
        assert (step, images) == (1, 4) and (loss == "NaN" or math.isnan(loss))
