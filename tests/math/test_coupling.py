"""Minibatch couplings: optimality, labels, laws, and a source that is exact beside the training."""

import math
import threading
from functools import partial

import exact_fields as exact
import pytest
import torch
from flowbench_plugins.bot_cfm import BOTCFM
from scipy.optimize import linear_sum_assignment

from flowbench import coordinates, coupling, training
from flowbench.coupling import Coupled
from flowbench.records import Budget, Diverged, FlowbenchError
from flowbench.testing import Killed, Stop
from flowbench.training import Run

DRAWN = torch.arange(16)  # a batch of 16; which rows it names does not matter


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def total(cost, index):
    """What the coupling of noise `index[j]` with data j costs."""
    return cost[index, torch.arange(len(index))].sum().item()


def is_optimal(cost, index) -> bool:
    """A bijection, no worse than leaving all as it is, that no swap of two pairs improves."""
    taken = cost[index]  # taken[j, k]: the noise of datum j, given to datum k
    swapped = taken + taken.T
    kept = taken.diagonal()[:, None] + taken.diagonal()
    bijection = sorted(index.tolist()) == list(range(len(index)))
    cheaper = total(cost, index) <= cost.trace().item() + 1e-9
    return bijection and cheaper and bool((kept <= swapped + 1e-9).all())


# The exact coupling


@pytest.mark.parametrize("n, d", [(2, 1), (7, 2), (64, 2), (50, 128), (128, 16)])
def test_exact_is_an_optimal_permutation(n, d):
    cost = coupling.squared_distances(normal(n, d), 2 + 0.5 * normal(n, d, seed=1))
    index = coupling.exact(cost)
    assert is_optimal(cost, index)
    best = cost.numpy()[linear_sum_assignment(cost.numpy())].sum()
    assert total(cost, index) == pytest.approx(best, rel=1e-12)


def test_the_check_of_optimality_catches_worse_ones():
    cost = coupling.squared_distances(normal(64, 2), normal(64, 2, seed=1))
    index = coupling.exact(cost)
    swapped = index.clone()
    swapped[[0, 1]] = index[[1, 0]]
    twice = index.clone()
    twice[0] = twice[1]
    for wrong in (swapped, twice, torch.randperm(64, generator=rng()), coupling.exact(-cost)):
        assert not is_optimal(cost, wrong)


def test_in_one_dimension_it_is_sorting():
    noise, x = normal(100, 1), normal(100, 1, seed=1).exp()
    index = coupling.exact(coupling.squared_distances(noise, x))
    assert torch.equal(noise[index].argsort(0), x.argsort(0))
    assert not torch.equal(noise.argsort(0), x.argsort(0))  # control


def test_rows_that_are_equal_still_give_a_permutation():
    x = normal(8, 2)[torch.arange(64) % 8]
    cost = coupling.squared_distances(normal(64, 2, seed=1), x)
    assert is_optimal(cost, coupling.exact(cost))


def test_cost():
    noise, x = normal(5, 1, 2, 3), 7 + normal(5, 1, 2, 3, seed=1)
    expected = torch.cdist(noise.flatten(1), (x - x.mean(0)).flatten(1)).square()
    torch.testing.assert_close(coupling.squared_distances(noise, x), expected)
    assert coupling.squared_distances(noise.float(), x.float()).dtype == torch.float64
    far = coupling.squared_distances(noise.float(), x.float() + 1e4)
    torch.testing.assert_close(far, expected, atol=0.05, rtol=0)  # uncentred: errors of 16 and more


def test_rotating_both_and_moving_the_data_changes_nothing():
    noise, x = normal(64, 6), normal(64, 6, seed=1)
    turn = torch.linalg.qr(normal(6, 6, seed=2))[0]
    index = coupling.exact(coupling.squared_distances(noise, x))
    moved = coupling.exact(coupling.squared_distances(noise @ turn, x @ turn + 3))
    assert torch.equal(index, moved)
    assert not torch.equal(index, coupling.exact(coupling.squared_distances(noise @ turn, x)))


