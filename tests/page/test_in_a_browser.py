"""The page as a person sees and uses it, in a headless Chromium."""

import pytest

from activator.page import Place
from kybernate.testing.agentnode import wait_for

GIB = 2**30
LIVE = "document.querySelector('#link').dataset.link === 'live'"
LANE = "document.querySelector('.lane svg')"
HOSTILE = "<img src=x onerror=window.hacked=1>"


def fill(served, names=("llama", "mistral", "qwen")):
    """Three models take turns on a card; one request waits."""
    board, clock = served.board, served.clock
    board.card("node-a", 0, "Simulated H100", 80 * GIB, 40 * GIB)
    for name in names:
        board.placed(name, _at("Parked", "ram"))
    for turn in range(9):
        name = names[turn % len(names)]
        board.arrived(name, "ram")
        board.placed(name, _at("Activating", "ram"))
        clock.now += 1.0
        board.placed(name, _at("Active", "vram"))
        board.let_through(name, 1.0)
        board.answered(name)
        board.arrived(name, "vram")
        board.let_through(name, 0.004)
        board.answered(name)
        clock.now += 8.0
        if turn < 8:
            board.placed(name, _at("Parked", "ram"))
    board.arrived(names[0], "ram")


def _at(state, tier):
    return Place(state=state, node="node-a", gpus=(0,), tier=tier, vram=40 * GIB)


@pytest.fixture
def page(served, tab):
    fill(served)
    tab.open(served.url)
    tab.until(f"{LIVE} && document.querySelector('#answered').textContent === '18'")
    return tab


def test_its_figures_lanes_tiers_and_models_are_what_the_board_says(page):
    assert page.text("#held") == "1"
    assert page.text("#hit") == "47%"
    assert page.text("#p50") == "1.0s"
    assert page.text("#switches") == "9"
    assert page.text("#models tbody tr:first-child td.name").strip() == "llama"
    states = "[...document.querySelectorAll('.state')].map(one => one.textContent).join()"
    assert page.evaluate(states) == "Parked in RAM,Parked in RAM,Active"
    assert page.evaluate("document.querySelectorAll('.lane rect.active').length") == 9
    assert "llama" in page.evaluate("document.querySelector('.lane svg').textContent")
    assert "RAM 53 %" in page.evaluate("document.querySelector('#tiers .stack').ariaLabel")
    assert page.text("#turn") == "qwen active for 8.0\u00a0s"


def test_models_that_are_active_together_have_rows_of_their_own_in_the_lane(served, tab):
    board, clock = served.board, served.clock
    board.placed("long", _at("Active", "vram"))
    for turn in range(6):
        name = "ab"[turn % 2]
        board.placed(name, _at("Activating", "ram"))
        clock.now += 1.0
        board.placed(name, _at("Active", "vram"))
        clock.now += 8.0
        board.placed(name, _at("Parked", "ram"))
    tab.open(served.url)
    tab.until("document.querySelectorAll('.lane rect.active').length === 7")
    tops = "new Set([...document.querySelectorAll('.lane rect')].map(one => one.y.baseVal.value))"
    assert tab.evaluate(f"{tops}.size") == 2


def test_it_follows_what_happens(page, served):
    served.board.let_through("llama", 2.0)
    served.board.answered("llama")
    page.until("document.querySelector('#answered').textContent === '19'")
    assert page.text("#held") == "0"


def test_nothing_yet_says_what_to_do(tab, served):
    tab.open(served.url)
    tab.until(f"{LIVE} && !document.querySelector('#empty').hidden")
    assert "No model yet" in tab.text("#empty")
    assert tab.evaluate("document.querySelector('#models-panel').hidden")
    fill(served)
    tab.until("document.querySelector('#empty').hidden")


def test_an_activator_that_goes_is_said_and_comes_back_by_itself(tab, served):
    fill(served)
    tab.open(served.url + "?silent=1500")
    tab.until(LIVE)
    served.stop()
    tab.until("document.querySelector('#link').dataset.link === 'lost'")
    assert "does not answer. This is how it stood at" in tab.text("#lost")
    assert tab.text("#answered") == "18"
    served.start()
    tab.until(f"{LIVE} && document.querySelector('#lost').hidden")


