"""The console in a real Chromium: an agent finds a stuck device, reads why, and mends it.

Debian's `chromium` is found by its name, or named by REJOIN_TEST_CHROMIUM. REJOIN_TEST_SCREENSHOTS
names a folder that pictures of all pages are written to: docs/console holds those of docs/.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from sqlalchemy import Engine

import rejoin
from storage.engine import make_engine
from tests.conftest import LiveServer, ServerStarter
from tests.contract.devices import PASSWORD
from tests.edge.customers import LONG, Town, new_staff, town
from tests.edge.fleet import rows
from tests.edge.web import Http

PATIENCE_SECONDS = 40
CHROMIUM = os.environ.get("REJOIN_TEST_CHROMIUM") or shutil.which("chromium")
SCREENSHOTS = os.environ.get("REJOIN_TEST_SCREENSHOTS")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium here: install Debian's, or name one, REJOIN_TEST_CHROMIUM"
)
WIDE, PHONE = 1280, 320
# Texts whose contrast with what is behind them is below WCAG's AA: 4.5, or 3 for large ones.
PALE = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (color) => rgba(color).slice(0, 3).map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  }).reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (rgba(color)[3] > 0) return color;
    }
    return "white";
  };
  const pale = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    const box = node.getBoundingClientRect();
    const said = walk.currentNode.data.trim();
    if (!said || !box.width || node.closest("script, datalist, svg, option")) continue;
    const style = getComputedStyle(node);
    const [a, b] = [light(style.color), light(behind(node))].sort((one, other) => other - one);
    const least = parseFloat(style.fontSize) >= 24 ? 3 : 4.5;
    if ((a + 0.05) / (b + 0.05) < least) pale.push(`${said} ${style.color}`);
  }
  return pale;
}"""
# What one can press or fill in, without a name that a screen reader could say.
NAMELESS = """() => [...document.querySelectorAll("a, button, summary, input, select, textarea")]
  .filter((node) => node.type !== "hidden" && !node.labels?.length &&
    !node.textContent.trim() && !node.ariaLabel).map((node) => node.outerHTML)"""


@pytest.fixture(scope="module")
def server(start_server: ServerStarter) -> LiveServer:
    return start_server()


@pytest.fixture(scope="module")
def engine(server: LiveServer) -> Iterator[Engine]:
    made = make_engine(server.database_url, 2)
    yield made
    made.dispose()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    root = os.getuid() == 0
    with sync_playwright() as driver:
        made = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if root else []
        )
        yield made
        made.close()


@pytest.fixture(scope="module")
def families(server: LiveServer, engine: Engine) -> Town:
    return town(Http(server.url), engine)


class Agent:
    """Somebody at the console. `wrong`: what the browser's own console complained of."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        context.set_default_timeout(PATIENCE_SECONDS * 1000)
        self.page: Page = context.new_page()
        self.url, self.wrong = url, list[str]()
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on(
            "console", lambda said: self.wrong.append(said.text) if said.type == "error" else None
        )
        self.asked: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))

    def go(self, path: str) -> None:
        self.page.goto(self.url + path)

    def log_in(self, email: str) -> None:
        self.go("/admin")
        self.page.get_by_label("Email").fill(email)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.keyboard.press("Enter")
        self.page.get_by_role("button", name="Log out").wait_for()

    def sees(self, text: str) -> None:
        expect(self.page.get_by_text(text).first).to_be_visible(timeout=PATIENCE_SECONDS * 1000)

    def misses(self, text: str) -> None:
        expect(self.page.get_by_text(text)).to_have_count(0, timeout=PATIENCE_SECONDS * 1000)


AgentMaker = Callable[..., Agent]


@pytest.fixture
def agent_at(browser: Browser, server: LiveServer) -> Iterator[AgentMaker]:
    contexts: list[BrowserContext] = []

    def make(width: int = WIDE, **options: Any) -> Agent:
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, **options))
        return Agent(contexts[-1], server.url)

    yield make
    for context in contexts:
        context.close()


class Pair:
    """Ada's phone and tablet: real files, real requests. The tablet's app is of another version,
    which takes votes for a counter.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.email = f"ada-{time.time_ns()}@example.org"
        self.phone = self._device(url, folder / "phone.sqlite", "Ada's Phone", "iOS 19.1")
        self.phone.signup(self.email, PASSWORD, **self.told)
        self.phone.login(self.email, PASSWORD, **self.told)
        self._table(self.phone)
        self.phone.execute("INSERT INTO tasks VALUES ('t1', 'Milk', 1), ('t2', 'Bread', 1)")
        self.phone.sync()
        self.tablet = self._device(url, folder / "tablet.sqlite", "Ada's Tablet", "Android 16")
        self.tablet.login(self.email, PASSWORD, **self.told)
        self._table(self.tablet, votes="counter")
        self.tablet.sync()

    def _device(self, url: str, path: Path, name: str, platform: str) -> rejoin.Database:
        self.told = {"name": name, "platform": platform, "app_version": "4.2.0"}
        return rejoin.open(path, server=url)

    def _table(self, device: rejoin.Database, **kinds: str) -> None:
        device.execute("CREATE TABLE tasks (id TEXT PRIMARY KEY, title TEXT, votes INTEGER)")
        device.track("tasks", **kinds)

    def get_stuck(self) -> None:
        """One change of the tablet's can't be applied, and one of each meet in conflict."""
        with self.tablet.transaction():
            self.tablet.execute("UPDATE tasks SET title = 'Oat milk' WHERE id = 't1'")
            self.tablet.execute("UPDATE tasks SET votes = votes + 1 WHERE id = 't1'")
        self.tablet.execute("UPDATE tasks SET title = 'Rye bread' WHERE id = 't2'")
        self.phone.execute("UPDATE tasks SET title = 'White bread' WHERE id = 't2'")
        self.tablet.sync()
        self.phone.sync()

    def titles(self) -> list[tuple[str, str]]:
        """What the phone shows after a sync; the tablet is live and needs none."""
        self.phone.sync()
        return self.shown(self.phone)

    @staticmethod
    def shown(device: rejoin.Database) -> list[tuple[str, str]]:
        found = device.execute("SELECT id, title FROM tasks ORDER BY id").fetchall()
        return [(str(id_), str(title)) for id_, title in found]