# Sinkhorn


def test_sinkhorn_draws_from_the_entropic_plan():
    """Of two rows the plan is known: the cheap pairs get 1 / (1 + exp(-gap / reg))."""
    cost = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    generator, reg = rng(), 1.5
    kept = [coupling.sinkhorn(cost, generator, reg)[0].item() == 0 for _ in range(1500)]
    expected = 1 / (1 + math.exp(-1 / (reg * cost.std().item())))
    assert sum(kept) / 1500 == pytest.approx(expected, abs=3 * 0.5 / math.sqrt(1500))
    assert abs(expected - 0.5) > 0.2  # control: 0.5 would be independent


def test_sinkhorn_lies_between_exact_and_independent():
    cost = coupling.squared_distances(normal(128, 8), normal(128, 8, seed=1))
    best, independent = total(cost, coupling.exact(cost)), cost.mean().item() * 128
    found = []
    for reg in (0.02, 0.1, 0.3, 1.0, 100.0):
        draws = [total(cost, coupling.sinkhorn(cost, rng(k), reg)) for k in range(20)]
        found.append((sum(draws) / 20 - best) / (independent - best))
    assert found == sorted(found)
    assert found[0] < 0.02 and found[-1] == pytest.approx(1, abs=0.05)


def test_a_sinkhorn_that_does_not_converge_says_so():
    cost = coupling.squared_distances(normal(64, 2), normal(64, 2, seed=1))
    with pytest.raises(FlowbenchError, match="too small"):
        coupling.sinkhorn(cost, rng(), 1e-6)


# Labels


def labelled(n: int = 90, gap: float = 2.0):
    """Two classes around -gap and gap; the first entry of each row tells its number."""
    labels = torch.arange(n) % 2
    values = normal(n, 4) + gap * (2 * labels[:, None] - 1)
    return exact.vectors(values, labels, classes=2)


def labels_follow(data, x, labels) -> bool:
    """Whether each row of x carries the label that it has in the data."""
    values = data.train.values
    rows = (x[:, None] == values).all(2).long().argmax(1)
    return torch.equal(values[rows], x) and torch.equal(data.train.labels[rows], labels)


@pytest.mark.parametrize("per_class", [True, False])
@pytest.mark.parametrize("solve", [coupling.exact, coupling.sinkhorn])
def test_labels_follow_their_data(per_class, solve):
    data = labelled()
    _, x, labels = Coupled(data, Run(Budget(1, 1)), 32, solve, per_class, False).draw(DRAWN)
    assert labels_follow(data, x, labels)
    moved = coupling.exact(coupling.squared_distances(normal(16, 4), x.double()))
    assert not labels_follow(data, x[moved], labels)  # control: data reordered, labels left


def test_the_noise_of_each_class_stays_unit_gaussian():
    def noise_of(label, per_class):
        source = Coupled(labelled(), Run(Budget(1, 1)), 64, per_class=per_class, prefetch=False)
        noise, _, labels = source.draw(torch.arange(9600))
        return noise[labels == label].double()

    for label in (0, 1):
        noise = noise_of(label, True)
        error = 3 / math.sqrt(len(noise))
        assert noise.mean(0).abs().max() < error
        spread = noise.T.cov() - torch.eye(4)
        assert spread.abs().max() < error * math.sqrt(2)  # the variances are the noisiest entries
        skewed = noise_of(label, False)
        assert skewed.mean(0).abs().min() > 5 * error  # control: coupled over both classes


