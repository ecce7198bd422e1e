"""Lines Matching Models (arXiv:2412.06403): samplers, loss, laws of levels, pairs."""

import exact_fields as exact
import pytest
import torch
from flowbench_plugins.lmm import LMM

from flowbench import FlowbenchError, noise_levels, solvers
from flowbench.coordinates import like, velocity_of
from flowbench.noise import Stream, balanced_labels, unit_noise
from flowbench.pairs import Pairs
from flowbench.records import Budget
from flowbench.teacher import Teacher, copy_weights
from flowbench.training import Run

PAPER_LEVELS = {0: 80.0, 1: 57.58598, 2: 40.78557, 3: 28.37458, 5: 12.91008}


def ratio(method: LMM, nfe: int, std: float = 0.5) -> float:
    """Standard deviation of the samples over that of the data, for the perfect network."""
    noise, rng = exact.basis(4)
    return method.sample(exact.lines(std), noise, None, nfe, rng).norm().item() / std


@pytest.mark.parametrize(
    ("grid", "expected"),
    [(18, [0.99377, 0.99141, 0.98794, 0.96339]), (40, [0.99377, 0.99286, 0.99177, 0.98717])],
)
def test_fresh_noise_loop_on_a_gaussian(grid, expected):
    """Steps (0), (0,1), (0,1,2), (0,3,5): fresh noise shrinks even the perfect network's law."""
    paper = LMM(sampler="paper", grid=grid)
    three = LMM(sampler="paper", grid=grid, indices=(0, 1, 2))
    found = [ratio(paper, 1), ratio(paper, 2), ratio(three, 3), ratio(paper, 3)]
    assert found == pytest.approx(expected, abs=1e-5)


def test_fresh_noise_loop_with_the_streams_of_a_run():
    """The noise of later steps is not the noise of the first."""
    n, dim, std, allowed = 300, 64, 0.5, 0.03
    noise, rng = unit_noise(0, range(n), (dim,)), Stream(0, range(n), (dim,), "cpu")
    method = LMM(sampler="paper", indices=(0, 10))
    found = method.sample(exact.lines(std), noise, None, 2, rng)
    expected = ratio(method, 2)
    assert expected < 0.8
    assert found.square().mean().sqrt().item() / std == pytest.approx(expected, abs=allowed)
    again = method.sample(exact.lines(std), noise, None, 2, lambda: noise)  # control: it stays
    assert again.square().mean().sqrt().item() / std == pytest.approx(0.99377, abs=allowed)


@pytest.mark.parametrize("std", [0.5, 1.0])
def test_line_stepping_does_not_change_a_perfect_prediction(std):
    x0 = torch.randn(5, 3, dtype=torch.float64)
    one = LMM().sample(exact.lines(std), x0, None, 1, None)
    torch.testing.assert_close(one, ratio(LMM(), 1, std) * std * x0)
    c = exact.slope(std)
    assert ratio(LMM(), 1, std) == pytest.approx(c / std * 80 / (c + 80), rel=1e-12)
    for nfe in (2, 3, 5, 9):
        torch.testing.assert_close(LMM().sample(exact.lines(std), x0, None, nfe, None), one)
    teacher = exact.Net(exact.gaussian(0.0, std, 3).denoiser)
    bent = [LMM().sample(teacher, x0, None, nfe, None) for nfe in (1, 5)]
    assert (bent[0] - bent[1]).abs().max() > 0.1  # control: EDM's lines are not straight


def test_line_stepping_on_a_mixture():
    """N*(x, sigma) = psi(h^-1(x)) with h(x0) = psi(x0) + sigma x0, by bisection."""

    def perfect(x, sigma, y):
        low, high = torch.full_like(x, -9), torch.full_like(x, 9)
        for _ in range(70):
            middle = (low + high) / 2
            below = psi(middle) + like(sigma, x) * middle < x
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return psi((low + high) / 2)

    def psi(x0):
        return exact.M1.quantile(torch.special.ndtr(x0[:, 0]))[:, None]

    x0 = torch.tensor([[-1.3], [-0.4], [0.7], [2.0]], dtype=torch.float64)
    ends = [LMM().sample(exact.Net(perfect), x0, None, nfe, None) for nfe in (1, 4)]
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(ends[0], psi(x0), rtol=0, atol=0.02)


