"""The iterator: equal budgets and order, exact resume, divergence, damaged files."""

import math

import pytest
import torch
from torch import nn

from flowbench import training
from flowbench.records import Budget, Diverged, FlowbenchError
from flowbench.testing import Killed, Stop, toy
from flowbench.training import Average, Run, fit


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.1), nn.Linear(8, 64))


def loss_of(model):
    return lambda x, y: (model(x + torch.randn_like(x)) - x.flatten(1)).square().mean()


def trained(run):
    model = net()
    return fit(model, loss_of(model), toy().train, run), model


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("stop", [1, 3, 7])
def test_interrupted_equals_continuous_bitwise(tmp_path, stop):
    budget = Budget(steps=9, batch=16)
    with pytest.raises(Stop):
        trained(Killed(budget, tmp_path / "a", every=0, stop=stop))
    average, _ = trained(Run(budget, tmp_path / "a", every=0))
    assert same(average, trained(Run(budget))[0])


class Restless:
    """A source whose making uses random numbers, as a teacher's training does."""

    def __len__(self):
        return len(toy().train)

    def prepare(self):
        torch.manual_seed(77)

    def draw(self, rows):
        return toy().train.draw(rows)


def test_what_a_source_does_to_be_ready_does_not_move_a_resumed_run(tmp_path):
    def train(run):
        model = net()
        return fit(model, loss_of(model), Restless(), run)

    budget = Budget(steps=9, batch=16)
    with pytest.raises(Stop):
        train(Killed(budget, tmp_path / "a", every=0))
    assert same(train(Run(budget, tmp_path / "a", every=0)), train(Run(budget)))


def test_resume_would_notice_another_order_of_data(tmp_path):
    budget = Budget(steps=9, batch=16)
    with pytest.raises(Stop):
        trained(Killed(budget, tmp_path / "a", every=0))
    state = training.load_state(tmp_path / "a/train.pt")
    state["random"]["order"] = torch.Generator().manual_seed(5).get_state()
    training.save_state(tmp_path / "a/train.pt", state)
    assert not same(trained(Run(budget, tmp_path / "a"))[0], trained(Run(budget))[0])


def test_every_method_sees_the_same_data_in_the_same_order():
    class Watched:
        def __init__(self):
            self.rows = []

        def __len__(self):
            return 64

        def prepare(self):
            torch.manual_seed(99)  # whatever happens here must not matter

        def draw(self, rows):
            self.rows.append(rows)
            return (rows,)

    sources = Watched(), Watched()
    for source in sources:
        for _ in Run(Budget(5, 16), seed=3).batches(source):
            torch.rand(int(torch.randint(9, (1,))))  # a method's own use of random numbers
    assert all(torch.equal(a, b) for a, b in zip(*(s.rows for s in sources), strict=True))
    other = Watched()
    list(Run(Budget(5, 16), seed=4).batches(other))
    assert not torch.equal(other.rows[0], sources[0].rows[0])


def test_the_budget_is_spent_exactly_and_billed():
    run = Run(Budget(steps=7, batch=5))
    assert len(list(run.batches(toy().train))) == 7
    assert run.bill["train"]["images"] == 35
    half = run.stage("half", 0.5)
    assert len(list(half.batches(toy().train))) == 4
    assert run.bill["half"]["images"] == 20


def test_the_bill_adds_up_over_attempts(tmp_path):
    budget = Budget(steps=9, batch=16)
    with pytest.raises(Stop):
        trained(Killed(budget, tmp_path / "a", every=0))
    before = training.load_state(tmp_path / "a/train.pt")["bill"]["train"]["seconds"]
    run = Run(budget, tmp_path / "a", every=0)
    trained(run)
    assert run.bill["train"]["seconds"] > before > 0
    assert run.bill["train"]["images"] == 144


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_as_diverged(value, tmp_path):
    model = net()

    def loss(x, y):
        return model(x).mean() * value

    with pytest.raises(Diverged, match="loss became"):
        fit(model, loss, toy().train, Run(Budget(4, 8), tmp_path / "a"))
    assert not (tmp_path / "a/train.pt").exists(), "nothing broken may be saved"


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    model = net()
    with pytest.raises(Diverged, match="weights"):
        for _ in Run(Budget(3, 8), tmp_path / "a").batches(toy().train, net=model):
            with torch.no_grad():
                model[1].weight[0, 0] = math.nan
    assert not (tmp_path / "a/train.pt").exists()


def test_a_damaged_checkpoint_is_one_line(tmp_path):
    trained(Run(Budget(3, 8), tmp_path / "a"))
    path = tmp_path / "a/train.pt"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FlowbenchError, match=r"train\.pt is damaged; delete it"):
        trained(Run(Budget(3, 8), tmp_path / "a"))


def test_a_checkpoint_of_another_network_is_one_line(tmp_path):
    trained(Run(Budget(3, 8), tmp_path / "a"))
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.Linear(9, 64))
    with pytest.raises(FlowbenchError, match="belongs to another network"):
        fit(other, loss_of(other), toy().train, Run(Budget(3, 8), tmp_path / "a"))


def test_checkpoints_are_not_unpickled(tmp_path):
    import pickle

    from flowbench.checkpoints import load_state, save_state

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    save_state(tmp_path / "evil.pt", {"x": Evil()})
    with pytest.raises((FlowbenchError, pickle.UnpicklingError)):
        load_state(tmp_path / "evil.pt")
    assert not (tmp_path / "owned").exists()


def test_the_average_starts_as_a_copy_and_ramps_up():
    model = nn.Linear(1, 1, bias=False)
    average = Average(model, decay=0.5)
    expected = model.weight.item()
    for step in range(1, 30):
        nn.init.constant_(model.weight, float(step))
        average.update(model)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert average.net.weight.item() == pytest.approx(expected, rel=1e-5)


def test_the_average_of_a_constant_is_the_constant():
    model = net()
    average = Average(model)
    for _ in range(20):
        average.update(model)
    assert all(
        torch.allclose(a, b)
        for a, b in zip(average.net.parameters(), model.parameters(), strict=True)
    )


def test_ramp_and_cosine():
    factors = [training.ramp_and_cosine(step, 1000, 100) for step in range(1000)]
    assert factors[0] == pytest.approx(0.01)
    assert factors[99] == pytest.approx(1) and factors[100] == pytest.approx(1)
    assert factors[550] == pytest.approx(0.5, abs=1e-3)
    assert factors[999] == pytest.approx(0, abs=1e-5)


def test_progress_tells_step_rate_and_time_left():
    seen = []
    model = net()
    fit(model, loss_of(model), toy().train, Run(Budget(5, 8), watch=seen.append))
    assert seen[-1].step == seen[-1].steps == 5
    assert seen[-1].rate > 0 and seen[-1].seconds_left == 0 and math.isfinite(seen[-1].loss)


def test_pairs_are_found_again_whatever_their_facts_are_made_of(tmp_path):
    """Files give lists back for tuples; the making must not be done twice for that."""
    from flowbench.pairs import Pairs
    from flowbench.testing import toy

    made = []

    def sample(noise, labels):
        made.append(len(noise))
        return noise

    for _ in range(2):
        run = Run(Budget(1, 1), tmp_path / "student")
        Pairs(sample, lambda: {"edges": (0.0, 0.5), 3: None}, toy("vector"), 20, run).prepare()
    assert made == [20]
