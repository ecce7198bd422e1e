"""Training: equal budgets and order, exact resume, divergence, damaged files, steps in parts."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from flowbench import meters, training
from flowbench.augment import Augment
from flowbench.records import Budget, Diverged, FlowbenchError, RunFailed
from flowbench.step import LARGE
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


def plain(model):
    """A loss without random numbers, for a network without dropout."""
    return lambda x, y: (model(x) - x.flatten(1)).square().mean()


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.SiLU(), nn.Linear(8, 64)).double()


class Double:
    """The toy data in double precision: what differs then is no rounding."""

    def __len__(self):
        return len(toy().train)

    def prepare(self):
        pass

    def draw(self, rows):
        x, y = toy().train.draw(rows)
        return x.double(), y


@pytest.mark.parametrize("size", [1, 5, 8, 16, 99])
def test_a_step_in_parts_is_the_step_of_the_batch(size):
    """5 does not divide 16: parts of unequal size count by their rows."""
    whole, cut = linear(), linear()
    fit(whole, plain(whole), Double(), Run(Budget(6, 16)))
    losses = []
    run = Run(Budget(6, 16), micro_batch=size, watch=lambda seen: losses.append(seen.loss))
    fit(cut, plain(cut), Double(), run)
    for a, b in zip(whole.parameters(), cut.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    assert losses[-1] == pytest.approx(run.loss.item())


def test_parts_that_are_not_weighted_would_be_seen():
    whole = linear()
    batch = Double().draw(torch.arange(16))
    plain(whole)(*batch).backward()
    expected = whole[1].weight.grad.clone()
    whole.zero_grad()
    for part in (slice(0, 5), slice(5, 10), slice(10, 15), slice(15, 16)):
        (plain(whole)(batch[0][part], None) / 4).backward()
    assert not torch.allclose(whole[1].weight.grad, expected, rtol=1e-3)


class Narrow:
    """A loss that has no memory for more than `most` rows, and spends random numbers first."""

    def __init__(self, model, most):
        self.loss, self.most, self.calls = loss_of(model), most, []

    def __call__(self, x, y):
        self.calls.append(len(x))
        value = self.loss(x, y)
        if len(x) > self.most:
            raise torch.OutOfMemoryError("no memory")
        return value


def test_memory_that_runs_out_halves_the_parts_and_repeats_the_step():
    notes, model, other = [], net(), net()
    narrow = Narrow(model, most=5)
    run = Run(Budget(6, 16), note=notes.append)
    found = fit(model, narrow, toy().train, run)
    assert narrow.calls[:7] == [16, 8, 4, 4, 4, 4, 4] and run.micro_batch == 4
    assert len(notes) == 3 and all("\n" not in note for note in notes)
    assert "8 rows at once: stage train goes on with 4" in notes[1]
    assert "4 rows at once are fewer than 8" in notes[2]
    expected = fit(other, loss_of(other), toy().train, Run(Budget(6, 16), micro_batch=4))
    assert same(found, expected), "what the failed tries drew must not matter"


def test_the_size_of_parts_is_kept_over_an_interruption(tmp_path):
    def train(run):
        model = net()
        narrow = Narrow(model, most=5)
        return fit(model, narrow, toy().train, run), narrow.calls

    with pytest.raises(Stop):
        train(Killed(Budget(6, 16), tmp_path / "a", every=0))
    resumed, calls = train(Run(Budget(6, 16), tmp_path / "a", every=0))
    assert set(calls) == {4}
    assert same(resumed, train(Run(Budget(6, 16)))[0])
    smaller = Run(Budget(6, 16), tmp_path / "a", micro_batch=2)
    train(smaller)
    assert smaller.micro_batch == 2, "who wants smaller parts now gets them"


def test_a_row_that_does_not_fit_is_one_line():
    model = net()
    with pytest.raises(RunFailed, match="no room for a single row: take") as failed:
        fit(model, Narrow(model, most=0), toy().train, Run(Budget(6, 16)))
    assert "\n" not in str(failed.value)


def test_an_optimiser_that_does_not_fit_is_one_line(monkeypatch):
    def step(*args, **kwargs):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    with pytest.raises(RunFailed, match="no room for the optimiser: take"):
        trained(Run(Budget(3, 8)))


@dataclass(frozen=True)
class Half:
    precision: str = "float16"


class Overflowing(nn.Module):
    """A network whose gradient overflows while the loss scale is above `most`."""

    def __init__(self, most):
        super().__init__()
        self.inner, self.settings, self.most = net(), Half(), most

    def forward(self, x):
        output = self.inner(x)
        output.register_hook(lambda grad: grad * math.inf if grad.abs().max() > self.most else grad)
        return output


def overflowing(run, most=1.0):
    model = Overflowing(most)
    return fit(model, loss_of(model), toy().train, run), model


def test_float16_gradients_that_overflow_never_reach_the_weights(tmp_path):
    start = Overflowing(1.0)
    with pytest.raises(Stop):
        overflowing(Killed(Budget(12, 16), tmp_path / "a", every=0, stop=1))
    state = training.load_state(tmp_path / "a/train.pt")
    for name, value in start.state_dict().items():
        assert torch.equal(value, state["parts"]["net"][name]), "the first step overflowed"
    assert state["parts"]["scaler"]["scale"] == 2.0**15
    resumed, model = overflowing(Run(Budget(12, 16), tmp_path / "a", every=0))
    assert not same(model, start) and all(p.isfinite().all() for p in model.parameters())
    assert same(resumed, overflowing(Run(Budget(12, 16)))[0]), "the scale goes on, too"


def test_the_scale_of_a_float16_loss_changes_no_gradient():
    half, single = Overflowing(math.inf), Overflowing(math.inf)
    single.settings = Half("float32")
    for model in (half, single):
        fit(model, loss_of(model), toy().train, Run(Budget(8, 16)))
    for a, b in zip(half.parameters(), single.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_float16_that_overflows_at_every_scale_has_diverged():
    with pytest.raises(Diverged, match="float16 gradients overflow in stage train"):
        overflowing(Run(Budget(60, 8)), most=-1.0)


def test_augmentation_goes_only_with_rows_of_the_data():
    run = Run(Budget(3, 8), augment=True)
    split = replace(toy().train, augment=Augment("flip"))
    assert len(list(run.batches(split))) == 3
    for source in (toy().train, Restless()):
        with pytest.raises(FlowbenchError, match="stage train does not train on images") as error:
            next(run.batches(source))
        assert "\n" not in str(error.value)


def test_augmented_training_goes_on_exactly(tmp_path):
    def train(run):
        model = net()
        split = replace(toy().train, augment=Augment("edm", 0.5))
        return fit(model, loss_of(model), split, run)

    with pytest.raises(Stop):
        train(Killed(Budget(9, 16), tmp_path / "a", every=0))
    assert same(train(Run(Budget(9, 16), tmp_path / "a", every=0)), train(Run(Budget(9, 16))))


def test_compiling_comes_after_the_average_is_copied(monkeypatch):
    compiled = []
    monkeypatch.setattr("flowbench.nets.backbone.compile_blocks", compiled.append)
    model = net()
    average = fit(model, loss_of(model), toy().train, Run(Budget(2, 8), compile=True))
    assert compiled == [model] and average is not model
    trained(Run(Budget(2, 8)))
    assert len(compiled) == 1


class Wide(nn.Module):
    """A network above the size from which memory is planned; its rows need 4 * 3000 bytes."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 3000), nn.Linear(3000, 64)
        self.more = nn.Parameter(torch.zeros(LARGE))

    def forward(self, x, t, y=None):
        return self.second(self.first(x.flatten(1)).square()).view_as(x)


