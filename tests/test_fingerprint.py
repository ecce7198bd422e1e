"""Numbers that differ in one field of their fingerprint are refused with the name of that field."""

import json
import re
import shlex

import pytest
from stored_rows import DATA, IMAGES, MACHINE, floor, put, score, spec, timed

from flowbench.comparison import fingerprint
from flowbench.records import Budget

OTHER = "e" * 64


def images(**changes):
    return {"protocol": IMAGES | changes}


def extractor(**changes):
    return images(extractor=IMAGES["extractor"] | changes)


def reference(**changes):
    return images(reference=IMAGES["reference"] | changes)


# Of a metric: what makes the odd one out differ, and the values that the message shows.
OF_METRICS = [
    ("protocol", images(radius=4.0), "radius=4.0"),
    ("protocol", images(directions=100), "directions=100"),
    ("protocol", images(estimator="100 subsets"), "estimator=100 subsets"),
    ("extractor", images(weights="b" * 64), "bbbbbbbbbbbb"),
    ("extractor", extractor(network="DINOv2"), "DINOv2"),
    ("extractor", extractor(tf32=True), "tf32=True"),
    ("split", reference(split="test"), "test, 50000"),
    ("split", reference(rows=1000), "train, 1000"),
    ("split", reference(data=OTHER), "train, 50000 of data eeeeeeeeeeee"),
    ("split", images(reference={"file": OTHER}), "file eeeeeeeeeeee"),
    ("split", images(data=OTHER, reference=["train", 50_000]), "of data eeeeeeeeeeee"),
    ("resize", extractor(resize="bicubic"), "bicubic"),
    ("resize", images(resize="bicubic"), "bicubic"),
    ("quantisation", images(quantisation="none"), "none"),
    ("quantisation", extractor(quantisation="float"), "float"),
    ("ema", images(ema=False), "no"),
    ("ema", images(ema=0.9999), "0.9999"),
]
# Of a run, which holds for all its numbers.
OF_RUNS = [
    ("data", {"data": OTHER}, "eeeeeeeeeeee"),
    ("budget", {"budget": Budget(20, 2)}, "20 x 2"),
    ("budget", {"budget": Budget(10, 4)}, "10 x 4"),
    ("conditioning", {"setting": {"unconditional": True}}, "none"),
]
NETWORK = {"name": "ddpmpp", "channels": 128, "precision": "float32"}
OF_SPEED = [
    ("device", {"device": "another GPU"}, {}, "another GPU"),
    ("batch", {"batch": 50}, {}, "50"),
    ("threads", {"threads": 2}, {}, "2"),
    ("dtype", {}, {"setting": {"network": NETWORK | {"precision": "bfloat16"}}}, "bf16"),
]


def refused(flowbench, *words):
    """The one line that a refused comparison prints."""
    code, output = flowbench("compare", *words)
    assert code == 5, output
    assert output.startswith("Error: ") and output.count("\n") == 1, output
    return output.removeprefix("Error: ").strip()


def told(line, labels):
    """The value that a message says some rows to have."""
    (found,) = re.findall(rf"([^:;]*) \({labels}\)", line)
    return found


def records(flowbench, name="fd"):
    found = json.loads(flowbench("report", "--format", "json")[1])["scores"]
    return [r for r in found if r["subject"] == "model" and r["metric"] == name]


def shown_apart(flowbench, *words):
    code, output = flowbench("compare", "--allow-mixed", *words)
    assert code == 0, output
    return output


def three(database, odd, put_one):
    """Two runs that agree, and one with a better number that does not."""
    for method, value in (("cfm", 5.0), ("edm", 4.0)):
        put_one(method, value, {})
    put_one("lmm", 1.0, odd)


