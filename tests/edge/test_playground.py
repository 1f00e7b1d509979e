"""`/demo` in a real Chromium: two panes apart and together again.

Debian's `chromium` is found by its name, or named by REJOIN_TEST_CHROMIUM. REJOIN_TEST_SCREENSHOTS
names the folder that the picture of the page is written to, `docs`.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    Locator,
    Page,
    Route,
    WebSocketRoute,
    expect,
    sync_playwright,
)
from sqlalchemy.engine import make_url

from app import create_app, playground
from app.settings import ROOT, Settings
from storage.engine import make_engine, one_statement
from storage.sql import cursor
from storage.upkeep import start_next_epoch
from tests.conftest import LiveServer, ServerStarter

PATIENCE_SECONDS = 60
BUNDLE_SECONDS = 120
CHROMIUM = os.environ.get("REJOIN_TEST_CHROMIUM") or shutil.which("chromium")
SCREENSHOTS = os.environ.get("REJOIN_TEST_SCREENSHOTS", "")
WANTS_CHROMIUM = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium here: install Debian's, or name one, REJOIN_TEST_CHROMIUM"
)
# The records of both devices, from their own databases, sorted by their keys.
STORED = """async (names) => Promise.all(names.map(async (name) => {
  const done = (asked) => new Promise((resolve) => {
    asked.onsuccess = () => resolve(asked.result);
  });
  const database = await done(indexedDB.open(`rejoin.demo.${name}`));
  const records = await done(database.transaction("records").objectStore("records").getAll());
  database.close();
  return records.map(({ documents, ...record }) => record);
}))"""
# Both have sent all they had and stand at one cursor, at least the one given.
IN_STEP = """(least) => {
  const panes = [...document.querySelectorAll(".pane")].map((pane) => pane.dataset);
  return panes.length === 2 && new Set(panes.map((pane) => pane.cursor)).size === 1 &&
    panes.every(({ online, unsettled, cursor }) =>
      online === "true" && unsettled === "0" && Number(cursor) >= least);
}"""
# All that a device's database holds: read, or put back as it was.
STORE = """async ([name, old]) => {
  const done = (asked) => new Promise((resolve) => {
    asked.onsuccess = () => resolve(asked.result);
  });
  const database = await done(indexedDB.open(`rejoin.demo.${name}`));
  const stores = database.transaction(["state", "records", "outbox"], "readwrite");
  const found = {};
  for (const store of ["state", "records", "outbox"].map((each) => stores.objectStore(each))) {
    found[store.name] = await done(store.getAll());
    if (old) await done(store.clear());
    for (const value of old?.[store.name] ?? []) {
      await done(store.put(value, ...(store.keyPath === null ? ["device"] : [])));
    }
  }
  database.close();
  return found;
}"""
# The page has been kept for the time without a server: its own address is among what is kept.
KEPT = (
    """async () => (await (await caches.open("rejoin.demo.page")).match("/demo")) !== undefined"""
)
# One thing that a person may do in a pane, to the item that `pick` falls on.
ACT = """([name, what, pick, text]) => {
  const pane = document.querySelector(`.pane[data-device=${name}]`);
  const items = pane.querySelectorAll(".item");
  const item = items[pick % items.length];
  const type = (box) => {
    box.focus();
    box.value = text;
    box.dispatchEvent(new Event("input"));
    box.blur();
  };
  const submit = (form) => {
    form.querySelector("input").value = text;
    form.requestSubmit();
  };
  if (what === "text") {
    const area = pane.querySelector("textarea");
    const at = (pick * 7) % (area.value.length + 1);
    area.setRangeText(text, at, Math.min(at + (pick % 4), area.value.length), "end");
    area.dispatchEvent(new Event("input"));
  } else if (what === "flip") pane.querySelector(".switch").click();
  else if (what === "add" || !item) submit(pane.querySelector(".add"));
  else if (what === "rename") type(item.querySelector(".title"));
  else if (what === "tag") submit(item.querySelector(".tag"));
  else item.querySelector(what)?.click();
}"""
CLICKS = ("[type=checkbox]", ".votes button", ".votes button:last-child", ".tags button", ".side")
ACTS = ("add", "rename", "rename", "tag", "tag", *CLICKS, ".delete", "flip")


@pytest.fixture(scope="module")
def server(start_server: ServerStarter) -> LiveServer:
    return start_server()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    root = os.getuid() == 0
    expect.set_options(timeout=PATIENCE_SECONDS * 1000)
    with sync_playwright() as driver:
        made = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if root else []
        )
        yield made
        made.close()


@pytest.fixture(scope="module")
def yjs() -> None:
    """Yjs is bundled, as `make yjs` does it."""
    if playground.YJS.exists():
        return
    if shutil.which("npm") is None:
        pytest.skip("no npm here to bundle Yjs with")
    made = subprocess.run(
        ["make", "yjs"], cwd=ROOT, capture_output=True, text=True, timeout=BUNDLE_SECONDS
    )
    if made.returncode:
        pytest.skip(f"Yjs could not be bundled: {made.stderr[-300:]}")


class Visitor:
    """Somebody at the page, with a browser profile of their own."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        # A page that a worker serves can't be routed; one test lets the worker in.
        options = {"service_workers": "block", **options}
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(PATIENCE_SECONDS * 1000)
        self.page: Page = self.context.new_page()
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.url = url

    def come(self) -> None:
        self.page.goto(f"{self.url}/demo")
        self.page.locator(".pane").nth(1).wait_for()

    def come_to_type(self) -> None:
        self.come()
        for name in ("Phone", "Laptop"):
            expect(self.pane(name).text).to_be_enabled()

    def has_network_again(self) -> None:
        """What a browser tells when the network is back: no pane waits out its pause."""
        self.page.evaluate("dispatchEvent(new Event('online'))")

    def pane(self, name: str) -> Pane:
        return Pane(self.page.locator(f".pane[data-device={name}]"))

    def in_step(self, least: int) -> None:
        """Wait until both panes hold the log up to one position, at least this one."""
        self.page.wait_for_function(IN_STEP, arg=least)

    def reload(self) -> None:
        """Loads the page again, once what was typed is on the disk."""
        expect(self.page.locator("textarea[aria-busy=true]")).to_have_count(0)
        self.page.reload()

    def stored(self) -> list[Any]:
        """What the two devices have in their own databases."""
        found: list[Any] = self.page.evaluate(STORED, ["Phone", "Laptop"])
        return found


