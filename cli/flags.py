"""From dataclasses to the arguments and flags of a command, each written down once.

A command takes groups of options as its parameters. `with_flags` replaces each parameter by one flag for each field of
its group. The help of a flag is the entry of the field in the section "Attributes" of the docstring. There are three
kinds of groups:

- a subclass of `Options`, as in cli/options.py. `Annotated[type, Flag(...)]` says what else typer has to know of a
  field. The command gets an instance;
- `Annotated[SomeLimits, FlagsOf(...)]`, a dataclass of another room. The command gets an instance;
- `Annotated[dict[str, Any], FlagsOf(SomeConfig, ...)]`, the settings of a recipe. The command gets the settings that
  were typed, so that a file can give the others.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin, get_type_hints

import typer
from rich.markup import escape

from ..training.config import Config, attribute_texts, settings_of
from .terminal import on_interrupt

#: A default with more characters than this is rounded in `--help`.
_LONG = 8


class Options:
    """The base of groups of options: frozen dataclasses with one field for each option.

    Attributes:
        HEADING: heading of `--help` above the flags.
    """

    HEADING: ClassVar[str] = "Options"


@dataclass(frozen=True)
class Flag:
    """What typer has to know of a field beside its name, type, default and help.

    Attributes:
        name: the flag, where it is not called as the field.
        short: a flag of one letter.
        metavar: stands for the value in `--help`.
        least: smallest value.
        most: largest value.
        panel: heading of `--help`, where it is not that of the group.
        is_argument: the value is given by its place on the command line, not by a flag.
        can_be_negated: a flag of True or False has a twin that begins with "no".
    """

    name: str | None = None
    short: str | None = None
    metavar: str | None = None
    least: float | None = None
    most: float | None = None
    panel: str | None = None
    is_argument: bool = False
    can_be_negated: bool = False


@dataclass(frozen=True)
class FlagsOf:
    """Marks a parameter of a command that stands for the fields of a dataclass of another room.

    Attributes:
        config: the settings of a recipe; None: the parameter's own type has the fields.
        panel: heading of `--help` above the flags.
        panels: other headings, by field.
        renamed: flags by field, for fields whose flag has another name.
        without: fields that have no flag.
    """

    config: type[Config] | None = None
    panel: str = "Training"
    panels: Mapping[str, str] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()

    def flag(self, name: str) -> Flag:
        """The flag of a field; a field that ends in "_s" holds seconds."""
        seconds = name.endswith("_s")
        return Flag(
            name=self.renamed.get(name, "--" + name[:-2].replace("_", "-") if seconds else None),
            metavar="SECONDS" if seconds else None,
            panel=self.panels.get(name, self.panel),
            can_be_negated=True,
        )


@dataclass(frozen=True)
class _Group:
    """One parameter of a command, and the flags that stand for it.

    Attributes:
        flags: one parameter of typer's for each flag, by field.
        gather: from the values of the fields, and the fields that were typed, to the value of the parameter.
    """

    flags: dict[str, inspect.Parameter]
    gather: Callable[[dict[str, Any], set[str]], Any]


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags of its groups of options.

    Args:
        command: each of its parameters is a group.

    Returns:
        The command as typer should see it.
    """
    parameters = [inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
    signature = inspect.signature(command, eval_str=True)
    groups = {parameter.name: _group(parameter.annotation) for parameter in signature.parameters.values()}
    for group in groups.values():
        parameters += group.flags.values()

    @functools.wraps(command)
    def run(context: typer.Context, **values: Any) -> None:
        gathered = {}
        for name, group in groups.items():
            typed = {item for item, flag in group.flags.items() if _is_typed(context, flag.name)}
            gathered[name] = group.gather({item: values[flag.name] for item, flag in group.flags.items()}, typed)
        with on_interrupt("nothing was written"):
            command(**gathered)

    # typer would keep the line breaks of the source; the paragraphs are those of the terminal.
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    run.__doc__ = escape("\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs))  # 'x[y]' is no markup
    # typer reads both of these, and does not look at the command that is wrapped.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _group(annotation: Any) -> _Group:
    """The group that a parameter's annotation means."""
    marker = next((part for part in get_args(annotation)[1:] if isinstance(part, FlagsOf)), None)
    if marker is not None and marker.config is not None:
        return _Group(_flags_of_config(marker.config, marker), _typed_settings)
    group = annotation if marker is None else get_args(annotation)[0]
    return _Group(_flags_of_fields(group, marker), lambda values, _: group(**values))


def _flags_of_config(config: type[Config], marker: FlagsOf) -> dict[str, inspect.Parameter]:
    return {
        setting.name: _parameter(
            setting.name,
            setting.type,
            setting.default,
            _with_range(setting.help, setting.expected),
            marker.flag(setting.name),
        )
        for setting in settings_of(config)
        if setting.name not in marker.without
    }


def _flags_of_fields(group: type[Any], marker: FlagsOf | None) -> dict[str, inspect.Parameter]:
    flags = {}
    hints, texts = get_type_hints(group, include_extras=True), attribute_texts(group)
    for item in fields(group):
        kind, *extras = get_args(hints[item.name]) if get_origin(hints[item.name]) is Annotated else (hints[item.name],)
        flag = marker.flag(item.name) if marker else next((part for part in extras if isinstance(part, Flag)), Flag())
        if flag.panel is None and not flag.is_argument:
            flag = replace(flag, panel=group.HEADING)
        flags[item.name] = _parameter(item.name, kind, item.default, _sentence(texts[item.name]), flag)
    return flags


def _parameter(name: str, kind: Any, default: Any, text: str, flag: Flag) -> inspect.Parameter:
    """A parameter as typer takes it. It is called as the field, or as the flag where that has another name."""
    flag_name = flag.name or "--" + name.replace("_", "-")
    bounds: dict[str, Any] = {"min": flag.least, "max": flag.most, "metavar": flag.metavar, "help": text}
    if flag.is_argument:
        info = typer.Argument(**bounds)
    else:
        negated = f"/--no-{flag_name[2:]}" if kind is bool and flag.can_be_negated else ""
        is_long = isinstance(default, float) and len(str(default)) > _LONG
        info = typer.Option(
            flag_name + negated,
            *([flag.short] if flag.short else []),
            **bounds,
            show_default=f"{default:.3g}" if is_long else True,
            rich_help_panel=flag.panel,
        )
    default = inspect.Parameter.empty if default is MISSING else default
    return inspect.Parameter(
        flag_name[2:].replace("-", "_") if flag.name else name,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[_typer_type(kind), info],
        default=list(default) if isinstance(default, tuple) else default,
    )


def _with_range(text: str, expected: str) -> str:
    """The help of a setting, and the range of a number: "8 to 512", "1 or more", "above 0"."""
    match = re.fullmatch(r"a (?:whole )?number (.*?)(?:, or None)?", expected)
    if match is None:
        return text
    bounds = re.sub(r"^from (\S+)(?= and|$)", r"\1 or more", match[1])
    return f"{text} Range: {bounds.removeprefix('from ')}."


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:].removesuffix(".") + "."


def _typer_type(kind: Any) -> Any:
    """The type that typer takes for a field's type: a tuple of strings is a flag that can be repeated."""
    parts = get_args(kind) if get_origin(kind) in {Union, UnionType} else (kind,)
    (one,) = (list[str] if get_origin(part) is tuple else part for part in parts if part is not NoneType)
    return one | None if NoneType in parts else one


def _is_typed(context: typer.Context, flag: str) -> bool:
    source = context.get_parameter_source(flag)
    return source is not None and not source.name.startswith("DEFAULT")


def _typed_settings(values: dict[str, Any], typed: set[str]) -> dict[str, Any]:
    """The settings that were typed; a flag that was repeated becomes a tuple."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if name in typed}
