"""Each check catches the method that breaks its promise, and no other check does."""

import json
import re
from pathlib import Path

import bad_methods
import pytest
import torch
from bad_methods import Good, bad, swallowing

from flowbench.testing import CHECKS, Affine, Examination, Subject, catalogue, laws

# id: (a method that breaks it, the ids of other checks that cannot but fail with it).
BROKEN = {
    "A02": (bad_methods.Changeable(), ()),
    "A03": (bad_methods.Misheard(), ()),
    "A04": (bad_methods.Loose(), ()),
    "A05": (bad_methods.Silent(), ()),
    "A07": (bad_methods.CFM(), ()),
    "A08": (bad_methods.Needy(), ()),
    "S01": (bad(sample=bad_methods.double), ()),
    "S02": (bad(sample=bad_methods.infinite), ("K01", "K02")),  # whose ends are then infinite
    "S03": (bad(sample=bad_methods.padded), ()),
    "S04": (bad(sample=bad_methods.greedy), ()),
    "S05": (bad(sample=bad_methods.seedless), ("T04",)),  # which compares samples bit for bit
    "S06": (bad(sample=bad_methods.deaf), ("K01", "K02")),  # whose ends belong to noises
    "S07": (bad(sample=bad_methods.batchwise), ()),
    "S08": (bad(sample=bad_methods.careless), ()),
    "S09": (bad(sample=bad_methods.meddling), ()),
    "S10": (bad(sample=bad_methods.hoarding), ()),
    "S11": (bad(sample=bad_methods.collecting), ()),
    "S12": (bad(sample=bad_methods.blind), ()),
    "S13": (bad(sample=bad_methods.gambling), ()),
    "S14": (bad(velocity=bad_methods.endless), ()),
    "T01": (bad(train=bad_methods.nothing), ()),
    "T02": (bad(train=bad_methods.climbing), ()),
    "T03": (bad(network=bad_methods.spare), ()),
    "T04": (bad(train=bad_methods.hiding), ()),
    "T05": (bad(train=bad_methods.forgetful), ()),
    "T06": (bad(train=bad_methods.late), ()),
    "T07": (bad(train=bad_methods.lavish), ()),
    "T08": (bad(train=bad_methods.early), ()),
    "T09": (bad(train=bad_methods.littering), ()),
    "T10": (bad(measure=bad_methods.wordy), ()),
    "K01": (bad(sample=bad_methods.shifted), ()),
    "K02": (bad(sample=bad_methods.short), ()),
    "F01": (bad(train=swallowing(OSError)), ()),
    "F02": (bad(train=bad_methods.choosy), ()),
    "F03": (bad(train=swallowing(KeyboardInterrupt)), ()),
    "F04": (bad(train=swallowing(ImportError)), ()),
    "F05": (bad(train=swallowing(torch.OutOfMemoryError)), ()),
}
# The failures of group F end a run before it samples, so what is bad in sampling is none of theirs.
FAST = [check for check in CHECKS if check.id != "K03"]
BEFORE = [check for check in FAST if check.id[0] != "F"]


def outcomes(method, folder, checks, name="bad"):
    """{outcome: ids} of the checks of a method."""
    subject = Subject(lambda: type(method), folder, name, given=method, nfes=(1, 2, 5))
    found: dict[str, list[str]] = {"pass": [], "fail": [], "warn": [], "skip": []}
    for result in Examination(subject).results_of(checks):
        found[result.outcome].append(result.check.id)
    return found


def test_a_good_method_passes_everything(tmp_path):
    assert outcomes(Good(), tmp_path, CHECKS)["pass"] == [check.id for check in CHECKS]


@pytest.mark.parametrize("id", BROKEN)
def test_only_the_check_whose_promise_is_broken_fails(id, tmp_path):
    method, others = BROKEN[id]
    checks = FAST if id[0] in "TF" else BEFORE
    found = outcomes(method, tmp_path, checks, getattr(method, "name", "bad"))
    assert found["fail"] == sorted({id, *others}, key=[c.id for c in CHECKS].index)
    assert found["warn"] == []
    if id not in NEEDED:
        assert found["skip"] == []


# What nothing can be said without: the checks behind them are left out, each with this reason.
NEEDED = ("A02", "A03", "A05", "A08", "S01", "T01")


def test_an_option_without_a_comment_is_a_warning(tmp_path):
    found = outcomes(bad_methods.Uncommented(), tmp_path, BEFORE)
    assert (found["warn"], found["fail"]) == (["A06"], [])


