"""A headless Chromium for the tests of the page, or a skip that says what to install."""

import os
import shutil

import pytest
from page_samples import document, svg
from page_watch import watch

ABSENT = "Debian's chromium is not installed: run tests/setup.sh"


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, without its sandbox where root may not have one."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip(ABSENT)
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with driver.sync_playwright() as play:
        found = play.chromium.launch(executable_path=program, args=["--no-sandbox"] if root else [])
        yield found
        found.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Open a document from disk: `opened(document, hash, **context)`.

    In the end the test fails where the page had an error or asked for anything but itself.
    """
    wrong: list[str] = []
    contexts = []

    def call(shown=None, fragment="", draw=svg, **context):
        from flowbench.report.page import html

        file = tmp_path / f"page-{len(contexts)}.html"
        file.write_text(html(shown or document(), draw), encoding="utf-8")
        contexts.append(browser.new_context(**context))
        page = contexts[-1].new_page()
        watch(page, file.as_uri(), wrong)
        page.goto(file.as_uri() + fragment)
        return page

    yield call
    for context in contexts:
        context.close()
    assert wrong == []
