"""The page in a real browser: it shows what the status knows, as text, and says when it knows nothing more."""

from pathlib import Path

import pytest

from gateway.model import ClockState, Event, Lane, Quality, Reading
from gateway.status import LaneDepth, Status
from gateway.testing import LoopClock
from tests.web.chromium import chromium
from tests.web.pages import TOKEN, device, running

pytestmark = pytest.mark.needs("chromium")
MARKUP = "<img src=x onerror=alert(1)><script>document.title='taken'</script>"


async def test_a_technicians_minute(tmp_path: Path, status: Status) -> None:
    async with chromium(tmp_path) as tab:
        async with running(status) as address:
            await tab.open(f"http://{address}/")
            await tab.until("document.querySelector('form input[name=token]')")
            await tab.js(f"document.querySelector('input').value = '{TOKEN}'")
            await tab.js("setTimeout(() => document.forms[0].submit())")
            await tab.until(
                "location.pathname + location.search == '/' && document.querySelectorAll('.device').length == 2"
            )
            assert TOKEN not in await tab.js("location.href + document.cookie")

            at = status._clock.boot()
            status.note([Reading("here/feeder/voltage", 231.5, at), Reading("here/feeder/power", -12_345.6, at)])
            status.uplink("city", connected=False, say="The broker refuses our password. Re-enter it.")
            await tab.until("document.querySelector('.device.green')")
            shown = await tab.js("document.querySelector('.device.green').innerText")
            for words in ("feeder", "Good", "voltage", "231.5\u202fV", "-12.35\u202fkW"):
                assert words in shown
            await tab.until("document.querySelector('#tiles').innerText.includes('refuses our password')")
            status.uplink("city", connected=True, say="Our certificate ends on 2026-12-12. Renew it.")
            await tab.until("document.querySelector('#tiles .amber')?.innerText.includes('certificate ends')")

            assert "pm" in await tab.js("document.querySelector('.device.red').innerText")
            assert not await tab.js("document.querySelector('.device.red').innerText.includes('PM2.5')"), (
                "not missed yet"
            )

            status.note([Reading("here/feeder/voltage", None, at, Quality.BAD, "out_of_range")])
            await tab.until("document.querySelector('.device.amber')?.innerText.includes('no value, out of range')")

            await tab.until("document.querySelector('#filters .red b').textContent == '1'")
            await tab.js("document.querySelector('#filters .amber').click()")
            assert await tab.js("document.querySelectorAll('#assets .device').length") == 1
            assert await tab.js("document.documentElement.scrollWidth <= innerWidth"), (
                "nothing lies beyond the phone's edge"
            )

        await tab.until("document.querySelector('#banners')?.innerText.includes('Connection lost. Last seen')")
        assert await tab.js("document.querySelector('.device') !== null"), "what was last seen stays"
        assert not [told for told in tab.told if "Content Security Policy" in told or "exceptionThrown" in told]


async def test_markup_in_any_word_is_shown_as_text(tmp_path: Path) -> None:
    name = f"lp-1/{MARKUP.replace('/', '')}"
    clock = LoopClock(ClockState.UNSYNCED)
    status = Status(
        MARKUP, clock, {MARKUP: [device(name, **{MARKUP.replace("/", ""): MARKUP})]}, every={}, uplinks=[MARKUP]
    )
    point = f"{name}/{MARKUP.replace('/', '')}"
    status.note([Event("device_down", name, clock.boot() + 10**6, MARKUP)])
    status.note([Reading(point, MARKUP, clock.boot(), Quality.UNCERTAIN, MARKUP)])
    status.uplink(MARKUP, connected=False, say=MARKUP)
    status.link(MARKUP, up=True, say=MARKUP)
    status.lane(Lane.EVENT, LaneDepth(1, 0, 0, 1, MARKUP))
    status.configuration(MARKUP, MARKUP)
    status.note([Event("nonconforming", name, clock.boot(), MARKUP)])
    # Who calls chooses these words.
    status.strangers = lambda: [
        {"identity": MARKUP, "address": MARKUP, "protocols": MARKUP, "calls": 2, "last": clock.wall()}
    ]
    async with chromium(tmp_path) as tab, running(status) as address:
        await tab.open(f"http://{address}/?token={TOKEN}")
        await tab.until("document.querySelector('.device .say')")
        assert await tab.js("document.querySelector('.device .say').textContent") == MARKUP
        assert await tab.js("document.querySelectorAll('main img, main script, #banners img, h1 img').length") == 0
        assert await tab.js("document.title") == MARKUP
        assert (await tab.js("document.querySelector('#banners').textContent")).startswith(MARKUP)
        assert await tab.js("document.querySelector('.device li').textContent") == MARKUP
        assert (await tab.js("document.querySelector('#more li').textContent")).startswith(
            f"{MARKUP}{MARKUP} · 2 calls"
        )


async def test_it_finds_its_way_back(tmp_path: Path, status: Status) -> None:
    """The gateway starts again on the same port: the open page goes on by itself, with the same session."""
    async with chromium(tmp_path) as tab:
        async with running(status) as address:
            await tab.open(f"http://{address}/?token={TOKEN}")
            await tab.until("document.querySelectorAll('.device').length == 2")
        await tab.until("document.body.classList.contains('lost')")
        async with running(status, address):
            await tab.until("!document.body.classList.contains('lost')")
            assert await tab.js("document.querySelector('#banners').textContent") == ""
        async with running(status, address, token=TOKEN + "-changed"):
            await tab.until("document.querySelector('form input[name=token]')")
