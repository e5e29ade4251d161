"""A hook and a writer as users write them."""

from typing import ClassVar

from detectron2.engine import HookBase
from detectron2.utils.events import EventWriter, get_event_storage


class Remembering(HookBase):
    """A hook of a user's own, with a state."""

    seen: ClassVar[list[int]] = []

    def __init__(self, *, start: int) -> None:
        self.count = start

    def after_step(self) -> None:
        self.count += 1
        self.seen.append(self.count)
        self.trainer.storage.put_scalar("my_count", self.count, smoothing_hint=False)

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count = state["count"]


class Listing(EventWriter):
    """A writer of a user's own."""

    lines: ClassVar[list[int]] = []

    def write(self) -> None:
        self.lines.append(get_event_storage().iter)
