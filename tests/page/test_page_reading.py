"""The page for everyone: themes, keyboard, phones, paper, no script, none of a stranger."""

import pytest
from page_samples import document, large, svg
from page_watch import watch

from flowbench.report.document import Document
from flowbench.report.page import html


def ground(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_the_theme_follows_the_system_until_it_is_chosen(opened):
    page = opened(color_scheme="light")
    light = ground(page)
    page.emulate_media(color_scheme="dark")
    dark = ground(page)
    assert light != dark
    toggle = page.locator("#theme")
    seen = []
    for _ in range(3):
        toggle.press("Enter")
        seen.append((toggle.inner_text(), ground(page)))
    assert seen == [("Theme: light", light), ("Theme: dark", dark), ("Theme: auto", dark)]


def test_a_chart_takes_the_colours_of_the_theme(opened):
    page = opened(color_scheme="light")
    stroke = "getComputedStyle(document.querySelector('figure svg path')).stroke"
    light = page.evaluate(stroke)
    page.emulate_media(color_scheme="dark")
    assert page.locator("figure svg path").count() == 1
    assert page.evaluate(stroke) not in (light, "none")


def test_the_keyboard_sorts_filters_and_opens_what_is_behind_a_row(opened):
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    for _ in range(4):  # the table, then its headers
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "BUTTON"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) != "none"
    fd = page.locator("#digits-600-table thead th").nth(2)
    for order in ("ascending", "descending", "ascending"):
        page.keyboard.press("Enter")
        assert fd.get_attribute("aria-sort") == order
    page.locator(".facet summary").first.focus()
    for key in ("Enter", "Tab", "Space", "Escape"):
        page.keyboard.press(key)
    assert page.locator(".facet.active summary").inner_text() == "Data set: digits"
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"


def test_a_row_opens_how_it_was_made_and_the_command_can_be_copied(opened):
    page = opened(permissions=["clipboard-read", "clipboard-write"])
    link = page.locator("a.how", has_text="lmm k=10").first
    link.press("Enter")
    dialog = page.locator("dialog[open]")
    assert dialog.locator("h2").inner_text() == "lmm k=10 on digits"
    dialog.locator(".copy").click()
    page.wait_for_function("document.querySelector('dialog .copy').textContent === 'Copied'")
    command = "flowbench run lmm --dataset digits --nfe 1,2 --seed 0,1"
    assert page.evaluate("navigator.clipboard.readText()") == command
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert page.evaluate("document.activeElement.textContent") == "lmm k=10"


def test_a_command_is_copied_without_the_clipboard_of_the_browser(opened):
    page = opened(permissions=["clipboard-read"])
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(); }")
    page.locator("a.how").first.click()
    page.locator("dialog .copy").click()
    page.wait_for_function("document.querySelector('dialog .copy').textContent !== 'Copy command'")
    assert page.evaluate("getSelection().toString()").startswith("flowbench run cfm")


@pytest.mark.parametrize("width, height", [(360, 740), (800, 600), (1280, 900)])
def test_nothing_is_wider_than_the_screen(opened, width, height):
    wide = "document.documentElement.scrollWidth - innerWidth"
    page = opened(viewport={"width": width, "height": height})
    assert page.evaluate(wide) <= 0
    for facet in page.locator(".facet").all():
        facet.locator("summary").click()
        assert page.evaluate(wide) <= 0
    many = opened(
        large(sets=1, methods=2, nfes=1, metrics=12), viewport={"width": width, "height": height}
    )
    assert many.evaluate(wide) <= 0


def test_on_a_phone_the_first_column_stays_while_a_table_scrolls(opened):
    page = opened(
        large(sets=1, methods=2, nfes=1, metrics=12), viewport={"width": 360, "height": 740}
    )
    page.locator(".scroll").first.evaluate("box => box.scrollTo(9999, 0)")
    first, last = (page.locator("tbody tr").first.locator("th, td").nth(i) for i in (0, -1))
    assert abs(first.bounding_box()["x"] - page.locator(".scroll").first.bounding_box()["x"]) < 2
    assert last.bounding_box()["x"] < 360


def test_without_scripts_every_row_can_be_read_and_no_control_is_shown(opened):
    page = opened(java_script_enabled=False)
    rows = page.locator("tbody tr").all()
    assert len(rows) == 9 and all(row.is_visible() for row in rows)
    controls = page.locator("button, input, select, form, dialog").all()
    assert controls and not any(control.is_visible() for control in controls)
    page.locator("a.how", has_text="lmm k=10").first.click()
    assert page.locator("pre", has_text="flowbench run lmm").is_visible()


def test_on_paper_everything_is_light_open_and_without_controls(opened):
    page = opened(color_scheme="dark")
    page.emulate_media(media="print")
    scheme = "getComputedStyle(document.documentElement).colorScheme"
    assert page.evaluate(scheme) == "light"
    for control in page.locator("#filters, #theme, .copy, .skip").all():
        assert not control.is_visible()
    height = "[...document.querySelectorAll('.command')].map(e => e.getBoundingClientRect().height)"
    assert all(each > 0 for each in page.evaluate(height))
    assert (
        page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflow") == "visible"
    )


@pytest.mark.parametrize(
    "bad", ["<svg><script>window.ran = 1</script></svg>", "<svg onload='window.ran = 1'></svg>"]
)
def test_the_policy_stops_a_script_that_got_into_the_page(browser, tmp_path, bad):
    file = tmp_path / "page.html"
    file.write_text(html(document(), lambda chart: svg(chart) + bad), encoding="utf-8")
    page = browser.new_page()
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(file.as_uri())
    assert page.evaluate("window.ran") is None
    assert any("Content Security Policy" in line for line in said)
    page.close()


@pytest.mark.parametrize("bad", ["<img src='https://example.org/a.png'>", "<img src='other.png'>"])
def test_those_checks_catch_a_page_that_loads_something(browser, tmp_path, bad):
    file = tmp_path / "page.html"
    file.write_text(html(document(), lambda chart: svg(chart) + bad), encoding="utf-8")
    page, wrong = browser.new_page(), []
    watch(page, file.as_uri(), wrong)
    page.goto(file.as_uri())
    page.close()
    assert wrong


def test_hostile_names_stay_words(opened):
    page = opened(document("<img src=x onerror='window.ran = 1'>\"'&<b>"))
    page.locator("a.how").first.click()
    page.locator("[name=q]").fill("<img")
    assert page.evaluate("window.ran") is None
    assert "<img src=x" in page.locator("dialog h2").inner_text()


def test_a_page_without_rows_has_no_error(opened):
    assert opened(Document("Nothing", ())).locator("#shown").inner_text() == "0 rows"


@pytest.mark.parametrize(
    "context",
    [
        {"color_scheme": "light"},
        {"color_scheme": "dark"},
        {"viewport": {"width": 360, "height": 740}},
    ],
    ids=["light", "dark", "phone"],
)
def test_axe_finds_nothing_that_keeps_people_out(opened, context):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    )
    page = opened(**context)
    page.evaluate("document.querySelectorAll('details').forEach(each => (each.open = true))")
    found = axe.Axe().run(page).response
    assert len(found["passes"]) > 20
    assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
