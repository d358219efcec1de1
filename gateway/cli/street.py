"""The demo's street: an ordinary site file with its secrets, for as many posts, meters and chargers as asked for."""

import secrets
from pathlib import Path

from gateway.site import Credentials

GATEWAY, TENANT, PLATFORM, DESK = "cab-017", "milan", "platform", "grid-desk"
TAGS = [f"04A1B2{number:02X}" for number in range(8)]
_CENTRE = (45.4508, 9.2041)

_HEAD = """\
# A made-up street in Milan, as an integrator would write it. Every value is emulated.
version: 1
gateway: {{id: {gateway}, tenant: {tenant}, clock: trusted}}
page: {{listen: "127.0.0.1:0", token: secret}}
buffer: {{commit_every: 1s}}
links:
  meters: {{driver: modbus, host: 127.0.0.1, port: 502}}
  chargers: {{driver: ocpp, listen: "127.0.0.1:8443", security: 1, tags: secret}}
{air}
uplinks:
  city:
{uplink}
    commands: {{{desk}: [limit, set]}}
assets:
  here:
    at: {{lat: {lat}, lon: {lon}}}
    devices:
{meters}
{posts}{chargers}"""
_MQTT = "    uplink: mqtt\n    url: {url}\n    username: {gateway}\n    password: secret"
_HTTP = "    uplink: http\n    url: {url}\n    token: secret"
_METER = "      meter-{n}: {{link: meters, profile: eastron-sdm630, address: {n}, every: 2s}}\n"
_POST = """\
  lp-{n:04}:
    at: {{lat: {lat:.5f}, lon: {lon:.5f}}}
    fed_by: here/meter-1
    devices: {{pm: {{link: air-{n}, profile: nova-sds011}}}}
"""
_CHARGER = """\
  cp-{n}:
    at: {{lat: {lat:.5f}, lon: {lon:.5f}}}
    fed_by: here/meter-1
    devices: {{evse: {{link: chargers, profile: ocpp-generic, key: secret}}}}
"""


def write(folder: Path, *, url: str, password: str, posts: int, meters: int, chargers: int) -> Path:
    """Write site.yaml and its secrets into `folder`; `password` is what the platform knows this gateway by."""
    credentials = Credentials(folder / "secrets")
    credentials.write("page.token", secrets.token_urlsafe(24))
    credentials.write("links.chargers.tags", "\n".join(TAGS))
    for number in range(1, chargers + 1):
        credentials.write(f"cp-{number}.evse.key", secrets.token_hex(10))
    over_mqtt = url.startswith("mqtt")
    credentials.write("uplinks.city.password" if over_mqtt else "uplinks.city.token", password)
    air = "".join(f"  air-{n}: {{driver: serial, port: /dev/ttyUSB{n}}}\n" for n in range(1, posts + 1))
    text = _HEAD.format(
        gateway=GATEWAY,
        tenant=TENANT,
        desk=DESK,
        lat=_CENTRE[0],
        lon=_CENTRE[1],
        air=air.rstrip(),
        uplink=(_MQTT if over_mqtt else _HTTP).format(url=url, gateway=GATEWAY),
        meters="".join(_METER.format(n=n) for n in range(1, meters + 1)).rstrip(),
        posts="".join(_POST.format(n=n, **_place(n)) for n in range(1, posts + 1)),
        chargers="".join(_CHARGER.format(n=n, **_place(100 + n)) for n in range(1, chargers + 1)),
    )
    site = folder / "site.yaml"
    site.write_text(text)
    return site


def _place(number: int) -> dict[str, float]:
    return {"lat": _CENTRE[0] + 0.0003 * number, "lon": _CENTRE[1] + 0.0002 * number}
