"""What a channel's no means to a message, in the form that those share which rewrite their messages."""

from sixfbd.plugin import PermanentFailure, TemporaryFailure


class Refused(Exception):  # noqa: N818 - the provider's answer, no fault of the program
    """A provider answered, and says no. `wait_s`: it wants to be left alone for so long.

    `sent`: it may have taken the message all the same.
    """

    def __init__(self, text: str, *, temporary: bool, wait_s: float | None, sent: bool = False) -> None:
        super().__init__(text)
        self.temporary = temporary
        self.wait_s = wait_s
        self.sent = sent

    def failure(self) -> TemporaryFailure | PermanentFailure:
        if self.temporary:
            return TemporaryFailure(str(self), retry_after_s=self.wait_s, sent=self.sent)
        return PermanentFailure(str(self))
