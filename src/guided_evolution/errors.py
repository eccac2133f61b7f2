"""Errors that the product raises for its user: one root, and a message that says what to do.

A candidate's failure is never one of these: it is an `Outcome` with a status.
"""


class GuidedEvolutionError(Exception):
    """The root: its text is meant for the user, in one or two lines, without a traceback."""


class UsageError(GuidedEvolutionError):
    """Raised when a command, an option or an argument can't be used as it was given (exit code 2)."""


class ProblemError(UsageError):
    """Raised when a problem folder is incomplete or wrong: the text names file and line (exit code 2)."""


class GenomeError(ProblemError):
    """Raised when a seed file can't be cut into blocks, or a block doesn't exist (exit code 2)."""


class RunError(GuidedEvolutionError):
    """Raised when a run can't go on, or its record can't be read or written (exit code 1)."""


class ModelError(GuidedEvolutionError):
    """Raised when a language model can't be reached, loaded or fetched (exit code 1).

    Attributes:
        permanent: True when asking again can't help (wrong key, unknown model), False for an outage.
        retry_after: Seconds after which the model said that it may be asked again; 0 when it said nothing.
    """

    def __init__(self, message: str, *, permanent: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.retry_after = retry_after


class RequestRefusedError(ModelError):
    """Raised when a model refuses one request, such as a prompt that is too long for it; others may pass."""