@pytest.mark.parametrize("nfe", [1, 2, 3, 4])
def test_paper_steps(nfe):
    """The levels of the paper's tables: (0), (0,1), (0,3,5), (0,1,3,5) of the grid of 18."""
    network = exact.lines(0.5)
    seen, rng = exact.calls(network), Stream(0, range(2), (3,), "cpu")
    LMM(sampler="paper").sample(network, torch.randn(2, 3), None, nfe, rng)
    rows = {1: (0,), 2: (0, 1), 3: (0, 3, 5), 4: (0, 1, 3, 5)}[nfe]
    expected = [PAPER_LEVELS[i] for i in rows]
    assert [sigma[0].item() for _, sigma in seen] == pytest.approx(expected, abs=1e-4)
    assert LMM(sampler="paper", grid=40).steps(2) == pytest.approx([80, 69.45095], abs=1e-5)
    chosen = LMM(sampler="paper", indices=(0, 2))
    assert chosen.steps(2) == pytest.approx([80, 40.78557], abs=1e-5)
    assert chosen.steps(3) == pytest.approx([80, 28.37458, 12.91008], abs=1e-5)


@pytest.mark.parametrize("nfe", range(1, 10))
def test_line_sampler_spends_what_it_is_given(nfe):
    network = exact.lines(0.5)
    seen = exact.calls(network)
    LMM().sample(network, torch.randn(2, 3), None, nfe, None)
    assert len(seen) == nfe


def test_norms_of_known_errors():
    error = torch.tensor([[3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, -2.0]])

    def norm(word, error):
        return LMM(norm=word).measure(None, None, None)(error + 7, torch.full((4,), 7.0))

    assert norm("squared", error).tolist() == pytest.approx([6.25, 1.0])
    assert norm("l2", error).tolist() == pytest.approx([2.5, 1.0])
    assert norm("l1", error).tolist() == pytest.approx([1.75, 0.5])
    flat = torch.zeros(1, 4, requires_grad=True)
    norm("l2", flat).sum().backward()
    assert flat.grad is not None and flat.grad.isfinite().all()


def loss_with(method: LMM, function, monkeypatch, std: float = 0.5):
    """(noise, x, y) -> eq. 3 of `method` for a network `function`."""
    found = []
    monkeypatch.setattr(
        "flowbench.training.fit", lambda net, loss, *args, **options: found.append(loss)
    )
    method.fit(exact.Net(function, std), None, None, None, 0.0, None)
    return found[0]


@pytest.mark.parametrize("norm", ["squared", "l2", "l1"])
@pytest.mark.parametrize("weight", ["edm", "none"])
def test_loss_of_a_known_error(norm, weight, monkeypatch):
    """The weight is on the square: w |e|^2, so sqrt(w) |e| for the other norms."""
    monkeypatch.setattr(LMM, "draw_sigmas", lambda self, n, device: torch.full((n,), 2.0))
    method, miss = LMM(norm=norm, weight=weight), torch.tensor([3.0, 4.0])
    noise, x = torch.randn(6, 2), torch.randn(6, 2)
    loss = loss_with(method, lambda z, sigma, y: z - 2 * noise + miss, monkeypatch)
    factor = (4 + 0.25) / (2 * 0.5) ** 2 if weight == "edm" else 1.0
    expected = {"squared": 12.5 * factor, "l2": (12.5 * factor) ** 0.5, "l1": 3.5 * factor**0.5}
    assert loss(noise, x, None).item() == pytest.approx(expected[norm], rel=1e-4)


def test_perfect_network_has_no_loss(monkeypatch):
    noise = torch.randn(64, 2, dtype=torch.float64)
    loss = loss_with(LMM(), exact.lines(0.5).function, monkeypatch)
    x = exact.slope(0.5) * noise
    assert loss(noise, x, None).item() < 1e-10
    assert loss(noise, x.flip(0), None).item() > 0.1  # control: unpaired