@pytest.mark.parametrize("field, odd, value", OF_METRICS)
def test_a_field_of_a_metric(flowbench, database, field, odd, value):
    three(database, odd, lambda method, x, more: put(database, spec(method), score(x, **more)))
    line = refused(flowbench)
    assert line.startswith(f"digits: {field} of fd differs: ")
    assert value in told(line, "lmm") and value not in told(line, "cfm, edm")
    assert line.endswith(
        "; name other metrics with --metric, or take --allow-mixed to show them apart"
    )
    output = shown_apart(flowbench)
    first, second = output.split("digits: 100 samples")[1:]
    assert "5.000" in first and "4.000" in first and "lmm" not in first
    assert "1.000" in second and "cfm" not in second
    assert f"this table's fd: {field} " in second
    found = {r["method"]: r for r in records(flowbench)}
    assert [m for m, r in found.items() if r["best"]] == ["edm"]
    assert found["lmm"]["part"] == 1 and found["lmm"][field] != found["cfm"][field]
    same = [name for name in fingerprint.FIELDS if name != field]
    assert all(found["lmm"][name] == found["cfm"][name] for name in same)


@pytest.mark.parametrize("field, odd, value", OF_RUNS)
def test_a_field_of_the_run(flowbench, database, field, odd, value):
    three(database, odd, lambda method, x, more: put(database, spec(method, **more), score(x)))
    line = refused(flowbench)
    assert line.startswith(f"digits: {field} differs: ") and f"{value} (lmm)" in line
    assert flowbench("compare", *advised(line))[0] == 0
    assert shown_apart(flowbench).count("digits: 100 samples") == 2
    assert [r["method"] for r in records(flowbench) if r["best"]] == ["edm"]


def test_the_number_of_samples(flowbench, database):
    three(database, {"n": 50}, lambda m, x, more: put(database, spec(m), score(x, **more)))
    line = refused(flowbench)
    assert line.startswith("digits: n differs: 100 (cfm, edm); 50 (lmm)")
    output = flowbench("compare", *advised(line))[1]
    assert "100 samples" in output and "lmm" not in output
    assert [r["method"] for r in records(flowbench) if r["best"]] == ["edm"]


def advised(line):
    """The words of the advice in a message."""
    found = re.search(r"choose with (.*), or --allow-mixed to show them apart$", line)
    assert found, line
    return shlex.split(found[1])


@pytest.mark.parametrize("field, facts, odd, value", OF_SPEED)
@pytest.mark.parametrize("name", ["ms-per-sample", "peak-mib"])
def test_a_field_of_speed(flowbench, database, name, field, facts, odd, value):
    def put_one(method, x, more):
        given = {"setting": {"network": NETWORK}} | (odd if more else {})
        number = timed(x, name, **(facts if more else {}))
        put(database, spec(method, **given), score(x), number)

    three(database, {"odd": True}, put_one)
    line = refused(flowbench, "--metric", f"fd,{name}")
    assert line.startswith(f"digits: {field} of {name} differs: ") and f"{value} (lmm)" in line
    assert flowbench("compare")[0] == 0, "what is not shown is not compared"
    output = shown_apart(flowbench, "--metric", f"fd,{name}")
    assert all(f"{value}.000 *" in output for value in "541")
    assert f"*: not ranked, because these differ: {field}" in output
    assert not any(r["best"] for r in records(flowbench, name))
    assert [r["method"] for r in records(flowbench) if r["best"]] == ["lmm"], "fd still ranks"


def test_the_device_of_a_training_time_is_that_of_its_attempt(flowbench, database):
    three(
        database,
        {"device": "another GPU"},
        lambda method, x, more: put(
            database,
            spec(method),
            score(x),
            score(x, "train-seconds", nfe=-1, n=0, goal="min"),
            machine=MACHINE | more,
        ),
    )
    line = refused(flowbench, "--metric", "train-seconds")
    assert "device of train-seconds differs: another GPU (lmm); one CPU (cfm, edm)" in line
    found = records(flowbench, "train-seconds")
    assert [r["device"] for r in found] == ["one CPU", "one CPU", "another GPU"]
    assert not any(r["best"] or r["comparable"] for r in found)


def test_a_number_without_a_direction_is_marked_where_it_does_not_compare(flowbench, database):
    """Nothing ranks by it, so it is no reason to refuse, but a reader compares it."""
    for method, device in (("cfm", "one CPU"), ("edm", "another GPU")):
        time = score(7.0, "train-seconds", nfe=-1, n=0, goal="")
        put(database, spec(method), score(1.0), time, machine=MACHINE | {"device": device})
    code, output = flowbench("compare", "--metric", "fd,train-seconds")
    assert code == 0 and output.count("7.000 *") == 2
    assert "*: not ranked, because these differ: device" in output


