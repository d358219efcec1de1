"""A device profile: what a maker's device says and takes, as YAML with its own examples.

The head and the meaning of points are here; each driver subclasses `Profile` and `ProfilePoint` with its
wire facts (`drivers/<name>/settings.py`). The author states the device's own unit, code converts.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import StringConstraints, model_validator

import config
from gateway import document
from gateway.document import Document, DocumentError, Mistake
from gateway.fields import Amount, Duration, Slug, Written
from gateway.model import DeviceId, Point
from gateway.quantities import DIRECTIONS, PHASES, QUANTITIES, STATISTICS, convert

ProfileId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)+/[1-9][0-9]*$")]
DriverName = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*$")]


class ProfilePoint(Written):
    """The meaning of one point; drivers add where it lies on the wire."""

    quantity: str
    unit: str | None = None
    """As the device sends it; left out, it is the quantity's canonical unit."""
    phase: str | None = None
    direction: str | None = None
    statistic: str | None = None
    part: str | None = None
    window: Duration | None = None
    every: Duration | None = None

    @model_validator(mode="after")
    def _means_something(self) -> "ProfilePoint":
        known = QUANTITIES.get(self.quantity)
        if known is None and not self.quantity.startswith("x_"):
            why, fix = document.unknown(self.quantity, sorted(QUANTITIES))
            fix += f" Or name it `x_{self.quantity}` with its unit."
            raise Mistake("unknown_quantity", f"quantity {why}", fix, ("quantity",))
        if known is None and self.unit is None:
            raise Mistake(
                "missing_unit", f"`{self.quantity}` is a quantity of your own: it needs a unit", "Add `unit: …`."
            )
        if known is not None and self.unit is not None:
            try:
                convert(self.unit, known.unit)
            except ValueError as error:
                raise Mistake("bad_unit", f"{self.quantity}: {error}", at=("unit",)) from None
        for word, among, what in (
            (self.phase, PHASES, "phase"), (self.direction, DIRECTIONS, "direction"),
            (self.statistic, STATISTICS, "statistic"),
        ):  # fmt: skip
            if word is not None and word not in among:
                why, fix = document.unknown(word, among)
                raise Mistake("unknown_word", f"{what} {why}", fix, (what,))
        return self

    def point(self, device: DeviceId, slug: str) -> Point:
        """The point as a platform sees it."""
        return Point(
            id=f"{device}/{slug}",
            quantity=self.quantity,
            unit=self.canonical_unit,
            phase=self.phase,
            direction=self.direction,
            statistic=self.statistic,
            part=self.part,
            window=None if self.window is None else round(self.window),
        )

    @property
    def canonical_unit(self) -> str:
        known = QUANTITIES.get(self.quantity)
        return known.unit if known else self.unit or "1"

    @property
    def conversion(self) -> tuple[float, float]:
        """(factor, offset): canonical value = device value * factor + offset."""
        return convert(self.unit, self.canonical_unit) if self.unit else (1.0, 0.0)


class Profile(Written):
    """The head that every profile has."""

    profile: ProfileId
    inherits: Slug | None = None
    """The profile that this one is a variant of: maps are merged, null removes a key, all else replaces."""
    driver: DriverName
    kind: Slug
    """What it is: meter, charger, particulate, luminaire …"""
    title: str = ""
    source: str | Sequence[str]
    """Where the facts come from: the maker's document, a capture."""
    note: str = ""


class SendKeys(Written):
    """Which readings are stored: only those that say something new. A change of quality always goes."""

    change: Amount | None = None
    """How far a value must be from the last stored one; left out, any change counts."""
    at_least: Duration | None = None
    """After so long a reading is stored although nothing has changed."""


class PointKeys(Written):
    """What a site says of some points of one device."""

    send: SendKeys | None = None
    """Which of their readings are stored; left out, as the device says."""


class DeviceKeys(Written):
    """Keys that every device in a site file has; drivers subclass it with their own (`address`, `key` …)."""

    link: Slug
    """The link that it is on."""
    profile: str | None = None
    """`maker-model` (newest version) or `maker-model/N`."""
    every: Duration | None = None
    """Poll interval of its points; a point's own `every` in the profile wins only when this is absent."""
    send: SendKeys | None = None
    """Which readings are stored; left out, all of them."""
    quantities: Mapping[str, PointKeys] = {}
    """What holds for all its points of one quantity: {voltage: {send: {change: 1 V, at_least: 15min}}}."""
    points: Mapping[Slug, PointKeys] = {}
    """What holds for one point, by its slug."""
    fed_by: str | None = None
    """The asset or device that its current comes from; left out, as its asset."""
    serves: str | Sequence[str] | None = None
    """The assets that it is there for."""


