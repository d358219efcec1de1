"""What we send is checked against the specification's own JSON schemas, as the `ocpp` package carries them.

The package (and jsonschema behind it) is loaded with the first command, in a thread: a site that sends none never
pays for it, and one that does keeps answering its chargers meanwhile.
"""

import asyncio
import importlib
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any


async def load() -> None:
    """Make `check` ready."""
    await asyncio.get_running_loop().run_in_executor(None, importlib.import_module, "ocpp.messages")


def check(action: str, payload: Mapping[str, Any]) -> None:
    """jsonschema's ValidationError: a mistake of ours, never of a charger or a platform."""
    from ocpp.messages import MessageType, get_validator  # type: ignore[import-untyped]

    # The schemas ask for multiples of 0.1, which only decimals can tell.
    exact = json.loads(json.dumps(payload), parse_float=Decimal)
    get_validator(MessageType.Call, action, "1.6", parse_float=Decimal).validate(exact)
