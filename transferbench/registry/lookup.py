"""Which plugin offers what: names looked up, families resolved, parameters checked.

The loading order is documented in ``discovery``. Where two plugins offer one name, neither is
served, and the error names both.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from transferbench.errors import (
    PluginError,
    UnknownNameError,
    nearest,
    suggestion,
)
from transferbench.registry.blame import (
    blamed,
    blamed_calls,
    blamed_job,
    cause,
    in_a_line,
    is_trusted,
)
from transferbench.registry.code import Code, Distributions, PluginCode, codes_in
from transferbench.registry.discovery import (
    ENVIRONMENT_VARIABLE,
    SPECS,
    Discovery,
    Kind,
    Offer,
    PluginProblem,
    discover,
    file_fault,
    files_of,
)
from transferbench.registry.guard import MisconductError, guarded
from transferbench.registry.likeness import is_nearly, likest_member
from transferbench.specs import (
    BackboneSpec,
    DatasetSpec,
    DiagnosticSpec,
    InitializationSpec,
    Params,
    PerturbationSpec,
    Spec,
)

__all__ = [
    "ENVIRONMENT_VARIABLE",
    "Code",
    "Distributions",
    "Kind",
    "PluginCode",
    "PluginProblem",
    "Registry",
    "blamed",
    "blamed_calls",
    "blamed_job",
    "codes_in",
    "identity",
    "is_trusted",
    "kind_of",
    "load_registry",
    "open_registry",
    "parse_params",
]

ServedT = TypeVar("ServedT", bound=Spec)

# The most members of a family that a message lists: timm has more than a thousand.
_LISTED_MEMBERS = 20
_SHORT_LENGTH = 60


def load_registry(
    files: Sequence[Path] = (), environment: Mapping[str, str] | None = None
) -> Registry:
    """What every installed plugin, ``files`` and the files that ``environment`` names offer.

    A plugin's fault raises nothing: it is in the registry's ``problems``. The process's own
    environment is not read: ``open_registry`` does that.
    """
    return Registry(discover(files, environment or {}))


def open_registry(files: Sequence[str | Path] = (), *, strict: bool = False) -> Registry:
    """What every installed plugin, ``files`` and the files of the environment offer.

    Raises: ``PluginError`` for ``files`` that are none; ``strict``: those of the environment too.
    """
    paths = tuple(map(Path, files))
    _require_files(paths, "")
    if strict:
        _require_files(files_of(os.environ), f" of {ENVIRONMENT_VARIABLE}")
    return load_registry(paths, os.environ)


def _require_files(files: Sequence[Path], origin: str) -> None:
    faults = {path: file_fault(path) for path in files}
    texts = [f"plugin file {str(path)!r}{origin}: {'; '.join(fault)}"
             for path, fault in faults.items() if fault]  # fmt: skip
    if texts:
        raise PluginError("\n".join(texts))


class Registry:
    """What the loaded plugins offer: sorted, read-only mappings of names to specs.

    ``problems``: what is not served and why. ``files``: the plugin files, absolute, so that worker
    processes can load them too.
    """

    def __init__(self, discovery: Discovery) -> None:
        groups: defaultdict[tuple[Kind, str], list[Offer]] = defaultdict(list)
        for offer in discovery.offers:
            groups[offer.kind, offer.spec.name].append(offer)
        self._offers = dict(sorted(groups.items()))
        self._served = {key: offers[0] for key, offers in self._offers.items() if len(offers) == 1}
        self._failures = tuple(sorted(discovery.problems, key=str))
        self.problems = tuple(sorted((*self._failures, *self._conflicts()), key=str))
        self.files = discovery.files
        origins = {offer.origin for offer in discovery.offers}
        # A file may be edited while this process goes on with what it has loaded.
        self._distributions = Distributions()
        self._codes = {origin: origin.code(self._distributions) for origin in origins
                       if not origin.distribution}  # fmt: skip
        self.datasets = self._table(DatasetSpec)
        self.perturbations = self._table(PerturbationSpec)
        self.backbones = self._table(BackboneSpec)
        self.initializations = self._table(InitializationSpec)
        self.diagnostics = self._table(DiagnosticSpec)

    def __reduce__(self) -> tuple[Any, ...]:
        # Specs hold functions that cannot be pickled: a copy loads the plugins again.
        return load_registry, (self.files,)

    def dataset(self, name: str) -> DatasetSpec:
        """The dataset ``NAME``, or ``FAMILY/MEMBER`` with the parameter of the member set.

        Raises: UnknownNameError, PluginError where two offer it.
        """
        family, _, member = name.partition("/")
        self._suggest_members("dataset", name)
        self._offer("dataset", family)
        spec = self.datasets[family]
        if not member:
            return spec
        preset = _member_param("dataset", spec, member)
        tiny = {key: value for key, value in spec.tiny.items() if key not in preset}
        return spec.model_copy(update={"preset": preset, "tiny": tiny})

    def perturbation(self, name: str) -> PerturbationSpec:
        """The perturbation of that name. Raises: as ``dataset``."""
        self._offer("perturbation", name)
        return self.perturbations[name]

    def backbone(self, name: str) -> BackboneSpec:
        """The backbone, or family of backbones, of that name. Raises: as ``dataset``."""
        self._offer("backbone", name)
        return self.backbones[name]

    def initialization(self, name: str) -> InitializationSpec:
        """The initialization of that name. Raises: as ``dataset``."""
        self._offer("initialization", name)
        return self.initializations[name]

    def diagnostic(self, name: str) -> DiagnosticSpec:
        """The diagnostic of that name. Raises: as ``dataset``."""
        self._offer("diagnostic", name)
        return self.diagnostics[name]

    def names(self, kind: Kind) -> tuple[str, ...]:
        """The names served of one kind, sorted."""
        return tuple(name for served, name in self._served if served == kind)

    def origin(self, kind: Kind, name: str) -> str:
        """Who offers it: distribution and version, or a file's name. Raises: as ``dataset``."""
        return self._offer(kind, name).origin.label

    def code(self, kind: Kind, name: str) -> PluginCode | None:
        """The code that offers it; None where that cannot be found. Raises: as ``dataset``."""
        origin = self._offer(kind, name).origin
        if origin not in self._codes:
            self._codes[origin] = origin.code(self._distributions)
        return self._codes[origin]

    def file_code(self, kind: Kind, name: str) -> str:
        """The digest of the code of a plugin file; "" for what is installed."""
        code = self.code(kind, name)
        return code.sha256 if code and code.loose else ""

    @property
    def file_codes(self) -> dict[str, str]:
        """The digests of the code of the plugin files, by file."""
        loose = ((origin, code) for origin, code in self._codes.items() if code and code.loose)
        return {origin.plugin: code.sha256 for origin, code in loose}

    def offered_by(self, owner: str) -> tuple[Spec, ...]:
        """What one plugin's owner (``Origin.owner``) offers, by kind and name.

        Names in conflict are not served and left out.
        """
        served = self._served.values()
        return tuple(offer.spec for offer in served if offer.origin.owner == owner)

    @property
    def distributions(self) -> tuple[str, ...]:
        """The canonical names of the distributions that offer something, sorted."""
        origins = {offer.origin for offers in self._offers.values() for offer in offers}
        return tuple(sorted({origin.owner for origin in origins if origin.distribution}))

    def resolve_backbone(self, name: str) -> tuple[BackboneSpec, dict[str, Any]]:
        """The spec behind ``NAME`` or ``FAMILY/MEMBER``, and the parameters to build it with.

        ``timm/resnet18`` is the spec ``timm`` with its ``member`` parameter set to ``resnet18``.
        Raises: UnknownNameError for a family or member that is not there, PluginError for anything
        else that does not fit the spec.
        """
        family, _, member = name.partition("/")
        self._suggest_members("backbone", name)
        spec = self.backbone(family)
        params = _member_param("backbone", spec, member)
        parse_params(spec, params, origin=name)
        return spec, params

    def member_like(self, kind: Kind, name: str) -> str:
        """FAMILY/MEMBER for a ``name`` without its family, or nearly so; "" where none is like it.

        Lists the members of all families, which may import their packages, unless a plugin has
        nearly that name.
        """
        tables: Mapping[Kind, Mapping[str, Any]]
        tables = {"backbone": self.backbones, "dataset": self.datasets}
        plugins = self.names(kind)
        if "/" in name or is_nearly(name, plugins):
            return ""
        families = {}
        for family, spec in tables.get(kind, {}).items():
            with suppress(PluginError):
                families[family] = _members(kind, spec)
        return likest_member(name, families, plugins)

    def _suggest_members(self, kind: Kind, name: str) -> None:
        """Raise ``UnknownNameError`` where ``name`` is no plugin's and like that of a member."""
        offered = (kind, name.partition("/")[0]) in self._offers
        if not offered and (close := self.member_like(kind, name)):
            raise UnknownNameError(kind, name, (), self._not_loaded(kind), near=close)

    def _table(self, spec_type: type[ServedT]) -> Mapping[str, ServedT]:
        specs = (offer.spec for offer in self._served.values())
        return MappingProxyType({spec.name: spec for spec in specs if isinstance(spec, spec_type)})

    def _conflicts(self) -> Iterator[PluginProblem]:
        """One problem for each plugin that offers a name which is offered twice."""
        for (kind, _), offers in self._offers.items():
            if len(offers) > 1:
                for origin in {offer.origin for offer in offers}:
                    yield origin.problem(*_conflict(offers), kind=kind)

    def _offer(self, kind: Kind, name: str) -> Offer:
        name = name.partition("/")[0] if kind == "dataset" else name
        offers = self._offers.get((kind, name), ())
        if not offers:
            names = self.names(kind)
            raise UnknownNameError(kind, name, names, self._advice(kind, name, names))
        if len(offers) > 1:
            raise PluginError("; ".join(_conflict(offers)))
        return offers[0]

    def _not_loaded(self, kind: Kind) -> str:
        lost = [str(problem) for problem in self._failures if problem.kind in {None, kind}]
        count = "1 plugin" if len(lost) == 1 else f"{len(lost)} plugins"
        return f"{count} that may offer it could not be loaded: {' | '.join(lost)}" if lost else ""

    def _advice(self, kind: Kind, name: str, names: Iterable[str]) -> str:
        if lost := self._not_loaded(kind):
            return lost
        if nearest(name, names):
            return ""
        file = f"name its file with --plugin or in {ENVIRONMENT_VARIABLE}"
        return f"install the plugin that offers it, or {file}"


