"""The page without a browser: what it escapes, loads, says and weighs."""

import base64
import hashlib
import itertools
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import page_samples
import pytest
from markupsafe import Markup
from page_samples import svg
from page_tree import grids, tree, words

from flowbench.report.page import html
from flowbench.report.page.facets import facets

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><img src=x onerror=alert(1)>",
    "</style><script>alert(1)</script>",
    "</title></textarea><svg onload=alert(1)>",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "<!-- ",
    "]]>&lt;b&gt;&amp;",
]


def parts(page):
    """Every tag with its attributes' names, in order: what a text must not be able to change."""
    return [(element.tag, *sorted(element.attrib)) for element in tree(page).iter()]


@pytest.mark.parametrize("word", HOSTILE)
def test_a_hostile_text_adds_no_tag_and_no_attribute(word):
    plain, hostile = (html(page_samples.document(each), svg) for each in (" plain", f" {word}"))
    assert parts(hostile) == parts(plain)
    assert f"A leaderboard {word}" in words(tree(hostile))
    assert not re.search(r'(href|src)="?\s*javascript', hostile)


def test_that_check_catches_a_text_that_is_not_escaped():
    wrong = replace(page_samples.document(), title=Markup("A leaderboard<img src=x onerror=a>"))
    plain = html(page_samples.document(), svg)
    assert parts(html(wrong, svg)) != parts(plain)


def loads(page):
    """Every address in the page that is neither a place in it nor an image inside it."""
    found = re.findall(
        r"(?:url\(|@import|\b(?:src|srcset|href|data|action)=)\s*[\"']?([^\"'\s>)]*)", page
    )
    return [each for each in found if not each.startswith(("#", "data:image/png;base64,"))]


def test_the_page_has_no_address_outside_itself():
    assert loads(html(page_samples.document(), svg)) == []


@pytest.mark.parametrize(
    "drawn",
    [
        '<svg><image href="https://example.org/a.png"></image></svg>',
        "<svg><style>@import 'a.css';</style></svg>",
    ],
)
def test_that_check_catches_a_chart_that_loads_something(drawn):
    assert loads(html(page_samples.document(), lambda chart: drawn))


def test_the_policy_runs_the_style_and_the_script_of_the_page_and_nothing_else():
    root = tree(html(page_samples.document(), svg))
    meta = next(m for m in root.iter("meta") if m.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in meta.get("content").split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    for tag in ("style", "script"):
        inlined = [each.text for each in root.iter(tag)]
        hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()) for text in inlined]
        assert rules[f"{tag}-src"] == f"'sha256-{hashes[0].decode()}'" and len(hashes) == 1


def test_ids_are_unique_and_every_reference_leads_somewhere():
    root = tree(html(page_samples.document(), svg))
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    for element in root.iter():
        for name in (element.get("aria-labelledby"), element.get("href", "#main")[1:]):
            assert name is None or name in ids, element.attrib


def test_every_table_has_a_caption_and_headers_with_their_scope():
    tables = list(tree(html(page_samples.document(), svg)).iter("table"))
    assert len(tables) == 4
    for table in tables:
        assert words(table.find("caption"))
        assert {head.get("scope") for head in table.find("thead").iter("th")} == {"col"}
        for body in table.iter("tbody"):
            for row in body:
                assert row[0].get("scope") == "row" and words(row[0])


def test_every_cell_says_what_the_table_says():
    document = page_samples.document()
    first, second = document.blocks
    tables = [first.table, first.published, second.table, document.failures]
    expected = [[[cell.words for cell in row] for row in table.rows] for table in tables]
    assert grids(tree(html(document, svg))) == expected


def test_numbers_sort_by_their_values_and_what_is_missing_has_none():
    rows = next(tree(html(page_samples.document(), svg)).iter("tbody"))
    values = [[cell.get("data-value") for cell in row] for row in rows]
    assert [row[2] for row in values] == ["73.79", "9.5", "4.075", None]
    assert [row[3] for row in values] == ["0.5", None, "Infinity", "0.5"]
    assert {row[4] for row in values} == {None}


