"""Whether what a command asks is what its verb takes: every argument there, known, of its kind, within its bounds."""

from gateway.errors import CommandError
from gateway.model import Argument, Command, Json, Verb


def check_arguments(command: Command, verb: Verb) -> None:
    """CommandError unless every argument is there, known, of its kind and within its bounds."""
    for name in command.args:
        if name not in verb.arguments:
            raise CommandError("unknown_argument", f"{command.do} on {command.on} has no argument {name}.")
    for name, argument in verb.arguments.items():
        if name in command.args:
            _check_argument(command.on, name, command.args[name], argument)
        elif not argument.optional:
            raise CommandError("missing_argument", f"{command.do} on {command.on} needs {name}.")


def _check_argument(on: str, name: str, value: Json, argument: Argument) -> None:
    if argument.choices:
        if value not in argument.choices:
            raise CommandError("unknown_choice", f"{on} takes {', '.join(argument.choices)}; {value} was asked.")
        return
    if argument.longest is not None:
        if not isinstance(value, str) or len(value) > argument.longest:
            raise CommandError("bad_argument", f"{name} is text of at most {argument.longest} characters.")
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise CommandError("bad_argument", f"{name} is a number; {value!r} was asked.")
    low, high, unit = argument.minimum, argument.maximum, argument.unit or ""
    if (low is not None and value < low) or (high is not None and value > high):
        code = "below_bound" if low is not None and value < low else "above_bound"
        bounds = (
            f"{low:g} to {high:g}"
            if low is not None and high is not None
            else f"at {'least' if high is None else 'most'} {low if high is None else high:g}"
        )
        raise CommandError(code, f"{on} takes {bounds} {unit}; {value:g} {unit} was asked.".replace(" ;", ";"))
