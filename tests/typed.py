"""Annotations are checked as jaxtyping's import hook checks them, at a cost that tests can bear.

jaxtyping compiles each function's checks where it is defined, and checks every call; both took longer than the tests
themselves. Here they are compiled where a function is first called, and in every test its first calls are checked.
"""

import dataclasses
import functools
import inspect

import jaxtyping

CALLS = 10  # of a function, in each test

_whole = jaxtyping.jaxtyped
_left = {}  # by the identity of a function's code: inner functions are made again and again


def anew():
    """The next calls are checked again."""
    _left.clear()


def install():
    """Whatever jaxtyping's import hook decorates from now on is checked so."""
    jaxtyping.jaxtyped = _jaxtyped


def _jaxtyped(one=None, *, typechecker):
    if one is None:
        return functools.partial(_jaxtyped, typechecker=typechecker)
    if inspect.isclass(one):
        if dataclasses.is_dataclass(one) and "__init__" in vars(one):
            one.__init__ = _own_refusal_first(one.__init__, _checked(one.__init__, typechecker))
        return one
    if isinstance(one, (classmethod, staticmethod)):
        return type(one)(_checked(one.__func__, typechecker))
    if isinstance(one, property):
        return property(*(given and _checked(given, typechecker) for given in (one.fget, one.fset, one.fdel)))
    return _checked(one, typechecker) if inspect.isfunction(one) else _whole(one, typechecker=typechecker)


def _checked(function, typechecker):
    code, checks = id(function.__code__), []
    takes_choices = any("Literal" in repr(annotation) for annotation in function.__annotations__.values())

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        left = _left.get(code, CALLS)
        if not left:
            return function(*args, **kwargs)
        _left[code] = left - 1
        if not checks:
            checked = _whole(function, typechecker=typechecker)
            checks.append(_own_refusal_first(function, checked) if takes_choices else checked)
        return checks[0](*args, **kwargs)

    return wrapper


def _own_refusal_first(function, checked):
    """A value that the function itself refuses raises the function's error, which is what users see."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        try:
            return checked(*args, **kwargs)
        except jaxtyping.TypeCheckError:
            function(*args, **kwargs)
            raise

    return wrapper