@pytest.fixture
def pair(server: LiveServer, tmp_path: Path) -> Iterator[Pair]:
    made = Pair(server.url, tmp_path)
    yield made
    made.phone.close()
    made.tablet.close()


def test_an_agent_finds_the_stuck_device_reads_why_mends_it_and_sees_it_converge(
    agent_at: AgentMaker, engine: Engine, pair: Pair
) -> None:
    pair.get_stuck()
    agent = agent_at()
    page = agent.page
    agent.log_in(new_staff(engine, "support"))

    # Search as one types, by keyboard alone.
    page.keyboard.press("/")
    page.keyboard.type(pair.email[:-6])
    expect(page.locator("#found li")).to_have_count(3)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#found a:focus")).to_have_count(1)
    page.locator("#found").get_by_role("link", name="Ada's Tablet").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Ada's Tablet")

    # The first finding is why; its step leads to the change that was put aside.
    device = page.url
    first = page.locator(".finding").first
    expect(first).to_contain_text("Changes of the device can never be applied as they are")
    expect(first).to_contain_text("field_type_mismatch")
    first.get_by_role("link", name="Open its quarantine").click()
    page.get_by_role("link", name="Change 1 of Ada's Tablet").click()
    expect(page.locator(".problem")).to_contain_text("field_type_mismatch")
    refused = page.locator("fieldset label", has_text="increment")
    expect(refused.get_by_role("checkbox")).to_be_checked()
    page.locator("#replay-reason").fill("Votes are no counter in the phone's version")
    page.get_by_role("button", name="Replay", exact=True).click()
    agent.sees("The change is replayed")

    # The conflict is settled on the phone's side.
    page.goto(device)
    page.get_by_role("link", name="Open the conflicts").click()
    side = page.locator(".side", has_text="Ada's Phone")
    page.get_by_label("Reason").last.fill("Ada says white")
    side.get_by_role("button", name="Keep this side").click()
    agent.sees("The conflict is settled")

    # The tablet comes online and has it all: the open page turns green by itself.
    page.goto(device)
    page.evaluate("window.neverReloaded = true")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM audit").scalar_one() >= 2
    came = Event()
    live = pair.tablet.live(lambda _rows: came.set())
    expect(page.locator("#head .state.online")).to_be_visible(timeout=PATIENCE_SECONDS * 1000)
    agent.sees("No finding: the device does what it should.")
    agent.misses("quarantined")
    assert page.evaluate("window.neverReloaded") is True
    assert pair.titles() == [("t1", "Oat milk"), ("t2", "White bread")]
    while pair.shown(pair.tablet) != pair.titles():
        assert came.wait(PATIENCE_SECONDS)
        came.clear()
    live.stop()
    expect(page.locator("#head .state.online")).to_have_count(0, timeout=PATIENCE_SECONDS * 1000)
    assert rows(pair.phone)["tasks"] == rows(pair.tablet)["tasks"]
    assert agent.wrong == []
    assert all(url.startswith(agent.url) for url in agent.asked)


def paths(families: Town) -> dict[str, str]:
    """Every page by its name."""
    phones = families.phones
    tablet, first = phones["tablet"], phones["phone"]
    space = first.get("/v1/spaces").json["spaces"][0]["id"]
    record = f"/admin/spaces/{space}/record?collection=tasks"
    return {
        "overview": "/admin",
        "search": f"/admin/search?q={first.email}",
        "search-empty": "/admin/search?q=nobody+at+all",
        "devices": "/admin/devices",
        "device": f"/admin/devices/{tablet.device}",
        "device-clock": f"/admin/devices/{first.device}",
        "device-healthy": f"/admin/devices/{families.healthy.device}",
        "device-markup": f"/admin/devices/{phones['markup'].device}",
        "user": f"/admin/users/{families.user}",
        "space": f"/admin/spaces/{space}",
        "log": f"/admin/spaces/{space}/log?limit=12",
        "record": f"{record}&id=item-2",
        "record-past": f"{record}&id=item-2&at=45",
        "record-long": f"{record}&id={LONG}",
        "conflicts": "/admin/conflicts",
        "conflicts-settled": "/admin/conflicts/settled",
        "quarantine": "/admin/quarantine",
        "quarantine-empty": "/admin/quarantine?state=discarded",
        "quarantined": f"/admin/quarantine/{space}/{tablet.device}/3",
        "audit": "/admin/audit",
        "error": "/admin/nowhere",
    }


