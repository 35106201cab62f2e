"""Errors that the user can mend. The command line prints them without a traceback."""


class TadError(Exception):
    """Something in the user's input or environment is wrong; the message says what to do about it."""


class DataError(TadError):
    """A dataset, annotation or feature file cannot be used."""


class ConfigError(TadError):
    """A recipe or a --set override cannot be used."""


class RunError(TadError):
    """A stage failed; what was already written stays."""
