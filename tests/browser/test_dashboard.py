from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from served import GE, Served

from guided_evolution.individual import Exchange, Individual, Origin, Outcome, Status, Step
from guided_evolution.problem import Problem
from guided_evolution.run import open_run, problem_to_json
from guided_evolution.settings import Settings
from guided_evolution.store import Store

PAGES = ["", "/individuals", "/individuals/0", "/individuals/3", "/operators", "/failures", "/lineage", "/time"]
SLOW_MODEL = """\
import time
from guided_evolution.testing import scripted_reply

def reply(prompt):
    time.sleep(0.7)
    return scripted_reply(prompt)
"""
HOSTILE = (
    '<script>document.title=\'owned\'</script></script></textarea>"><img src=x onerror="alert(1)">'
    "<b>bold</b> {{7*7}} ${7*7} \x1b[31mred\x1b[0m \x07 \u202egnp.txt \u2066 \x00"
)


def until(page: Any, script: str, seconds: float = 30) -> None:
    """Waits for a condition; Playwright's own way evaluates a string in the page, which the page's policy forbids."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(script):
        assert time.monotonic() < deadline, script
        time.sleep(0.1)


def drawn(page: Any) -> None:
    """Waits until every chart of the page is drawn."""
    until(page, "[...document.querySelectorAll('.chart')].every((box) => box.dataset.state)")


def overflow(page: Any) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_is_clean_and_fits(
    dashboard: Served, open_page: Callable[..., Any], width: int, scheme: str
) -> None:
    page = open_page(dashboard, width=width, scheme=scheme)
    for path in ["/", *(f"/runs/one{each}" for each in PAGES)]:
        page.goto(dashboard.address + path)
        drawn(page)
        assert overflow(page) <= 0, path
        assert page.locator("h1").count() == 1
        assert page.locator("main").count() == 1
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    lightness = sum(int(part) for part in ground[4:-1].split(",")[:3])
    assert (lightness > 600) == (scheme == "light")


CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (let each = node; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.99) return colour.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !node.checkVisibility() || node.closest("svg, .hidden")) continue;
    const one = light(parse(getComputedStyle(node).color).slice(0, 3)), two = light(ground(node));
    const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    if (ratio < 4.5) bad.push(`${ratio.toFixed(2)} ${node.tagName}.${node.className} ${node.textContent.slice(0, 30)}`);
  }
  return [...new Set(bad)];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(dashboard: Served, open_page: Callable[..., Any], scheme: str) -> None:
    page = open_page(dashboard, scheme=scheme)
    failed = next(each.id for each in open_run(dashboard.folder / "one").individuals if not each.ok)
    for path in ["/", *(f"/runs/one{each}" for each in [*PAGES, f"/individuals/{failed}"])]:
        page.goto(dashboard.address + path)
        assert page.evaluate(CONTRAST) == [], path


# the front's point that is farthest from any other, so that a click can only mean this one
LONELIEST = """() => {
  const box = document.querySelector('.chart[data-follows]');
  const place = box.getBoundingClientRect(), size = box._fullLayout;
  const points = box.data.flatMap((trace) => trace.customdata.map((id, at) => ({
    id, front: trace.name === 'Pareto front' && id > 0,
    x: place.left + size.xaxis._offset + size.xaxis.d2p(trace.x[at]),
    y: place.top + size.yaxis._offset + size.yaxis.d2p(trace.y[at]),
  })));
  const room = (one) => Math.min(...points.filter((each) => each !== one).map(
    (each) => Math.hypot(each.x - one.x, each.y - one.y)));
  const best = points.filter((each) => each.front).sort((one, two) => room(two) - room(one))[0];
  return [best.id, best.x, best.y];
}"""


def test_a_point_of_the_front_opens_its_individual_and_diff(dashboard: Served, open_page: Callable[..., Any]) -> None:
    page = open_page(dashboard)
    page.goto(f"{dashboard.address}/runs/one")
    drawn(page)
    number, x, y = page.evaluate(LONELIEST)
    page.mouse.move(x, y)
    page.mouse.click(x, y)
    page.wait_for_url(f"**/individuals/{number}")
    individual = open_run(dashboard.folder / "one").individual(number)
    changed = [line[1:] for line in open_run(dashboard.folder / "one").diff(number).splitlines() if line[:2] == "+ "]
    added = page.locator(".diff td.new").all_inner_texts()
    assert [line.strip() for line in changed] == [text.replace("added:", "").strip() for text in added if text.strip()]
    texts = [text.strip() for text in page.locator("#asked pre").all_text_contents()]
    for exchange in individual.origin.exchanges:
        assert exchange.prompt.strip() in texts
        assert exchange.reply.strip() in texts


def test_the_slider_changes_the_front(dashboard: Served, open_page: Callable[..., Any]) -> None:
    page = open_page(dashboard)
    page.goto(f"{dashboard.address}/runs/one")
    drawn(page)
    script = (
        "document.querySelector('.chart[data-follows]').data.find((each) => each.name === 'Pareto front').customdata"
    )
    last, table = page.evaluate(script), page.locator("[data-part=front] tbody th a").all_inner_texts()
    assert table == [f"#{each.id}" for each in open_run(dashboard.folder / "one").front]
    page.locator("#generation").focus()
    page.keyboard.press("Home")
    until(page, f"JSON.stringify({script}) !== '{json.dumps(last, separators=(',', ':'))}'")
    page.wait_for_selector("text=after generation 0")
    early = page.locator("[data-part=front] tbody th a").all_inner_texts()
    assert early != table
    assert sorted(early) == sorted(f"#{each}" for each in page.evaluate(script))
    page.keyboard.press("End")
    until(page, f"JSON.stringify({script}) === '{json.dumps(last, separators=(',', ':'))}'")
    until(page, f"document.querySelectorAll('[data-part=front] tbody tr').length === {len(table)}")


def test_a_keyboard_leads_from_the_list_to_an_individual(dashboard: Served, open_page: Callable[..., Any]) -> None:
    page = open_page(dashboard)
    page.goto(dashboard.address)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    tab_to(page, "/runs/one")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "the focus can be seen"
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/one")
    tab_to(page, "/runs/one/individuals")
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/one/individuals")
    grandchild = next(
        each.id
        for each in reversed(open_run(dashboard.folder / "one").individuals)
        if each.origin.parents[:1] > (0,) and each.status is not Status.REJECTED
    )
    tab_to(page, f"/runs/one/individuals/{grandchild}")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/individuals/{grandchild}")
    tab_to(page, f"/runs/one/individuals/{grandchild}?against=seed#change")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Change against the seed")


def tab_to(page: Any, address: str) -> None:
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('href')") == address:
            return
    raise AssertionError(f"{address} can't be reached with the Tab key")


def test_filters_work_without_a_button(dashboard: Served, open_page: Callable[..., Any]) -> None:
    page = open_page(dashboard)
    page.goto(f"{dashboard.address}/runs/one/individuals")
    page.select_option("select[name=status]", "failed")
    page.wait_for_url("**status=failed**")
    statuses = set(page.locator("tbody .status").all_inner_texts())
    assert statuses
    assert "ok" not in statuses


def test_a_new_individual_of_a_live_run_appears_by_itself(
    home: Path, dashboard: Served, open_page: Callable[..., Any]
) -> None:
    (home / "slow.py").write_text(SLOW_MODEL)
    command = [str(GE), "run", "tiny", "--llm", "scripted:slow.py", "--generations", "20", "--run", "runs/live"]
    process = subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not (home / "runs/live/run.sqlite").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        page = open_page(dashboard)
        page.goto(f"{dashboard.address}/runs/live")
        page.evaluate("window.kept = true")
        page.wait_for_selector(".status.pill.live")
        page.wait_for_selector("[data-part=state] h2:text('Under way')")
        first = newest(page)
        until(page, f"({NEWEST})() > {first}")
        until(page, f"({NEWEST})() > {first + 1}")
        assert page.evaluate("window.kept") is True, "the page was not loaded again"
        assert "done" in page.locator("#announcer").inner_text()
        runs = open_page(dashboard)
        runs.goto(dashboard.address)
        row = runs.locator("tr:has-text('live')")
        assert "running" in row.inner_text()
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        page.wait_for_selector("text=The run was interrupted")
        row.locator("text=interrupted").first.wait_for()
    finally:
        process.kill()
    assert open_run(home / "runs/live").individuals, "the record was left alone"


NEWEST = """() => Math.max(-1, ...[...document.querySelectorAll("[data-part=recent] tbody th a")]
  .map((link) => Number(link.textContent.slice(1))))"""


def newest(page: Any) -> int:
    return int(page.evaluate(NEWEST))


def test_hostile_text_stays_text(
    tmp_path: Path, tiny: Problem, serve: Callable[[Path], Served], open_page: Callable[..., Any]
) -> None:
    hostile_run(tmp_path / "runs" / "bad <i>run", tiny)
    served = serve(tmp_path / "runs")
    page = open_page(served)
    base = f"{served.address}/runs/bad%20%3Ci%3Erun"
    for path in [served.address, *(base + each for each in (*PAGES[:3], "/individuals/1", *PAGES[4:]))]:
        page.goto(path)
        drawn(page)
        assert "owned" not in page.title().split("document.title")[0]
        assert (
            page.evaluate("document.querySelectorAll('main img, main script, main b, main i, main textarea').length")
            == 0
        )
        links = page.evaluate("[...document.querySelectorAll('a')].map((link) => link.href)")
        assert all(link.startswith(served.address) for link in links if not isinstance(link, dict)), path
        assert "\u202e" not in page.content()
    page.goto(f"{base}/individuals/1")
    page.locator("#asked summary").first.click()
    texts = page.locator("#asked pre").all_inner_texts()
    assert all("<script>document.title='owned'</script>" in text and "{{7*7}}" in text for text in texts[:4])
    assert "\u27e8U+202E\u27e9" in texts[0]
    assert "\u241b[31m" in texts[0]
    assert "<script>" in page.locator(".diff").inner_text()


def hostile_run(folder: Path, tiny: Problem) -> None:
    problem = {**problem_to_json(tiny), "name": HOSTILE, "summary": HOSTILE}
    store = Store.create(
        folder, problem=problem, settings=Settings(llm="x").to_json(), versions={}, status="failed", stop_reason=HOSTILE
    )
    store.put_individual(Individual(0, 0, tiny.genome()))
    store.put_outcome(
        0, Outcome(Status.OK, scores={"closeness": -9.0, "size": 6.0}, feedback=HOSTILE, log_tail=HOSTILE)
    )
    source = f"def first():\n    # {HOSTILE.replace(chr(0), '')}\n    return '<script>'\n"
    steps = (Step("mutate", "first", HOSTILE, HOSTILE, move=HOSTILE), Step("eot", "first", lesson=HOSTILE, teacher=0))
    for number in (1, 2):
        genome = tiny.genome().replace("first", source)
        store.put_exchange(
            number, 0, Exchange("mutate", HOSTILE, HOSTILE, HOSTILE, system=HOSTILE, reasoning=HOSTILE, verdict=HOSTILE)
        )
        store.put_individual(Individual(number, 1, genome, Origin((0,), steps)))
    store.put_outcome(
        1, Outcome(Status.OK, scores={"closeness": -2.0, "size": 7.0}, feedback=HOSTILE, log_tail=HOSTILE)
    )
    store.put_outcome(2, Outcome(Status.CRASHED, HOSTILE, log_tail=HOSTILE))
    store.close()


def test_a_page_with_an_inline_script_would_be_stopped(dashboard: Served, open_page: Callable[..., Any]) -> None:
    page = open_page(dashboard)
    page.watch.expected.append("Content Security Policy")
    page.goto(dashboard.address)
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.owned = 1'}))"
    )
    assert page.evaluate("window.owned") is None


def test_the_report_opens_from_a_file_with_the_same_numbers(
    home: Path, dashboard: Served, open_page: Callable[..., Any], tmp_path: Path
) -> None:
    target = tmp_path / "report.html"
    subprocess.run([str(GE), "report", "runs/one", "-o", str(target)], cwd=home, check=True, capture_output=True)
    report, page = open_page(), open_page(dashboard)
    report.goto(target.as_uri())
    page.goto(f"{dashboard.address}/runs/one")
    text = report.locator("body").inner_text()
    for row in page.locator("[data-part=front] tbody tr").all():
        values = [cell.inner_text() for cell in row.locator("td.number").all()]
        assert all(value in text for value in values), values
        assert row.locator("th a").inner_text() in text
    volume = page.locator(".card:has(dt:text('hypervolume')) .value").inner_text()
    assert volume in text
    assert target.stat().st_size > 10_000