def test_a_field_of_no_known_form_is_held_against_itself(tmp_path):
    """Half the field in twice the time is the same flow, but no form that is known."""

    def walk(self, network, z, labels, nfe):
        for step in range(nfe):
            z = z + 2 * network(z, z.new_full((len(z),), step / nfe), labels) / nfe
        return z

    def velocity(self, network, z, t, labels):
        return 2 * network(z, t, labels)

    found = outcomes(bad(walk=walk, velocity=velocity), tmp_path, BEFORE)
    assert (found["warn"], found["skip"]) == ([], ["K02"]) and "K01" in found["pass"]
    wrong = bad(walk=walk, velocity=lambda self, network, z, t, labels: 3 * network(z, t, labels))
    assert outcomes(wrong, tmp_path / "wrong", BEFORE)["warn"] == ["K01"]


def test_a_class_whose_module_is_gone(tmp_path):
    method = bad(__module__="a_module_that_is_gone")
    assert outcomes(method, tmp_path, BEFORE)["fail"] == ["A01"]


def test_a_method_that_learns_the_mean_only_misses_the_modes(tmp_path):
    method = bad(train=bad_methods.collapsed)
    assert outcomes(method, tmp_path, CHECKS)["fail"] == ["K03"]


def test_a_check_that_fails_says_what_was_found_and_what_to_do(tmp_path):
    method = bad(sample=bad_methods.greedy)
    subject = Subject(lambda: type(method), tmp_path, "bad", given=method, nfes=(1, 2, 5))
    result = Examination(subject).result(catalogue.BY_ID["S04"])
    assert result.why == "spent 2 evaluations where 1 were asked"
    assert "call `network` itself" in result.advice


def test_what_no_check_expects_is_a_failure_with_its_place(tmp_path):
    def broken(self, network, noise, labels, nfe):
        return noise / 0 + {}["nothing"]

    method = bad(sample=broken)
    subject = Subject(lambda: type(method), tmp_path, "bad", given=method, nfes=(1,))
    examination = Examination(subject)
    assert examination.result(catalogue.BY_ID["S01"]).why.startswith("KeyError: 'nothing' (test_ch")
    assert examination.result(catalogue.BY_ID["S02"]).why == "S01 did not pass"


def test_training_that_trains_nothing_is_left_out_with_its_reason(tmp_path):
    def idle(self, data):
        return self.network(data)

    found = outcomes(bad(train=idle), tmp_path, FAST)
    assert found["fail"] == []
    trained = ["T02", "T03", "T05", "T06", "T07", "T08", "F01", "F02", "F03", "F04", "F05"]
    assert found["skip"] == trained


@pytest.mark.parametrize("law", [Affine(), Affine(straight=True)])
@pytest.mark.parametrize("form", laws.FORMS)
def test_exact_networks_agree_with_the_flow(law, form):
    """Integrated in the coordinates of its form, in small steps, it ends where the flow does."""
    net = laws.Closed(law, form)
    noise = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    ones, steps = torch.ones(5, dtype=torch.float64), 400
    if form.startswith("denoiser"):
        end, z = law.move(noise * 80 / 81, ones / 81, ones), 80 * noise
        levels = [80 * (1 - i / steps) ** 7 for i in range(steps)]
        for level, low in zip(levels, [*levels[1:], 0.0], strict=True):
            z = z + (low - level) * (z - net(z, level * ones)) / level
        bound = 0.02
    else:
        z, end, bound = noise, law.move(noise, 0 * ones, ones), 0.01
        for i in range(steps):
            times = {"(t, end)": (i, i), "(t, length)": (i, 0), "(end, t)": (i, i)}
            times["(t, level)"] = (i, steps)  # the smallest
            pair = next((p for words, p in times.items() if words in form), None)
            t = (
                i / steps * ones
                if pair is None
                else torch.stack([n / steps * ones for n in pair], 1)
            )
            z = z + net(z, t) / steps
    assert (z - end).abs().max() < bound


@pytest.mark.parametrize("law", [Affine(), Affine(straight=True)])
def test_jumps_lead_along_the_flow_in_one_step(law):
    x, one = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None], torch.ones(5).double()
    t, end = 0.2 * one, 0.7 * one
    average = laws.Closed(law, "average velocity net(z, (t, length), y)")
    z = x + 0.5 * average(x, torch.stack([t, end - t], 1))
    torch.testing.assert_close(z, law.move(x, t, end))
    level, low = (1 - t) / t, (1 - end) / end
    jump = laws.Closed(law, "denoiser net(x, sigma, y, s)")
    noisy, share = x / t[:, None], (low / level)[:, None]
    ends = share * noisy + (1 - share) * jump(noisy, level, None, low)
    torch.testing.assert_close(ends * end[:, None], law.move(x, t, end))


