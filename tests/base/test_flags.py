"""Flags from dataclasses: one default, limits in the field, errors that suggest the right spelling."""

from dataclasses import dataclass

import pytest

from base import __version__, flags
from base.files import UserError, write_json
from base.flags import setting


@dataclass
class Meal:
    """What to cook. For whom is not asked."""

    plates: int = setting(2, "plates", at_least=1)
    salt: float = setting(0.5, "share of salt", above=0, below=1)
    course: str = setting("soup", "what it is", choices=("soup", "salad"))
    guest: str | None = setting(None, "who comes")
    extras: list[str] | None = setting(None, "on the side")
    warm: bool = setting(False, "heat it")
    again: str | None = setting(None, "repeat a meal", bare="yesterday's")

    def __post_init__(self):
        flags.check(self)


def read(*words, layers=(), **defaults) -> Meal:
    parser = flags.Parser("Cook.")
    parser.add_settings(Meal, **defaults)
    return flags.resolve(Meal, parser.parse_args(list(words)), *layers)


def test_the_order_of_defaults():
    assert read() == Meal()
    assert read(plates=3).plates == 3
    assert read(plates=3, layers=[{"plates": 4, "unknown": 1}]).plates == 4
    assert read("--plates", "5", plates=3, layers=[{"plates": 4}]).plates == 5


def test_kinds_of_fields():
    meal = read("--guest", "Ann", "--extras", "rice", "beans", "--warm", "--salt", "0.25")
    assert (meal.guest, meal.extras, meal.warm, meal.salt) == ("Ann", ["rice", "beans"], True, 0.25)
    assert read("--no-warm", warm=True).warm is False
    assert read("--again").again == "yesterday's" and read("--again", "old").again == "old"


@pytest.mark.parametrize(
    "words, message",
    [
        (["--plates", "0"], "--plates 0; expected a value at least 1"),
        (["--salt", "nan"], "--salt nan; expected a value above 0"),
        (["--salt", "1"], "below 1"),
        (["--course", "soop"], "did you mean soup"),
        (["--plats", "3"], "expected --plates; correct the spelling"),
        (["soup"], "the extra word 'soup'"),
        (["--plates", "x"], "invalid int value"),
    ],
)
def test_refusals(words, message):
    with pytest.raises(UserError, match=message):
        read(*words)


def test_help_tells_the_true_default(capsys):
    parser = flags.Parser("Cook.")
    parser.add_settings(Meal, plates=7, said={"salt": "the cook's own"})
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "(default 7)" in text and "(default the cook's own)" in text


def test_what_was_given():
    parser = flags.Parser("Cook.")
    parser.add_settings(Meal)
    assert flags.given(Meal, parser.parse_args(["--plates", "2"])) == {"plates": 2}


def test_a_file_of_settings(tmp_path):
    parser = flags.Parser("Cook.")
    parser.add_settings(Meal)
    write_json(tmp_path / "a.json", {"plates": 9})
    assert flags.read_config_file(tmp_path / "a.json", parser) == {"plates": 9}
    write_json(tmp_path / "a.json", {"plats": 9})
    with pytest.raises(UserError, match="the key 'plats'.*expected plates"):
        flags.read_config_file(tmp_path / "a.json", parser)


def test_plain_values_and_back():
    meal = Meal(plates=4)
    assert flags.from_dict(Meal, flags.to_dict(meal)) == meal
    with pytest.raises(UserError, match="the key 'plats'"):
        flags.from_dict(Meal, {"plats": 1})
    with pytest.raises(UserError, match="a value of type int"):
        Meal(plates=True)


def test_every_command_tells_its_version(capsys):
    with pytest.raises(SystemExit):
        flags.Parser("Cook.").parse_args(["--version"])
    assert capsys.readouterr().out.strip() == f"diffusion-llm {__version__}"
