"""Values of a D4i driver's memory banks in the same language: exponent, masks, signs.

Source: DiiA parts 252 and 253, as python-dali, dali/memory, has them; the bytes are computed from that layout.
"""

import pytest

from drivers.serial import Profile
from drivers.serial.codec import Codec, Sample
from gateway.model import Quality, Reason

MASK, TMASK = str(2**48 - 1), str(2**48 - 2)


def bank(length: int, **point: object) -> Codec:
    tree = {
        "profile": "dali-bank/1", "driver": "serial", "kind": "luminaire", "source": "test", "line": {"baud": "38400"},
        "mode": "push", "cadence": "60s", "frame": {"type": "idle", "gap": "50ms", "max_length": str(length)},
        "points": {"value": point},
        "examples": [{"received": "00" * length, "means": "other", "origin": "computed"}],
    }  # fmt: skip
    return Codec(Profile.model_validate(tree))


ENERGY = {"quantity": "energy_active", "unit": "Wh", "at": "1", "type": "u48be", "exponent_at": "0"}
POWER = {"quantity": "power_active", "unit": "W", "at": "1", "type": "u32be", "exponent_at": "0"}


@pytest.mark.parametrize(
    ("point", "raw", "value", "reason"),
    [
        (ENERGY | {"invalid": [MASK, TMASK]}, "fd 00 00 00 12 d6 87", 1234.567, None),
        (ENERGY | {"invalid": [MASK, TMASK]}, "00 ff ff ff ff ff ff", None, Reason.ABSENT),
        (POWER, "ff 00 00 01 f4", 50.0, None),
        (POWER | {"invalid": [str(2**32 - 1), str(2**32 - 2)]}, "ff ff ff ff fe", None, Reason.ABSENT),
        (POWER, "07 00 00 00 01", None, Reason.OUT_OF_RANGE),
        ({"quantity": "voltage", "at": "0", "type": "u16be", "scale": "0.1"}, "09 06", 231.0, None),
        ({"quantity": "power_factor", "at": "0", "type": "u8", "scale": "0.01"}, "5f", 0.95, None),
    ],
)
def test_a_value_of_a_memory_bank(
    point: dict[str, object], raw: str, value: float | None, reason: Reason | None
) -> None:
    frame = bytes.fromhex(raw)
    sample = bank(max(2, len(frame)), **point).decode(frame)["value"]
    assert sample == (Sample(value) if reason is None else Sample(None, Quality.BAD, reason))
