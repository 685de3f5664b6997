"""Finished jobs that other code computed, under the version that a plugin has now.

Numbers of two codes are not mixed in one cell, nor measured together, unless that is accepted. Of a
plugin that is installed it is said only: its distribution may have changed elsewhere.
A data set from a file is left out: its file is decoded again where it has changed, and the pixels
and labels are in the ids.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from transferbench.errors import PluginError, listing
from transferbench.plan import Plan
from transferbench.plan.plugins import codes_of, plugins_in
from transferbench.registry import Code, PluginCode, Registry

__all__ = ["CodeReport", "Codes", "Difference", "Mixture", "UsedCode", "differences", "report_code"]

Codes = Mapping[str, Code]
"""The code of each plugin that runs in a job, by its title."""

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
    """Jobs of one cell, or measured together, that are of different codes of a plugin.

    ``jobs``: how many are or will be computed by each code. ``example``: the title of one.
    """

    plugin: str
    jobs: Mapping[Code, int]
    example: str
    accepted: bool

    @property
    def loose(self) -> bool:
        """Whether one of the codes is of a file."""
        return any(code.loose for code in self.jobs)

    def __str__(self) -> str:
        codes = ", ".join(f"{count} job(s) by {code}" for code, count in self.jobs.items())
        accepted = ", as accepted" if self.accepted and self.loose else ""
        return (
            f"one cell mixes numbers of different code of {self.plugin}{accepted}: {codes}, such as"
            f" {self.example}"
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
        return tuple(f"{mixture}; a run refuses it without --accept-code"
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
    codes = {
        name: finished.get(name, {use.title: now[use.title] for use in own if use.title in now})
        for name, own in uses.items()
    }
    mixed = _mixed(plan, codes, now)
    accepted = dict(earlier)
    if accept:
        accepted |= {title: tuple(sorted({code.sha256 for code in jobs_by}))
                     for title, (jobs_by, _) in mixed.items()}  # fmt: skip
    mixtures = tuple(
        Mixture(now[title].title, by, example,
                {code.sha256 for code in by} <= set(accepted.get(title, ())))
        for title, (by, example) in mixed.items()
    )  # fmt: skip
    return CodeReport(tuple(now.values()), differences(finished, now), mixtures, accepted)


def differences(
    finished: Mapping[str, Codes], now: Mapping[str, UsedCode]
) -> tuple[Difference, ...]:
    """What ``finished`` jobs were computed by that is not the code of ``now``."""
    jobs: defaultdict[tuple[Code, Code], set[str]] = defaultdict(set)
    plugins: defaultdict[tuple[Code, Code], set[str]] = defaultdict(set)
    for job, codes in finished.items():
        for title, then in codes.items():
            if title in now and then.sha256 != now[title].sha256:
                change = then, now[title].code
                jobs[change].add(job)
                plugins[change].add(now[title].title)
    return tuple(
        Difference(tuple(sorted(plugins[change])), frozenset(jobs[change]), *change)
        for change in sorted(jobs, key=str)
    )


def _mixed(
    plan: Plan, codes: Mapping[str, Codes], now: Mapping[str, UsedCode]
) -> dict[str, tuple[dict[Code, int], str]]:
    """By plugin, the jobs of mixed groups that each code computes, and the title of one of them."""
    digests: defaultdict[str, set[str]] = defaultdict(set)
    for own in codes.values():
        for title in own.keys() & now.keys():
            digests[title].add(own[title].sha256)
    contested = sorted(title for title, values in digests.items() if len(values) > 1)
    groups = _groups(plan) if contested else []
    mixed: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for title in contested:
        for group in groups:
            own_jobs = [job for job in group if title in codes[job]]
            if len({codes[job][title].sha256 for job in own_jobs}) > 1:
                mixed[title] |= dict.fromkeys(own_jobs)
    return {
        title: (Counter(codes[job][title].code for job in own), plan.jobs[next(iter(own))].title)
        for title, own in mixed.items()
    }


def _groups(plan: Plan) -> list[dict[str, None]]:
    """The jobs whose numbers stand together: the replicates of a cell, with what they require."""
    groups: defaultdict[tuple[str | None, ...], dict[str, None]] = defaultdict(dict)
    for cell in plan.cells:
        groups[cell[1:5]] |= dict.fromkeys(_with_requirements(cell.job, plan))
    for diagnosis in plan.measured:
        other = diagnosis.b and diagnosis.b.initialization
        key = (diagnosis.diagnostic, *diagnosis.a[1:5], other)
        groups[key] |= dict.fromkeys(_with_requirements(diagnosis.job, plan))
    return list(groups.values())


def _with_requirements(job: str, plan: Plan) -> Iterator[str]:
    yield job
    for need in plan.jobs[job].requires:
        yield from _with_requirements(need, plan)