def test_within_a_class_the_coupling_is_optimal_and_leaves_others_alone():
    noise, x, labels = normal(60, 3), normal(60, 3, seed=1), torch.arange(60) % 3
    index = coupling.couple(coupling.exact, noise, x, labels, rng())
    assert torch.equal(labels[index], labels)
    for label in range(3):
        rows = (labels == label).nonzero()[:, 0]
        inside = torch.searchsorted(rows, index[rows])
        assert is_optimal(coupling.squared_distances(noise[rows], x[rows]), inside)
    alone = coupling.couple(coupling.exact, noise[:5], x[:5], torch.arange(5), rng())
    assert torch.equal(alone, torch.arange(5))


# How strong the coupling is


@pytest.mark.parametrize("n, expected", [(50, 0.182), (128, 0.213), (256, 0.234)])
def test_correlation_of_normals(n, expected):
    data = exact.vectors(normal(20_000, 128))
    source = Coupled(data, Run(Budget(1, 1)), n, prefetch=False)
    noise, x, _ = source.draw(torch.arange(7680 // n * n))
    found = coupling.correlation(noise, x)
    assert found == pytest.approx(expected, abs=0.003)
    assert found < coupling.bound(n, 128)


def test_the_permutation_is_of_the_noise():
    noise, x = normal(256, 128), normal(256, 128, seed=1)
    index = coupling.couple(coupling.exact, noise, x, None, rng())
    assert coupling.correlation(noise[index], x) > 0.2
    assert abs(coupling.correlation(noise[index.argsort()], x)) < 0.05  # control: its inverse


def test_correlation_is_one_for_equal_and_zero_for_independent_and_knows_no_scale():
    a, b = normal(4000, 3, 2), normal(4000, 3, 2, seed=1)
    assert coupling.correlation(a, 5 * a + 2) == pytest.approx(1)
    assert coupling.correlation(a, -a) == pytest.approx(-1)
    assert abs(coupling.correlation(a, b)) < 3 / math.sqrt(24_000)
    mixed = 0.6 * a + 0.8 * b
    assert coupling.correlation(a, mixed) == pytest.approx(0.6, abs=0.02)
    assert coupling.correlation(a, 10 + 7 * mixed) == pytest.approx(
        coupling.correlation(a, mixed), abs=1e-12
    )


def test_bound():
    found = [coupling.bound(n, 128) for n in (50, 128, 256, 512, 1024)]
    assert found == pytest.approx([0.247, 0.275, 0.294, 0.312, 0.329], abs=0.0005)


# The source


def batches(source, count: int, size: int = 16):
    with source:
        return [source.draw(torch.arange(size)) for _ in range(count)]


def same(first, second) -> bool:
    flat = [[t for batch in some for t in batch if t is not None] for some in (first, second)]
    return all(torch.equal(a, b) for a, b in zip(*flat, strict=True))


def source_of(n, prefetch=True, seed=0, data=None, **options):
    run = Run(Budget(1, 1), seed=seed)
    return Coupled(data or labelled(), run, n, prefetch=prefetch, **options)


SIZES = [2, 5, 8, 16, 24, 32, 100]  # below, at and above the batch of 16; multiples and not


@pytest.mark.parametrize("n", SIZES)
def test_batches_are_the_pools_in_order(n):
    source = source_of(n)
    noise, x, labels = (torch.cat(parts) for parts in zip(*batches(source, 7), strict=True))
    pools = [source.pool(p) for p in range(-(-7 * 16 // n))]
    for found, parts in zip((noise, x, labels), zip(*pools, strict=True), strict=True):
        assert torch.equal(found, torch.cat(parts)[: 7 * 16])
    assert len(noise.unique(dim=0)) == len(noise), "some noise came twice"


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("solve", [coupling.exact, partial(coupling.sinkhorn, reg=0.3)])
def test_prefetching_changes_nothing(n, solve):
    ahead = batches(source_of(n, solve=solve), 5)
    assert same(ahead, batches(source_of(n, prefetch=False, solve=solve), 5))
    assert not same(ahead, batches(source_of(n, seed=1, solve=solve), 5))  # control


def test_data_without_labels():
    source = source_of(24, data=exact.vectors(normal(40, 2)))
    assert all(labels is None for _, _, labels in batches(source, 4))


def test_the_global_random_state_is_neither_used_nor_touched():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = batches(source_of(24), 3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert same(first, batches(source_of(24), 3))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_it_goes_on_after_an_interruption(n, stop):
    whole = batches(source_of(n), 6)
    early = source_of(n)
    batches(early, stop)
    late = source_of(n)
    late.load_state_dict(early.state_dict())
    assert same(whole[stop:], batches(late, 6 - stop))
    assert late.counted == -(-6 * 16 // n), "each pool is counted once"
    assert not same(whole[stop:], batches(source_of(n), 6 - stop))  # control: a lost position


def trained(run):
    torch.manual_seed(0)
    return BOTCFM(n=24, width=8).train(labelled(), run)


def test_interrupted_training_equals_continuous_and_keeps_its_bill(tmp_path):
    budget = Budget(steps=7, batch=16)
    killed = Killed(budget, tmp_path / "run", every=0)
    with pytest.raises(Stop):
        trained(killed)
    resumed, continuous = Run(budget, tmp_path / "run", every=0), Run(budget)
    for a, b in zip(trained(resumed).parameters(), trained(continuous).parameters(), strict=True):
        assert torch.equal(a, b)
    assert killed.bill["coupling"]["images"] == 48  # 3 steps of 16 out of pools of 24
    for run in (resumed, continuous):
        assert run.bill["coupling"]["images"] == 120
        assert run.bill["coupling"]["seconds"] > 0
        assert training.total(run.bill) == {
            "seconds": run.bill["train"]["seconds"],
            "images": budget.images,
        }
    assert resumed.bill["coupling"]["seconds"] > killed.bill["coupling"]["seconds"]
    finished = Run(budget, tmp_path / "run")
    trained(finished)
    assert finished.bill["coupling"] == resumed.bill["coupling"]


# The worker


def workers():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("coupling")]


def test_the_next_pool_is_made_beside_the_caller():
    made, second = [], threading.Event()

    def solve(cost, generator):
        made.append(threading.current_thread().name)
        if len(made) == 2:
            second.set()
        return torch.arange(len(cost))

    source = source_of(32, solve=solve, per_class=False)
    assert workers() == []
    with source:
        source.draw(DRAWN)  # half of the first pool
        assert second.wait(30), "the second pool was not begun before it was needed"
        assert len(workers()) == 1
    assert workers() == []
    assert all(name.startswith("coupling") for name in made)


def failing(cost, generator):
    raise FlowbenchError("no coupling today")


@pytest.mark.parametrize("prefetch", [True, False])
def test_what_fails_in_the_worker_reaches_the_caller(prefetch):
    with pytest.raises(FlowbenchError, match="no coupling today"), source_of(8, prefetch) as source:
        source.solve = failing
        source.draw(DRAWN)
    assert workers() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, Stop])
def test_no_thread_outlives_a_training_that_stops(error):
    def look(progress):
        raise error

    with pytest.raises(error):
        trained(Run(Budget(steps=1, batch=16), watch=look))
    assert workers() == []


# The method


def test_floor_of_the_loss(monkeypatch):
    """The exact velocity of pairs with correlation c leaves s sqrt(1 - c^2) arccos c."""
    std, c = 0.7, 0.4
    noise = normal(100_000, 3)
    x = std * (c * noise + math.sqrt(1 - c**2) * normal(100_000, 3, seed=1))

    def field(z, t, y, sign=1):
        s = coordinates.like(t, z)
        variance = (s * std).square() + (1 - s).square() + 2 * s * (1 - s) * c * std
        return sign * (s * (1 + std**2 - 2 * c * std) - (1 - c * std)) / variance * z

    def measured(function):
        method = BOTCFM()
        data = exact.vectors(x[:9])
        run = Run(Budget(1, 1))
        loss = exact.loss_of(method, data, exact.Net(function), monkeypatch, run=run)
        torch.manual_seed(0)
        return loss(noise.float(), x.float(), None).item()

    expected = std * math.sqrt(1 - c**2) * math.acos(c)
    assert measured(field) == pytest.approx(expected, rel=0.01)
    assert measured(partial(field, sign=-1)) > 1.3 * expected  # control: sign


def test_it_measures_its_coupling():
    data = exact.vectors(normal(20_000, 128))
    found = BOTCFM(n=128).measure(data, Run(Budget(1, 1)))
    assert found["coupling"] == pytest.approx(0.213, abs=0.003)
    assert found["coupling-bound"] == pytest.approx(math.sqrt(2 * math.log(128) / 128))
    loose = BOTCFM(n=128, coupling="sinkhorn", reg=100.0).measure(data, Run(Budget(1, 1)))
    assert abs(loose["coupling"]) < 0.01
    assert workers() == []


def test_measuring_costs_nothing_on_the_bill():
    run = Run(Budget(1, 1))
    BOTCFM(n=64).measure(labelled(), run)
    assert run.bill == {}


def test_options():
    for options, word in (({"n": 1}, "cfm"), ({"reg": 0.0}, "reg"), ({"reg": math.nan}, "reg")):
        with pytest.raises(FlowbenchError, match=word):
            BOTCFM(**options)
    assert BOTCFM().refuses(3) is None and BOTCFM(solver="dopri5").refuses(None) is None
    assert "dopri5" in BOTCFM().refuses(None) and "dopri5" in BOTCFM(solver="dopri5").refuses(4)


def test_samples_follow_the_field():
    """On the exact field of N(3, 0.5^2): two Euler steps, and the map 3 + 0.5 x0."""
    law, x0 = exact.gaussian(3.0, 0.5), torch.ones(1, 1, dtype=torch.float64)
    net = exact.Net(law.velocity)
    assert BOTCFM().sample(net, x0, None, 2).item() == pytest.approx(3 + 0.25 / 1.25, abs=1e-9)
    end = BOTCFM(solver="dopri5").sample(net, x0, None, None).item()
    assert end == pytest.approx(3.5, abs=1e-3)
    for solver in ("midpoint", "heun"):
        end = BOTCFM(solver=solver).sample(net, x0, None, 100).item()
        assert end == pytest.approx(3.5, abs=1e-3)
    z, t = torch.randn(4, 1), torch.rand(4)
    assert torch.equal(BOTCFM().velocity(net, z, t, None), law.velocity(z, t))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "shape"), [(2, (2,)), (33, (7,)), (100, (3, 32, 32))])
def test_the_cost_has_the_bits_of_the_plain_formula_and_changes_nothing(n, shape, dtype):
    """Stored results hang on it: an optimum among equals is chosen by the last bit."""
    noise, x = (torch.randn(n, *shape, dtype=dtype) for _ in range(2))
    before = noise.clone(), x.clone()
    a, b = noise.flatten(1), x.flatten(1) - x.flatten(1).mean(0)
    squares = a.double().square().sum(1)[:, None] + b.double().square().sum(1)
    plain = (squares - 2 * (a @ b.T).double()).clamp_min(0)
    assert torch.equal(coupling.squared_distances(noise, x), plain)
    assert torch.equal(noise, before[0]) and torch.equal(x, before[1])


def test_no_rows_have_no_coupling():
    none = torch.empty(0, 3)
    assert coupling.couple(coupling.exact, none, none, None, torch.Generator()).shape == (0,)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_data_that_are_not_finite_are_refused(bad):
    x = torch.zeros(5, 3)
    x[2, 1] = bad
    with pytest.raises(Diverged, match="not finite"):
        coupling.couple(coupling.exact, torch.randn(5, 3), x, None, torch.Generator())