def planned(monkeypatch, room, **fields):
    """The run and notes of one step of a wide network on a machine with `room` bytes."""
    monkeypatch.setattr(meters, "room", lambda device: room)
    notes = []
    run = Run(Budget(1, 64), note=notes.append, **fields)
    train_wide(Wide(), run)
    return run, notes


def train_wide(model, run):
    return fit(model, lambda x, y: model(x, y).square().mean(), toy().train, run)


def test_parts_are_chosen_so_that_training_fits(monkeypatch):
    need = meters.training_bytes(Wide(), (1, 8, 8))
    run, notes = planned(monkeypatch, 10**12)
    assert run.micro_batch is None
    (note,) = notes
    assert note.startswith("training needs about 0.0") and note.endswith("931 GiB are there")
    assert "activations" in note and "at micro-batch 64" in note
    run, notes = planned(monkeypatch, need.total(17) / 0.9)
    assert run.micro_batch == 16 and len(notes) == 1
    assert planned(monkeypatch, need.total(17) / 0.9, micro_batch=5)[0].micro_batch == 5
    assert planned(monkeypatch, 0)[0].micro_batch == 1, "one row is tried in any case"


def test_a_plan_is_made_once_and_moves_no_random_number(monkeypatch, tmp_path):
    for _ in range(2):
        assert len(planned(monkeypatch, 10**12)[1]) == 1
    model, notes = Wide(), []
    with pytest.raises(Stop):
        train_wide(model, Killed(Budget(9, 8), tmp_path / "a", every=0, note=notes.append))
    train_wide(model, Run(Budget(9, 8), tmp_path / "a", note=notes.append))
    assert len(notes) == 1
    dropping = Taking(nn.Dropout(0.5))
    state = torch.get_rng_state()
    meters.training_bytes(dropping, (64,))
    assert torch.equal(torch.get_rng_state(), state)


class Taking(nn.Module):
    """A network from a layer, called as all are."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.linear = layer, nn.Linear(64, 64)

    def forward(self, x, t=None, y=None):
        return self.layer(self.linear(x))


def test_a_network_that_is_called_in_another_way_trains_without_a_plan(monkeypatch):
    class Odd(Wide):
        def forward(self, x):
            return super().forward(x, None)

    model, notes = Odd(), []
    run = Run(Budget(1, 8), note=notes.append)
    fit(model, lambda x, y: model(x).square().mean(), toy().train, run)
    assert not notes and run.micro_batch is None


def test_smaller_parts_keep_whole_eighths_as_long_as_they_can():
    from flowbench.step import STRATA, smaller

    assert [smaller(n) for n in (512, 100, 24, 16, 9, 8, 3, 2)] == [256, 48, 8, 8, 5, 4, 2, 1]
    assert all(smaller(n) < n for n in range(2, 600))
    assert all(smaller(n) % STRATA == 0 for n in range(16, 600))
