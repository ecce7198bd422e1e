"""What ranks tell each other, and how they divide rows and sums."""

import pytest
import several_ranks as several
import torch

from flowbench import ranks
from flowbench.pairwise import Pairwise
from flowbench.ranks import Part
from flowbench.records import Diverged, FlowbenchError, RunFailed


def talk():
    own = ranks.own()
    told = ranks.told(f"from {own}")
    shared = ranks.shared([1, 2, 3, 4, 5], lambda n: (n * n, own))
    sums = ranks.summed([torch.full((2,), 0.1 * (own + 1)), torch.tensor(own, dtype=torch.float64)])
    fast = ranks.summed([torch.full((2,), own + 1.0)], exact=False)
    means = ranks.averaged([torch.tensor([float(own)])])
    same = ranks.differing({"a": torch.ones(3), "b": torch.full((2,), own * 1e-12)})
    parts = [
        (p.start, p.stop)
        for p in (ranks.part(64, 8), ranks.part(250, 8), ranks.part(9), ranks.part(3))
    ]
    return {
        **{"told": told, "gathered": ranks.gathered(own), "shared": shared, "sums": sums},
        **{"fast": fast, "means": means, "same": same, "parts": parts},
        "decided": ranks.decided(lambda: f"decided by {own}"),
    }


@pytest.fixture(scope="module", params=[2, 4])
def talked(request):
    return several.run(request.param, talk)


def test_the_first_rank_is_heard_by_all(talked):
    assert {answer["told"] for answer in talked} == {"from 0"}
    assert {answer["decided"] for answer in talked} == {"decided by 0"}
    assert all(answer["gathered"] == list(range(len(talked))) for answer in talked)


def test_work_is_shared_and_comes_in_its_order(talked):
    world = len(talked)
    assert talked[0]["shared"] == [(n * n, i % world) for i, n in enumerate([1, 2, 3, 4, 5])]
    assert all(answer["shared"] == talked[0]["shared"] for answer in talked)


def test_sums_and_means(talked):
    world = len(talked)
    first = torch.full((2,), 0.1 * sum(range(1, world + 1)))
    for answer in talked:
        assert torch.allclose(answer["sums"][0], first) and answer["sums"][0].dtype == torch.float32
        assert torch.equal(answer["sums"][0], talked[0]["sums"][0]), "the same bits on all"
        assert answer["sums"][1] == sum(range(world))
        assert torch.equal(answer["fast"][0], torch.full((2,), 0.5 * world * (world + 1)))
        assert answer["means"][0].item() == (world - 1) / 2


def test_a_tensor_that_differs_is_named(talked):
    assert {answer["same"] for answer in talked} == {"b"}


def test_rows_are_divided_without_gap_or_overlap(talked):
    for number, total in enumerate((64, 250, 9, 3)):
        parts = [answer["parts"][number] for answer in talked]
        assert [start for start, _ in parts] == [0, *(stop for _, stop in parts[:-1])]
        assert parts[-1][1] == total
        sizes = [stop - start for start, stop in parts]
        assert max(sizes) - min(s for s in sizes if s or total == 3) <= 8
    assert {start % 8 for start, _ in (answer["parts"][0] for answer in talked)} == {0}


def quarrel(kind):
    def work(item):
        if item == 1:
            raise kind("rank 1 has met something")
        return item

    ranks.shared([0, 1], work)


@pytest.mark.parametrize("kind", [FlowbenchError, Diverged])
def test_what_one_meets_all_raise(kind):
    for error in several.run(2, quarrel, kind):
        assert type(error) is kind and str(error) == "rank 1 has met something"


def leave():
    if ranks.own() == 1:
        import os

        os._exit(9)
    ranks.wait()


def test_a_rank_that_is_left_alone_says_so():
    left, gone = several.run(2, leave)
    assert isinstance(gone, EOFError)
    assert isinstance(left, RunFailed) and "rank 0 was left alone" in str(left)


def test_alone_everything_is_plain(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")  # as SLURM's own tools may set it, without a rank
    assert ranks.launched() == 1 and ranks.count() == 1 and ranks.first()
    assert ranks.part(10) == Part(0, 10, 10) and ranks.told(3) == 3 and ranks.gathered(3) == [3]
    one = torch.ones(2)
    assert ranks.summed([one])[0] is one and ranks.differing({"a": one}) == ""


def test_words_that_torchrun_does_not_set(monkeypatch):
    for name, word in (("RANK", "0"), ("MASTER_ADDR", "127.0.0.1"), ("WORLD_SIZE", "two")):
        monkeypatch.setenv(name, word)
    with pytest.raises(FlowbenchError, match="WORLD_SIZE='two' is not what torchrun sets"):
        ranks.launched()


def test_halves_summed_elsewhere_give_the_same_bits():
    terms = [{0: torch.randn(1000), 1: torch.randn(3)} for _ in range(8)]

    def total(some):
        pairwise = Pairwise()
        for term in some:
            pairwise.add({n: t.clone() for n, t in term.items()})
        return pairwise.sum

    whole, halves = total(terms), total([total(terms[:4]), total(terms[4:])])
    quarters = total([total(terms[i : i + 2]) for i in range(0, 8, 2)])
    plain = sum(term[0] for term in terms)
    for other in (halves, quarters):
        assert all(torch.equal(whole[n], other[n]) for n in whole)
    assert torch.allclose(whole[0], plain, atol=1e-5) and not torch.equal(whole[0], plain)


def test_a_term_without_a_number_adds_nothing_to_it():
    pairwise = Pairwise()
    for term in ({0: 1.0}, {1: 2.0}, {0: 4.0, 1: 8.0}):
        pairwise.add({n: torch.tensor(value) for n, value in term.items()})
    assert pairwise.sum == {0: 5.0, 1: 10.0}
