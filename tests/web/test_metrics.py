"""/metrics: off unless asked for, behind the token, in Prometheus' text format."""

import re

import aiohttp

from gateway.model import Lane
from gateway.status import LaneDepth, Status
from tests.web.pages import TOKEN, running

LINE = re.compile(r'(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+\{[a-z]+="[^"]+"\} [0-9.]+)')


async def scrape(address: str, token: str = TOKEN) -> tuple[int, str, str]:
    url, headers = f"http://{address}/metrics", {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status, answer.headers["Content-Type"], await answer.text()


async def test_metrics_are_off_unless_asked_for(status: Status) -> None:
    async with running(status) as address:
        assert (await scrape(address))[0] == 404


async def test_metrics_need_the_token(status: Status) -> None:
    async with running(status, has_metrics=True) as address:
        assert (await scrape(address, "nonsense-nonsense-nonsense"))[0] == 401


async def test_metrics_tell_of_lanes_in_the_text_format(status: Status) -> None:
    status.lane(Lane.TELEMETRY, LaneDepth(4210, None, 1024, 9000, "disk I/O error", dead=3, full_ms=777_600_000))
    async with running(status, has_metrics=True) as address:
        code, kind, text = await scrape(address)
    assert (code, kind) == (200, "text/plain; version=0.0.4")
    assert all(LINE.fullmatch(line) for line in text.splitlines())
    assert 'lampione_buffer_records{lane="telemetry"} 4210\n' in text
    assert 'lampione_buffer_failing{lane="telemetry"} 1\n' in text
    assert 'lampione_buffer_dead_letters{lane="telemetry"} 3\n' in text
    assert 'lampione_buffer_full_in_seconds{lane="telemetry"} 777600.0\n' in text
    assert 'lampione_buffer_failing{lane="billing"} 0\n' in text
    assert 'oldest_seconds{lane="telemetry"}' not in text, "what is not known has no line"