# The command.

FILE = Path(bad_methods.__file__)


def test_the_command_prints_a_table_and_ends_with_0(flowbench):
    code, output = flowbench("check", "cfm", "--quick", "--only", "A,S04", "-o", "width=8")
    assert code == 0, output
    assert output.startswith("cfm from flowbench 0.1.0: 9 pass")
    assert "S04    pass    it spends the evaluations asked for" in output


def test_a_loose_file_that_fails_ends_with_6(flowbench, tmp_path):
    source = FILE.read_text()
    good = source[: source.index("@dataclasses.dataclass(frozen=True)\nclass Bad(Good)")]
    path = tmp_path / "mine.py"
    path.write_text(good.replace("for step in range(nfe)", "for step in range(nfe + 1)"))
    code, output = flowbench("check", str(path), "--only", "A03,S04", "--json")
    assert code == 6, output
    body, _, last = output.rpartition("\nError: ")
    assert last == "1 check failed: S04\n"
    (told,) = json.loads(body)
    assert (told["method"], told["passed"]) == ("good", False)
    by_id = {one["id"]: one for one in told["checks"]}
    assert by_id["A03"]["outcome"] == "pass"
    assert by_id["S04"]["why"] == "spent 2 evaluations where 1 were asked"
    assert by_id["S04"]["advice"]


def test_a_file_that_cannot_be_imported_fails_the_first_check(flowbench, tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("import a_package_nobody_has\n" + FILE.read_text().partition("# What is")[0])
    code, output = flowbench("check", str(path), "--only", "A01,S01")
    assert code == 6, output
    assert "a_package_nobody_has" in output and "A01 did not pass" in output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cfmm"], "did you mean cfm?"),
        (["./nothing.py"], "there is no file ./nothing.py"),
        (["cfm", "--only", "S99"], "no check 'S99'"),
        (["cfm", "-o", "widht=3"], "did you mean width?"),
        ([], "say which method"),
    ],
)
def test_words_that_are_wrong_end_with_2(words, said, flowbench):
    code, output = flowbench("check", *words)
    assert code == 2 and said in output, output


def test_the_list_names_every_check(flowbench):
    code, output = flowbench("check", "--list")
    assert code == 0
    assert [line[:3] for line in output.splitlines()[::2]] == [check.id for check in CHECKS]
    assert len({check.id for check in CHECKS}) == len(CHECKS)


# The class of tests.


pytest_plugins = ["pytester"]


def test_the_contract_is_a_test_for_each_check_and_shows_what_is_left_out(pytester):
    pytester.makepyfile(
        """
        from bad_methods import bad, greedy
        from flowbench.testing import MethodContract

        class TestMine(MethodContract):
            method = bad(sample=greedy)
            kind = "vector"
            skips = {"T02": "its loss is a game of two"}
        """
    )
    done = pytester.runpytest_inprocess("-rsf", "-k", "S04 or A03 or T02")
    done.assert_outcomes(passed=1, failed=1, skipped=1, deselected=len(CHECKS) - 3)
    done.stdout.fnmatch_lines(["*T02: its loss is a game of two*"])
    done.stdout.fnmatch_lines(["FAILED *::TestMine::test_contract[[]S04-evaluations[]]*"])


def test_a_reason_to_leave_out_a_check_that_is_not_there_is_an_error(pytester):
    pytester.makepyfile(
        """
        from bad_methods import Good
        from flowbench.testing import MethodContract

        class TestMine(MethodContract):
            method = Good()
            skips = {"T99": "no such check"}
        """
    )
    done = pytester.runpytest_inprocess("-k", "S04")
    done.assert_outcomes(failed=1, deselected=len(CHECKS) - 1)
    done.stdout.fnmatch_lines(["*skips of TestMine: no checks are called*T99*"])


def test_only_the_class_of_tests_needs_pytest():
    for path in Path(catalogue.__file__).parent.glob("*.py"):
        needs = re.search(r"^ *(import|from) pytest", path.read_text(), re.MULTILINE)
        assert bool(needs) == (path.name == "contract.py"), path
