"""The page in a browser: complete without scripts, and with them sorted, filtered and explained.

Needs Chromium (`apt-get install chromium`, or its path in CHROMIUM); skipped with a reason where it is absent.
"""

import os
import re
import shutil

import pytest
from helpers.many_runs import METHODS, add_many
from helpers.result_folders import add_suite, compare_runs

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[test]")
LIMIT = 8 * 2**20


@pytest.fixture(scope="module")
def browser():
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not path:
        pytest.skip("no chromium: apt-get install chromium, or set CHROMIUM to its path")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])  # root needs the option
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The page of six methods, five seeds and two protocols, and that of single runs."""
    folder = tmp_path_factory.mktemp("pages")
    many = add_many(folder / "many", logged=True)
    compare_runs(many, folder / "page", "--allow-mixed-protocols", "--seed-hours", "0.5")
    compare_runs(add_suite(folder / "single"), folder / "page_single")
    return {"many": folder / "page" / "index.html", "single": folder / "page_single" / "index.html"}


@pytest.fixture
def visit(browser, pages):
    """Open a page; fails the test if the browser's console has said anything."""
    contexts, said = [], []

    def open_page(name, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(pages[name].as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def methods(page):
    return page.locator("table.sortable").first.locator("tbody th .name").all_inner_texts()


def test_the_first_screen_holds_the_answer(visit):
    page = visit("many")
    height = page.evaluate("document.querySelectorAll('.methods')[1].getBoundingClientRect().bottom")
    assert height <= 900
    assert page.locator(".answers li").count() == len(METHODS) - 1
    said = re.compile(r"CE( after the correction for several methods)? under faster-rcnn")
    assert all(said.search(text) for text in page.locator(".answers li").all_inner_texts())


def test_complete_without_scripts(visit):
    plain, full = visit("many", java_script_enabled=False), visit("many")
    texts = [re.sub(r"\s+", " ", page.locator("main").text_content() or "") for page in (plain, full)]
    assert texts[0].replace(" ", "") == texts[1].replace(" ", "")
    assert plain.locator("button, input").count() == 0
    summary = plain.locator("summary", has_text="runs under").first
    summary.click()
    assert plain.locator("details[open] table").first.is_visible()


def test_tables_sort_by_their_headings(visit):
    page = visit("many")
    before = methods(page)
    heading = page.locator("table.sortable").first.locator("th", has_text="AP50")
    for order in ("descending", "ascending"):
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == order
        cells = page.locator("table.sortable").first.locator("tbody tr td:nth-child(5)")
        numbers = [float(text.split("\n")[0]) for text in cells.all_inner_texts()]
        assert numbers == sorted(numbers, reverse=order == "descending")
    assert sorted(methods(page)) == sorted(before)


def test_long_tables_have_a_filter(visit):
    page = visit("many")
    page.locator("summary", has_text="runs under").first.click()
    runs = page.locator("details", has_text="runs under").first
    table, field = runs.locator("table.sortable").first, runs.locator(".filter").first
    field.fill("als (all) (seed 3")
    assert [text for text in table.locator("tbody tr:visible th").all_inner_texts() if text] == ["ALS (all) (seed 3)"]
    field.fill("")
    assert table.locator("tbody tr:visible").count() == 30


def test_a_cell_explains_itself(visit):
    page = visit("many")
    page.locator("table.sortable").first.locator("tbody tr:nth-child(2) td").nth(3).hover()
    tip = page.locator("[role=tooltip]")
    assert tip.is_visible()
    assert re.match(r"AP50, 5 seeds; minus baseline .\d\.\d{3} \[", tip.inner_text())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["many", "single"])
def test_axe_finds_nothing_serious(visit, name, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = visit(name, color_scheme=scheme)
    for details in page.locator("details").all():
        details.evaluate("element => { element.open = true; }")
    found = axe.Axe().run(page).response["violations"]
    grave = [one for one in found if one["impact"] in ("serious", "critical")]
    assert [(one["id"], one["nodes"][0]["html"]) for one in grave] == []


@pytest.mark.parametrize("name", ["many", "single"])
def test_it_fits_a_phone_and_a_mail(visit, pages, name):
    page = visit(name, viewport={"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert pages[name].stat().st_size < LIMIT


def test_paper_is_white_and_keeps_the_colours_of_dots(visit):
    page = visit("many", color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) != "rgb(255, 255, 255)"
    page.emulate_media(media="print")
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('tbody th')).position") == "static"
    adjusted = "getComputedStyle(document.querySelector('.dot')).printColorAdjust"
    assert page.evaluate(adjusted) == "exact"


def test_a_band_appears_where_its_curve_is_pointed_at(visit):
    page = visit("many", java_script_enabled=False)
    figure = page.locator("svg", has=page.locator(".curve")).first
    shown = "element => getComputedStyle(element).fillOpacity"
    bands = figure.locator(".band")
    assert bands.count() == len(METHODS)
    assert [float(one.evaluate(shown)) > 0 for one in bands.all()] == [True] + [False] * 5  # the baseline's
    figure.locator(".curve text").nth(3).hover()
    assert [float(one.evaluate(shown)) > 0 for one in bands.all()] == [True, False, False, True, False, False]


def test_print_shows_what_is_folded(visit):
    page = visit("many")
    page.emulate_media(media="print")
    assert page.locator("details table").first.is_visible()
