"""Errors that a user can act on."""


class UserError(Exception):
    """A problem whose message is one sentence: what went wrong, where, and what to do about it.

    Command-line entry points and workflow scripts print the message alone, without a traceback, and exit with 1.
    """


class DivergedError(UserError, ArithmeticError):
    """A number that must be finite is not, or a system that must be solved is singular; says which and where."""
