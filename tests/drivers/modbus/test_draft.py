"""A profile is begun from registers: whatever way volts and hertz are written, it says them and its example holds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.modbus.codec import Field, encode
from drivers.modbus.draft import DraftError, draft
from drivers.modbus.kinds import WIDTH, Kind
from gateway import document, load

WAYS = [
    (Kind.F32, 1.0, 1.0), (Kind.U16, 0.1, 0.01), (Kind.U32, 0.1, 0.01), (Kind.U32, 0.01, 0.001), (Kind.S32, 0.1, 0.1),
]  # fmt: skip


@settings(max_examples=25)
@given(
    way=st.sampled_from(WAYS),
    little=st.booleans(),
    fc=st.sampled_from([3, 4]),
    start=st.integers(0, 60000),
    step=st.sampled_from([1, 2]),
    hertz_at=st.integers(20, 60),
)
def test_volts_and_hertz_are_found_whichever_way_they_are_written(
    way: tuple[Kind, float, float], little: bool, fc: int, start: int, step: int, hertz_at: int
) -> None:
    kind, volt_scale, hertz_scale = way
    width = WIDTH[kind]
    registers = dict.fromkeys(range(start, start + 80), 0)
    for n, volt in enumerate((230.2, 231.4, 229.1)):
        at = start + n * step * width
        registers |= enumerate(encode(Field(fc, at, kind, little, scale=volt_scale), volt), at)
    at = start + hertz_at
    registers |= enumerate(encode(Field(fc, at, kind, little, scale=hertz_scale), 49.98), at)
    text = draft("acme-one", {fc: registers})
    found = load.profile(document.parse(text, "acme-one.yaml"), "acme-one")
    fields = dict(found.fields())  # type: ignore[attr-defined]
    assert list(fields) == ["voltage_l1", "voltage_l2", "voltage_l3", "frequency"]
    assert fields["voltage_l1"].addr - start in (0, 1)
    assert len(text.splitlines()) <= 15


def test_one_phase_needs_its_hertz_beside_it() -> None:
    text = draft("acme-one", {4: {0: 0x4366, 1: 0x3334, 70: 0x4248, 71: 0}})
    load.profile(document.parse(text, "acme-one.yaml"), "acme-one")
    assert "  voltage: {addr: 0x0000, quantity: voltage, phase: L1, unit: V}\n" in text
    with pytest.raises(DraftError):
        draft("acme-one", {4: {0: 0x4366, 1: 0x3334}})
    with pytest.raises(DraftError):
        draft("acme-one", {})
