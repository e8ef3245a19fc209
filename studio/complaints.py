"""What pydantic complains of, in our words."""

from pydantic import ValidationError

from studio.redaction import redact

BOUNDS = {"greater_than": ("more than", "gt"), "greater_than_equal": ("at least", "ge"),
          "less_than": ("less than", "lt"), "less_than_equal": ("at most", "le")}


def problems_of(error: ValidationError) -> dict[str, str]:
    """Pydantic's complaints as ours, by field name: {"training.beta": "0 is out of range. Enter more than 0."}."""
    problems = {}
    for detail in error.errors():
        name = ".".join(str(part) for part in detail["loc"])
        kind, context, value = detail["type"], detail.get("ctx", {}), detail.get("input")
        if kind == "value_error" and not name:
            name, _, text = str(context["error"]).partition(": ")
        elif kind == "value_error":
            text = str(context["error"])
        elif kind in BOUNDS:
            words, bound = BOUNDS[kind]
            limit = context[bound]
            limit = int(limit) if isinstance(limit, float) and limit.is_integer() else limit
            text = f"{value} is out of range. Enter {words} {limit}."
        elif kind == "literal_error":
            text = f"{value} is not one of the choices. Choose {context['expected']}."
        elif kind == "extra_forbidden":
            text = "There is no such setting. Remove it."
        elif kind == "string_unicode":
            text = "This text holds half a character, which cannot be seen or kept. Type it by hand."
        elif kind in ("string_too_short", "missing") or value is None:
            text = "This is empty. Enter a value."
        else:
            text = f"{str(value)[:60]!r} does not fit here. {detail['msg'].replace('Input should be', 'Enter')}."
        problems[name] = redact(text)
    return problems
