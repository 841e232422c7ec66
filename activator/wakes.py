"""
Bringing a model in while somebody waits for it: one wake for each model, however many wait.

Called by: `queues` (somebody waits), the catalog's changes. Level based: after every change the
next step follows from how the model is now (`models.next_step`), whoever else wakes it, whether an
agent restarts or a pod is replaced. Rules: it waits for changes that others tell, and asks nobody
again and again; when nobody waits any more it ends, and asks for nothing further.
"""

import asyncio
from functools import partial
from typing import Any

from activator import models
from activator.agents import Agents
from activator.catalog import Catalog, Word
from activator.models import Activate, Ask, Await, Never, Place, Serve
from activator.queues import Queue
from activator.wanted import Wanted
from kybernate.clients.agents import AgentAway, AgentRefused, End, Outcome, Progress
from kybernate.model.ids import PodUid
from kybernate.model.verdict import Reason
from kybernate.model.workload import State
from kybernate.runtime.logs import get_logger

# The agent hears of a pod a moment after the API server told us; its end comes likewise.
_SOON = frozenset({Reason.UNKNOWN_WORKLOAD.name, Reason.BUSY.name})
SETTLE_S = 1.0  # until what an agent said has come through its Watch too, at the latest


class Wakes:
    """Starts and ends the wakes."""

    def __init__(self, catalog: Catalog, agents: Agents, wanted: Wanted) -> None:
        self._catalog, self._agents, self._wanted = catalog, agents, wanted
        self._log = get_logger()

    def wake(self, queue: Queue) -> None:
        """Somebody waits for this model."""
        if queue.waking is None:
            queue.waking = asyncio.get_running_loop().create_task(self._wake(queue))

    def changed(self, queue: Queue) -> None:
        """The model changed: whoever waits may go on; whoever is under way may stand still."""
        queue.changed.set()
        model = queue.look()
        if model is None:
            return
        if model.serving:
            queue.release()
        elif queue.in_flight:
            self.wake(queue)

    async def _wake(self, queue: Queue) -> None:
        queue.figures.wakes += 1
        failed: set[PodUid] = set()
        try:
            while queue.in_flight and not await self._step(queue, failed):
                pass
        except Exception as fault:  # ours: who waits must hear of it
            self._log.exception("a wake ended in an error", model=str(queue.id))
            queue.refuse_all(f"fault in the activator: {fault}")
        finally:
            self._wanted.discard(queue.id)
            queue.why, queue.seconds_left = "", 0.0
            queue.waking = None

    async def _step(self, queue: Queue, failed: set[PodUid]) -> bool:
        """One step; whether the wake is over."""
        queue.changed.clear()
        model = queue.look()
        if model is None:
            queue.refuse_all(f"{queue.id} is gone")
            return True
        match models.next_step(model):
            case Serve():
                queue.release()
                return True
            case Activate(place) if place.uid in failed:
                queue.refuse_all(queue.why)
                return True
            case Activate(place):
                if model.owner is not None and model.owner.wakes:
                    self._wanted.add(queue.id, model.owner.name)  # so that it does not go meanwhile
                await self._activate(queue, place, failed)
            case Ask(owner):
                self._wanted.add(queue.id, owner.name)
                where = "its checkpoint" if model.sealed else "nothing: a cold start"
                queue.why = f"Deployment {owner.name} is brought back from {where}"
                await self._change(queue)
            case Await(why):
                queue.why = why
                await self._change(queue)
            case Never(why):
                queue.refuse_all(why)
                return True
        return False

    async def _activate(self, queue: Queue, place: Place, failed: set[PodUid]) -> None:
        end = End()
        call = self._agents.activating(place, partial(self._told, queue), end)
        outcome = await self._followed(queue, place, call, end)
        if outcome is None:
            return
        if outcome.ok:
            word = Word(uid=place.uid, state=State.ACTIVE)
            self._catalog.told(place.key, word)
            return
        queue.why = outcome.message or outcome.reason
        self._log.info("not brought in", model=str(queue.id), reason=outcome.reason)
        if outcome.reason not in _SOON:
            queue.figures.wakes_failed += 1
            failed.add(place.uid)
        await self._change(queue, SETTLE_S)

    async def _followed(
        self, queue: Queue, place: Place, asked: "asyncio.Future[Outcome]", end: End
    ) -> Outcome | None:
        """Its outcome; None where the agent is away, or the model changed without it: then there
        may be something else to do (its pod may be gone)."""
        while not asked.done():
            changed = asyncio.ensure_future(queue.changed.wait())
            both: set[asyncio.Future[Any]] = {asked, changed}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
            queue.changed.clear()
            if not asked.done() and not self._still(queue, place):
                end()
                asked.add_done_callback(_heard)
                return None
        try:
            return asked.result()
        except (AgentAway, AgentRefused) as problem:
            queue.why = f"the agent of {place.node} is away: {problem}"
            await self._change(queue, SETTLE_S)
            return None

    def _still(self, queue: Queue, place: Place) -> bool:
        """Whether it is still this pod that has to come in, and for somebody."""
        model = queue.look()
        if not queue.in_flight or model is None:
            return False
        step = models.next_step(model)
        return isinstance(step, Activate) and step.place.uid == place.uid

    def _told(self, queue: Queue, progress: Progress) -> None:
        queue.why = progress.message or queue.why
        queue.seconds_left = progress.seconds_left

    async def _change(self, queue: Queue, within: float | None = None) -> None:
        """Until somebody tells of a change, or for so many seconds."""
        try:
            async with asyncio.timeout(within):
                await queue.changed.wait()
        except TimeoutError:
            pass


def _heard(asked: "asyncio.Future[Outcome]") -> None:
    """Its end is no news any more, an error neither."""
    if not asked.cancelled():
        asked.exception()