def identity(spec: Spec, params: Params) -> dict[str, Any]:
    """What an id contains of one use of a plugin: name, version and all parameters."""
    return {"name": spec.name, "version": spec.version, "params": params.model_dump(mode="json")}


def kind_of(spec: Spec) -> Kind:
    """The kind of plugin that a spec is of."""
    return next(kind for kind, spec_type in SPECS.items() if isinstance(spec, spec_type))


# --- parameters -------------------------------------------------------------------------------


def parse_params(spec: Spec, values: Mapping[str, Any], origin: str) -> Params:
    """``values`` as the parameters of ``spec``; ``origin`` begins the message of an error.

    Raises: PluginError that names the plugin and, for each mistake, the parameter, its value and
    what is allowed.
    """
    try:
        return spec.parse(values)
    except ValidationError as error:
        mistakes = "; ".join(_mistake(spec, detail) for detail in error.errors())
        raise PluginError(
            f"{origin}: parameters of {kind_of(spec)} {spec.name!r}: {mistakes}"
        ) from error


def _mistake(spec: Spec, detail: ErrorDetails) -> str:
    field = ".".join(map(str, detail["loc"]))
    if detail["type"] == "extra_forbidden":
        return f"no parameter {field!r}; {suggestion(field, sorted(spec.params.model_fields))}"
    if detail["type"] == "missing":
        return f"{field} is required"
    message, value = detail["msg"].removeprefix("Value error, "), repr(detail["input"])
    if len(value) > _SHORT_LENGTH:
        value = f"{value[:_SHORT_LENGTH]}..."
    return f"{field} is {value}: {message}" if field else message


