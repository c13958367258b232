"""Every error that lsan raises on purpose; the command line turns each into one line and exit code 2."""


class LsanError(Exception):
    """Base of all errors that a user can act on. The message says what was wrong, where, and what to do."""


class DataError(LsanError):
    """Input data (a log, an item file, a prepared dataset, a run folder) is malformed or missing."""


class BundleError(LsanError):
    """A bundle cannot be read, or is not what it says: truncated, damaged, hostile, or of another version."""


class DivergenceError(DataError):
    """The loss of a training became NaN or infinite."""


class ConfigError(LsanError):
    """A recipe, an option or a combination of options is not valid."""


class MissingExtraError(LsanError):
    """An optional dependency is needed; the message names the command that installs it."""
