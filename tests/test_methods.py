"""Every method that comes with flowbench keeps the contract, on images and on vectors."""

from pathlib import Path
from types import MappingProxyType

from flowbench_plugins.bot_cfm import BOTCFM
from flowbench_plugins.cfm import CFM
from flowbench_plugins.ctm import CTM
from flowbench_plugins.edm import EDM
from flowbench_plugins.exact import Exact
from flowbench_plugins.lfm import LFM
from flowbench_plugins.lmm import LMM
from flowbench_plugins.rect_flow import RectFlow

from flowbench import plugins
from flowbench.testing import MethodContract

CONSISTENCY = MappingProxyType({"T02": "the distance of two ends may grow while they learn"})
SMALL = {"pairs": 64, "pair_steps": 3, "start": "random", "width": 16}


class Variant(MethodContract):
    """A form of a method that is left to be quick: CTM's whole, and of others another form."""

    quick = True


class TestCFM(MethodContract):
    method = CFM(width=16)


class TestCFMMidpointVectors(Variant):
    method = CFM(solver="midpoint")
    kind = "vector"


class TestInterFlowVectors(Variant):
    method = CFM(path="trig", solver="heun")
    kind = "vector"


class TestBOTCFM(MethodContract):
    method = BOTCFM(n=24, width=16)  # pools across batches of 16


class TestBOTCFMSinkhornVectors(Variant):
    method = BOTCFM(n=8, coupling="sinkhorn", reg=0.5, per_class=False)
    kind = "vector"


class TestRectFlowFirst(Variant):
    method = RectFlow(k=1, width=16)


class TestRectFlowSecond(MethodContract):
    method = RectFlow(pairs=64, pair_steps=2, start="random", width=16)


class TestRectFlowInverseVectors(Variant):
    method = RectFlow(
        pairs=64, pair_steps=2, start="random", inverse=0.5, times="u-shaped", loss="huber"
    )
    kind = "vector"


class TestRectFlowDistilled(Variant):
    method = RectFlow(distil=2, pairs=64, pair_steps=2, start="random", width=16)
    nfes = (2,)


class TestCTM(Variant):
    method = CTM(grid=5, kmax=2, start="random", width=16)


class TestCTMAdaptiveVectors(Variant):
    method = CTM(grid=5, kmax=2, start="random", adaptive=True, target="ema", gamma=0.5)
    kind = "vector"


class TestCD(Variant):
    method = CTM(variant="cd", grid=5, start="random", width=16)
    skips = CONSISTENCY


class TestCDVectors(Variant):
    method = CTM(variant="cd", start="random", weight="none", levels=(1.382,))
    skips = CONSISTENCY
    kind = "vector"
    nfes = (1, 2)


class TestLFM(Variant):
    method = LFM(blocks=2, width=16)
    nfes = (2, 3, 5)


class TestLFMVectors(MethodContract):
    method = LFM(blocks=2)
    kind = "vector"
    nfes = (2, 3, 5)


class TestLFMTrigVectors(Variant):
    method = LFM(blocks=3, path="trig", coupling="shuffled", warm=False, schedule="even")
    skips = MappingProxyType({"T02": "shuffled ends are noise to a block: its loss hardly falls"})
    kind = "vector"
    nfes = (3, 4, 8)


class TestLFMDistilled(Variant):
    method = LFM(blocks=2, distil=1, pairs=64, pair_steps=2, width=16)
    nfes = (1,)


class TestEDM(Variant):
    method = EDM(width=16)
    nfes = (1, 2, 5, 35, 36)


class TestEDMHeunVectors(MethodContract):
    method = EDM(solver="heun")
    kind = "vector"
    nfes = (1, 2, 3, 4, 9)


class TestEDMStochastic(Variant):
    method = EDM(solver="heun", churn=10.0, width=16)
    nfes = (1, 2, 9)


class TestExact(MethodContract):
    method = Exact()
    kind = "vector"


class TestExactEDM(TestExact):
    method = Exact(field="edm")


class TestExactLines(TestExact):
    method = Exact(field="lines")


class TestExactLFM(TestExact):
    method = Exact(field="lfm", blocks=2)
    nfes = (2, 3, 5)


class TestLMM(Variant):
    method = LMM(**SMALL)


class TestLMMVectors(MethodContract):
    method = LMM(pairs=2000, pair_steps=20)
    kind = "vector"


class TestLMMPaperVectors(Variant):
    method = LMM(**SMALL | {"width": None}, sampler="paper", sot=0.25, norm="l2", weight="none")
    kind = "vector"
    nfes = (1, 2)


def test_every_method_that_comes_with_flowbench_has_a_contract():
    sources = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    for name, plugin in plugins.methods().items():
        if plugin.distribution == "flowbench":
            assert f"    method = {plugin.attribute}(" in sources, name
