"""The site file that ran last: kept in the state folder, so that a broken file does not stop a street."""

import json
from pathlib import Path

from gateway import document, durable
from gateway.diagnostic import DocumentError
from gateway.profile import Catalogue
from gateway.site.read import Shelf, load, profile_folders, resolve
from gateway.site.site import Site

FILE = "last-good.json"


def keep_as_last_good(site: Site, state: Path) -> None:
    """Remember the site and its profiles as they are: to be called once the gateway runs on them. OSError: not kept."""
    kept = {"path": str(site.path.resolve()), "hash": site.hash, "text": site.text, "profiles": site.profiles}
    durable.replace(state / FILE, json.dumps(kept).encode())


def load_or_last_good(path: Path, state: Path) -> tuple[Site, DocumentError | None]:
    """The site in `path` and None; where it is broken, the one that ran last and what is wrong with the new one.

    DocumentError: it is broken and none was kept.
    """
    try:
        return load(path), None
    except DocumentError as error:
        last = _last_good(path, state)
        if last is None:
            raise
        return last, error


def _last_good(path: Path, state: Path) -> Site | None:
    """With the profiles of that day: a profile that was broken since is no reason to stop either."""
    try:
        kept = json.loads((state / FILE).read_bytes())
        if kept["path"] != str(path.resolve()):
            return None
        profiles = {name: (file, text) for name, (file, text) in kept["profiles"].items()}
        written = document.parse(kept["text"], str(path))
        return resolve(written, path, Shelf(Catalogue(profile_folders(path)), profiles))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, DocumentError):
        return None