class LinkKeys(Written):
    """Keys that every link in a site file has; drivers subclass it with their own."""

    driver: DriverName
    """`modbus`, `ocpp`, `serial`; a name with a dot is a package installed beside the gateway."""


class Catalogue:
    """Profiles by name, from several folders: the first that has a name wins, so a site's overrides the shipped."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.files: dict[str, Path] = {}
        self.overrides: dict[str, Path] = {}
        """Names that an earlier folder took from a later one, whose file is here: to be shown, never silent."""
        for folder in folders:
            for file in sorted(folder.glob("*.yaml")):
                if file.stem in self.files:
                    self.overrides.setdefault(file.stem, file)
                else:
                    self.files[file.stem] = file

    def path(self, name: str) -> Path:
        """The file of `maker-model` or `maker-model/N`. KeyError where there is none."""
        return self.files[name.partition("/")[0]]

    def names(self) -> list[str]:
        return sorted(self.files)


Finder = Callable[[str], Document]
"""The document of a profile by its short name. KeyError where there is none."""


def shipped_profiles() -> Path:
    return Path(config.__file__).parent / "profiles"


def load(path: Path, model_of: Callable[[str], type[Profile]]) -> Profile:
    """The profile in `path`; `model_of(driver)` gives its driver's model. DocumentError with every mistake."""
    return parse(document.read(path), path.stem, model_of)


def parse(
    written: Document, stem: str, model_of: Callable[[str], type[Profile]], find: Finder | None = None
) -> Profile:
    """The profile in a document that was read from `<stem>.yaml`. DocumentError with every mistake.

    `find` gives the profile that it inherits from; left out, the file beside it, else the shipped one.
    """
    tree = _whole(written, find or _beside(written), (stem,))
    driver = tree.get("driver") if isinstance(tree, Mapping) else None
    if not isinstance(driver, str):
        why = "a profile needs `driver:` to say which protocol it is for"
        raise DocumentError([written.diagnostic("missing_key", (), why, "Add `driver: modbus`, `serial`, `ocpp` …")])
    try:
        model = model_of(driver)
    except LookupError as error:
        fix = getattr(error, "fix", "")
        raise DocumentError([written.diagnostic("unknown_driver", ("driver",), str(error), fix)]) from None
    profile = document.check(written, model, tree)
    name, _, _version = profile.profile.partition("/")
    if name != stem:
        why = f"the file is called {stem}.yaml, but the profile is `{profile.profile}`"
        raise DocumentError([written.diagnostic("name_mismatch", ("profile",), why, f"Call the file {name}.yaml.")])
    return profile


def _beside(written: Document) -> Finder:
    catalogue = Catalogue([Path(written.file).parent, shipped_profiles()])
    return lambda name: document.read(catalogue.path(name))


def _whole(written: Document, find: Finder, line: tuple[str, ...]) -> Any:
    """The tree of a profile with what it inherits; `line` are the names from the youngest to it."""
    tree = written.tree
    name = tree.get("inherits") if isinstance(tree, Mapping) else None
    if not isinstance(name, str):
        return tree
    if name in line:
        why = f"`{name}` inherits from itself: {' → '.join((*line, name))}"
        raise DocumentError(
            [written.diagnostic("bad_inheritance", ("inherits",), why, "Inherit from another profile.")]
        )
    try:
        parent = find(name)
    except KeyError:
        why = f"there is no profile `{name}` to inherit from"
        fix = "`lampione profiles list` shows the names; write it without `/` and version."
        raise DocumentError([written.diagnostic("unknown_profile", ("inherits",), why, fix)]) from None
    return _merged(_whole(parent, find, (*line, name)), tree)


def _merged(old: Any, new: Any) -> Any:
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return new
    both = {key: _merged(old.get(key), value) for key, value in new.items()}
    return {key: value for key, value in {**old, **both}.items() if value is not None}