class Pane:
    """One of the two devices, by what a person sees and touches."""

    def __init__(self, node: Locator) -> None:
        self.node = node
        self.items = node.locator(".item")
        self.text = node.get_by_label("A shared text")
        self.status = node.locator(".status")
        self.conflict = node.get_by_role("group")

    def add(self, title: str) -> None:
        box = self.node.get_by_label("New item")
        box.fill(title)
        box.press("Enter")
        self.item(title).wait_for()

    def item(self, title: str) -> Locator:
        return self.node.get_by_role("listitem", name=title, exact=True)

    def rename(self, title: str, other: str) -> None:
        box = self.item(title).get_by_label("Title", exact=True)
        box.fill(other)
        box.press("Enter")

    def vote(self, title: str, times: int = 1) -> None:
        for _ in range(times):
            self.item(title).get_by_label("One vote more").click()

    def tag(self, title: str, tag: str) -> None:
        box = self.item(title).get_by_label("New tag")
        box.fill(tag)
        box.press("Enter")

    def flip(self) -> None:
        self.node.get_by_role("switch").click()

    def shown(self) -> list[tuple[str, bool, str, list[str]]]:
        """(title, done, votes, tags) of each item."""
        return [
            (
                item.get_by_label("Title", exact=True).input_value(),
                item.get_by_role("checkbox").is_checked(),
                item.locator("output").inner_text(),
                item.locator(".tags span").all_inner_texts(),
            )
            for item in self.items.all()
        ]


@pytest.fixture
def visitor(browser: Browser, server: LiveServer) -> Iterator[Visitor]:
    made = Visitor(browser, server.url)
    made.come()
    made.in_step(0)
    yield made
    assert made.wrong == []
    made.context.close()


def type_at(pane: Pane, place: int, text: str) -> None:
    pane.text.focus()
    pane.text.evaluate("(area, place) => area.setSelectionRange(place, place)", place)
    pane.text.press_sequentially(text)