def test_the_best_is_marked_by_more_than_its_colour():
    strong = [each for each in tree(html(page_samples.document(), svg)).iter("td") if len(each)]
    marked = [each for each in strong if each[0].tag == "strong"]
    assert [words(each) for each in marked] == ["4.075 ± 0.11"]
    assert marked[0][0].get("title") and marked[0][0][-1].text == ", best"


def test_the_floor_stays_below_the_others():
    table = next(tree(html(page_samples.document(), svg)).iter("table"))
    bodies = list(table.iter("tbody"))
    assert [len(body) for body in bodies] == [4, 1]
    assert words(bodies[1][0][0]) == "floor (n = 600)"


def test_a_row_leads_to_how_it_was_made():
    page = html(page_samples.document(), svg)
    root = tree(page)
    link = next(a for a in root.iter("a") if words(a) == "lmm k=10")
    place = next(each for each in root.iter() if each.get("id") == link.get("href")[1:])
    told = [" ".join(words(each).split()) for each in place.iter() if each.tag in ("code", "dd")]
    assert told[0] == "flowbench run lmm --dataset digits --nfe 1,2 --seed 0,1"
    assert told[1:4] == ["edm", "lmm-s0, lmm-s1", "python 3.11, torch 2.9"]
    assert told[-1] == "friend.db" and {"21ab", "7d64"} <= set(told)


def test_headings_go_down_one_level_at_a_time():
    levels = [
        int(e.tag[1])
        for e in tree(html(page_samples.document(), svg)).iter()
        if e.tag in ("h1", "h2", "h3")
    ]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_controls_are_hidden_until_the_script_shows_them():
    root = tree(html(page_samples.document(), svg))
    inside = [
        child
        for box in root.iter()
        for child in box.iter()
        if box.tag == "dialog" or "hidden" in box.attrib
    ]
    controls = [e for e in root.iter() if e.tag in ("button", "input", "select")]
    assert controls and all(control in inside for control in controls)


def test_what_has_one_value_is_no_filter_and_numbers_stand_in_their_order():
    found = {facet.name: facet.values for facet in facets(page_samples.document())}
    assert list(found) == ["dataset", "method", "nfe", "samples", "protocol"]
    assert found["nfe"] == ("1", "2", "4", "20")
    assert found["samples"] == ("600", "2000")


def test_the_summary_counts_what_is_there():
    assert "6 rows from 4 runs of 2 methods on 2 data sets; 1 attempt that" in words(
        tree(html(page_samples.document(), svg))
    )


def test_the_same_document_gives_the_same_bytes_whatever_the_order_of_its_mappings():
    one = page_samples.document()
    block = one.blocks[0]
    turned = tuple(
        replace(
            each,
            traits=dict(reversed(each.traits.items())),
            hashes=dict(reversed(each.hashes.items())),
            environments=tuple(dict(reversed(some.items())) for some in each.environments),
        )
        for each in block.details
    )
    other = replace(one, blocks=(replace(block, details=turned), *one.blocks[1:]))
    assert html(one, svg) == html(other, svg)


def test_another_process_gives_the_same_bytes():
    code = (
        "import sys, hashlib, page_samples as p; from flowbench.report.page import html;"
        "print(hashlib.sha256(html(p.document(), p.svg).encode()).hexdigest())"
    )
    folder = str(Path(page_samples.__file__).parent)
    results = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": folder},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(results) == 1


def test_ten_thousand_scores_weigh_less_than_eight_megabytes():
    page = html(page_samples.large(sets=10, methods=25, nfes=4, metrics=10), svg)
    assert page.count("±") > 10_000
    assert len(page.encode()) < 8e6


def test_a_document_without_anything_is_still_a_page():
    from flowbench.report.document import Document

    assert "0 rows from 0 runs" in words(tree(html(Document("Nothing", ()), svg)))