def test_laws_of_levels():
    torch.manual_seed(0)
    top = LMM().draw_sigmas(256, "cpu")
    assert len(top) == 256 and (top == 80).sum() == 32  # 1/8
    many = LMM().draw_sigmas(400_000, "cpu")
    expected = torch.cat(
        [
            torch.full((50_000,), 80.0),
            noise_levels.draw_karras(150_000, 0.002, 80.0, 7.0, "cpu"),
            noise_levels.draw_uniform(200_000, 0.002, 80.0, "cpu"),
        ]
    )
    p = torch.tensor([0.05, 0.25, 0.5, 0.75])
    torch.testing.assert_close(many.quantile(p), expected.quantile(p), rtol=0.03, atol=0)

    grid = noise_levels.karras(18).float()
    drawn = LMM(sigmas="grid").draw_sigmas(4000, "cpu")
    assert torch.isin(drawn, grid).all() and len(drawn.unique()) == 18
    assert not torch.isin(many, grid).all()
    sot = LMM(sampler="paper", sot=0.5).draw_sampled(4000, "cpu")
    torch.testing.assert_close(sot.unique(), grid[:2].flip(0))
    assert (sot == 80).double().mean().item() == pytest.approx(0.5, abs=0.05)
    named = LMM(sampler="paper", sot=0.5, indices=(0, 3, 5)).draw_sampled(4000, "cpu")
    torch.testing.assert_close(named.unique(), grid[[5, 3, 0]])
    for law, median in (("karras", 2.515), ("uniform", 1.0), ("log-normal", 0.301)):
        level = LMM(sigmas=law).draw_sigmas(100_000, "cpu").median().item()
        assert level == pytest.approx(median, rel=0.06)


def test_refuses():
    assert LMM().refuses(None) and LMM().refuses(7) is None
    paper = LMM(sampler="paper")
    assert [nfe for nfe in range(1, 8) if paper.refuses(nfe) is None] == [1, 2, 3, 4]
    five = LMM(sampler="paper", indices=(0, 1, 2, 3, 5))
    assert [nfe for nfe in range(1, 8) if five.refuses(nfe) is None] == [1, 2, 3, 4, 5]
    sot = LMM(sampler="paper", sot=0.2)
    assert [nfe for nfe in range(1, 8) if sot.refuses(nfe) is None] == [1, 2]
    sot = LMM(sampler="paper", sot=0.2, indices=(0, 3, 5))
    assert [nfe for nfe in range(1, 8) if sot.refuses(nfe) is None] == [1, 3]


@pytest.mark.parametrize(
    "options",
    [
        {"sot": 1.0, "sampler": "paper"},
        {"sot": -0.1, "sampler": "paper"},
        {"sot": 0.5},
        {"indices": (0, 18)},
        {"indices": (-1,)},
    ],
)
def test_impossible_options(options):
    with pytest.raises(FlowbenchError):
        LMM(**options)


@pytest.mark.parametrize("indices", [(1, 3), (0, 5, 3), (0, 0)])
def test_steps_start_at_the_top_and_fall(indices):
    """Sampling starts from sigma_max noise: another first level is not what the network is told."""
    with pytest.raises(FlowbenchError):
        LMM(sampler="paper", indices=indices)


@pytest.mark.parametrize("grid", [1, 4, 5])
def test_a_grid_without_the_papers_levels_is_refused(grid):
    """NFE 3 and 4 need level 5, NFE 2 needs level 1."""
    with pytest.raises(FlowbenchError):  # at once, or from the refusal that a plan asks for
        method = LMM(sampler="paper", grid=grid)
        for nfe in (2, 3, 4):
            reason = method.refuses(nfe)
            if reason:
                raise FlowbenchError(reason)
            assert len(method.steps(nfe)) == nfe


def test_weights_of_the_other_form_are_refused():
    """The shapes agree, but F means something else: a velocity of z, not a mix of x and noise."""
    data = exact.vectors(torch.randn(9, 2))
    source = LMM().network(data)
    with pytest.raises(FlowbenchError):
        copy_weights(source, LMM(form="line", start="random").network(data))


