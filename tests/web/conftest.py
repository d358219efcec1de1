"""A status that tests fill."""

import pytest

from gateway.status import Status
from gateway.testing import LoopClock
from tests.web.pages import device


@pytest.fixture
async def status() -> Status:
    links = {"line": [device("here/feeder", voltage="V", power="W")], "air": [device("lp-1/pm", pm25="ug/m3")]}
    return Status("cab-017", LoopClock(), links, every={"here/feeder": 10}, uplinks=["city"])
