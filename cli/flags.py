"""From dataclasses to the flags of a command: one flag for each field, written down once.

A command takes a group of options as one parameter, and `with_flags` replaces that parameter by the flags of the group.
Three kinds of parameters are groups:

- a dataclass whose fields carry `typer.Option`, as in cli/options.py. The command gets an instance of it;
- `Annotated[SomeLimits, FlagsOf(...)]`, a dataclass of another room. The help of a flag is the text of the field in the
  section "Attributes" of the docstring. The command gets an instance of it;
- `Annotated[dict[str, Any], FlagsOf(SomeConfig, ...)]`, the settings of a recipe. Help and ranges come from the config.
  The command gets the settings that were typed, so that a file can give the others.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

from ..training.config import Config, attribute_texts, settings_of

#: A default with more characters than this is rounded in `--help`.
_LONG = 8


@dataclass(frozen=True)
class FlagsOf:
    """Marks a parameter of a command that stands for the fields of a dataclass.

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


@dataclass(frozen=True)
class _Group:
    """One parameter of a command, and the flags that stand for it.

    Attributes:
        flags: one parameter for each flag, by field.
        gather: from the values of the fields, and the fields that were typed, to the value of the parameter.
    """

    flags: dict[str, inspect.Parameter]
    gather: Callable[[dict[str, Any], set[str]], Any]


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one flag for each field of its groups of options.

    Args:
        command: its parameters are groups, or carry `typer.Option` or `typer.Argument` as typer expects it.

    Returns:
        The command as typer should see it.
    """
    context_parameter = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters, groups = [context_parameter], {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        group = _group(parameter.annotation)
        if group is None:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        else:
            groups[parameter.name] = group
            parameters += group.flags.values()

    @functools.wraps(command)
    def run(context: typer.Context, **values: Any) -> None:
        for name, group in groups.items():
            typed = {item for item, flag in group.flags.items() if _is_typed(context, flag.name)}
            values[name] = group.gather({item: values.pop(flag.name) for item, flag in group.flags.items()}, typed)
        command(**values)

    # typer reads both of these, and does not look at the command that is wrapped.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _group(annotation: Any) -> _Group | None:
    """The group that a parameter's annotation means, if any."""
    marker = next((part for part in get_args(annotation)[1:] if isinstance(part, FlagsOf)), None)
    if marker is not None:
        if marker.config is not None:
            return _Group(_flags_of_config(marker.config, marker), _typed_settings)
        group = get_args(annotation)[0]
        return _Group(_flags_of_fields(group, marker), lambda values, _: group(**values))
    if isinstance(annotation, type) and is_dataclass(annotation):
        hints = get_type_hints(annotation, include_extras=True)
        flags = {item.name: _flag(item.name, hints[item.name], item.default) for item in fields(annotation)}
        return _Group(flags, lambda values, _: annotation(**values))
    return None


def _flags_of_config(config: type[Config], marker: FlagsOf) -> dict[str, inspect.Parameter]:
    return {
        setting.name: _described_flag(
            setting.name, setting.type, setting.default, _with_range(setting.help, setting.expected), marker
        )
        for setting in settings_of(config)
        if setting.name not in marker.without
    }


def _flags_of_fields(group: type[Any], marker: FlagsOf) -> dict[str, inspect.Parameter]:
    hints, texts = get_type_hints(group), attribute_texts(group)
    return {
        item.name: _described_flag(item.name, hints[item.name], item.default, _sentence(texts[item.name]), marker)
        for item in fields(group)
        if item.name not in marker.without
    }


def _described_flag(name: str, annotation: Any, default: Any, text: str, marker: FlagsOf) -> inspect.Parameter:
    """A flag with this help; a field that ends in "_s" holds seconds, and its flag says so elsewhere."""
    flag = marker.renamed.get(name, "--" + name.removesuffix("_s").replace("_", "-"))
    option = typer.Option(
        f"{flag}/--no-{flag[2:]}" if annotation is bool else flag,
        metavar="SECONDS" if name.endswith("_s") else None,
        show_default=f"{default:.3g}" if isinstance(default, float) and len(str(default)) > _LONG else True,
        help=text,
        rich_help_panel=marker.panels.get(name, marker.panel),
    )
    parameter = flag[2:].replace("-", "_") if name in marker.renamed else name
    default = list(default) if isinstance(default, tuple) else default
    return _flag(parameter, Annotated[_typer_type(annotation), option], default)


def _flag(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if default is MISSING else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _with_range(text: str, expected: str) -> str:
    """The help of a setting, and the range of a number: "8 to 512", "1 or more", "above 0"."""
    match = re.fullmatch(r"a (?:whole )?number (.*?)(?:, or None)?", expected)
    if match is None:
        return text
    bounds = re.sub(r"^from (\S+)(?= and|$)", r"\1 or more", match[1])
    return f"{text} Range: {bounds.removeprefix('from ')}."


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:].removesuffix(".") + "."


def _typer_type(annotation: Any) -> Any:
    """The type that typer takes for a setting's type: a tuple of strings is a flag that can be repeated."""
    parts = get_args(annotation) if get_origin(annotation) in {Union, UnionType} else (annotation,)
    (kind,) = (list[str] if get_origin(part) is tuple else part for part in parts if part is not NoneType)
    return kind | None if NoneType in parts else kind


def _is_typed(context: typer.Context, flag: str) -> bool:
    source = context.get_parameter_source(flag)
    return source is not None and not source.name.startswith("DEFAULT")


def _typed_settings(values: dict[str, Any], typed: set[str]) -> dict[str, Any]:
    """The settings that were typed; a flag that was repeated becomes a tuple."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if name in typed}
