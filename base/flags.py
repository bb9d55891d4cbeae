"""From a dataclass to flags and back: the only way that a command reads its settings (no torch).

A field of a dataclass is a flag. `setting` gives the field its default, its help text and its
limits, and every default is said there once. Precedence: default < named size < --config file.json
< flag. Unknown keys and unknown flags are errors. Nothing is read from the environment.

    @dataclass
    class Story:
        num_samples: int = setting(1, "texts to write", at_least=1)
        prompt: str | None = setting(None, "beginning of the text")

    parser = Parser(__doc__)
    parser.add_settings(Story)
    arguments = parser.parse_args(argv)
    story = resolve(Story, arguments)
"""

import argparse
import dataclasses
import difflib
import operator
import sys
import types
import typing

from base import __version__, files
from base.files import UserError

# The limits of a field: name, words for an error, the comparison that must hold. NaN fails all of
# them.
LIMITS = (
    ("at_least", "at least", operator.ge),
    ("at_most", "at most", operator.le),
    ("above", "above", operator.gt),
    ("below", "below", operator.lt),
)


def setting(
    default,
    help: str,
    *,
    at_least=None,
    at_most=None,
    above=None,
    below=None,
    choices=None,
    metavar: str | None = None,
    bare: str | None = None,
):
    """A dataclass field with its help text and its limits, which `check` enforces.

    choices: the values that are allowed, a tuple or a dict's keys. metavar: the word for the value
    in --help. bare: the value of a flag that is given without a value, such as `--resume`.
    """
    metadata = {
        "help": help,
        "at_least": at_least,
        "at_most": at_most,
        "above": above,
        "below": below,
        # A table's keys are choices too, so its names are said once.
        "choices": tuple(choices) if choices else None,
        "metavar": metavar,
        "bare": bare,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a field holds. plain: its type; optional: None is allowed too; many: a list of that
    type.
    """

    plain: type
    optional: bool = False
    many: bool = False

    def holds(self, value) -> bool:
        """Whether the value is of this kind. A bool is not an int here."""
        if value is None:
            return self.optional
        if self.many:
            single = Kind(self.plain)
            return isinstance(value, list) and all(single.holds(item) for item in value)
        if isinstance(value, bool):  # True is an int: --seed true in a file would mean 1
            return self.plain is bool
        return isinstance(value, self.plain)


def kind_of(field: dataclasses.Field) -> Kind:
    """The kind of a field: `int`, `str | None`, `list[str] | None` and the like."""
    annotation: typing.Any = field.type
    optional = False
    # Modules of settings do without `from __future__ import annotations`, which turns types into
    # text.
    if isinstance(annotation, types.UnionType):
        options = [option for option in annotation.__args__ if option is not types.NoneType]
        annotation, optional = options[0], True
    if typing.get_origin(annotation) is list:
        return Kind(typing.get_args(annotation)[0], optional, many=True)
    return Kind(annotation, optional)


def check(config) -> None:
    """Hold every field to its type, its choices and its limits. Raises UserError that names the
    flag.
    """
    for field in dataclasses.fields(config):
        kind, value = kind_of(field), getattr(config, field.name)
        # People write 1 for 1.0 in a JSON file.
        if kind.plain is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
            setattr(config, field.name, value)
        check_value(field, kind, value)


def check_value(field: dataclasses.Field, kind: Kind, value) -> None:
    """Hold one value to its field. Raises UserError."""
    limits = field.metadata
    flag = f"--{field.name} {value!r}" if isinstance(value, str) else f"--{field.name} {value}"
    if not kind.holds(value):
        raise UserError(flag, f"a value of type {kind.plain.__name__}", "correct it")
    if value is None:
        return
    if limits.get("choices") and value not in limits["choices"]:
        near = difflib.get_close_matches(str(value), limits["choices"], 1)
        do = f"did you mean {near[0]}?" if near else "choose one"
        raise UserError(flag, "one of " + ", ".join(limits["choices"]), do)
    for name, words, holds in LIMITS:
        bound = limits.get(name)
        if bound is not None and not holds(value, bound):
            raise UserError(flag, f"a value {words} {bound}", "choose such a value")


def to_dict(config) -> dict:
    """Plain values only: what goes into JSON files and checkpoints."""
    return dataclasses.asdict(config)


def from_dict(kind, values: dict, where: str = "the configuration"):
    """A dataclass from plain values. Raises UserError on a key that it does not have."""
    known = [field.name for field in dataclasses.fields(kind)]
    for key in values:
        if key not in known:
            # The dataclass would raise a TypeError, which a user sees as a traceback.
            raise unknown(f"the key {key!r} in {where}", key, known)
    return kind(**values)


def unknown(found: str, word: str, known: list[str]) -> UserError:
    """The error for a misspelt key or flag, with the nearest right spelling."""
    near = difflib.get_close_matches(word, known, 1)
    if near:
        return UserError(found, near[0], "correct the spelling")
    return UserError(found, "one of " + ", ".join(known), "choose one")


class Arguments(argparse.Namespace):
    """What was given on the command line. parser: what read it; vars() leaves it out."""

    # A slot is not in vars(): code that walks through the flags does not meet it.
    __slots__ = ("parser",)


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line in three parts, exact flag names, and a docstring as its
    help.
    """

    def __init__(self, doc: str):
        super().__init__(
            description=doc,
            allow_abbrev=False,  # an abbreviation breaks when a longer flag is added
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.groups: dict[str, list[str]] = {}
        self.defaults: dict[str, dict] = {}
        self.add_argument("--version", action="version", version=f"diffusion-llm {__version__}")

    def parse_args(self, argv=None, namespace=None):
        """Arguments with None for each setting that was not given; `parser` is this parser."""
        arguments = super().parse_args(argv, namespace or Arguments())
        arguments.parser = self
        return arguments

    # argparse would print its usage and exit. A wrong flag is an error like all others.
    def error(self, message: str) -> typing.NoReturn:
        known = [option for action in self._actions for option in action.option_strings]
        if not message.startswith("unrecognized arguments: "):
            raise UserError(message, "flags as --help lists them", "run again with --help")
        words = message.split(": ", 1)[1].split()
        flags = [word for word in words if word.startswith("-")]
        if flags:
            raise unknown(f"the flag {flags[0]}", flags[0].split("=")[0], known)
        word = words[0] if words else ""
        raise UserError(f"the extra word {word!r}", "flags only", "quote texts that hold spaces")

    def add_settings(self, kind, *, skip=(), said: dict | None = None, **defaults) -> None:
        """One flag for each field of the dataclass `kind`, but for those in `skip`.

        defaults: values that replace the fields' own, for `resolve` and for --help alike.
        said: the default in words where a value alone would be wrong, such as "the bundle's own".
        """
        # A dataclass needs a docstring: without it Python puts the signature in its place.
        title = kind.__doc__.split(".")[0].split(":")[0].strip()
        group = self.add_argument_group(title)
        fields = [field for field in dataclasses.fields(kind) if field.name not in skip]
        self.groups[kind.__name__] = [field.name for field in fields]
        self.defaults[kind.__name__] = defaults
        for field in fields:
            default = defaults.get(field.name, field.default)
            add_flag(group, field, (said or {}).get(field.name, default))


def add_flag(group, field: dataclasses.Field, default) -> None:
    """Add the flag of one field to a group of a parser. default: a value or words, for the help."""
    kind, about = kind_of(field), field.metadata
    words = about["help"]
    if default is not None and default is not False:
        # argparse's own %(default)s would print None, the default of every flag here.
        words = f"{words} (default {default})"
    # None means that the flag was not given, so a resumed run's own value holds.
    options: dict = {"default": None, "help": words.replace("%", "%%")}
    if kind.plain is bool:
        # --no-x can undo an x of a --config file or of a resumed run.
        group.add_argument(f"--{field.name}", action=argparse.BooleanOptionalAction, **options)
        return
    if kind.many:  # --x a b and --x a --x b are the same
        options |= {"nargs": "+", "action": "extend"}
    if about["bare"] is not None:
        options |= {"nargs": "?", "const": about["bare"]}
    name = about["metavar"] or "|".join(about["choices"] or [kind.plain.__name__.upper()])
    group.add_argument(f"--{field.name}", type=kind.plain, metavar=name, **options)


def resolve(kind, arguments: argparse.Namespace, *layers: dict):
    """The dataclass `kind` from its defaults, the parser's, each of `layers` in turn, then the
    flags.
    """
    names = {field.name for field in dataclasses.fields(kind)}
    values: dict = {}
    for layer in (arguments.parser.defaults.get(kind.__name__, {}), *layers):
        # A layer such as config.json also holds the keys of other dataclasses.
        values.update({key: value for key, value in layer.items() if key in names})
    values.update(given(kind, arguments))
    return kind(**values)


def given(kind, arguments: argparse.Namespace) -> dict:
    """The settings of the dataclass `kind` that were given as flags."""
    names = {field.name for field in dataclasses.fields(kind)}
    flags = vars(arguments)
    return {key: value for key, value in flags.items() if key in names and value is not None}


def read_config_file(path, parser: Parser) -> dict:
    """The settings in a JSON file (--config). Raises UserError on a key that no group of `parser`
    has.
    """
    if path is None:
        return {}
    what = "a JSON file with settings, such as a run folder's config.json"
    values = files.read_json(path, what, "check --config")
    known = [name for names in parser.groups.values() for name in names]
    for key in values:
        if key not in known:
            raise unknown(f"the key {key!r} in {path}", key, known)
    return values


def show(title: str, values: dict) -> None:
    """Print the resolved settings in one line."""
    line = "  ".join(f"{key}={value}" for key, value in values.items())
    print(f"{title}: {line}", file=sys.stderr)  # stdout holds results only


def numbers(flag: str, text: str) -> list[int]:
    """ "16,64" -> [16, 64]: the value of a flag that takes several counts. Raises UserError."""
    words = text.split(",")
    if not all(word.isdecimal() and int(word) for word in words):
        raise UserError(f"--{flag} {text}", "numbers with commas between them", "for example 16,64")
    return [int(word) for word in words]
