"""One command with several jobs, such as evaluate.py: each job has flags of its own (no torch).

Two jobs may share a flag by its name, each with its own default. --help groups the flags by the
jobs that take them, and tells each job's default. A flag of another job is refused.
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from base import flags
from base.files import UserError


@dataclass(frozen=True)
class Group:
    """A dataclass whose fields are flags of a job.

    defaults: replace the fields' own. skip: fields that are no flags.
    """

    kind: type
    defaults: dict = dataclasses.field(default_factory=dict)
    skip: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """A job: its name in --help, its groups of flags, and the function that does it."""

    name: str
    groups: tuple[Group, ...]
    work: Callable

    def fields(self) -> dict[str, tuple[dataclasses.Field, object]]:
        """The job's flags by name: the field, and the default."""
        result = {}
        for group in self.groups:
            for field in dataclasses.fields(group.kind):
                if field.name not in group.skip:
                    default = group.defaults.get(field.name, field.default)
                    result[field.name] = (field, default)
        return result

    def settings(self, arguments: argparse.Namespace) -> list:
        """One dataclass per group: defaults, then the flags. Raises UserError on a bad value."""
        return [flags.resolve(group.kind, arguments, group.defaults) for group in self.groups]


def add_jobs(parser: flags.Parser, jobs: Iterable[Job]) -> None:
    """One flag per name, in a group of the jobs that take it."""
    # argparse refuses a second flag of the same name, so shared flags are collected first.
    takers: dict[str, list[Job]] = {}
    for job in jobs:
        for name in job.fields():
            takers.setdefault(name, []).append(job)
    groups: dict[str, object] = {}
    for name, its_jobs in takers.items():
        title = "flags for " + ", ".join(job.name for job in its_jobs)
        # argparse would make a second group of the same title.
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        # Help shows the first job's words. `settings` checks each job's own limits.
        field, default = its_jobs[0].fields()[name]
        flags.add_flag(groups[title], field, default_words(name, its_jobs, default))


def default_words(name: str, jobs: list[Job], default):
    """A flag's default for --help; where the jobs differ, in words: "text: 1.0; caption: 0.0"."""
    defaults = {job.name: job.fields()[name][1] for job in jobs}
    if all(other == default for other in defaults.values()):
        return default
    # A single value would be wrong for the other jobs.
    return "; ".join(f"{job}: {value}" for job, value in defaults.items())


def refuse_foreign(arguments, jobs: list[Job], every_job: list[Job], where: str) -> None:
    """Raise UserError on a flag that was given and that belongs to other jobs than `jobs`.

    where: what was asked for, such as "for a text checkpoint".
    """
    # A flag that nobody reads would look as if it had worked.
    known = {name for job in jobs for name in job.fields()}
    for name, value in vars(arguments).items():
        # No takers: the flag belongs to the script, not to a job.
        takers = [job.name for job in every_job if name in job.fields()]
        if value is not None and takers and name not in known:
            raise UserError(
                f"--{name} {where}",
                f"flags of this job; --{name} is for {', '.join(takers)}",
                f"drop --{name}, or score something else",
            )


def for_kind(kind: str) -> str:
    """Where a flag was given: "for a text checkpoint", "for an image checkpoint"."""
    article = "an" if kind[0] in "aeiou" else "a"
    return f"for {article} {kind} checkpoint"