def linear_teacher(std: float, counter: list | None = None, mean: float = 0.0) -> Teacher:
    """A teacher that is exact for N(mean * label, std^2)."""

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("std", torch.tensor(std))

        def forward(self, x, sigma, y):
            centre = 0 if y is None else mean * like(y, x)
            if counter is not None:
                counter.append(len(x))
            return centre + std**2 / (std**2 + like(sigma, x).square()) * (x - centre)

    return Teacher(
        Network,
        lambda network, z, t, labels: velocity_of(network)(z, t, labels),
    )


def heun(std: float, steps: int) -> float:
    """What `steps` levels of Heun's rule make of unit noise for N(0, std^2)."""
    one = torch.ones(1, 1, dtype=torch.float64)
    field = exact.gaussian(0.0, std).denoiser
    return solvers.sigma_heun(field, 80 * one, None, noise_levels.karras(steps)).item()


def run(folder=None, seed: int = 0) -> Run:
    return Run(Budget(10, 4), folder=folder and folder / "run", seed=seed)


def test_pairs_are_the_teachers_map():
    labels = torch.arange(30) % 3
    data = exact.vectors(torch.randn(30, 2), labels, classes=3)
    teacher = linear_teacher(0.5, mean=4.0)
    pairs = LMM(pairs=300, pair_steps=18).make_pairs(data, run(), teacher)
    pairs.prepare()
    noise, x, y = pairs.draw(torch.tensor([7, 299, 0, 150]))
    assert len(pairs) == 300
    assert torch.equal(y, balanced_labels([7, 299, 0, 150], 3))
    # The top level starts at 80 noise, not at mean + 80 noise: a shift by its small coefficient.
    shrink = 1 - heun(0.5, 18) / 80
    expected = 4.0 * y[:, None] * shrink + heun(0.5, 18) * noise
    torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(x, expected.roll(1, 0), atol=0.1)
    everything = pairs.draw(torch.arange(300))[0]
    assert everything.std().item() == pytest.approx(1, abs=0.1)


def test_pairs_defaults_follow_the_kind_of_data():
    seen: list = []
    pairs = LMM(pairs=5).make_pairs(
        exact.vectors(torch.randn(9, 2)), run(), linear_teacher(0.5, seen)
    )
    pairs.prepare()
    assert len(seen) == 2 * 40 - 1
    assert len(LMM().make_pairs(exact.vectors(torch.randn(9, 2)), run(), None)) == 40_000


def test_pairs_are_not_the_noise_that_samples_start_from():
    """Otherwise a student is examined on its own training pairs."""
    data = exact.vectors(torch.randn(9, 16))
    pairs = LMM(pairs=50, pair_steps=3).make_pairs(data, run(seed=0), linear_teacher(0.5))
    pairs.prepare()
    trained = pairs.draw(torch.arange(50))[0]
    examined = unit_noise(0, range(50), (16,))
    assert (torch.cdist(trained, examined) > 1e-3).all()


def test_unpaired_data_collapse_at_the_top():
    """The best linear prediction at sigma_max: nothing is left of paired, Var(x) of unpaired."""
    pairs = LMM(pairs=4000, pair_steps=18).make_pairs(
        exact.vectors(torch.randn(9, 4)), run(), linear_teacher(0.5)
    )
    pairs.prepare()
    noise, x, _ = pairs.draw(torch.arange(4000))

    def left(x):
        noisy = x + 80 * noise
        best = (noisy * x).sum() / noisy.square().sum()
        return ((x - best * noisy).square().mean() / x.square().mean()).item()

    assert left(x) < 1e-6
    assert left(x.roll(1, 0)) == pytest.approx(1, abs=0.05)


def make(folder, shard: int, sample=None, n: int = 100, seed: int = 0, facts=None, shape=(3,)):
    data = exact.vectors(torch.randn(9, *shape), torch.arange(9) % 3, classes=3)
    pairs = Pairs(
        sample or (lambda noise, y: 2 * noise + y[:, None]),
        lambda: facts or {"teacher": "a", "levels": [18, 0.002, 80.0]},
        data,
        n,
        run(folder, seed),
    )
    pairs.shard = shard
    return pairs


