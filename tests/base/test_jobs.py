"""Several jobs behind one command: shared flags with defaults of their own, foreign flags refused."""

from dataclasses import dataclass

import pytest

from base import flags
from base.files import UserError
from base.flags import setting
from base.jobs import Group, Job, add_jobs, refuse_foreign


@dataclass
class Heat:
    """Settings that both jobs take."""

    warmth: float = setting(1.0, "how warm", at_least=0)
    secret: int = setting(3, "no flag of the second job")

    def __post_init__(self):
        flags.check(self)


@dataclass
class Boiling:
    """Settings of the second job alone."""

    minutes: int = setting(4, "how long")

    def __post_init__(self):
        flags.check(self)


BAKE = Job("baking", (Group(Heat),), work=None)
BOIL = Job("boiling", (Group(Heat, {"warmth": 0.5}, ("secret",)), Group(Boiling)), work=None)
JOBS = [BAKE, BOIL]


def parse(*words: str):
    parser = flags.Parser("Cook.")
    add_jobs(parser, JOBS)
    return parser.parse_args(list(words))


def test_each_job_has_its_own_default_until_the_flag_is_given():
    assert BAKE.settings(parse()) == [Heat(warmth=1.0)]
    assert BOIL.settings(parse()) == [Heat(warmth=0.5), Boiling(4)]
    given = parse("--warmth", "2")
    assert BAKE.settings(given)[0].warmth == BOIL.settings(given)[0].warmth == 2
    with pytest.raises(UserError, match="--warmth -1"):
        BOIL.settings(parse("--warmth", "-1"))


def test_a_flag_of_another_job_is_refused():
    given = parse("--minutes", "9", "--warmth", "2")
    refuse_foreign(given, [BOIL], JOBS, "for boiling")
    with pytest.raises(UserError, match="--minutes for baking; expected .* is for boiling"):
        refuse_foreign(given, [BAKE], JOBS, "for baking")
    with pytest.raises(UserError, match="--secret for boiling"):  # a field that is skipped
        refuse_foreign(parse("--secret", "1"), [BOIL], JOBS, "for boiling")


def test_help_groups_the_flags_and_tells_each_default(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = capsys.readouterr().out
    assert "flags for baking, boiling" in text and "flags for boiling" in text
    assert "baking: 1.0; boiling: 0.5" in " ".join(text.split())
