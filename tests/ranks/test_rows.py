"""Random numbers of parts are those of the whole batch."""

import numpy as np
import pytest
import torch
from torch.distributions import Beta, Categorical, Normal
from torch.nn import functional

from flowbench.ranks import Part
from flowbench.rows import Rows

TOTAL = 24
CUTS = ((0, 8), (8, 16), (16, 24))
DRAWS = {
    "rand": lambda n: torch.rand(n),
    "randn": lambda n: torch.randn((n, 3, 2)),
    "randn, sizes one by one": lambda n: torch.randn(n, 3, 2, dtype=torch.float64),
    "randint": lambda n: torch.randint(10, (n,)),
    "randint with bounds": lambda n: torch.randint(-3, 10, (n, 2)),
    "randint, size by name": lambda n: torch.randint(10, size=(n,)),
    "randint, all by name": lambda n: torch.randint(low=2, high=10, size=(n,)),
    "a number of numpy": lambda n: torch.rand(np.int64(n), 2),
    "rand_like": lambda n: torch.rand_like(torch.zeros(n, 5)),
    "randn_like": lambda n: torch.randn_like(torch.zeros(n, 5)),
    "randn_like by name": lambda n: torch.randn_like(input=torch.zeros(n, 5)),
    "randn_like, channels last": lambda n: torch.randn_like(last(n)),
    "normal_, channels last": lambda n: last(n).normal_(),
    "randint_like": lambda n: torch.randint_like(torch.zeros(n), 7),
    "normal_": lambda n: torch.empty(n, 4).normal_(),
    "uniform_": lambda n: torch.empty(n, 4).uniform_(2, 3),
    "exponential_": lambda n: torch.zeros(n).exponential_(),
    "bernoulli_": lambda n: torch.zeros(n, 2).bernoulli_(0.3),
    "bernoulli": lambda n: torch.bernoulli(torch.full((n, 2), 0.3)),
    "bernoulli of a tensor": lambda n: torch.full((n, 2), 0.3).bernoulli(),
    "binomial": lambda n: torch.binomial(torch.full((n,), 9.0), torch.full((n,), 0.5)),
    "multinomial": lambda n: torch.ones(5).multinomial(n, replacement=True),
    "multinomial of torch": lambda n: torch.multinomial(torch.ones(5), n, True),
    "multinomial by row": lambda n: torch.ones(n, 5).multinomial(2),
    "beta": lambda n: Beta(torch.full((n,), 2.0), torch.full((n,), 3.0)).sample(),
    "normal": lambda n: torch.normal(1.0, 2.0, (n, 3)),
    "normal, size by name": lambda n: torch.normal(mean=1.0, std=2.0, size=(n,)),
    "normal by row": lambda n: torch.normal(torch.full((n, 2), 1.0), 2.0),
    "normal by two numbers of each row": lambda n: torch.normal(torch.ones(n), torch.ones(n)),
    "normal by deviation": lambda n: torch.normal(1.0, std=torch.ones(n)),
    "normal law": lambda n: Normal(-1.2, 1.2).sample((n,)),
    "categorical law": lambda n: Categorical(torch.ones(5)).sample((n,)),
    "half of the rows": lambda n: torch.randn(n // 2, 3),
    "dropout": lambda n: functional.dropout(torch.ones(n, 6), 0.4, True),
    "dropout layer": lambda n: torch.nn.Dropout(0.4)(torch.ones(n, 6)),
    "dropout in place": lambda n: torch.dropout_(torch.ones(n, 6), 0.4, True),
    "dropout of channels in 1-D": lambda n: functional.dropout1d(torch.ones(n, 6, 2), 0.4, True),
    "dropout of channels": lambda n: functional.dropout2d(torch.ones(n, 6, 2, 2), 0.4, True),
    "dropout of channels in 3-D": lambda n: torch.nn.Dropout3d(0.4)(torch.ones(n, 6, 2, 2, 2)),
    "alpha dropout": lambda n: functional.alpha_dropout(torch.ones(n, 6), 0.4, True),
    "feature alpha dropout": lambda n: torch.nn.FeatureAlphaDropout(0.4)(torch.ones(n, 6, 2)),
    "gumbel": lambda n: functional.gumbel_softmax(torch.zeros(n, 5)),
    "attention with dropout": lambda n: attended(torch.ones(n, 1, 4, 4)),
    "rows in the second place": lambda n: torch.rand(3, n).T,
}


def last(n):
    return torch.zeros(n, 3, 4, 4).to(memory_format=torch.channels_last)


def attended(x):
    return functional.scaled_dot_product_attention(x, x, x, dropout_p=0.5)


def drawn(draw, part=None):
    torch.manual_seed(3)
    rows = Rows()
    if part is None:
        return draw(TOTAL), torch.rand(3)
    with rows.of(part):
        return draw(len(part)), torch.rand(3)


@pytest.mark.parametrize("name", DRAWS)
def test_parts_of_a_batch_draw_what_the_whole_draws(name):
    whole, behind = drawn(DRAWS[name])
    parts = [drawn(DRAWS[name], Part(*cut, TOTAL)) for cut in CUTS]
    assert torch.equal(torch.cat([part for part, _ in parts]), whole)
    assert all(torch.equal(later, behind) for _, later in parts)


@pytest.mark.parametrize("name", DRAWS)
def test_without_rows_every_part_would_draw_the_same(name):
    torch.manual_seed(3)
    whole, _ = drawn(DRAWS[name])
    torch.manual_seed(3)
    first = DRAWS[name](8)
    torch.manual_seed(3)
    assert torch.equal(DRAWS[name](8), first)
    assert not torch.equal(torch.cat([first] * 3), whole)


def test_numbers_of_torch_normal_are_those_that_it_draws_itself():
    mean, std = torch.arange(8.0), torch.linspace(1, 2, 8)
    for given in ((mean, std), (mean, 2.0), (0.5, std), (mean,)):
        whole = drawn(lambda n, given=given: torch.normal(*given), Part(0, 8, 8))[0]
        cut = [value[2:6] if isinstance(value, torch.Tensor) else value for value in given]
        part = drawn(lambda n, cut=cut: torch.normal(*cut), Part(2, 6, 8))[0]
        assert torch.equal(part, whole[2:6])


def test_two_numbers_of_each_row():
    whole, _ = drawn(lambda n: torch.randn(2 * n, 3))
    parts = [drawn(lambda n: torch.randn(2 * n, 3), Part(*cut, TOTAL))[0] for cut in CUTS]
    first, second = (torch.cat([part.chunk(2)[i] for part in parts]) for i in (0, 1))
    assert torch.equal(torch.cat([first, second]), whole)


def test_what_belongs_to_no_row_is_the_same_in_all_parts():
    for draw in (lambda n: torch.rand(()), lambda n: torch.randn(5), lambda n: torch.randperm(n)):
        parts = [drawn(draw, Part(*cut, TOTAL))[0] for cut in CUTS]
        assert all(torch.equal(part, parts[0]) for part in parts)


def test_a_generator_of_its_own_is_left_alone():
    def draw(n):
        return torch.rand(n, generator=torch.Generator().manual_seed(5))

    assert torch.equal(drawn(draw, Part(8, 16, TOTAL))[0], draw(8))


def test_an_inner_part_replaces_the_outer_one():
    whole, _ = drawn(lambda n: torch.rand(n))
    torch.manual_seed(3)
    rows, outer = Rows(), Part(8, 24, TOTAL)
    with rows.of(outer), rows.of(outer.cut(8, 16)):
        inner = torch.rand(8)
    assert torch.equal(inner, whole[16:])
    assert rows.part is None


def test_parts_of_a_whole_that_is_at_hand():
    whole, _ = drawn(lambda n: torch.rand(n))
    torch.manual_seed(3)
    rows, outer = Rows(), Part(0, 24, TOTAL)
    with rows.of(outer), rows.of(outer.cut(8, 16)):
        assert torch.equal(torch.rand(8), whole[8:16])


def test_the_whole_batch_costs_nothing():
    rows = Rows()
    with rows.of(Part(0, 8, 8)):
        assert torch.overrides._get_current_function_mode() is None


def test_heads_of_attention_draw_other_numbers_in_each_part():
    """Rows and heads are one dimension there, whose order nobody can know from outside."""
    torch.manual_seed(9)
    layer = torch.nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True)

    def attend(n):
        x = torch.ones(n, 3, 4)
        return layer(x, x, x)[0]

    first, second, _ = (drawn(attend, Part(*cut, TOTAL))[0] for cut in CUTS)
    assert not torch.equal(first, second)


def compiled(outer, parts):
    """How often a network with dropout was compiled after each of these parts of a part."""
    counts = []

    def backend(graph, inputs):
        nonlocal made
        made += 1
        return graph.forward

    made, rows = 0, Rows()
    torch.compiler.reset()
    layers = torch.nn.Linear(3, 2), torch.nn.SiLU(), torch.nn.Dropout(0.5)
    net = torch.compile(torch.nn.Sequential(*layers), backend=backend)
    for part in parts:
        with rows.of(outer), rows.of(part), torch.no_grad():
            net(torch.randn(8, 3))
        counts.append(made)
    return counts


@pytest.mark.slow
def test_a_network_is_compiled_whole_for_a_rank_and_not_anew_for_each_part():
    rank, whole = Part(8, 16, 96), Part(0, 96, 96)
    assert compiled(rank, [rank] * 3) == [1, 1, 1]
    parts = [Part(start, start + 8, 96) for start in range(0, 96, 8)]
    counts = compiled(whole, parts)
    assert counts[0] == counts[-1] > 1
