"""What ranks tell each other, and how they divide rows and sums."""

from datetime import timedelta

import pytest
import several_ranks as several
import torch

from flowbench import ranks, torchrun
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
    for name, word in (("WORLD_SIZE", "8"), ("RANK", "0"), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, word)  # as a scheduler or a shell may set them
    assert torchrun.launched() == 1 and ranks.count() == 1 and ranks.first()
    assert ranks.part(10) == Part(0, 10, 10) and ranks.told(3) == 3 and ranks.gathered(3) == [3]
    one = torch.ones(2)
    assert ranks.summed([one])[0] is one and ranks.differing({"a": one}) == ""


@pytest.fixture
def started(monkeypatch):
    """Sets what torchrun sets, but for the words given."""

    def put(**words):
        usual = {"TORCHELASTIC_RUN_ID": "tests", "MASTER_ADDR": "127.0.0.1", "RANK": "0"}
        for name, word in {**usual, "WORLD_SIZE": "2", **words}.items():
            monkeypatch.setenv(name, word)

    return put


@pytest.mark.parametrize(("size", "rank"), [("two", "0"), ("2", "2"), ("0", "0"), ("2", "")])
def test_words_that_torchrun_does_not_set(started, size, rank):
    started(WORLD_SIZE=size, RANK=rank)
    with pytest.raises(FlowbenchError, match=f"'{size}' and RANK='{rank}' are not what torchrun"):
        torchrun.launched()


def test_who_waits_for_processes_that_never_come_is_told_so(started, monkeypatch):
    for name in ("JOINING", "MEETING"):
        monkeypatch.setattr(torchrun, name, timedelta(seconds=1))
    monkeypatch.delenv("MASTER_PORT", raising=False)
    started()
    with pytest.raises(FlowbenchError, match=r"the 2 processes of this run have not met .*PORT"):
        several._joined(ranks.own)
    started(MASTER_PORT="0")
    with pytest.raises(FlowbenchError, match="start all by one torchrun, or unset"):
        several._joined(ranks.own)
    assert ranks.count() == 1


def decide():
    from torch import distributed

    def refused(*given):
        raise AssertionError("with 8 ranks that would take 8 times the memory of what is told")

    distributed.all_gather_object = refused
    if ranks.own() == 0:
        return ranks.decided(lambda: torch.ones(1000))
    return ranks.decided(lambda: 1 / 0)


def test_what_the_first_decides_is_sent_once():
    assert all(torch.equal(answer, torch.ones(1000)) for answer in several.run(2, decide))


def test_trouble_that_is_no_death_is_told_as_it_is(monkeypatch):
    def refused(*given):
        raise RuntimeError("ncclInvalidUsage: Duplicate GPU detected\nand more")

    monkeypatch.setattr(ranks, "count", lambda: 2)
    monkeypatch.setattr("torch.distributed.all_gather", refused)
    with pytest.raises(RunFailed, match=r"rank 0 cannot talk to .*Duplicate GPU detected\): see"):
        ranks.summed([torch.ones(3)])


def test_memory_that_runs_out_in_a_sum_is_no_death_of_a_rank(monkeypatch):
    def full(*given):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ranks, "count", lambda: 2)
    monkeypatch.setattr("torch.distributed.all_gather", full)
    with pytest.raises(torch.OutOfMemoryError):
        ranks.summed([torch.ones(3)])


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
