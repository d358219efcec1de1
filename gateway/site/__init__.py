"""The site file: one gateway, its links, the assets in its street with their devices, and its uplinks.

`load` reads it whole and says every mistake at once; `load_or_last_good` falls back on what ran before.
"""

from gateway.site.credentials import Credentials, resolver
from gateway.site.lastgood import keep_as_last_good, load_or_last_good
from gateway.site.read import load
from gateway.site.site import Asset, Site, SiteLink, SiteUplink

__all__ = [
    "Asset",
    "Credentials",
    "Site",
    "SiteLink",
    "SiteUplink",
    "keep_as_last_good",
    "load",
    "load_or_last_good",
    "resolver",
]
