"""The page in a browser: sorting, filters, and links to what they show."""

import pytest
from page_samples import large

FIRST = "#digits-600-table tbody:first-of-type tr:not([hidden])"
SHOWN = ".block:not([hidden]) table[id$='0-table'] tbody:not(.fixed) tr:not([hidden])"


def column(page, index, rows=FIRST):
    """The words of a column, from top to bottom."""
    return [row.locator("th, td").nth(index).inner_text() for row in page.locator(rows).all()]


def labels(page):
    """The rows that are shown, by their first cells."""
    return column(page, 0, SHOWN)


def header(page, index):
    return page.locator("#digits-600-table thead button").nth(index)


def choose(page, title, *values):
    """Tick values of a filter."""
    facet = page.locator(".facet", has=page.locator(f"legend:text-is('{title}')"))
    facet.locator("summary").click()
    for value in values:
        facet.locator(f"input[value='{value}']").check()
    facet.locator("summary").click()


def test_a_column_of_numbers_sorts_both_ways_with_what_is_missing_last(opened):
    page = opened()
    header(page, 2).click()
    assert [word.split()[0] for word in column(page, 2)] == ["4.075", "9.5", "73.79", "nan"]
    header(page, 2).click()
    assert [word.split()[0] for word in column(page, 2)] == ["73.79", "9.5", "4.075", "nan"]
    header(page, 3).click()
    assert column(page, 3) == ["0.5", "0.5", "inf", "not measured"]
    header(page, 3).click()
    assert column(page, 3) == ["inf", "0.5", "0.5", "not measured"]


def test_a_column_of_words_sorts_numbers_within_them_by_size(opened):
    page = opened()
    header(page, 0).click()
    assert column(page, 0) == ["cfm", "cfm", "lmm k=9", "lmm k=10"]
    header(page, 4).click()
    assert column(page, 4) == ["fast", "slow", "slow", ""]
    header(page, 4).click()
    assert column(page, 4) == ["slow", "slow", "fast", ""]


def test_equal_rows_keep_their_order_so_that_columns_sort_within_each_other(opened):
    page = opened()
    header(page, 0).click()
    header(page, 1).click()
    assert column(page, 0) == ["cfm", "lmm k=9", "lmm k=10", "cfm"]
    header(page, 1).click()
    assert column(page, 0) == ["cfm", "cfm", "lmm k=9", "lmm k=10"]


def test_the_floor_stays_at_the_bottom(opened):
    page = opened()
    for _ in range(2):
        header(page, 2).click()
        last = page.locator("#digits-600-table tr").last
        assert last.inner_text().startswith("floor")


def test_a_long_table_sorts_as_its_numbers_do(opened):
    page = opened(large(sets=1, methods=250, nfes=4, metrics=1))
    page.locator("thead button").nth(3).click()
    values = page.evaluate(
        "[...document.querySelectorAll('tbody td:last-child')].map(e => +e.dataset.value)"
    )
    assert len(values) == 1000 and values == sorted(values)


@pytest.mark.parametrize(
    "title, values, expected",
    [
        ("Data set", ["moons"], ["edm", "lmm"]),
        ("Method", ["lmm"], ["lmm k=10", "lmm k=9", "lmm"]),
        ("Method", ["cfm", "edm"], ["cfm", "cfm", "edm"]),
        ("NFE", ["1", "20"], ["cfm", "lmm k=10", "lmm k=9", "lmm"]),
        ("Samples", ["600"], ["cfm", "cfm", "lmm k=10", "lmm k=9"]),
        ("Protocol", ["the most frequent"], ["cfm", "cfm", "lmm k=10", "lmm k=9"]),
    ],
)
def test_a_filter_shows_the_rows_that_it_names(opened, title, values, expected):
    page = opened()
    choose(page, title, *values)
    assert labels(page) == expected
    assert page.locator("#shown").inner_text().startswith(f"{len(expected)} of 6 rows")


def test_filters_hold_together_and_hide_tables_without_rows(opened):
    page = opened()
    choose(page, "Method", "lmm")
    choose(page, "NFE", "20")
    assert labels(page) == ["lmm"]
    assert page.locator("#shown").inner_text() == "1 of 6 rows, 1 table"
    assert page.locator("#digits-600").is_hidden() and page.locator("#failures").is_hidden()
    assert page.locator("nav [data-block='digits-600']").is_hidden()
    choose(page, "Data set", "digits")
    assert labels(page) == [] and page.locator("#nothing").is_visible()


def test_filters_reach_what_belongs_to_the_rows(opened):
    page = opened()
    choose(page, "Method", "cfm")
    assert page.locator("#digits-600-published-table tbody tr:not([hidden])").count() == 0
    assert page.locator("#digits-600 .one:not([hidden])").count() == 1
    assert page.locator("#digits-600-table .fixed tr").is_visible()


def test_the_search_finds_words_in_any_order(opened):
    page = opened()
    page.locator("[name=q]").fill("K=1 lmm digits")
    assert labels(page) == ["lmm k=10"]


def test_reset_brings_back_every_row_in_its_first_order(opened):
    page = opened()
    before = labels(page)
    header(page, 2).click()
    choose(page, "Method", "lmm")
    page.locator("[name=q]").fill("k")
    page.locator("button[type=reset]").click()
    page.wait_for_function("document.getElementById('shown').textContent === '6 rows'")
    assert labels(page) == before
    assert page.locator("[aria-sort]").count() == 0 and page.evaluate("location.hash") == ""


def test_a_view_can_be_linked(opened):
    page = opened()
    choose(page, "Method", "lmm")
    choose(page, "NFE", "1", "20")
    page.locator("[name=q]").fill("lmm")
    fragment = page.evaluate("location.hash")
    again = opened(fragment=fragment)
    assert labels(again) == labels(page) == ["lmm k=10", "lmm k=9", "lmm"]
    assert again.locator("[name=q]").input_value() == "lmm"
    assert again.locator(".facet.active").all_inner_texts() == ["Method: lmm", "NFE: 1, 20"]


@pytest.mark.parametrize("fragment", ["#method=nothing&x=1", "#nfe=%FF%3Cb%3E&q=", "#=&&="])
def test_a_broken_link_shows_everything(opened, fragment):
    assert len(labels(opened(fragment=fragment))) == 6
