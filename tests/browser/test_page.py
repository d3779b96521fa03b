"""The page of `slipstream trace html` in a real browser: `nox -s browser`; skipped where Chromium is missing."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.trace.scenes import ODD, repeated, two_connections

from slipstream_trio.telemetry import Record
from slipstream_trio.trace.page import Page, render_page
from slipstream_trio.trace.selection import look

pytest.importorskip("selenium", reason="selenium is not installed; the nox session `browser` has it")

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="no chromium and chromedriver: apt-get install chromium chromium-driver"
)

ARGUMENTS = (
    *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"),
    *("disable-component-update", "disable-sync", "window-size=1400,900"),
)

Browser = Any


@pytest.fixture(name="driver", scope="module")
def _driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    options = Options()
    options.binary_location = CHROMIUM or ""
    for argument in (*ARGUMENTS, f"user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(name="page", scope="module")
def _page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("page") / "page.html", two_connections())


@pytest.fixture(name="browser")
def _browser(driver: Browser, page: Path) -> Iterator[Browser]:
    """A browser that has just opened the page; at the end its console has to be empty."""
    open_page(driver, page)
    yield driver
    assert driver.get_log("browser") == []


def content_of(records: list[Record]) -> dict[str, Any]:
    page = Page()
    for glance in look([records]):
        page.add(glance)
    return page.content()


def write(path: Path, records: list[Record]) -> Path:
    path.write_text(
        render_page({**content_of(records), "notices": [f"a notice {ODD[:10]}"]}, f"<i>{ODD}\udc9d"), "utf-8"
    )
    return path


def open_page(driver: Browser, page: Path) -> None:
    driver.get(page.as_uri())
    script = "return document.documentElement.dataset.ready !== undefined"
    WebDriverWait(driver, 20, poll_frequency=0.02).until(lambda its: its.execute_script(script))


def texts(browser: Browser, selector: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent)"
    found: list[str] = browser.execute_script(script, selector)
    return found


def text(browser: Browser, selector: str) -> str:
    (found,) = texts(browser, selector)
    return found


def value(browser: Browser, expression: str) -> Any:
    return browser.execute_script(f"return {expression}")


def press(browser: Browser, *keys: str) -> None:
    ActionChains(browser).send_keys(*keys).perform()


def settled(browser: Browser, condition: Callable[[], Any]) -> None:
    """Wait for what is drawn in the next frame."""
    WebDriverWait(browser, 10, poll_frequency=0.02).until(lambda _: condition())


def search(browser: Browser, query: str) -> None:
    field = browser.find_element("id", "search")
    field.clear()
    field.send_keys(query)
    settled(browser, lambda: value(browser, "$('found').dataset.query") == query)


def length(browser: Browser) -> float:
    seen: float = value(browser, "range.to - range.from")
    return seen


def test_the_page_shows_connections_and_spans(browser: Browser) -> None:
    assert "2 connections" in text(browser, "#about")
    rows = texts(browser, "#rows .row")
    assert rows[0].startswith("0.0000▾connection 11111111lost")
    assert any("→joinroom:lobby" in row for row in rows)
    assert text(browser, "#notices") == f"a notice {ODD[:10]}"
    assert text(browser, "h1").startswith("<i></script>")
    assert value(browser, "document.querySelectorAll('#rows i i, h1 i, b').length") == 0


def test_only_rows_that_are_seen_exist(browser: Browser) -> None:
    listed, there = value(browser, "[listed.length, document.querySelectorAll('#rows .row').length]")
    assert there < listed
    browser.execute_script("$('scroller').scrollTop = 1e6")
    settled(browser, lambda: any("last_msg" in row for row in texts(browser, "#rows .row")))


def test_search_finds_topics_events_ids_and_text_of_payloads(browser: Browser) -> None:
    for query, count in [
        ("last_msg", 2),
        ("nobody answers", 2),
        (ODD[:20], 40),
        ("event:new_msg what:client", 20),
        ("took>150ms", 1),
        ("is:error what:timer", 0),
        ("22222222", 12),
        ("topic:room:other is:error", 2),
    ]:
        search(browser, query)
        found = text(browser, "#found")
        assert found == (f"{count} found" if count else "nothing found"), query


def test_matches_are_walked_through_and_shown_alone(browser: Browser) -> None:
    search(browser, "event:new_msg what:client")
    field = browser.find_element("id", "search")
    field.send_keys(Keys.ENTER)
    assert text(browser, "#found") == "1 of 20"
    field.send_keys(Keys.ENTER)
    assert text(browser, "#found") == "2 of 20"
    field.send_keys(Keys.SHIFT, Keys.ENTER)
    assert text(browser, "#found") == "1 of 20"
    assert "client push" in text(browser, "#side h2")
    browser.find_element("id", "only").click()
    rows = texts(browser, "#rows .row:not(.connection)")
    assert len(rows) == 20
    assert all("new_msg" in row for row in rows)


def test_zooming_by_keys_narrows_the_range_and_the_rows(browser: Browser) -> None:
    whole, rows = length(browser), value(browser, "listed.length")
    press(browser, Keys.ARROW_DOWN, Keys.ARROW_DOWN, "z")
    settled(browser, lambda: value(browser, "listed.length") < rows)
    near = length(browser)
    assert near < whole / 5
    press(browser, "-")
    assert length(browser) == pytest.approx(near * 1.6)
    press(browser, "+")
    assert length(browser) == pytest.approx(near)
    before = value(browser, "range.from")
    press(browser, Keys.ARROW_RIGHT)
    assert value(browser, "range.from") == pytest.approx(before + near / 5)
    press(browser, "0")
    settled(browser, lambda: value(browser, "listed.length") == rows)
    assert length(browser) == whole


def test_zooming_by_the_wheel_keeps_what_is_under_the_pointer(browser: Browser) -> None:
    whole = length(browser)
    axis = browser.find_element("id", "axis")
    middle = value(browser, "(range.from + range.to) / 2")
    origin = ScrollOrigin.from_element(axis)
    ActionChains(browser).scroll_from_origin(origin, 0, -200).perform()
    settled(browser, lambda: length(browser) < whole * 0.7)
    assert value(browser, "(range.from + range.to) / 2") == pytest.approx(middle, rel=0.01)


def test_dragging_on_the_overview_chooses_a_range(browser: Browser) -> None:
    overview = browser.find_element("css selector", "#overview")
    width = overview.size["width"]
    ActionChains(browser).move_to_element_with_offset(overview, -width // 4, 0).click_and_hold().move_by_offset(
        width // 4, 0
    ).release().perform()
    whole = value(browser, "whole.to - whole.from")
    assert length(browser) == pytest.approx(whole / 4, rel=0.02)
    browser.find_element("id", "fit").click()
    assert length(browser) == whole


def test_dragging_bars_moves_the_range_and_chooses_nothing(browser: Browser) -> None:
    press(browser, "+", "+", "+")
    before, near = value(browser, "range.from"), length(browser)
    # The keys' range is drawn in the next frame, by other elements.
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    track = browser.find_elements("css selector", "#rows .track")[2]
    ActionChains(browser).move_to_element(track).click_and_hold().move_by_offset(80, 0).release().perform()
    assert value(browser, "range.from") < before
    assert length(browser) == pytest.approx(near)
    assert value(browser, "chosen") is None


def test_details_show_the_payload_and_how_the_state_changed(browser: Browser) -> None:
    search(browser, "what:join event:phx_join")
    press(browser, Keys.ENTER)
    rows = value(
        browser, "[...document.querySelectorAll('.difference')].map((row) => [...row.cells].map((c) => c.textContent))"
    )
    assert ["joins[room:lobby]", "\u2013", "1"] in rows
    assert ["current_ref", "0", "1"] in rows
    assert not any(row[0] == "status" for row in rows)
    browser.find_element("css selector", "#side details summary").click()
    assert "options.urlws://localhost/socket/websocket" in texts(browser, "#side details tr")
    search(browser, "what:push event:new_msg")
    press(browser, Keys.ENTER)
    assert ODD in texts(browser, "#side pre")[0]
    search(browser, "event:odd")
    press(browser, Keys.ENTER)
    assert value(browser, """document.querySelector("#side pre").textContent.includes('"half": "\\udc9d"')""")


def test_rows_of_the_same_ref_lead_to_each_other(browser: Browser) -> None:
    search(browser, "what:client event:last_msg")
    press(browser, Keys.ENTER)
    assert "client push" in text(browser, "#side h2")
    buttons = browser.find_elements("css selector", "#side .links button")
    lines = [button.text.split("\n")[1] for button in buttons]
    assert lines == ["push room:lobby last_msg", "reply room:lobby phx_reply ok"]
    buttons[0].click()
    assert "→ push" in text(browser, "#side h2")


def test_errors_gaps_and_latencies_are_summed_up(browser: Browser) -> None:
    side = text(browser, "#side")
    assert "gap room:lobby reconnected" in side
    assert "reconnect lost" in side
    assert "client push room:lobby fail error" in side
    assert value(browser, "$('measured').value") == "client push"
    counts = [int(count) for count in texts(browser, "#histogram td:nth-child(2)")]
    assert sum(counts) == 25
    assert "max 200 ms" in text(browser, "#quantiles")
    assert value(browser, "document.querySelectorAll('.track .gap').length") == 0  # further down
    press(browser, "e")
    assert "bad" in browser.find_element("css selector", "#side .badge").get_attribute("class")


def test_everything_can_be_done_by_keys_and_help_lists_them(browser: Browser) -> None:
    press(browser, "?")
    assert value(browser, "$('help').open")
    assert value(browser, "$('help').getBoundingClientRect().height") > 200
    assert {"/", "n N", "+ \u2212", "t"} <= set(texts(browser, "#help kbd"))
    press(browser, Keys.ESCAPE)
    assert not value(browser, "$('help').open")
    press(browser, Keys.END)
    last = value(browser, "chosen")
    assert last == value(browser, "listed.at(-1)")
    press(browser, Keys.ARROW_UP)
    assert value(browser, "chosen") == value(browser, "listed.at(-2)")
    assert value(browser, "$('scroller').getAttribute('aria-activedescendant')") == f"r{value(browser, 'chosen')}"
    press(browser, Keys.ENTER)
    assert value(browser, "document.activeElement.id") == "side"
    press(browser, Keys.ESCAPE, "/")
    assert value(browser, "chosen") is None
    assert value(browser, "document.activeElement.id") == "search"
    press(browser, Keys.ESCAPE, "c")
    press(browser, Keys.HOME, "c")
    assert value(browser, "listed.length") < 20


def test_light_and_dark_follow_the_system_and_the_button(browser: Browser) -> None:
    def paper() -> str:
        found: str = value(browser, "getComputedStyle(document.body).backgroundColor")
        return found

    for scheme, colour in (("dark", "rgb(21, 24, 29)"), ("light", "rgb(255, 255, 255)")):
        feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
        assert paper() == colour
    browser.find_element("id", "theme").click()
    assert paper() == "rgb(21, 24, 29)"
    press(browser, "t")
    assert paper() == "rgb(255, 255, 255)"
    browser.execute_script("localStorage.clear()")


def test_every_control_has_a_name(browser: Browser) -> None:
    script = """
        return [...document.querySelectorAll("button, input, select, canvas, [role=grid]")]
            .filter((each) => !(each.getAttribute("aria-label") || each.textContent.trim() || each.labels?.length))
            .map((each) => each.outerHTML)"""
    assert browser.execute_script(script) == []


def test_paper_gets_all_rows_and_no_controls(browser: Browser) -> None:
    before = len(texts(browser, "#rows .row"))
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert len(texts(browser, "#rows .row")) == value(browser, "listed.length") > before
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not browser.find_element("id", "search").is_displayed()
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert len(texts(browser, "#rows .row")) == before


def test_fifty_thousand_spans_can_be_searched_and_zoomed(driver: Browser, tmp_path: Path) -> None:
    page = tmp_path / "many.html"
    page.write_text(render_page(repeated(content_of(two_connections()), 550), "many"), "utf-8")
    open_page(driver, page)
    rows = value(driver, "size")
    assert rows > 50_000
    assert f"{rows:,} rows" in text(driver, "#about")
    search(driver, "event:last_msg what:client")
    assert text(driver, "#found") == "550 found"
    press(driver, Keys.ENTER)
    assert text(driver, "#found") == "1 of 550"
    press(driver, Keys.ESCAPE)
    for _ in range(12):
        driver.find_element("id", "in").click()
    settled(driver, lambda: value(driver, "listed.length") < 2_000)
    assert driver.get_log("browser") == []


def test_a_browser_that_cannot_show_it_says_so(driver: Browser, page: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text(re.sub(r'(id="content">).{40}', r"\1AAAA", page.read_text("utf-8")), "utf-8")
    driver.get(broken.as_uri())
    settled(driver, lambda: texts(driver, "main .failed"))
    assert "could not be shown" in text(driver, "main .failed")
    assert driver.get_log("browser") != []
