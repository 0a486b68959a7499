"""Every public callable says what it takes: by annotations, and in its docstring."""

import importlib
import inspect
import re
from importlib.util import find_spec

import sklearn_probmix
from tests.test_architecture import FILES, NEEDS

MODULES = [
    importlib.import_module(f"sklearn_probmix.{name}")
    for name in FILES
    if name[0] != "_" and (name not in NEEDS or find_spec(NEEDS[name]))
]


def public_callables():
    """Yield a name, a function, the docstring that speaks of it, and whether it must."""
    for module in MODULES:
        for name, made in vars(module).items():
            if name.startswith("_") or getattr(made, "__module__", None) != module.__name__:
                continue
            place, is_exported = f"{module.__name__}.{name}", name in sklearn_probmix.__all__
            if inspect.isfunction(made):
                yield place, made, made.__doc__, is_exported
            members = vars(made) if inspect.isclass(made) else {}
            for member, raw in members.items():
                function = raw.fget if isinstance(raw, property) else inspect.unwrap(raw)
                function = getattr(function, "__func__", function)
                if member == "__init__" and function.__module__ == module.__name__:
                    yield place, function, made.__doc__, is_exported
                elif not (
                    member.startswith("_")
                    or not inspect.isfunction(function)
                    # Put there by the library that the class is for.
                    or not function.__module__.startswith("sklearn_probmix.")
                ):
                    # What a class above describes need not be described again.
                    is_new = not any(hasattr(base, member) for base in made.__mro__[1:])
                    yield f"{place}.{member}", function, function.__doc__, is_exported and is_new


CALLABLES = {name: rest for name, *rest in public_callables()}


def parameters_of(function):
    parameters = inspect.signature(function).parameters.values()
    return [parameter for parameter in parameters if parameter.name not in ("self", "cls")]


def test_parameters_and_returns_are_annotated():
    bare = {}
    for name, (function, *_) in CALLABLES.items():
        missing = [p.name for p in parameters_of(function) if p.annotation is p.empty]
        if "return" not in function.__annotations__ and function.__name__ != "__init__":
            missing.append("return")
        if missing and function.__name__ != "<lambda>":
            bare[name] = missing
    assert not bare
    assert len(CALLABLES) > 300


def test_docstrings_list_the_parameters():
    wrong = {}
    for name, (function, docstring, must_list) in CALLABLES.items():
        lines = re.split(r"\n(?=Parameters\n-)", inspect.cleandoc(docstring or ""), maxsplit=1)
        expected = sorted(parameter.name for parameter in parameters_of(function))
        if len(lines) == 1 and not must_list:
            continue
        section = (
            re.split(r"\n\n(?=[A-Z]\w+\n--)", lines[-1])[0].replace("\\\n", "").split("\n")[2:]
        )
        heads = [line.split(" : ")[0] for line in section if line and not line.startswith(" ")]
        listed = sorted(each.strip(" *") for head in heads for each in head.split(","))
        if len(lines) == 1 and expected:
            wrong[name] = "no Parameters"
        elif len(lines) == 2 and listed != expected:
            wrong[name] = f"{listed}, not {expected}"
    assert not wrong