def test_equal_fingerprints_are_ranked(flowbench, database):
    """The good case: hashes of other runs, environments and seeds are no part of it."""
    three(
        database,
        {"seed": 1, "code": "c2", "version": "9"},
        lambda method, x, more: put(
            database, spec(method, **more), score(x), timed(x), machine=MACHINE | {"git": method}
        ),
    )
    code, output = flowbench("compare", "--metric", "fd,ms-per-sample")
    assert code == 0 and "not ranked" not in output
    for name in ("fd", "ms-per-sample"):
        assert [r["method"] for r in records(flowbench, name) if r["best"]] == ["lmm"]
    assert "**1.000**" in flowbench("compare", "--format", "md")[1]


def test_each_field_that_a_fingerprint_has_is_tested_here():
    tested = {case[0] for case in (*OF_METRICS, *OF_RUNS, *OF_SPEED)} | {"n"}
    assert tested == {*fingerprint.FIELDS, *fingerprint.OF_SPEED}


def test_a_difference_in_another_metric_refuses_only_that_metric(flowbench, database):
    """Also where the odd one is at an NFE or of a data set that is not asked for."""
    odd = score(1.0, "w2", protocol={"rows": 9})
    put(database, spec("cfm"), score(1.0), score(2.0, "w2", protocol={"rows": 8}))
    put(database, spec("edm"), score(3.0), odd)
    put(database, spec("edm", dataset="moons", data="m"), score(3.0))
    assert flowbench("compare", "--metric", "fd")[0] == 0
    assert flowbench("compare", "--dataset", "moons")[0] == 0
    assert flowbench("compare", "--method", "cfm")[0] == 0
    assert "protocol of w2" in refused(flowbench, "--metric", "fd,w2")
    assert "protocol of w2" in refused(flowbench, "--metric", "w2", "--dataset", "digits")


def test_a_difference_at_an_nfe_that_is_not_shown_does_not_refuse(flowbench, database):
    put(database, spec("cfm"), score(1.0), score(1.0, nfe=2))
    put(database, spec("edm"), score(2.0), score(2.0, nfe=2, **images(radius=4.0)))
    assert flowbench("compare", "--nfe", "1")[0] == 0
    refused(flowbench, "--nfe", "1,2")
    refused(flowbench)


def test_the_seeds_of_one_row_have_to_agree_as_well(flowbench, database):
    """A mean over two protocols is no number."""
    put(database, spec(seed=0), score(1.0), timed(1.0))
    put(database, spec(seed=1), score(3.0), timed(3.0, device="GPU"))
    put(database, spec(seed=2), score(7.0, **images(radius=4.0)))
    line = refused(flowbench)
    assert line.startswith("digits: protocol of fd differs: ") and line.count("(cfm)") == 2
    assert {r["mean"] for r in records(flowbench)} == {2.0, 7.0}
    line = refused(flowbench, "--metric", "ms-per-sample")
    assert "device of ms-per-sample differs: GPU | one CPU (cfm)" in line
    assert "2.000 ± 1.4 *" in shown_apart(flowbench, "--metric", "ms-per-sample")


def test_all_fields_are_counted_and_the_first_is_named(flowbench, database):
    put(database, spec("cfm"), score(1.0))
    put(database, spec("edm", budget=Budget(20, 2)), score(2.0, n=50, **images(ema=False)))
    line = refused(flowbench)
    assert line.startswith("digits: n differs") and "(and 2 more)" in line


def test_the_advice_keeps_to_the_data_set_that_it_is_about(flowbench, database):
    """Filtered by n alone, the other data set would vanish without a word."""
    put(database, spec("cfm"), score(1.0))
    put(database, spec("edm"), score(2.0, n=50))
    put(database, spec("edm", dataset="moons", data="m"), score(3.0, n=2000))
    words = advised(refused(flowbench))
    assert words[:2] == ["--dataset", "digits"]
    assert flowbench("compare", *words)[0] == 0


