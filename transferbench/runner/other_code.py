"""Finished jobs that other code computed, under the version that a plugin has now.

Numbers of two codes are not mixed in the trials of an entry, nor in a diagnosis of it, unless that
is accepted: claims and boards compare them. Of a plugin that is installed it is said only: its
distribution may have changed elsewhere.
A dataset from a file is left out: its file is decoded again where it has changed, and the pixels
and labels are in the ids.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from transferbench.errors import PluginError, listing
from transferbench.plan import Plan
from transferbench.plan.plugins import codes_of, plugins_in
from transferbench.registry import Code, PluginCode, Registry

__all__ = ["CodeReport", "Codes", "Difference", "Mixture", "UsedCode", "differences", "report_code"]

Codes = Mapping[str, Code]
"""The code of each plugin that runs in a job, by its title."""
JobsByCode = dict[Code, list[str]]

LISTED = 5
"""Plugins that a note names."""


class UsedCode(PluginCode):
    """The code of a plugin of a run, with the version of the plugin that is in ids."""

    plugin: str
    version: int

    @property
    def title(self) -> str:
        """The plugin with its version."""
        return f"{self.plugin} (version {self.version})"


@dataclass(frozen=True)
class Difference:
    """Finished jobs that were computed by other code than there is now."""

    plugins: tuple[str, ...]
    jobs: frozenset[str]
    then: Code
    now: Code

    def __str__(self) -> str:
        text = (
            f"{len(self.jobs)} finished job(s) were computed by other code of "
            f"{listing(self.plugins, LISTED)} under the same version: by {self.then}, now "
            f"{self.now}; they are used as they are"
        )
        if self.now.loose:
            text += ": if the change moves numbers, raise the version, and they are computed again"
        return text


@dataclass(frozen=True)
class Mixture:
    """Jobs of one entry that are compared, and are of different codes of plugins.

    ``jobs``: that are or will be computed by each code. ``example``: the title of one.
    """

    plugins: tuple[str, ...]
    jobs: Mapping[Code, frozenset[str]]
    example: str
    accepted: bool

    @property
    def loose(self) -> bool:
        """Whether one of the codes is of a file."""
        return any(code.loose for code in self.jobs)

    def __str__(self) -> str:
        codes = ", ".join(f"{len(jobs)} job(s) by {code}" for code, jobs in self.jobs.items())
        accepted = ", as accepted" if self.accepted and self.loose else ""
        return (
            "the trials or a diagnosis of one entry mix numbers of different code of "
            f"{listing(self.plugins, LISTED)}{accepted}: {codes}; one of these jobs is "
            f"{self.example}"
        )


@dataclass(frozen=True)
class CodeReport:
    """The code of a plan: of its plugins, and what finished jobs were computed by instead.

    ``accepted``: the digests that may be mixed, by plugin.
    """

    plugins: tuple[UsedCode, ...]
    differences: tuple[Difference, ...]
    mixtures: tuple[Mixture, ...]
    accepted: Mapping[str, tuple[str, ...]]

    @cached_property
    def refused(self) -> list[Mixture]:
        """The mixtures that a run refuses."""
        return [mixture for mixture in self.mixtures if mixture.loose and not mixture.accepted]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        return (*map(str, self.differences), *self.mixture_notes)

    @property
    def mixture_notes(self) -> tuple[str, ...]:
        """What is mixed, and whether that is accepted."""
        return tuple(f"{mixture}; a run refuses the mixture without --accept-code"
                     if mixture in self.refused else str(mixture)
                     for mixture in self.mixtures)  # fmt: skip

    def refuse_mixtures(self) -> None:
        """Raise ``PluginError`` where numbers would be mixed that nobody accepted."""
        if self.refused:
            raise PluginError(
                f"{'; '.join(map(str, self.refused))}; nothing was computed: raise the plugin's "
                "version if the change moves numbers, or accept the mixture with --accept-code "
                "(accept_code=True)"
            )


def report_code(
    plan: Plan,
    finished: Mapping[str, Codes],
    registry: Registry,
    earlier: Mapping[str, tuple[str, ...]],
    *,
    accept: bool,
) -> CodeReport:
    """The code of ``plan`` beside that of its ``finished`` jobs.

    ``earlier``: what was accepted in the run before. ``accept``: whatever is mixed now.
    """
    jobs = plan.jobs
    uses = {
        name: plugins_in(job.payload, (jobs[s].payload for s in job.payload.get("subjects", ())))
        for name, job in jobs.items()
    }
    every = {use.title: use for own in uses.values() for use in own}
    now = {
        title: UsedCode(plugin=title, version=every[title].version, **dict(code))
        for title, code in codes_of(every.values(), registry).items()
        if not (code.loose and every[title].kind == "dataset")
    }
    codes = {title: used.code for title, used in now.items()}
    mixed = _mixed(plan, {
        name: {title: code for title, code in finished[name].items() if title in codes}
        if name in finished
        else {use.title: codes[use.title] for use in own if use.title in codes}
        for name, own in uses.items()
    })  # fmt: skip
    digests = {title: {code.sha256 for code in jobs_by} for title, jobs_by in mixed.items()}
    accepted = dict(earlier)
    if accept:
        accepted |= {title: tuple(sorted(mixable)) for title, mixable in digests.items()}
    refused = {title for title in digests if not digests[title] <= set(accepted.get(title, ()))}
    mixtures = _mixtures(plan, {now[title].title: jobs_by for title, jobs_by in mixed.items()},
                         {now[title].title for title in refused})  # fmt: skip
    return CodeReport(tuple(now.values()), differences(finished, now), mixtures, accepted)


def differences(
    finished: Mapping[str, Codes], now: Mapping[str, UsedCode]
) -> tuple[Difference, ...]:
    """What ``finished`` jobs were computed by that is not the code of ``now``."""
    jobs: defaultdict[tuple[Code, Code], set[str]] = defaultdict(set)
    plugins: defaultdict[tuple[Code, Code], set[str]] = defaultdict(set)
    codes = {title: used.code for title, used in now.items()}
    for job, own in finished.items():
        for title, then in own.items():
            if title in codes and then.sha256 != codes[title].sha256:
                jobs[then, codes[title]].add(job)
                plugins[then, codes[title]].add(now[title].title)
    return tuple(
        Difference(tuple(sorted(plugins[change])), frozenset(jobs[change]), *change)
        for change in sorted(jobs, key=str)
    )


def _mixed(plan: Plan, codes: Mapping[str, Codes]) -> dict[str, JobsByCode]:
    """By plugin, the jobs of groups that mix its codes; ``codes``: of each job, by plugin."""
    digests: defaultdict[str, set[str]] = defaultdict(set)
    for own in codes.values():
        for title, code in own.items():
            digests[title].add(code.sha256)
    contested = sorted(title for title, values in digests.items() if len(values) > 1)
    groups = _groups(plan) if contested else []
    mixed: dict[str, JobsByCode] = {}
    for title in contested:
        own_groups = ([job for job in group if title in codes[job]] for group in groups)
        jobs = chain.from_iterable(
            group for group in own_groups if len({codes[job][title].sha256 for job in group}) > 1
        )
        for job in dict.fromkeys(jobs):  # one may be in several groups
            mixed.setdefault(title, {}).setdefault(codes[job][title], []).append(job)
    return mixed


def _mixtures(
    plan: Plan, mixed: Mapping[str, JobsByCode], refused: Collection[str]
) -> tuple[Mixture, ...]:
    """What is ``mixed``, one for all plugins of the same codes; ``refused``: not accepted."""
    alike: defaultdict[tuple[bool, frozenset[Code]], list[str]] = defaultdict(list)
    for title, jobs_by in mixed.items():
        alike[title in refused, frozenset(jobs_by)].append(title)
    mixtures = []
    for (is_refused, _), titles in alike.items():
        first = mixed[titles[0]]
        jobs = {code: frozenset(chain.from_iterable(mixed[title][code] for title in titles))
                for code in first}  # fmt: skip
        example = plan.jobs[next(job for own in first.values() for job in own)].title
        mixtures.append(Mixture(tuple(titles), jobs, example, not is_refused))
    return tuple(mixtures)


def _groups(plan: Plan) -> list[dict[str, None]]:
    """The jobs whose numbers are compared: the trials of an entry, and each diagnosis of them."""
    groups: defaultdict[tuple[str, ...], dict[str, None]] = defaultdict(dict)
    for cell in plan.cells:
        groups[cell.entry,] |= dict.fromkeys(_with_requirements(cell.job, plan))
    for diagnosis in plan.measured:
        key = (diagnosis.diagnostic, diagnosis.a.entry)
        groups[key] |= dict.fromkeys(_with_requirements(diagnosis.job, plan))
    return list(groups.values())


def _with_requirements(job: str, plan: Plan) -> Iterator[str]:
    yield job
    for need in plan.jobs[job].requires:
        yield from _with_requirements(need, plan)