def play(visitor: Visitor, chance: random.Random, acts: Sequence[str], steps: int) -> None:
    """So many things done in either pane; at the end both are online."""
    for step in range(steps):
        name, what = chance.choice(["Phone", "Laptop"]), chance.choice(acts)
        visitor.page.evaluate(ACT, [name, what, chance.randrange(99), f"{what} {step}"])
    for name in ("Phone", "Laptop"):
        switch = visitor.pane(name).node.get_by_role("switch")
        if switch.get_attribute("aria-checked") == "true":
            switch.click()


@contextmanager
def copied(server: str, database: str) -> Iterator[str]:
    """A copy of a database that nobody uses, as a backup is."""
    name = make_url(database).database
    engine = make_engine(server, 1, statement_timeout_ms=0)
    with one_statement(engine) as connection:
        cursor(connection).execute(f"CREATE DATABASE {name}_backup TEMPLATE {name}".encode())
    url = make_url(database).set(database=f"{name}_backup")
    yield url.render_as_string(hide_password=False)
    with one_statement(engine) as connection:
        cursor(connection).execute(f"DROP DATABASE {name}_backup WITH (FORCE)".encode())
    engine.dispose()


def without_sockets(visitor: Visitor) -> None:
    """From the next load of the page on, no websocket goes through."""
    visitor.page.route_web_socket("**/v1/live", lambda socket: socket.close())


def apart(visitor: Visitor) -> tuple[Pane, Pane]:
    """Both know Milk and Bread; then the laptop is offline and both have edited."""
    phone, laptop = visitor.pane("Phone"), visitor.pane("Laptop")
    phone.add("Milk")
    phone.add("Bread")
    visitor.in_step(2)
    laptop.flip()
    expect(laptop.status).to_have_text("Offline")
    laptop.rename("Milk", "Oat milk")
    laptop.vote("Oat milk", 2)
    laptop.tag("Oat milk", "cold")
    laptop.add("Tea")
    phone.rename("Milk", "Soy milk")
    phone.vote("Soy milk", 3)
    phone.tag("Soy milk", "white")
    phone.item("Bread").get_by_label("Done").check()
    return phone, laptop


@WANTS_CHROMIUM
def test_two_panes_that_edited_apart_end_equal_when_the_one_offline_returns(
    visitor: Visitor,
) -> None:
    phone, laptop = apart(visitor)
    expect(laptop.status).to_have_text("Offline, 5 to send")
    assert [row[0] for row in laptop.shown()] == ["Oat milk", "Bread", "Tea"]
    laptop.flip()
    visitor.in_step(2 + 5 + 6)
    assert phone.shown() == laptop.shown()
    titles, done, votes, tags = zip(*phone.shown(), strict=True)
    assert titles[0] in {"Oat milk", "Soy milk"}
    assert (titles[1:], done, votes) == (("Bread", "Tea"), (False, True, False), ("5", "0", "0"))
    assert tags == (["cold", "white"], [], [])
    one, other = visitor.stored()
    assert one == other


@WANTS_CHROMIUM
def test_a_conflict_is_shown_in_both_panes_with_both_sides_and_one_click_settles_it(
    visitor: Visitor,
) -> None:
    phone, laptop = apart(visitor)
    laptop.flip()
    for pane in (phone, laptop):
        expect(pane.conflict.get_by_role("button")).to_have_count(2)
        expect(pane.conflict).to_contain_text("Oat milk")
        expect(pane.conflict).to_contain_text("Soy milk")
    laptop.conflict.get_by_role("button", name="Soy milk").click()
    for pane in (phone, laptop):
        expect(pane.conflict).to_have_count(0)
        expect(pane.items.first.get_by_label("Title", exact=True)).to_have_value("Soy milk")
    log = visitor.page.locator(".log li.met")
    expect(log).to_contain_text("in conflict: title")
    expect(log.locator(".seen b")).to_contain_text("not #3 to #8")


