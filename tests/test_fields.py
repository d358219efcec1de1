"""What people write, as values: units are told, never guessed, and a secret is never there."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from gateway.fields import Duration, Secret, Size, Slug, Whole, Written, amount, secrets


def value(kind: object, text: object) -> object:
    return TypeAdapter(kind).validate_python(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("10s", 10), ("10 s", 10), ("1.5min", 90), ("1h", 3600), ("7d", 604800), (".5s", 0.5), ("0s", 0)],
)
def test_a_duration_has_its_unit(text: str, seconds: float) -> None:
    assert value(Duration, text) == seconds


@pytest.mark.parametrize(
    ("text", "bytes_"), [("64 KB", 65536), ("200MB", 200 * 1024**2), ("1 GB", 1024**3), ("12 B", 12)]
)
def test_a_size_has_its_unit(text: str, bytes_: int) -> None:
    assert value(Size, text) == bytes_


@pytest.mark.parametrize(
    ("unit", "text", "number"),
    [("W", "58 W", 58), ("W", "0.1 kW", 100), ("A", "16A", 16), ("A", "500 mA", 0.5), ("%", "20 %", 20),
     ("Cel", "300 K", 26.85), ("Cel", "-5 °C", -5), ("V", "1e3 mV", 1)],
)  # fmt: skip
def test_an_amount_is_converted_to_its_unit(unit: str, text: str, number: float) -> None:
    assert value(amount(unit), text) == pytest.approx(number)


@pytest.mark.parametrize(
    ("kind", "text", "sentence"),
    [
        (Duration, "10", "no unit of time"),
        (Duration, 7, "no unit of time"),
        (Duration, "10 sec", "`sec` is not a unit of time"),
        (Duration, "10 m", "`m` is not a unit of time"),
        (Duration, "ten s", "not a number with a unit"),
        (Duration, "1,5 s", "not a number with a unit"),
        (Duration, "", "not a number with a unit"),
        (Duration, None, "not a number with a unit"),
        (Duration, "nan s", "not a number with a unit"),
        (Duration, "1e400s", "too large"),
        (Duration, "-1s", "negative"),
        (Size, "200", "not a size"),
        (Size, "200 Mb", "not a size"),
        (Size, "-1 MB", "negative"),
        (Size, "1e400 MB", "too large"),
        (amount("W"), "58", "`58` has no unit"),
        (amount("W"), "58 A", "`A` is not a unit of this quantity; write W, MW, kW, mW"),
        (amount("W"), "1e400 W", "too large"),
    ],
)
def test_an_amount_that_could_mean_two_things_is_refused(kind: object, text: object, sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        value(kind, text)
    [error] = caught.value.errors()
    assert sentence in error["msg"]
    assert error["ctx"]["error"].code == "bad_amount"


@pytest.mark.parametrize(("text", "number"), [("52", 52), ("0x34", 52), ("0XfF", 255), (7, 7)])
def test_a_register_is_written_as_the_maker_prints_it(text: object, number: int) -> None:
    assert value(Whole, text) == number


@pytest.mark.parametrize("text", ["0x", "0xZZ", "ten", "1.5", "010x"])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        value(Whole, text)


@pytest.mark.parametrize("text", ["cab-017", "lp_0042", "0", "a" * 63])
def test_a_slug(text: str) -> None:
    assert value(Slug, text) == text


@pytest.mark.parametrize("text", ["", "Cab", "a b", "a/b", "-a", "è", "a" * 64, "a.b", "a\n"])
def test_what_is_no_slug(text: str) -> None:
    with pytest.raises(ValidationError):
        value(Slug, text)


@pytest.mark.parametrize("text", ["secret", "secret:links.cs.key", "secret:A_b-9"])
def test_a_secret_is_a_reference(text: str) -> None:
    assert value(Secret, text) == text


@pytest.mark.parametrize(
    "text", ["hunter2", "", "Secret", "secret:", "secret:../x", "secret:..", "secret:a/b", "secret: x", None]
)
def test_a_secret_in_clear_text_is_refused(text: object) -> None:
    with pytest.raises(ValidationError) as caught:
        value(Secret, text)
    assert caught.value.errors()[0]["ctx"]["error"].code == "clear_text_secret"


class Tls(Written):
    key: Secret
    name: str = "secret"


class Keys(Written):
    user: str = "secret"
    password: Secret | None = None
    tls: Tls | None = None
    by_name: dict[str, Tls] = {}  # noqa: RUF012 - pydantic copies it


def test_the_secrets_of_a_model_are_found_by_their_type() -> None:
    keys = Keys(password="secret:p", tls=Tls(key="secret"), by_name={"a": Tls(key="secret:b")})
    assert list(secrets(keys)) == [("password", "secret:p"), ("tls.key", "secret"), ("by_name.a.key", "secret:b")]
    assert list(secrets(Keys())) == []