def test_paused_it_stands_still_and_goes_on_where_things_are(page, served):
    page.evaluate("document.querySelector('#hold').click()")
    served.board.let_through("llama", 2.0)
    before = len(served.asked)
    assert page.evaluate("document.querySelector('#hold').ariaPressed") == "true"
    told = served.told
    wait_for(lambda: served.told > told + 2, "it was told more")
    assert page.text("#held") == "1"
    page.evaluate("document.querySelector('#hold').click()")
    page.until("document.querySelector('#held').textContent === '0'")
    assert len(served.asked) == before


def test_it_is_used_by_keyboard(page):
    for _ in range(20):
        page.press("Tab")
        if page.evaluate("document.activeElement.tagName.toLowerCase()") == "svg":
            break
    assert page.evaluate(f"document.activeElement === {LANE}")
    said = page.text("#turn")
    page.press("ArrowLeft")
    page.until("document.querySelector('.lane rect.chosen')")
    assert page.text("#turn") != said
    assert "mistral: was active for 8.0\u00a0s" in page.text("#turn")
    page.press("Home")
    assert "llama: was active" in page.text("#turn")


def test_it_fits_a_phone(page):
    page.size(375, 800)
    page.until("outerWidth === 375")
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    beyond = (
        "[...document.querySelectorAll('main *')].filter(one => one.offsetParent"
        " && one.getBoundingClientRect().right > 376 && !one.closest('svg, pre, thead')).length"
    )
    assert page.evaluate(beyond) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_its_words_can_be_read_in_both_colours(page, scheme):
    page.prefer(color_scheme=scheme)
    assert page.evaluate(_FAINT) == []


def test_the_button_chooses_the_colours_and_is_remembered(page, served):
    page.evaluate("document.querySelector('#theme').click()")
    page.evaluate("document.querySelector('#theme').click()")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.open(served.url + "?again")
    page.until("document.documentElement.dataset.theme === 'dark'")
    page.evaluate("localStorage.clear()")


def test_names_that_try_to_be_markup_are_shown_as_text(tab, served):
    fill(served, names=(HOSTILE, "b", "c"))
    served.board.placed(HOSTILE, Place(state="Parked", tier="ram", why=HOSTILE))
    tab.open(served.url)
    tab.until("document.querySelectorAll('#models tbody tr').length === 3")
    assert HOSTILE in tab.text("#models")
    assert tab.evaluate("window.hacked") is None
    assert tab.evaluate("document.querySelectorAll('main img').length") == 0


def test_it_asks_nobody_but_its_own_server_and_complains_of_nothing(page, served):
    found = page.evaluate("performance.getEntriesByType('resource').map(one => one.name)")
    assert found
    assert all(one.startswith(served.url) for one in found)
    assert page.evaluate("document.querySelectorAll('[id]').length") == page.evaluate(
        "new Set([...document.querySelectorAll('[id]')].map(one => one.id)).size"
    )


def test_everything_that_can_be_pressed_has_a_name(page):
    nameless = (
        "[...document.querySelectorAll('button, a, svg[tabindex], [role=img]')]"
        ".filter(one => !(one.ariaLabel || one.textContent.trim())).length"
    )
    assert page.evaluate(nameless) == 0
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate("document.querySelectorAll('h1').length") == 1


# Elements with text of their own whose contrast with the ground behind them is below 4.5.
_FAINT = """(() => {
  const probe = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (colour) => { probe.clearRect(0, 0, 1, 1); probe.fillStyle = colour;
    probe.fillRect(0, 0, 1, 1); return [...probe.getImageData(0, 0, 1, 1).data]; };
  const light = (c) => { const [r, g, b] = c.map((v) => { v /= 255;
    return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
    return .2126 * r + .7152 * g + .0722 * b; };
  const ground = (one) => { for (; one; one = one.parentElement) {
    const c = rgb(getComputedStyle(one).backgroundColor); if (c[3] === 255) return c; }
    return [255, 255, 255, 255]; };
  return [...document.querySelectorAll("body *")].filter((one) => one.offsetParent
      && [...one.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()))
    .map((one) => { const a = light(rgb(getComputedStyle(one).color)), b = light(ground(one));
      return [one.className + one.tagName, (Math.max(a, b) + .05) / (Math.min(a, b) + .05)]; })
    .filter(([, ratio]) => ratio < 4.5).map(([name, ratio]) => name + " " + ratio.toFixed(2));
})()"""