def test_many_rows_of_one_value_are_not_all_named(flowbench, database):
    for seed in range(5):
        put(database, spec("cfm", changed={"lr": seed}, options={"lr": seed}), score(1.0))
    put(database, spec("edm"), score(2.0, n=50))
    assert "100 (cfm lr=0, cfm lr=1, cfm lr=2, ...); 50 (edm)" in refused(flowbench)


def test_costs_compare_across_budgets(flowbench, database):
    for method, steps in (("cfm", 10), ("edm", 20)):
        run = spec(method, budget=Budget(steps, 2))
        put(database, run, score(1.0), score(steps, "train-images", nfe=-1, n=0))
    assert "budget differs" in refused(flowbench)
    assert flowbench("compare", "--metric", "train-images")[0] == 0


def test_facts_of_a_run_are_shown_once_and_never_lost(flowbench, database):
    for method, more in (("cfm", {}), ("edm", images(radius=4.0))):
        straight = score(0.5, "S", nfe=-1, n=0)
        put(database, spec(method), score(1.0, **more), straight, timed(0.25))
    for name, value in (("S", 0.5), ("ms-per-sample", 0.25)):
        found = [(r["method"], r["mean"]) for r in records(flowbench, name)]
        assert sorted(found) == [("cfm", value), ("edm", value)]


def test_a_floor_of_another_protocol_is_not_shown_beside(flowbench, database):
    put(database, spec("cfm"), score(3.0), floor(2.0, **images(radius=4.0)))
    assert "floor" not in flowbench("compare")[1]
    put(database, spec("edm"), score(3.0), floor(1.0))
    output = flowbench("compare")[1]
    assert "floor (n = 100)" in output and "1.000" in output and "2.000" not in output


@pytest.mark.parametrize(
    "protocol",
    [
        {"weights": "w"},
        {"weights": "w", "extractor": "x"},
        {"weights": 7, "extractor": {"name": "mine"}, "reference": {}},
        {"weights": None, "extractor": {}, "reference": {"rows": 1}},
        {"weights": "w", "extractor": {"network": 1, "resize": None}, "reference": "text"},
        {"weights": {}, "extractor": [], "reference": [["a"], {}]},
        {"ema": [1], "resize": {"a": 1}, "quantisation": []},
        {"ema": {"half-life": 1}},
        {"reference": {"file": None}, "data": None},
        {"extractor": 7, "reference": 7, "data": 7, "device": []},
    ],
)
def test_the_protocol_of_a_stranger_is_words_and_never_a_traceback(flowbench, database, protocol):
    put(database, spec("cfm"), score(1.0, protocol=protocol))
    put(database, spec("edm"), score(2.0, protocol=protocol))
    assert flowbench("compare")[0] == 0
    assert [r["best"] for r in records(flowbench)] == [True, False]
    for form in ("md", "latex", "table", "csv"):
        assert flowbench("report", "--format", form)[0] == 0


def test_precision_is_read_where_runs_keep_it(flowbench, database):
    """The bad case is a fingerprint that looks in a place that no run fills."""
    from types import SimpleNamespace

    from flowbench import setting

    data = SimpleNamespace(shape=(3, 32, 32), kind="image", classes=0)
    entry = SimpleNamespace(network="")
    words = {}
    for precision in (None, "fp32", "bf16"):
        chosen, _ = setting.resolve(data, entry, precision=precision)
        words[precision] = fingerprint.of_speed({}, spec(setting=chosen), {})["dtype"]
    assert words == {None: "fp32", "fp32": "fp32", "bf16": "bf16"}
    assert fingerprint.of_speed({}, spec(), {})["dtype"] == "fp32", "small networks"


def test_hashes_are_shown_by_their_start_and_compared_no_further(flowbench, database):
    """Twelve digits tell files apart; the database keeps all of them."""
    put(database, spec("cfm", data=DATA), score(1.0))
    put(database, spec("edm", data=DATA[:12] + "0" * 52), score(2.0))
    assert flowbench("report", "--format", "json")[1].count(DATA) > 0
