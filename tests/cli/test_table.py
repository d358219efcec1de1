"""The account that a demo ends with."""

from __future__ import annotations

import pytest

from gateway.cli.table import Account, DeviceAccount, LaneAccount

SILENT = DeviceAccount("lp-1/pm", 3, 0, 0, 0, 0, None, None)


@pytest.mark.parametrize(
    ("lane", "is_brief", "is_complete"),
    [
        (LaneAccount("telemetry", 5, 5, 0, 0, 0, 0), False, False),
        (LaneAccount("telemetry", 5, 5, 0, 0, 0, 0), True, True),
        (LaneAccount("telemetry", 5, 4, 0, 0, 0, 1), True, False),
    ],
    ids=["a device was never heard", "it had no time to be", "a record is missing"],
)
def test_an_account_is_complete(lane: LaneAccount, is_brief: bool, is_complete: bool) -> None:
    account = Account((SILENT,), (lane,), is_brief)
    assert account.is_complete is is_complete
    assert account.text().endswith(" FAILED") is not is_complete