@pytest.mark.parametrize(("width", "scheme"), [(WIDE, "light"), (PHONE, "dark")])
def test_every_page_fits_its_screen_and_all_its_text_can_be_read(
    agent_at: AgentMaker, families: Town, width: int, scheme: str
) -> None:
    agent = agent_at(width, color_scheme=scheme)
    agent.go("/admin")
    shoot(agent.page, "login", width, scheme)
    agent.log_in(families.admin)
    for name, path in paths(families).items():
        agent.go(path)
        assert agent.page.evaluate("document.documentElement.scrollWidth") == width, name
        assert agent.page.evaluate(PALE) == [], name
        assert agent.page.evaluate(NAMELESS) == [], name
        shoot(agent.page, name, width, scheme)
    # An error's page is one that the browser speaks of.
    assert [said for said in agent.wrong if "404" not in said] == []


def shoot(page: Page, name: str, width: int, scheme: str) -> None:
    if SCREENSHOTS:
        kind = f"{'phone' if width < WIDE else 'desktop'}-{scheme}"
        page.screenshot(path=f"{SCREENSHOTS}/{name}-{kind}.png", full_page=True)


def test_the_keyboard_reaches_everything_and_focus_can_be_seen(
    agent_at: AgentMaker, families: Town
) -> None:
    agent = agent_at()
    page = agent.page
    agent.log_in(families.admin)
    agent.go(paths(families)["device"])
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the page")
    expect(page.locator(":focus")).to_be_in_viewport()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.get_by_text("Ask it to reset…").press("Enter")
    expect(page.get_by_label("Reason").first).to_be_visible()
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type(families.phones["phone"].email)
    expect(page.locator("#found")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#found")).to_be_hidden()


def test_what_an_agent_is_writing_is_not_taken_away_by_a_refresh(
    agent_at: AgentMaker, families: Town
) -> None:
    agent = agent_at()
    page = agent.page
    agent.log_in(families.admin)
    agent.go("/admin/conflicts")
    page.locator("#c1-1-reason").fill("Half a sen")
    page.locator("h1").click()
    with page.expect_response(lambda answer: answer.url.endswith("/conflicts")):
        pass
    with page.expect_response(lambda answer: answer.url.endswith("/conflicts")):
        pass
    expect(page.locator("#c1-1-reason")).to_have_value("Half a sen")


def test_a_page_that_nobody_touches_asks_no_more_until_somebody_does(
    agent_at: AgentMaker, families: Town
) -> None:
    agent = agent_at()
    page = agent.page
    page.clock.install()
    agent.log_in(families.admin)
    path = paths(families)["device"]
    agent.go(path)
    with page.expect_response(agent.url + path):
        page.clock.fast_forward("31:00")
    page.clock.run_for(1_000)
    asked = len(agent.asked)
    page.clock.run_for(5 * 60_000)
    assert len(agent.asked) == asked
    with page.expect_response(agent.url + path):
        page.keyboard.press("Tab")
        page.clock.run_for(4_000)


def test_a_page_whose_session_has_ended_says_so_and_leads_back(
    agent_at: AgentMaker, families: Town, engine: Engine
) -> None:
    agent = agent_at()
    email = new_staff(engine, "support")
    agent.log_in(email)
    agent.go("/admin/devices")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "DELETE FROM console_sessions s USING users u WHERE u.id = s.user_id AND u.email = %s",
            (email,),
        )
    agent.sees("Your session has ended; this page stands still.")
    agent.page.locator("#lost").get_by_role("link", name="Log in").click()
    agent.page.get_by_label("Email").fill(email)
    agent.page.get_by_label("Password").fill(PASSWORD)
    agent.page.keyboard.press("Enter")
    expect(agent.page.get_by_role("heading", level=1)).to_have_text("Devices")


def test_without_scripts_the_console_finds_and_acts_all_the_same(
    agent_at: AgentMaker, families: Town
) -> None:
    agent = agent_at(java_script_enabled=False)
    page = agent.page
    agent.log_in(families.admin)
    page.locator("#q").fill(families.phones["phone"].email)
    page.locator("#q").press("Enter")
    page.get_by_role("main").get_by_role("link", name=LONG).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(LONG)
    page.get_by_text("Ask it to reset…").click()
    page.get_by_label("Reason").first.fill("Its copy looks wrong")
    page.get_by_role("button", name="Ask it to reset").click()
    agent.sees("The device is asked to reset")