@WANTS_CHROMIUM
def test_what_came_while_a_person_was_typing_is_met_not_overwritten(visitor: Visitor) -> None:
    phone, laptop = visitor.pane("Phone"), visitor.pane("Laptop")
    phone.add("Milk")
    visitor.in_step(1)
    box = phone.items.first.get_by_label("Title", exact=True)
    box.press("End")
    box.press("!")
    # By its events, which leave the focus where it is.
    laptop.items.first.get_by_label("Title", exact=True).evaluate("""(box) => {
        box.value = "Oat milk";
        for (const name of ["input", "change"]) box.dispatchEvent(new Event(name));
    }""")
    visitor.in_step(2)
    expect(box).to_have_value("Milk!")
    box.press("Enter")
    for pane in (phone, laptop):
        expect(pane.conflict.get_by_role("button")).to_have_count(2)


@WANTS_CHROMIUM
def test_what_was_edited_offline_survives_a_reload_and_goes_up_once(visitor: Visitor) -> None:
    phone, laptop = apart(visitor)
    before = laptop.shown()
    visitor.reload()
    expect(laptop.status).to_have_text("Offline, 5 to send")
    assert laptop.shown() == before
    laptop.flip()
    visitor.in_step(2 + 5 + 6)
    assert phone.shown() == laptop.shown()
    assert phone.shown()[0][2] == "5"


@WANTS_CHROMIUM
@pytest.mark.usefixtures("yjs")
def test_a_text_that_both_panes_typed_in_apart_holds_what_both_typed(visitor: Visitor) -> None:
    visitor.come_to_type()
    phone, laptop = visitor.pane("Phone"), visitor.pane("Laptop")
    phone.text.press_sequentially("one  two")
    expect(laptop.text).to_have_value("one  two")
    laptop.flip()
    type_at(laptop, 4, "by the laptop 💻, ")
    type_at(phone, 4, "by the phone ☎,")
    phone.text.press("Home")
    phone.text.press("Delete")
    visitor.reload()
    expect(laptop.text).to_have_value("one by the laptop 💻,  two")
    laptop.flip()
    visitor.in_step(1)
    text = phone.text.input_value()
    expect(laptop.text).to_have_value(text)
    assert sorted(text) == sorted("ne by the laptop 💻, by the phone ☎, two")
    for part in ("ne ", "by the laptop 💻, ", "by the phone ☎,", " two"):
        assert part in text
    # Once more from nothing but what the two databases hold.
    visitor.reload()
    for pane in (phone, laptop):
        expect(pane.text).to_have_value(text)


@WANTS_CHROMIUM
@pytest.mark.usefixtures("yjs")
def test_the_caret_stays_where_a_person_types_while_others_write_before_it(
    visitor: Visitor,
) -> None:
    visitor.come_to_type()
    phone, laptop = visitor.pane("Phone"), visitor.pane("Laptop")
    phone.text.press_sequentially("end")
    expect(laptop.text).to_have_value("end")
    laptop.text.press("Home")
    laptop.text.press_sequentially("begin, ")
    expect(phone.text).to_have_value("begin, end")
    assert phone.text.evaluate("area => area.selectionStart") == len("begin, end")


@WANTS_CHROMIUM
def test_the_stretch_that_typing_replaced_never_cuts_a_pair(visitor: Visitor) -> None:
    difference = "async (both) => (await import('/demo/text.js')).difference(...both)"
    for pair in (
        " a",
        "aaa aa",
        "ab b",
        "😀 😁",
        "a😀 a😀😀",
        "😀😀 😀",
        "x😀y x😁y",
        "😀 🨀",
        "abab ab",
    ):
        before, after = pair.split(" ")
        step = visitor.page.evaluate(difference, [before, after])
        units = before.encode("utf-16-le")
        at, end = 2 * step["at"], 2 * (step["at"] + step["gone"])
        made = units[:at] + step["come"].encode("utf-16-le") + units[end:]
        assert made.decode("utf-16-le") == after
        for part in (units[:at], units[at:end], units[end:]):
            part.decode("utf-16-le")


@WANTS_CHROMIUM
def test_a_push_whose_answer_was_lost_counts_once(visitor: Visitor) -> None:
    phone, laptop = apart(visitor)
    lost: list[int] = []

    def lose(route: Route) -> None:
        if lost:
            route.continue_()
            return
        lost.append(route.fetch().status)
        route.abort()

    visitor.page.route("**/v1/sync", lose)
    laptop.flip()
    visitor.in_step(2 + 5 + 6)
    assert lost == [200]
    assert phone.shown() == laptop.shown()
    assert phone.shown()[0][2] == "5"
    expect(visitor.page.locator(".log li")).to_have_count(2 + 5 + 6)


