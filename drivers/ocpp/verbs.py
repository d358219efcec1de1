"""What a charger can be told to do, with bounds: `limit`, and OCPP's own commands by short names."""

from gateway.model import Argument, Verb

STATUSES = ("Accepted", "Blocked", "Expired", "Invalid", "ConcurrentTx")
TRIGGERS = ("BootNotification", "DiagnosticsStatusNotification", "FirmwareStatusNotification", "Heartbeat",
            "MeterValues", "StatusNotification")  # fmt: skip


def verbs(connectors: int, max_current: float, safe_current: float) -> dict[str, Verb]:
    """By name. `limit` is amperes per phase that each connector may draw: 0 (pause), or 6 to `max_current`."""
    one = Argument(minimum=1, maximum=connectors)
    one_or_any = Argument(minimum=1, maximum=connectors, optional=True)
    number = Argument(minimum=1, maximum=0x7FFFFFFF)
    tag = Argument(longest=20)
    return {
        verb.name: verb
        for verb in (
            Verb(
                "limit",
                {"amps": Argument(unit="A", minimum=0, maximum=max_current)},
                leasable=True,
                release={"amps": safe_current},
                safe_when_lower="amps",
            ),
            Verb("clear_limit", {}),
            Verb("start", {"tag": tag, "connector": one_or_any}, idempotent=False),
            Verb("stop", {"transaction": number}, idempotent=False),
            Verb("unlock", {"connector": one}, idempotent=False, destructive=True),
            Verb("reset", {"kind": Argument(choices=("Soft", "Hard"))}, idempotent=False, destructive=True),
            Verb(
                "availability",
                {
                    "connector": Argument(minimum=0, maximum=connectors),
                    "kind": Argument(choices=("Operative", "Inoperative")),
                },
            ),
            Verb("trigger", {"message": Argument(choices=TRIGGERS), "connector": one_or_any}),
            Verb("get_configuration", {"key": Argument(longest=50, optional=True)}),
            Verb("change_configuration", {"key": Argument(longest=50), "value": Argument(longest=500)}),
            Verb(
                "data_transfer",
                {
                    "vendor": Argument(longest=255),
                    "message": Argument(longest=50, optional=True),
                    "content": Argument(longest=4000, optional=True),
                },
                idempotent=False,
            ),
            Verb(
                "reserve",
                {
                    "reservation": number,
                    "connector": Argument(minimum=0, maximum=connectors),
                    "tag": tag,
                    "until": Argument(longest=30),
                },
            ),
            Verb("cancel_reservation", {"reservation": number}),
            Verb("send_local_list", {}),
            Verb("local_list_version", {}),
            Verb("clear_cache", {}),
            Verb(
                "authorise",
                {
                    "tag": Argument(longest=40),
                    "status": Argument(choices=STATUSES),
                    "expires": Argument(longest=30, optional=True),
                    "group": Argument(longest=20, optional=True),
                },
            ),
            Verb("frames", {}),
        )
    }
