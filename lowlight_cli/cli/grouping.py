"""Options that belong together, taken by a command as one parameter."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command as Typer wants it, an option a parameter; `command` itself takes them in groups.

    A group is a dataclass that a parameter is annotated with. Its fields are options, written like those of any
    command: an annotated type of `options` and a default.

        @dataclass(frozen=True)
        class Look:
            strength: opt.Strength = Tone.strength
            exposure: opt.Exposure = Tone.exposure

        @grouped
        def enhance(*, inputs: opt.Inputs = None, look: Look) -> None: ...

    Typer sees, and calls, `enhance(*, inputs=None, strength=1.0, exposure=0.0)`: the fields stand where the group
    stood, so `--help` is that of a command which names them all. The function is given `look=Look(...)`.

    Raises ValueError where two options have one name.
    """
    signature = inspect.signature(command)
    kinds = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    groups = {name: kind for name, kind in kinds.items() if isinstance(kind, type) and is_dataclass(kind)}
    options: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        options += _options_of(groups[name]) if name in groups else [parameter]

    @wraps(command)
    def ungrouped(**given: object) -> None:
        made = {
            name: group(**{each.name: given.pop(each.name) for each in fields(group)}) for name, group in groups.items()
        }
        command(**made, **given)

    # Typer asks `inspect.signature` for the parameters, and that prefers this attribute to the code.
    ungrouped.__signature__ = signature.replace(parameters=options)  # type: ignore[attr-defined]
    return ungrouped


def _options_of(group: type) -> list[inspect.Parameter]:
    return [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if each.default is MISSING else each.default,
            annotation=each.type,
        )
        for each in fields(group)
    ]
