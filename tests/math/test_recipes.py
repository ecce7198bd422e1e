"""LMM and CTM with their perceptual and adversarial losses: stages, turns, and resuming each."""

from dataclasses import dataclass

import pytest
import torch
from flowbench_plugins.ctm import CTM
from flowbench_plugins.edm import EDM
from flowbench_plugins.lmm import LMM
from loss_weights import efficientnet, vgg16

from flowbench import FlowbenchError
from flowbench.records import Budget
from flowbench.testing import Killed, Stop, toy, toy_teacher
from flowbench.training import Run

BUDGET = Budget(steps=10, batch=2)
SEEING = {"features": ("efficientnet",), "width": 8}
FULL = LMM(
    **SEEING,
    **{"norm": "lpips", "sizes": (32, 128), "adversarial": 0.6, "sot": 0.3, "sampler": "paper"},
    **{"pairs": 24, "pair_steps": 2, "start": "random", "weight": "none"},
)
JUMPS = CTM(**SEEING, distance="lpips", size=128, adversarial=0.5, start="random", kmax=2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return {"vgg16": vgg16(folder), "efficientnet": efficientnet(folder)}


def trained(method, run):
    torch.manual_seed(0)
    return method.train(toy(), run, toy_teacher())


@dataclass
class KilledIn(Killed):
    """Ends right after a checkpoint in the middle of one stage."""

    within: str = ""

    def _save(self, parts, generator, step):
        if self.name == self.within:
            return super()._save(parts, generator, step)
        return Run._save(self, parts, generator, step)


def test_the_stages_of_lmm():
    def stages(**options):
        method = LMM(sampler="paper", **options)
        begins = method.marks[:-1]
        steps = [
            Run(BUDGET).stage("", end - b, b).budget.steps
            for b, end in zip(begins, method.marks[1:], strict=True)
        ]
        return list(zip(map(method.stage, begins), steps, strict=True))

    assert stages() == [("lines", 10)]
    assert stages(sot=0.3) == [("lines", 7), ("sot", 3)]
    assert stages(adversarial=0.2, sot=0.2) == [("lines", 8), ("adversarial-sot", 2)]
    both = [("lines", 4), ("adversarial", 3), ("adversarial-sot", 3)]
    assert stages(adversarial=0.6, sot=0.3) == both
    assert stages(adversarial=0.3, sot=0.6) == [("lines", 4), ("sot", 3), ("adversarial-sot", 3)]


def test_the_papers_80k_and_20k():
    run = Run(Budget(100_000, 512))
    assert run.stage("lines", 0.8).budget.steps == 80_000
    assert run.stage("adversarial", 0.2, 0.8).budget.steps == 20_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "stages"),
    [
        (FULL, ("lines", "adversarial", "adversarial-sot")),
        (JUMPS, ("consistency", "adversarial")),
    ],
    ids=["lmm", "ctm"],
)
def test_stages_that_were_cut_off_go_on_as_if_they_had_not_been(method, stages, weights, tmp_path):
    for stage in stages:
        killed = KilledIn(BUDGET, tmp_path, every=0, weights=weights, stop=1, within=stage)
        with pytest.raises(Stop):
            trained(method, killed)
    resumed = trained(method, Run(BUDGET, tmp_path, every=0, weights=weights))
    continuous = trained(method, Run(BUDGET, weights=weights))
    for a, b in zip(resumed.parameters(), continuous.parameters(), strict=True):
        assert torch.equal(a, b)


def test_generator_and_discriminator_take_turns(weights, monkeypatch):
    """The average, and with it what is returned, moves at even iterations only."""
    from flowbench.losses.adversarial import Rival

    turns, original = [], Rival.turn
    monkeypatch.setattr(Rival, "turn", lambda self: turns.append(original(self)) or turns[-1])
    trained(FULL, Run(BUDGET, weights=weights))
    assert turns == [False, True, False] * 2  # both stages of three begin with the generator


def test_the_discriminator_moves_the_generator(weights, monkeypatch):
    """With a share of 0 for the lines, all that moves it is the discriminator."""
    from flowbench.losses import build

    seen, original = [], build.rival

    def spy(judge, *given):
        seen.append([p.detach().clone() for p in judge.parameters()])
        seen.append(judge)
        return original(judge, *given)

    monkeypatch.setattr(build, "rival", spy)
    run = Run(BUDGET, weights=weights)
    trained(FULL, run)
    before, judge, after, same = seen
    assert judge is same
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_ends_of_lines_are_compared_by_the_perceptual_loss(weights):
    """At the sizes of the first stage, and of the adversarial one."""
    run = Run(BUDGET, weights=weights)
    end, x = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8)
    small, large = (FULL.measure(toy(), run, size) for size in FULL.sizes)
    assert (small.size, large.size) == (32, 128)
    assert small(end, x).shape == (2,) and not torch.allclose(small(end, x), large(end, x))
    assert torch.equal(small(x, x), torch.zeros(2))


@pytest.mark.parametrize(
    ("cls", "words", "match"),
    [
        (LMM, {"adversarial": 1.0}, "below 1"),
        (LMM, {"sizes": (64,)}, "two numbers of pixels"),
        (LMM, {"sizes": (64, 16)}, "from 32 on"),
        (LMM, {"adversarial": 0.5, "features": ()}, "each once"),
        (LMM, {"adversarial": 0.5, "features": ("deit", "deit")}, "each once"),
        (LMM, {"adversarial": 0.5, "features": ("vit",)}, "no feature network 'vit'"),
        (LMM, {"adversarial": 0.5, "sizes": (64, 128)}, "deit looks at 224"),
        (LMM, {"adversarial": 0.5, "sizes": (64, 200)}, "multiple of 32"),
        (CTM, {"adversarial": 0.5, "features": ("vit",)}, "no feature network 'vit'"),
        (CTM, {"adversarial": 0.5, "variant": "cd"}, "variant=ctm only"),
        (CTM, {"adversarial": -0.5}, "from 0 to 1"),
    ],
)
def test_wrong_options_are_one_line(cls, words, match):
    with pytest.raises(FlowbenchError, match=match):
        cls(**words)


def test_which_networks_are_needed():
    assert LMM().needs_weights == CTM().needs_weights == ()
    assert LMM(norm="johnson").needs_weights == ("vgg16",)
    assert LMM(adversarial=0.1).needs_weights == ("deit", "efficientnet")
    assert JUMPS.needs_weights == ("vgg16", "efficientnet")
    assert "are for images" in LMM(norm="lpips").refuses_data(toy("vector"))
    assert LMM(norm="lpips").refuses_data(toy()) is LMM().refuses_data(toy("vector")) is None


def test_its_field_is_edms_kind():
    """Nothing of the losses is part of the network that is returned."""
    names = set(FULL.network(toy()).state_dict())
    assert names == set(EDM(width=8).network(toy()).state_dict())