# --- families of backbones and of datasets ------------------------------------------------------


def _member_param(kind: Kind, spec: BackboneSpec | DatasetSpec, member: str) -> dict[str, Any]:
    """The parameter that ``FAMILY/MEMBER`` sets; none where the plugin is not a family."""
    if spec.member is None:
        if member:
            raise PluginError(
                f"{kind} {spec.name!r} has no members, so no '{spec.name}/{member}'; ask for "
                f"{spec.name!r}"
            )
        return {}
    members = _members(kind, spec)
    if not member:
        example = f"{spec.name}/{members[0] if members else 'MEMBER'}"
        raise PluginError(
            f"{kind} {spec.name!r} is a family; ask for one of it, such as {example!r}"
        )
    if members and member not in members:
        of_family = f"{spec.name} {kind}"
        if len(members) <= _LISTED_MEMBERS or nearest(member, members):
            raise UnknownNameError(of_family, member, members)
        advice = f"it has {len(members)} members, {members[0]!r} to {members[-1]!r}"
        raise UnknownNameError(of_family, member, (), advice)
    return {spec.member: member}


def _members(kind: Kind, spec: BackboneSpec | DatasetSpec) -> list[str]:
    """The members that a family lists, sorted; none where it lists none."""
    try:
        with guarded(libraries=not is_trusted(f"{kind} {spec.name!r}")):
            return sorted(spec.members()) if spec.members else []
    except MisconductError as error:
        raise PluginError(f"{kind} family {spec.name!r} {in_a_line(error)}") from error
    except Exception as error:
        raise PluginError(
            f"{kind} family {spec.name!r} cannot list its members: {cause(error)}; "
            "repair the plugin or what it imports"
        ) from error


def _conflict(offers: Sequence[Offer]) -> tuple[str, str]:
    """The reason and the advice where two plugins, or one twice, offer one name."""
    kind, spec, _ = offers[0]
    keys = sorted({offer.origin.key for offer in offers})
    by = " and ".join(keys) if len(keys) > 1 else f"{keys[0]}, {len(offers)} times"
    reason = f"{kind} {spec.name!r} is offered by {by}, so none of them is served"
    return reason, "rename one of them, or leave one plugin out"