@WANTS_CHROMIUM
def test_a_live_push_whose_answer_was_lost_counts_once(visitor: Visitor) -> None:
    lost: list[str] = []

    def lose(page: WebSocketRoute) -> None:
        server = page.connect_to_server()

        def heard(message: str | bytes) -> None:
            if '"pushed"' in str(message) and not lost:
                lost.append(str(message))
                page.close(code=1011)
            else:
                page.send(message)

        server.on_message(heard)

    visitor.page.route_web_socket("**/v1/live", lose)
    visitor.come()
    phone, laptop = visitor.pane("Phone"), visitor.pane("Laptop")
    expect(phone.status).to_have_text("Live, in step")
    phone.add("Milk")
    visitor.in_step(1)
    laptop.vote("Milk")
    visitor.in_step(2)
    assert len(lost) == 1
    assert phone.shown() == laptop.shown() == [("Milk", False, "1", [])]


@WANTS_CHROMIUM
def test_where_no_socket_goes_through_long_polls_bring_the_changes(visitor: Visitor) -> None:
    without_sockets(visitor)
    visitor.come()
    phone, laptop = visitor.pane("Phone"), visitor.pane("Laptop")
    expect(laptop.status).to_have_text("Online, by long polls, in step")
    phone.add("Milk")
    expect(laptop.items).to_have_count(1)
    laptop.vote("Milk")
    visitor.in_step(2)
    assert phone.shown() == laptop.shown() == [("Milk", False, "1", [])]


@WANTS_CHROMIUM
def test_panes_whose_worker_was_killed_go_on_by_themselves(
    browser: Browser, start_server: ServerStarter
) -> None:
    own = start_server(WEB_CONCURRENCY="1")
    visitor = Visitor(browser, own.url)
    visitor.come()
    phone, laptop = visitor.pane("Phone"), visitor.pane("Laptop")
    phone.add("Milk")
    visitor.in_step(1)
    for pid in own.worker_pids():
        os.kill(pid, signal.SIGKILL)
    phone.vote("Milk")
    laptop.vote("Milk")
    visitor.in_step(3)
    assert phone.shown() == laptop.shown() == [("Milk", False, "2", [])]
    visitor.context.close()


@WANTS_CHROMIUM
@pytest.mark.parametrize("by", ["live", "polling"])
def test_whatever_two_panes_do_apart_and_together_they_end_equal(visitor: Visitor, by: str) -> None:
    chance = random.Random(by)
    if by == "polling":
        without_sockets(visitor)
        visitor.come()
    expect(visitor.pane("Phone").node).to_have_attribute("data-status", by)
    play(visitor, chance, ACTS, 80)
    visitor.in_step(20)
    assert visitor.pane("Phone").shown() == visitor.pane("Laptop").shown()
    one, other = visitor.stored()
    assert one == other
    expect(visitor.page.locator(".refused li")).to_have_count(0)


@WANTS_CHROMIUM
@pytest.mark.usefixtures("yjs")
def test_whatever_two_panes_type_apart_and_together_they_show_one_text(visitor: Visitor) -> None:
    visitor.come_to_type()
    play(visitor, random.Random(4), ("text", "text", "text", "text", "text", "flip"), 120)
    visitor.in_step(10)
    text = visitor.pane("Phone").text.input_value()
    assert len(text) > 100
    expect(visitor.pane("Laptop").text).to_have_value(text)
    visitor.reload()
    for name in ("Phone", "Laptop"):
        expect(visitor.pane(name).text).to_have_value(text)
    expect(visitor.page.locator(".refused li")).to_have_count(0)


