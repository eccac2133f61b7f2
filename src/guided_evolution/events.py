"""What a run tells while it goes: progress displays, trackers and tests listen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    Attributes:
        kind: "start" (a session of the run begins: `problem`, `settings`, `folder`, and the `spending` so far),
            "ask" (a question was sent), "text" (a piece of its reply arrived), "reply" (it is complete; `taken_from`
            names the run that it was taken from, which paid for it), "refused" (it
            can't be used), "check", "evaluate" (a worker started), "partial" (it reported), "individual" (an
            individual is done), "verify" (it is evaluated once more), "verified" (it was), "generation" (a generation
            is done), "interruptible" (the run goes on another thread than the main one, whose signals it doesn't hear:
            `interrupt`, callable from any thread until the end, does as one Ctrl-C), "note", "stop", "end" (the session
            is over, in whatever way: `status`).
        individual: The id it is about; None for the run as a whole.
        text: A line or a piece of text.
        data: Further values, by kind.
    """

    kind: str
    individual: int | None = None
    text: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


class Listener(Protocol):
    """Hears every event of a run, in order, on the run's own thread: it must be quick."""

    def on(self, event: Event) -> None:
        """Takes one event."""
        ...
