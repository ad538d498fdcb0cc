"""What the sandbox sends to the daemon: webhooks of the doubles, and the shop's events. Owns queues, retries, and their faults.

A daemon that is down holds nobody up: queues are bounded, events wait with their ids and are sent again, and what is lost is
counted.
"""

import random
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import httpx
import msgspec
import trio

from sixfbd_plugins.sandbox.switches import PostFault
from sixfbd_plugins.sandbox.town import Parcel

AT_ONCE: Final = 20  # webhooks on their way
MAX_PARCELS: Final = 1000  # that wait or are on their way
RETRIES_S: Final = (1.0, 5.0, 20.0)  # of webhooks whose double keeps no account of its own
DISORDER_S: Final = 5.0
AGAIN_S: Final = 0.5  # a webhook that comes twice
MAX_EVENTS: Final = 20_000  # that wait for the daemon
BATCH: Final = 500
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
TIMEOUT_S: Final = 15.0


class Courier:
    """Takes webhooks to where they are addressed. `faults(house)` are the faults that are on."""

    def __init__(
        self, client: httpx.AsyncClient, rng: random.Random, faults: Callable[[str], Sequence[PostFault]]
    ) -> None:
        self.counts: Counter[str] = Counter(delivered=0, refused=0, given_up=0, lost=0)
        self._client = client
        self._rng = rng
        self._faults = faults
        self._limit = trio.CapacityLimiter(AT_ONCE)
        self._waiting = 0
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep what is on its way going until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def send(self, parcel: Parcel) -> None:
        """Have a webhook delivered, as the faults that are on will have it."""
        kinds = {
            fault.kind for fault in self._faults(parcel.house) if fault.rate >= 1 or self._rng.random() < fault.rate
        }
        if "lost" in kinds or self._nursery is None or self._waiting >= MAX_PARCELS:
            self.counts["lost"] += 1
            if parcel.done is not None:
                parcel.done(0)
            return
        if "forged" in kinds:
            parcel = msgspec.structs.replace(parcel, headers=_forged(parcel.headers))
        after_s = self._rng.uniform(0, DISORDER_S) if "disorder" in kinds else 0.0
        self._nursery.start_soon(self._deliver, parcel, after_s)
        if "duplicate" in kinds:
            self._nursery.start_soon(self._deliver, parcel, after_s + AGAIN_S)

    async def _deliver(self, parcel: Parcel, after_s: float) -> None:
        self._waiting += 1
        try:
            await trio.sleep(after_s)
            for pause_s in (*RETRIES_S, None):
                status = await self._post(parcel)
                self._count(status)
                if parcel.done is not None:
                    parcel.done(status)
                    return
                if 200 <= status < 300 or (400 <= status < 500 and status != 429):
                    return
                if pause_s is not None:
                    await trio.sleep(pause_s)
            self.counts["given_up"] += 1
        finally:
            self._waiting -= 1

    async def _post(self, parcel: Parcel) -> int:
        """Return the status of the answer, 0 without one."""
        async with self._limit:
            try:
                answer = await self._client.post(parcel.url, headers=parcel.headers, content=parcel.body)
            except (httpx.HTTPError, httpx.InvalidURL):
                return 0
            return answer.status_code

    def _count(self, status: int) -> None:
        if 200 <= status < 300:
            self.counts["delivered"] += 1
        elif 400 <= status < 500:
            self.counts["refused"] += 1


def _forged(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers whose signatures are well formed, and wrong: of each the letters of both cases change places."""
    return {name: value.swapcase() if "signature" in name else value for name, value in headers.items()}


class Reporter:
    """Tells the daemon of the shop's events, in their order, each until the daemon has answered for it."""

    def __init__(self, client: httpx.AsyncClient, url: str, token: str) -> None:
        self.counts: Counter[str] = Counter(taken=0, refused=0, dropped=0)
        self.trouble = ""  # why the last try came to nothing
        self._client = client
        self._url = f"{url}/api/events"
        self._headers = {"authorization": f"Bearer {token}"}
        self._waiting: deque[dict[str, Any]] = deque()
        self._news = trio.Event()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def put(self, events: Sequence[dict[str, Any]]) -> None:
        self._waiting.extend(events)
        while len(self._waiting) > MAX_EVENTS:
            self._waiting.popleft()
            self.counts["dropped"] += 1
        if events:
            self._news.set()

    async def run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            if not self._waiting:
                self._news = trio.Event()
                await self._news.wait()
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            if await self._told(batch):
                pause_s = FIRST_PAUSE_S
                continue
            self._waiting.extendleft(reversed(batch))
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _told(self, batch: list[dict[str, Any]]) -> bool:
        """Return whether the daemon has answered for these events; it may refuse some."""
        try:
            answer = await self._client.post(self._url, headers=self._headers, json=batch)
        except httpx.HTTPError as error:
            self.trouble = f"{type(error).__name__}"
            return False
        if answer.status_code == 400:
            self.trouble = f"answered 400: {answer.text[:200]}"
            self.counts["refused"] += len(batch)
            return True
        if answer.status_code != 200:
            self.trouble = f"answered {answer.status_code}"
            return False
        taken = answer.json()["data"]
        self.trouble = ""
        self.counts["taken"] += taken["accepted"] + taken["duplicates"]
        self.counts["refused"] += len(taken["refused"])
        return True