@WANTS_CHROMIUM
def test_stored_markup_shows_as_text_and_the_page_asks_no_other_host(visitor: Visitor) -> None:
    markup = "<img src=x onerror=alert(1)>"
    visitor.pane("Phone").add(markup)
    visitor.pane("Phone").tag(markup, markup)
    visitor.in_step(2)
    assert visitor.pane("Laptop").shown() == [(markup, False, "0", [markup])]
    assert visitor.page.locator("img").count() == 0
    assert {url.partition("/demo")[0].partition("/v1")[0] for url in visitor.asked} == {visitor.url}


@WANTS_CHROMIUM
def test_without_yjs_the_list_works_and_the_text_says_which_command_brings_it(
    visitor: Visitor,
) -> None:
    def without(route: Route) -> None:
        answer = route.fetch()
        whole = answer.text().replace("/demo/yjs.js", "")
        route.fulfill(response=answer, body=whole)

    visitor.page.route("**/demo", without)
    visitor.come()
    expect(visitor.pane("Phone").node.locator(".missing")).to_contain_text("make yjs")
    visitor.pane("Phone").add("Milk")
    visitor.in_step(1)
    assert visitor.pane("Laptop").shown() == [("Milk", False, "0", [])]


@WANTS_CHROMIUM
def test_a_second_tab_says_that_the_page_is_open_already(visitor: Visitor) -> None:
    second = visitor.context.new_page()
    second.goto(f"{visitor.url}/demo")
    expect(second.get_by_role("alert")).to_contain_text("open in another tab")


@WANTS_CHROMIUM
def test_on_a_phone_the_panes_stack_and_nothing_is_wider_than_the_screen(
    browser: Browser, server: LiveServer
) -> None:
    visitor = Visitor(browser, server.url, viewport={"width": 360, "height": 740})
    visitor.come()
    phone, laptop = apart(visitor)
    laptop.flip()
    visitor.in_step(2 + 5 + 6)
    wide = visitor.page.evaluate("document.documentElement.scrollWidth")
    assert wide == 360
    boxes = [pane.node.bounding_box() for pane in (phone, laptop)]
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"]
    visitor.context.close()


@WANTS_CHROMIUM
def test_a_server_that_goes_and_comes_back_is_found_again_by_itself(
    browser: Browser, start_server: ServerStarter
) -> None:
    first = start_server()
    visitor = Visitor(browser, first.url)
    visitor.come()
    phone, laptop = visitor.pane("Phone"), visitor.pane("Laptop")
    phone.add("Milk")
    visitor.in_step(1)
    first.stop()
    phone.add("Bread")
    laptop.add("Tea")
    expect(phone.status).to_contain_text("Out of reach")
    start_server(first.database_url, PORT=first.url.rpartition(":")[2])
    visitor.in_step(3)
    assert phone.shown() == laptop.shown()
    assert len(phone.shown()) == 3
    visitor.context.close()


@WANTS_CHROMIUM
def test_a_page_whose_server_has_other_data_says_so_and_starts_afresh(
    browser: Browser, start_server: ServerStarter
) -> None:
    first = start_server()
    visitor = Visitor(browser, first.url)
    visitor.come()
    phone, laptop = visitor.pane("Phone"), visitor.pane("Laptop")
    phone.add("Milk")
    visitor.in_step(1)
    first.stop()
    start_server(PORT=first.url.rpartition(":")[2])
    visitor.has_network_again()
    expect(phone.node.locator(".trouble")).to_contain_text("doesn’t know the page’s account")
    expect(phone.status).to_contain_text("Stopped")
    visitor.page.get_by_role("button", name="Start afresh").click()
    expect(phone.status).to_have_text("Live, in step")
    laptop.add("Tea")
    visitor.in_step(1)
    assert phone.shown() == laptop.shown() == [("Tea", False, "0", [])]
    visitor.context.close()


@WANTS_CHROMIUM
def test_where_no_account_is_to_be_had_the_page_says_so_and_keeps_what_is_done(
    browser: Browser, server: LiveServer
) -> None:
    visitor = Visitor(browser, server.url)
    refusals = [(403, "forbidden"), (429, "too_many_attempts")]

    def refuse(route: Route) -> None:
        if refusals:
            status, code = refusals[0]
            route.fulfill(status=status, json={"code": code, "detail": code})
        else:
            route.continue_()

    visitor.page.route("**/v1/auth/signup", refuse)
    visitor.come()
    phone = visitor.pane("Phone")
    phone.add("Milk")
    for words in ("takes no new accounts", "too_many_attempts"):
        expect(phone.node.locator(".trouble")).to_contain_text(words)
        del refusals[0]
    visitor.in_step(1)
    assert visitor.pane("Laptop").shown() == phone.shown() == [("Milk", False, "0", [])]
    visitor.context.close()


