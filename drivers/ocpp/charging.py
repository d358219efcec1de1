"""The transactions of one charger: on disk before it is answered, and once, however often it tells them.

A charger that was away tells everything again, under new message ids; one that never learnt its transaction's id says
-1. Whatever it says of a transaction is acknowledged, for else it says it for ever (errata v4 §3.18, §3.54).
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from drivers.ocpp import codec, sessions
from drivers.ocpp.billing import Billing
from drivers.ocpp.codec import Remarks
from drivers.ocpp.meter import Measured, Meter
from drivers.ocpp.sessions import Progress, Register, RegisterKind
from drivers.ocpp.settings import DeviceSettings, Profile
from drivers.ocpp.tags import Cards
from drivers.ocpp.transactions import Clue, Ids, Ledger, Transaction, digest
from gateway.model import ClockState, Device, Event, Json, Record
from gateway.ports import Clock, State

FORGOTTEN_MS = 2 * 24 * 3600 * 1000
"""A transaction that began longer ago keeps no tag from charging elsewhere: its stop was lost."""


class Allow(Protocol):
    """Who may charge: the `idTagInfo` for a tag; `is_live` False: it is history, and nobody is asked."""

    async def __call__(self, tag: str, *, is_live: bool) -> dict[str, Json]: ...


class Charging:
    """The transactions of one charger. StorageError from any of its answers: nothing of the message was kept.

    `ended`: told connector and time when one has ended.
    """

    def __init__(
        self,
        device: Device,
        state: State,
        clock: Clock,
        *,
        meter: Meter,
        ids: Ids,
        cards: Cards,
        billing: Billing,
        allow: Allow,
        ended: Callable[[int, int | None], Awaitable[None]],
        elsewhere: Callable[[], Iterable[Transaction]] = tuple,
    ) -> None:
        assert isinstance(device.settings, DeviceSettings)
        assert isinstance(device.profile, Profile)
        self._device, self._state, self._clock = device, state, clock
        self._connectors, self._kind = device.settings.connectors, device.profile.register_kind
        self._meter, self._ids, self._cards, self._billing = meter, ids, cards, billing
        self._allow, self._ended, self._elsewhere = allow, ended, elsewhere
        self._ledger = Ledger(device.id, state)
        # A second socket of the same charger must see what the first one's message has committed.
        self._one_at_a_time = asyncio.Lock()

    def open(self) -> list[Transaction]:
        return [one for one in self._ledger.known() if one.is_open]

    async def start(self, payload: Mapping[str, Any], remarks: Remarks) -> Mapping[str, Json]:
        """StartTransaction.conf. The charge is recorded whoever began it: the current has flowed."""
        connector = codec.whole(payload, "connectorId", remarks) or 0
        tag = codec.tag(payload, remarks)
        meter = codec.number(payload, "meterStart", remarks)
        time = codec.moment(payload.get("timestamp"), remarks)
        names = self._cards.pseudonyms(tag)
        written = str(payload.get("timestamp") or "")[:64]
        start = Transaction(0, connector, names[0], meter, written)
        told = await self._allow(tag, is_live=not self._meter.age(time))
        async with self._one_at_a_time:
            if known := self._ledger.begun_as(start, names):
                return {"transactionId": known.id, "idTagInfo": told}
            if told["status"] == "Accepted" and self._is_elsewhere(names):
                told = {**told, "status": "ConcurrentTx"}
            register, kind = self._register(connector)
            number, state = self._ids.take()
            is_undated = self._clock.state() is ClockState.UNSYNCED
            has_none = sessions.is_no_baseline(meter, register, kind)
            begun = replace(start, id=number, has_no_baseline=has_none, is_undated=is_undated)
            more: dict[str, Json] = {
                "transaction": str(number),
                "connector": connector,
                **self._cards.named(tag),
                "meter_start": meter,
                "authorised": told["status"],
            }
            if payload.get("reservationId") is not None:
                more["reservation"] = codec.whole(payload, "reservationId", remarks)
            event = self._event("transaction_begin", f"{self._device.id} has begun to charge.", more, time)
            changed, forgotten = self._ledger.begin(begun)
            state |= changed | self._cards.unsaved() | {_key(self._device, connector): register.begun(meter).stored()}
            await self._billing.keep([event, *map(self._never_ended, forgotten)], state)
        return {"transactionId": number, "idTagInfo": told}

    async def measure(self, payload: Mapping[str, Any], remarks: Remarks) -> Mapping[str, Json]:
        """MeterValues.conf, for values that belong to a transaction."""
        connector = codec.whole(payload, "connectorId", remarks) or 0
        number = codec.whole(payload, "transactionId", remarks)
        mark = digest("MeterValues", payload)
        async with self._one_at_a_time:
            begun, name = self._meant(number, payload, connector)
            progress = Progress.of(self._ledger.progress(begun)) if begun and begun.is_open else None
            if progress.mark == mark if progress else self._ledger.is_repeated(mark):
                return {}
            measured = self._meter.read(connector, payload.get("meterValue"), name, remarks)
            if begun and progress:
                began = _began(begun) if progress.last is None else None
                progress = progress.noted(measured, began, mark, is_named=begun.id == number)
                state = self._ledger.note(begun, progress.stored())
            else:
                state = self._ledger.pass_over(mark)
            await self._billing.keep(self._records(connector, name, measured), state)
        return {}

    async def stop(self, payload: Mapping[str, Any], remarks: Remarks) -> Mapping[str, Json]:
        """StopTransaction.conf. One `session` record, with the last readings and the state in one commit."""
        number = codec.whole(payload, "transactionId", remarks)
        stopper = codec.optional(payload, "idTag")
        time = codec.moment(payload.get("timestamp"), remarks)
        answer: dict[str, Json] = {}
        if stopper:  # who has charged is not asked about: the charge is over, and its answer waits
            answer["idTagInfo"] = await self._allow(stopper, is_live=False)
        mark = digest("StopTransaction", payload)
        async with self._one_at_a_time:
            begun, name = self._meant(number, payload, None, self._cards.pseudonyms(stopper) if stopper else ())
            if self._ledger.is_stray(mark) or (begun and not begun.is_open):
                return answer
            meter = codec.number(payload, "meterStop", remarks)
            connector = begun.connector if begun else (1 if self._connectors == 1 else 0)
            began = _began(begun)
            records: Sequence[Record] = ()
            progress = Progress.of(self._ledger.progress(begun)) if begun else Progress()
            if payload.get("transactionData"):
                measured = self._meter.read(connector, payload["transactionData"], name, remarks)
                records = self._records(connector, name, measured)
                progress = progress.noted(measured, began, mark, is_named=False)
            register, kind = self._register(connector)
            more = sessions.record(
                name, begun, progress.ended(time), kind, begin=began, end=time, stop=meter,
                reason=codec.optional(payload, "reason", 50) or "Local",
                tags={"tag": begun.tag} if begun else self._cards.named(stopper or ""),
            )  # fmt: skip
            event = self._event("session", _told(self._device.id, more), more, time, begun)
            state = self._ledger.end(begun) if begun else {}
            if begun is None or begun.id != number:
                state |= self._ledger.stray(mark)
            if begun and meter is not None:
                state[_key(self._device, connector)] = replace(register, stop=meter).stored()
            await self._billing.keep([*records, event], state | self._cards.unsaved())
        await self._ended(connector, time)
        return answer

    def _meant(
        self, number: int | None, payload: Mapping[str, Any], connector: int | None, tags: Collection[str] = ()
    ) -> tuple[Transaction | None, str]:
        """(the transaction, how records name it)."""
        begun = self._ledger.by_id(number)
        if begun is None and (number is None or number <= 0):
            begun = self._ledger.unnamed(Clue.of(payload, connector, tags))
        return begun, str(begun.id) if begun else "unknown" if number is None else str(number)

    def _records(self, connector: int, name: str, measured: Measured) -> Sequence[Record]:
        if not measured.signed:
            return measured.readings
        return [*measured.readings, *signed_events(self._device.id, connector, name, measured, self._clock.boot())]

    def _register(self, connector: int) -> tuple[Register, RegisterKind]:
        register = Register.of(self._state.get(_key(self._device, connector)))
        return register, self._kind or register.kind

    def _is_elsewhere(self, tags: Iterable[str]) -> bool:
        """Whether the tag has an open transaction at another connector."""
        now, names = self._clock.wall(), set(tags) - {""}
        return any(one.tag in names and abs(now - (_began(one) or 0)) < FORGOTTEN_MS for one in self._elsewhere())

    def _never_ended(self, begun: Transaction) -> Event:
        """The record of a charge whose stop never came, when there is no more room to wait for it."""
        progress = Progress.of(self._ledger.progress(begun))
        began, kind = _began(begun), self._register(begun.connector)[1]
        more = sessions.record(
            str(begun.id), begun, progress, kind, begin=began, end=progress.last, stop=progress.register,
            reason="NeverEnded", tags={"tag": begun.tag},
        )  # fmt: skip
        return self._event("session", _told(self._device.id, more), more, progress.last, begun)

    def _event(
        self, kind: str, say: str, more: Mapping[str, Json], time: int | None, begun: Transaction | None = None
    ) -> Event:
        if (begun and begun.is_undated) or self._clock.state() is ClockState.UNSYNCED:
            more = {**more, "clock": ClockState.UNSYNCED.value}
        return Event(kind, self._device.id, self._clock.boot(), say, more, time)


def signed_events(device: str, connector: int, transaction: str | None, measured: Measured, at: int) -> Iterator[Event]:
    """One for each signed value: it is as long as it is, and proves something only whole."""
    for signed in measured.signed:
        yield Event("signed_value", device, at, more={"transaction": transaction, "connector": connector, **signed})


def _began(begun: Transaction | None) -> int | None:
    return codec.moment(begun.began, Remarks()) if begun else None


def _key(device: Device, connector: int) -> str:
    return f"register/{device.id}/{connector}"


def _told(device: str, more: Mapping[str, Json]) -> str:
    wh = more["energy"]
    charged = f"{wh / 1000:.3f} kWh" if isinstance(wh, int | float) else "an unknown amount"
    return f"{device} has ended charging: {charged}."
