"""The methods on images: a backbone for all, with or without labels, features, published nets."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flowbench_plugins import rect_flow
from inception_weights import write_inception
from picture_files import write_zip
from PIL import Image
from test_imports import edm, pickled, random  # noqa: F401

from flowbench import examination, pace, planning, protocol, runner, sampling, training
from flowbench.checkpoints import read_tensors
from flowbench.comparison.naming import named
from flowbench.data.base import quantise, scattered
from flowbench.metrics.evaluation import Against, Evaluation, statistics_of
from flowbench.metrics.frechet import frechet_distance
from flowbench.metrics.references import Reference
from flowbench.metrics.statistics import Statistics
from flowbench.metrics.taken_out import TakenOut
from flowbench.nets.backbone import Backbone
from flowbench.nets.settings import DDPMpp
from flowbench.planning import Request, Setup
from flowbench.records import FlowbenchError, RunFailed
from flowbench.sampling import Sampler
from flowbench.store import Store

NET = "ddpmpp,channels=16,blocks=1,mult=1-1,attention=16"
TINY = ["--steps", "3", "--batch", "8", "--samples", "8", "--nfe", "1"]


def smooth(n, side, seed=0):
    """Images without noise: blurred random colours, uint8 (n, 3, side, side)."""
    small = np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
    large = [np.asarray(Image.fromarray(im).resize((side, side), Image.BICUBIC)) for im in small]
    return np.stack(large).transpose(0, 3, 1, 2)


@pytest.fixture
def birds(tmp_path):
    """An archive of 60 images, 32x32, in three classes, with 30 more held out."""
    for split, n, seed in (("train", 60, 0), ("test", 30, 1)):
        write_zip(tmp_path / f"birds-{split}.zip", smooth(n, 32, seed), np.arange(n) % 3)
    return tmp_path / "birds-train.zip"


@pytest.fixture(scope="session")
def inception(tmp_path_factory):
    """Seeded random weights in the file that the extractor reads."""
    return write_inception(tmp_path_factory.mktemp("weights") / "inception.pth")


def plan(method, birds, **more):
    request = Request(method, str(birds), network=NET, steps=3, batch=8, samples=8, **more)
    return planning.plan(request, Setup(folder=birds.parent))


def test_an_archive_by_its_path_has_a_name_a_held_out_split_and_a_large_backbone(birds):
    made = planning.plan(Request("edm", str(birds), nfe=()), Setup())
    assert made.spec.dataset == "birds" and len(made.data.test) == 30
    assert made.data.network == DDPMpp() and made.data.std == 0.5
    assert made.spec.setting["network"]["name"] == "ddpmpp" and not made.spec.changed
    again = planning.plan(Request("edm", "birds", nfe=()), Setup(data_root=birds.parent))
    assert again.spec.key == made.spec.key


def test_what_decides_the_network_decides_the_run(birds):
    plain = plan("edm", birds)
    others = [
        plan("edm", birds, augment="flip"),
        plan("edm", birds, augment="edm:0.2"),
        plan("edm", birds, precision="bf16"),
        plan("edm", birds, unconditional=True),
        plan("edm", birds, options={"width": 32}),
    ]
    assert len({p.spec.key for p in (plain, *others)}) == 6
    assert others[3].data.classes == 0 and others[3].data.train.labels is None
    assert others[3].method.network(others[3].data).net.classes == 0
    # what is measured of a network is no part of it
    assert plan("edm", birds, reference_rows=9, sample_seed=3).spec.key == plain.spec.key


def test_small_data_have_no_setting_so_their_runs_keep_their_keys():
    made = planning.plan(Request("edm", "digits", nfe=()), Setup())
    assert made.spec.setting == {} and made.data.network is None
    stored = Store.open_existing(f"sqlite:///{Path(__file__).parent.parent / 'results.db'}")
    old = next(m.spec for m in stored.measured("digits", ["edm"]) if not m.spec.changed)
    assert replace(old, code=made.spec.code, seed=0).key == made.spec.key


def test_a_student_has_its_teachers_backbone_without_dropout_or_augmentation(birds):
    network = "ddpmpp,channels=16,blocks=1"
    request = Request("lmm", str(birds), network=network, augment="edm", steps=3, batch=8)
    student = planning.plan(request, Setup(folder=birds.parent))
    teacher = student.teacher
    assert student.data.network.dropout == 0 and teacher.data.network.dropout == 0.13
    assert student.data.train.augment is None and teacher.data.train.augment.mode == "edm"
    assert student.spec.setting["network"]["channels"] == 16


@pytest.mark.parametrize(
    "words, message",
    [
        (["--network", "ddpm"], "no network 'ddpm': did you mean ddpmpp?"),
        (["--network", "ddpmpp,channels=33"], "type channels="),
        (["--augment", "edm:2"], "edm"),
        (["--network", "small", "--augment", "edm"], "needs a backbone that is told of it"),
        (["--network", "small", "--precision", "bf16"], "goes with a large backbone"),
        (["--weights", "none.pkl"], "does not exist"),
        (["--network", "adm,mult=1-1-1-1-1-1-1"], "multiple of 64"),
    ],
)
def test_wrong_words_get_one_line(flowbench, birds, words, message):
    code, output = flowbench("run", "edm", "--dataset", str(birds), *TINY, *words)
    assert code == 2 and message in output.splitlines()[-1], output


def test_a_path_that_is_no_archive(flowbench, tmp_path):
    for word, message in (("no/such.zip", "is no archive"), ("digits.zip", "is no archive")):
        code, output = flowbench("run", "edm", "--dataset", str(tmp_path / word))
        assert code == 2 and message in output
    (tmp_path / "digits").mkdir()
    code, output = flowbench("run", "edm", "--dataset", str(tmp_path / "digits"))
    assert code == 2 and "give it another" in output


CASES = [(method, more) for method in ("edm", "cfm", "lmm") for more in ((), ("--unconditional",))]
CASES += [("ctm", ()), ("bot-cfm", ()), ("rect-flow", ())]


@pytest.mark.parametrize("method, more", CASES)
def test_methods_train_and_sample(flowbench, birds, tmp_path, monkeypatch, method, more):
    options = {"lmm": ["-o", "pairs=8", "-o", "pair_steps=2"], "ctm": ["-o", "grid=6"]}
    options["rect-flow"] = ["-o", "k=1"]
    monkeypatch.setattr(rect_flow, "ROWS", 8)  # behind its drift
    words = ["run", method, "--dataset", str(birds), "--network", NET, *TINY, *more]
    code, output = flowbench(*words, *options.get(method, []))
    assert code == 0, output
    assert "fid, is, kid" in output, "it says what is left out, and how to get it"
    row = sqlite3.connect(tmp_path / "results.db").execute(
        "select count(*) from scores where name = 'nfe' and value = 1"
    )
    assert row.fetchone() == (1,)


class Stopped(Exception):
    """What ends a training in the middle."""


@pytest.mark.parametrize("method, word", [("edm", "edm"), ("cfm", "flip")])
def test_augmented_half_precision_in_parts_goes_on_as_if_never_stopped(
    birds, tmp_path, monkeypatch, method, word
):
    monkeypatch.setattr(pace, "TICK", 0.0)

    def trained(folder, watch=training.ignore):
        setup = Setup(folder=tmp_path / folder, every=0.0, watch=watch, micro_batch=4)
        made = plan(method, birds, precision="bf16", augment=word)
        return runner.train(made, setup, made.folder(setup)).network.state_dict()

    def stop(progress):
        if progress.step == 2:
            raise Stopped

    with pytest.raises(Stopped):
        trained("a", stop)
    resumed, whole = trained("a"), trained("b")
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    untouched = plan(method, birds).method.network(plan(method, birds).data).state_dict()
    assert any(not torch.equal(resumed[name], untouched[name]) for name in whole)


def test_methods_that_do_not_draw_from_the_data_refuse_augmentation(flowbench, birds):
    words = ["run", "bot-cfm", "--dataset", str(birds), "--network", NET, *TINY]
    code, output = flowbench(*words, "--augment", "flip")
    assert code == 3 and "cannot be augmented" in output.splitlines()[-1]


@pytest.mark.parametrize(
    "method, options", [("lmm", ["pairs=8", "pair_steps=2"]), ("ctm", ["grid=6"])]
)
def test_a_published_pickle_teaches(flowbench, birds, tmp_path, pickled, method, options):  # noqa: F811
    settings = DDPMpp(channels=16, mult=(1, 1), blocks=1)
    path = pickled(edm(random(Backbone(settings, (3, 32, 32), 3))), "edm-birds-32x32-cond-vp.pkl")
    words = ["run", method, "--dataset", str(birds), *TINY, "--teacher", str(path)]
    code, output = flowbench(*words, *(word for o in options for word in ("-o", o)))
    assert code == 0, output
    spec = Store.open_existing(f"sqlite:///{tmp_path / 'results.db'}").measured("birds")[0].spec
    assert spec.setting["network"]["channels"] == 16, "the student has its teacher's backbone"
    facts = spec.sources["teacher"]
    assert facts["licence"].startswith("CC BY-NC-SA 4.0") and len(facts["sha256"]) == 64
    assert facts["source"].endswith("edm-birds-32x32-cond-vp.pkl")
    shown = flowbench("show", spec.name)
    assert "CC BY-NC-SA" in shown[1], shown
    code, output = flowbench(*words, "--unconditional")
    assert code == 2 and "knows 3 classes, and the run 0" in output


def test_a_published_network_is_examined_without_training(flowbench, birds, tmp_path, pickled):  # noqa: F811
    backbone = random(Backbone(DDPMpp(channels=16, mult=(1, 1), blocks=1), (3, 32, 32), 3))
    path = pickled(edm(backbone), "x.pkl")
    words = ["--dataset", str(birds), "--samples", "8", "--nfe", "1", "--weights", str(path)]
    code, output = flowbench("run", "edm", *words)
    assert code == 0 and "train:" not in output and "edm weights=x.pkl@" in output, output
    code, output = flowbench("run", "cfm", *words)
    assert code == 2 and "is a network of edm, not cfm" in output
    write_zip(tmp_path / "large.zip", smooth(6, 64), np.arange(6) % 3)
    words[1] = str(tmp_path / "large.zip")
    code, output = flowbench("run", "edm", *words)
    assert code == 2 and "takes images (3, 32, 32)" in output


def test_names_carry_the_number_of_samples():
    assert named("fid", 50_000) == "fid" == named("fid", 100_000)
    assert named("fid", 5000) == "fid5k" and named("fid", 256) == "fid256"
    assert named("fid-clean", 10_000) == "fid10k-clean" and named("sfid", 1500) == "sfid1500"
    assert named("fd-dinov2", 2000) == "fd2k-dinov2" and named("kid", 256) == "kid"


@pytest.mark.slow
def test_features_are_scored_with_their_protocol_floor_and_streams(
    flowbench, birds, tmp_path, inception
):
    words = ["run", "edm", "--dataset", str(birds), "--network", NET, *TINY]
    words += ["--inception-weights", str(inception), "--reference-rows", "20"]
    code, output = flowbench(*words, "--sample-seed", "0,1,2")
    assert code == 0, output
    store = Store.open_existing(f"sqlite:///{tmp_path / 'results.db'}")
    found = {
        (m.score.subject, m.score.name, m.score.seed): m.score for m in store.measured("birds")
    }
    fid = found["model", "fid", 0]
    assert fid.protocol["reference"] == {**fid.protocol["reference"], "split": "train", "rows": 20}
    assert fid.protocol["extractor"]["resize"] == "tf1-bilinear-299" and fid.n == 8
    assert found["floor", "fid", 0].value < fid.value
    table = flowbench("compare", "--nfe", "1")[1]
    assert "noise streams 0, 1, 2" in table and "fid8 least" not in table
    table = flowbench("compare", "--metric", "fid8,fid8 least,kid")[1]
    assert "tf1-bilinear-299, against 20 images of its train split" in table
    three = [found["model", "fid", seed].value for seed in (0, 1, 2)]
    assert f"{min(three):#.4g}" in table and f"{np.mean(three):#.4g}" in table
    # the same words: nothing to do; another reference: features are scored again, not trained
    assert "every score is there" in flowbench(*words)[1]
    code, output = flowbench(*words[:-1], "16")
    assert code == 0 and "train:" not in output and "reference: 16/16" in output
    # and they agree with the formula on the very pixels
    made = plan("edm", birds)
    against = Against({"inception": inception}, rows=16)
    sampled = next(tmp_path.glob("runs/*/samples-nfe1-n8-s0.safetensors"))
    pixels = read_tensors(sampled)[0]["samples"]
    e = Evaluation(pixels / 127.5 - 1, made.data, against)
    assert torch.equal(quantise(e.samples), pixels)
    rows = made.data.train.values[scattered(60, 16)]
    features = e.extractor("inception")(rows).pool
    mine = frechet_distance(e.extracted("inception").pool, features)
    store = {(m.score.name, m.score.seed): m.score.value for m in store.measured("birds")}
    assert store["fid", 0] == pytest.approx(mine, rel=1e-5)


def test_the_floor_of_data_that_hold_nothing_back_takes_images_out(monkeypatch):
    features = torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
    seen = Statistics.empty(5)
    seen.add(features)
    real = Reference(seen.moments, None, features, 400, {})
    monkeypatch.setattr(Evaluation, "real", lambda self, name: real)
    data = planning.load_data("digits", "cpu", None)
    floor = TakenOut(torch.empty(0), data, n=100)
    out = torch.zeros(400, dtype=torch.bool)
    out[scattered(400, 100)] = True
    assert torch.equal(floor.extracted("inception").pool, features[out])
    assert torch.equal(floor.kept("inception"), features[~out])
    rest = Statistics.empty(5)
    rest.add(features[~out])
    for mine, theirs in zip(floor.exact("inception"), rest.moments, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_what_needs_many_rows_is_not_asked_of_few(birds, inception):
    setup = Setup(weights={"inception": inception})
    request = Request("edm", str(birds), network=NET, samples=1000, nfe=(1,))
    names = {metric.name for metric in protocol.metrics_for(planning.plan(request, setup), setup)}
    assert "kid" in names and "kid-subsets" not in names, "the set has 60 images"
    assert "fd-dinov2" not in names, "its weights are not here"
    digits = planning.plan(Request("edm", "digits", nfe=(1,)), setup)
    names = {metric.name for metric in protocol.metrics_for(digits, setup)}
    assert "fid" not in names, "it means nothing on 8x8 pixels"


def sampler(birds, folder, note=lambda text: None, watch=training.ignore):
    made = plan("edm", birds)
    torch.manual_seed(0)
    setup = Setup(folder=folder, note=note, watch=watch)
    network = random(made.method.network(made.data))
    return Sampler(made, setup, folder, runner.hooks(made), network)


def test_samples_are_drawn_fewer_at_once_where_the_device_is_full(birds, tmp_path, monkeypatch):
    whole, notes = sampler(birds, tmp_path / "a").samples(1)[0], []
    drawing = sampler(birds, tmp_path / "b", notes.append)
    original = Sampler.call

    def full(self, noise, indices, nfe):
        if len(noise) > 3:
            raise torch.OutOfMemoryError
        return original(self, noise, indices, nfe)

    monkeypatch.setattr(Sampler, "call", full)
    drawing.batch = 8
    torch.testing.assert_close(drawing.samples(1)[0], whole, rtol=0, atol=2 / 255)
    assert drawing.batch == 2 and len(notes) == 2 and "4 samples are drawn together" in notes[0]
    assert drawing.fitting(8, 1) == 2
    monkeypatch.setattr(Sampler, "call", lambda *words: full(drawing, range(9), None, 1))
    with pytest.raises(RunFailed, match="no room to draw a single sample"):
        sampler(birds, tmp_path / "c").samples(1)


def test_samples_that_were_drawn_before_a_crash_are_not_drawn_again(birds, tmp_path, monkeypatch):
    whole = sampler(birds, tmp_path / "a").samples(1)[0]
    monkeypatch.setattr(sampling, "SHARD", 3)

    def stop(progress):
        if progress.step == 8:
            raise Stopped

    with pytest.raises(Stopped):
        sampler(birds, tmp_path / "b", watch=stop).samples(1)
    steps = []
    resumed = sampler(birds, tmp_path / "b", watch=lambda p: steps.append(p.step)).samples(1)[0]
    torch.testing.assert_close(resumed, whole, rtol=0, atol=2 / 255)
    assert steps == [8], "two of three shards were there"
    assert not list((tmp_path / "b").glob("*.part"))


def test_statistics_of_another_extractor_are_none(tmp_path):
    large = tmp_path / "dino.npz"
    np.savez(large, mu=np.zeros(1024), sigma=np.eye(1024))
    assert statistics_of(large, "inception") is None
    assert statistics_of(large, "dinov2").pool.mean.shape == (1024,)
    clean, plain = tmp_path / "x_clean_train_32.npz", tmp_path / "x.npz"
    for path in (clean, plain):
        np.savez(path, mu=np.zeros(2048), sigma=np.eye(2048))
    assert statistics_of(clean, "inception") is None and statistics_of(plain, "clean") is None
    (tmp_path / "bad.npz").write_bytes(b"no statistics")
    with pytest.raises(FlowbenchError, match=r"bad\.npz"):
        statistics_of(tmp_path / "bad.npz", "inception")


@pytest.mark.slow
def test_lines_on_imagenet_64_go_through_every_stage(flowbench, tmp_path, inception, monkeypatch):
    """The real resolution, number of classes and kind of network, of a smaller width."""
    monkeypatch.setattr(examination, "LARGE_ROWS", 1)  # behind its straightness
    write_zip(tmp_path / "imagenet-64x64.zip", smooth(24, 64), np.arange(24) * 43)
    words = ["run", "lmm", "--dataset", "imagenet64", "--data-root", str(tmp_path)]
    words += ["--preset", "none"]
    words += ["--network", "adm,blocks=1", "-o", "width=32", "-o", "pairs=4", "-o", "pair_steps=2"]
    words += ["--steps", "2", "--batch", "4", "--samples", "4", "--nfe", "1,2"]
    code, output = flowbench(*words, "--inception-weights", str(inception))
    assert code == 0, output
    store = Store.open_existing(f"sqlite:///{tmp_path / 'results.db'}")
    found = {(m.score.name, m.score.nfe) for m in store.measured("imagenet64")}
    assert {
        ("train-seconds:pairs", -1),
        ("train-seconds:lines", -1),
        ("fid", 1),
        ("S", -1),
    } <= found
    spec = store.measured("imagenet64", ["lmm"])[0].spec
    assert (
        spec.setting["network"]["mult"] == [1, 2, 3, 4] and spec.setting["network"]["blocks"] == 1
    )
    network = planning.plan(
        Request("edm", "imagenet64", nfe=(), network="adm,blocks=1"), Setup(data_root=tmp_path)
    ).data
    assert network.classes == 1000 and network.shape == (3, 64, 64)


def test_some_of_the_rows_are_of_all_classes():
    labels = torch.arange(50_000) % 10
    assert len(labels[scattered(50_000, 1000)].unique()) == 10
    assert torch.equal(scattered(7, 9), torch.arange(7))
    assert torch.equal(scattered(100, 30), scattered(100, 30).unique())