@WANTS_CHROMIUM
def test_a_pane_whose_storage_is_an_old_copy_takes_a_new_id_and_both_lines_survive(
    visitor: Visitor,
) -> None:
    phone, laptop = visitor.pane("Phone"), visitor.pane("Laptop")
    phone.add("Milk")
    visitor.in_step(1)
    phone.flip()
    phone.vote("Milk")
    # As after a backup of the browser's profile was put back: the database of this moment, in
    # which the vote waits.
    old = visitor.page.evaluate(STORE, ["Phone", None])
    phone.flip()
    phone.add("Bread")
    visitor.in_step(3)
    phone.flip()
    visitor.page.evaluate(STORE, ["Phone", old])
    visitor.reload()
    expect(phone.status).to_have_text("Offline, 1 to send")
    phone.rename("Milk", "Oat milk")
    phone.add("Tea")
    phone.flip()
    visitor.in_step(5)
    assert phone.shown() == laptop.shown()
    assert [row[0] for row in phone.shown()] == ["Oat milk", "Bread", "Tea"]
    assert phone.shown()[0][2] == "1"
    expect(visitor.page.locator(".conflict")).to_have_count(0)
    dots = visitor.page.locator(".log .dot")
    expect(dots).to_have_text(["Phone·2", "Phone·1", "Phone·3", "Phone·2", "Phone·1"])
    one, other = visitor.stored()
    assert one == other


@WANTS_CHROMIUM
def test_panes_go_on_from_what_a_backup_had_when_the_server_was_restored(
    browser: Browser, start_server: ServerStarter, postgres_server: str
) -> None:
    first = start_server()
    visitor = Visitor(browser, first.url)
    visitor.come()
    phone, laptop = visitor.pane("Phone"), visitor.pane("Laptop")
    phone.add("Milk")
    visitor.in_step(1)
    first.stop()
    with copied(postgres_server, first.database_url) as backup:
        place = {"PORT": first.url.rpartition(":")[2]}
        second = start_server(first.database_url, **place)
        visitor.has_network_again()
        phone.add("lost")
        laptop.vote("Milk")
        visitor.in_step(3)
        second.stop()
        engine = make_engine(backup, 1)
        with engine.begin() as connection:
            start_next_epoch(connection, 1)
        engine.dispose()
        third = start_server(backup, **place)
        visitor.has_network_again()
        phone.tag("Milk", "kept")
        expect(visitor.page.locator(".log li")).to_have_count(2)
        expect(phone.items).to_have_count(1)
        visitor.in_step(2)
        assert phone.shown() == laptop.shown() == [("Milk", False, "0", ["kept"])]
        one, other = visitor.stored()
        assert one == other
        visitor.context.close()
        third.stop()


@WANTS_CHROMIUM
def test_the_page_loads_with_what_it_holds_while_the_server_is_away(
    browser: Browser, start_server: ServerStarter
) -> None:
    first = start_server()
    visitor = Visitor(browser, first.url, service_workers="allow")
    visitor.come()
    phone, laptop = visitor.pane("Phone"), visitor.pane("Laptop")
    phone.add("Milk")
    visitor.in_step(1)
    visitor.page.wait_for_function(KEPT)
    first.stop()
    laptop.add("Tea")
    visitor.reload()
    expect(laptop.status).to_contain_text("1 to send")
    assert [row[0] for row in laptop.shown()] == ["Milk", "Tea"]
    start_server(first.database_url, PORT=first.url.rpartition(":")[2])
    visitor.in_step(2)
    assert phone.shown() == laptop.shown()
    visitor.context.close()