def everything(pairs: Pairs) -> tuple[torch.Tensor, ...]:
    pairs.prepare()
    return pairs.draw(torch.arange(len(pairs)))


def test_shards_equal_one_piece(tmp_path):
    whole = everything(make(None, 100))
    for shard in (1, 7, 50):
        parts = everything(make(tmp_path, shard))
        assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
    torch.testing.assert_close(whole[1], 2 * whole[0] + whole[2][:, None])
    other = everything(make(None, 100, seed=1))
    assert not torch.equal(whole[0], other[0])


def test_pairs_are_found_again_by_key(tmp_path):
    first = everything(make(tmp_path, 40))

    def never(noise, y):
        raise AssertionError("the pairs exist")

    again = everything(make(tmp_path, 40, never))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    others = [
        {"n": 99},
        {"seed": 1},
        {"facts": {"teacher": "b", "levels": [18, 0.002, 80.0]}},
        {"facts": {"teacher": "a", "levels": [40, 0.002, 80.0]}},
    ]
    for other in others:
        with pytest.raises(AssertionError):
            everything(make(tmp_path, 40, never, **other))
    assert len(list(tmp_path.glob("pairs-*"))) == 1 + len(others)


def test_the_key_of_pairs_names_teacher_and_sampler():
    data, facts = exact.vectors(torch.randn(9, 2)), []
    for method, teacher in (
        (LMM(), linear_teacher(0.5)),
        (LMM(), linear_teacher(0.6)),
        (LMM(pair_steps=80), linear_teacher(0.5)),
        (LMM(sigma_max=40.0), linear_teacher(0.5)),
        (LMM(sigma_min=0.01), linear_teacher(0.5)),
    ):
        facts.append(method.make_pairs(data, run(), teacher).facts())
    assert len({str(fact) for fact in facts}) == 5
    assert facts[0] == LMM(norm="l1").make_pairs(data, run(), linear_teacher(0.5)).facts()


def test_an_interrupted_making_goes_on(tmp_path):
    made: list[int] = []

    def broken(noise, y):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(len(noise))
        return 2 * noise + y[:, None]

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, 30, broken).prepare()

    def rest(noise, y):
        made.append(len(noise))
        return 2 * noise + y[:, None]

    found = everything(make(tmp_path, 30, rest))
    assert made == [30, 30, 30, 10]
    whole = everything(make(None, 100))
    assert all(torch.equal(a, b) for a, b in zip(whole, found, strict=True))


@pytest.mark.parametrize(("steps", "sot"), [(10, 0.25), (1200, 0.3), (11, 0.5), (5, 0.5)])
def test_stages_of_sot_spend_the_budget(steps, sot, monkeypatch):
    spent: list[int] = []

    def fit(net, loss, source, run, **options):
        spent.append(run.budget.steps)
        return net

    monkeypatch.setattr("flowbench.training.fit", fit)
    method = LMM(sampler="paper", sot=sot, start="random", width=8)
    method.train(exact.vectors(torch.randn(9, 2)), Run(Budget(steps, 4)), linear_teacher(0.5))
    assert sum(spent) == steps
    assert spent[1] / steps == pytest.approx(sot, abs=0.6 / steps)


def test_a_wrong_teacher_is_refused():
    data = exact.vectors(torch.randn(9, 2))
    with pytest.raises(FlowbenchError, match="same network"):
        copy_weights(torch.nn.Linear(2, 2), LMM().network(data))
    source, net = LMM().network(data), LMM().network(data)
    copy_weights(source, net)
    x, sigma = torch.randn(4, 2), torch.full((4,), 3.0)
    torch.testing.assert_close(net(x, sigma), source(x, sigma))


def test_interval_and_velocity_are_straight():
    assert LMM().interval == pytest.approx((1 / 81, 1 / 1.002))
    z, c = torch.randn(9, 2, dtype=torch.float64), exact.slope(0.5)
    t = torch.linspace(*LMM().interval, 9, dtype=torch.float64)
    ours = LMM().velocity(exact.lines(0.5), z, t, None)
    torch.testing.assert_close(ours, (c - 1) / (1 + t * (c - 1))[:, None] * z)