@WANTS_CHROMIUM
def test_the_keyboard_alone_settles_a_conflict_and_keeps_its_place(visitor: Visitor) -> None:
    phone, laptop = apart(visitor)
    laptop.flip()
    phone.conflict.get_by_role("button", name="Oat milk").focus()
    visitor.page.keyboard.press("Enter")
    expect(phone.conflict).to_have_count(0)
    expect(phone.items.first.get_by_label("Title", exact=True)).to_be_focused()
    expect(phone.items.first.get_by_label("Title", exact=True)).to_have_value("Oat milk")
    phone.items.first.get_by_label("Delete").focus()
    visitor.page.keyboard.press("Enter")
    expect(phone.items).to_have_count(2)
    expect(phone.node.get_by_label("New item")).to_be_focused()
    expect(laptop.items).to_have_count(2)


@WANTS_CHROMIUM
def test_a_delta_that_replaces_a_row_drops_what_it_does_not_name(visitor: Visitor) -> None:
    old = {
        "collection": "items",
        "id": "a",
        "fields": {"title": "Milk", "votes": 2},
        "conflicts": {"title": [{"value": "Milk"}, {"value": "Tea"}]},
        "documents": {"body": ["AAA="]},
    }
    delta = {"collection": "items", "id": "a", "replace": True, "fields": {"done": True}}
    absorbed = "async (both) => (await import('/demo/records.js')).absorbed(...both)"
    made = visitor.page.evaluate(absorbed, [old, delta])
    assert made == {
        "collection": "items",
        "id": "a",
        "fields": {"done": True},
        "conflicts": {},
        "documents": {},
    }
    assert visitor.page.evaluate(absorbed, [old, delta | {"deleted": True}]) is None


@pytest.mark.skipif(not SCREENSHOTS, reason="REJOIN_TEST_SCREENSHOTS names no folder")
@pytest.mark.usefixtures("yjs")
def test_the_picture_of_the_page_is_taken(browser: Browser, server: LiveServer) -> None:
    visitor = Visitor(browser, server.url, viewport={"width": 1280, "height": 800})
    visitor.come_to_type()
    phone, laptop = visitor.pane("Phone"), visitor.pane("Laptop")
    for title in ("Milk", "Bread", "Coffee"):
        phone.add(title)
    phone.text.press_sequentially("For the weekend: and thanks!")
    visitor.in_step(4)
    laptop.flip()
    laptop.rename("Milk", "Oat milk")
    laptop.vote("Oat milk")
    laptop.tag("Oat milk", "cold")
    type_at(laptop, 17, "two bags of beans, ")
    phone.rename("Milk", "Soy milk")
    phone.vote("Soy milk", 2)
    phone.item("Bread").get_by_label("Done").check()
    type_at(phone, 17, "a bunch of dill, ")
    laptop.flip()
    visitor.in_step(10)
    phone.flip()
    phone.vote("Coffee")
    phone.tag("Coffee", "dark")
    visitor.page.screenshot(path=Path(SCREENSHOTS) / "demo.png", full_page=True)
    visitor.context.close()


# The route ----------------------------------------------------------------------------------


def test_the_page_is_off_in_production_unless_it_is_asked_for(
    settings: Settings, tmp_path: Path
) -> None:
    production = {
        "REJOIN_ENV": "production",
        "REJOIN_SECRET": "a secret of more than 32 characters, only for this",
        "DATABASE_URL": str(settings.database_url),
        "REJOIN_DATA": str(tmp_path),
    }
    for extra, status in (({}, 404), ({"REJOIN_DEMO": "on"}, 200)):
        client = create_app(Settings.from_environ(production | extra)).test_client()
        assert client.get("/demo").status_code == status
        assert client.get("/demo/main.js").status_code == status


def test_only_the_pages_own_parts_are_served_each_with_a_strict_policy(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playground, "YJS", ROOT / "nowhere" / "yjs.js")
    client = create_app(settings).test_client()
    for name in ("", "/main.js", "/demo.css"):
        answer = client.get(f"/demo{name}")
        assert answer.status_code == 200
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self'")
        assert "unsafe" not in policy
    for name in (
        "yjs.js",
        "demo.html",
        "..",
        "../__init__.py",
        "%2e%2e%2f__init__.py",
        "main",
        "%00.js",
        "x" * 4_000 + ".js",
    ):
        assert client.get(f"/demo/{name}").status_code == 404
    assert 'data-yjs=""' in client.get("/demo").text
