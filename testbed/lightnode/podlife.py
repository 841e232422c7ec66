"""
One pod, from admission to deletion, in a thread of its own.

Called by: `node`, which makes one per pod that is bound here and tells it of every change.
Rule: level-based. `step` looks at the pod, the record and the process, does the next thing, and may
be repeated after anything went wrong or after we were killed between any two lines.
"""

import threading
from typing import Protocol

import structlog

from kybernate.clients.errors import ApiError
from testbed.lightnode import podspec, podstatus
from testbed.lightnode.container import Container, Launch, StartFailed
from testbed.lightnode.plugins import NotAdmitted
from testbed.lightnode.podrecord import PodRecord
from testbed.lightnode.podspec import NotRunnable, Obj, PodSpec
from testbed.lightnode.podstatus import ContainerState, Ended, PodState, Running, Waiting
from testbed.lightnode.podvoice import AgentNews, StatusReport
from testbed.lightnode.surroundings import Surroundings

_LOOK_S = 0.05  # between looks at a process: an exit is seen sooner than a kubelet would
_AGAIN_S = 1.0  # after a call that failed
_LAST_WORDS_S = 5.0  # how long a deletion waits for the agent to hear of the exit
_CALM_S = 600.0  # a container that ran so long begins its restarts anew, as the kubelet's
_LONGEST_S = 300.0
_DEFAULT_GRACE_S = 30.0


class Home(Protocol):
    """The node, as a pod's life sees it."""

    def settled(self) -> None:
        """Some pod has no claim to its devices any more."""

    def ended(self, life: "PodLife") -> None:
        """Nothing is left to do for this pod."""


class PodLife:
    """`update` and `gone` come from the watch."""

    def __init__(self, pod: Obj, around: Surroundings, home: Home) -> None:
        self.identity = podspec.identity(pod)
        self._pod = pod
        self._around = around
        self._home = home
        self._gone = False
        self._leaving = False
        self._wake = threading.Event()
        self._record = around.records.read(self.identity.uid) or self._begin()
        self._container = Container.find(around.records.attempt(self._record))
        self._restart_at = 0.0
        self._kill_at: float | None = None
        self._silent_until: float | None = None
        self._status = StatusReport(around.kube, self.identity)
        self._news = AgentNews(around.agent, around.records, around.clock)
        self._log = structlog.get_logger(pod=f"{self.identity.namespace}/{self.identity.name}")
        self._thread = threading.Thread(target=self._run, name=f"pod-{self.identity.name}")
        self._thread.daemon = True

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def update(self, pod: Obj) -> None:
        """The pod was changed."""
        self._pod = pod
        self._wake.set()

    def gone(self) -> None:
        """The pod is no more; whatever runs is ended without ado."""
        self._gone = True
        self._wake.set()

    def leave(self) -> None:
        """Stop looking after it; what runs runs on."""
        self._leaving = True
        self._wake.set()
        self._thread.join()

    def end_process(self) -> None:
        """For the node's own end: kill what runs."""
        if self._container is not None:
            self._container.end()

    @property
    def active(self) -> bool:
        """Whether it still has a claim to its devices."""
        return not self._record.phase

    @property
    def pod_ip(self) -> str:
        """Its address."""
        return self._record.pod_ip

    def _begin(self) -> PodRecord:
        around = self._around
        record = PodRecord.new(self.identity, around.address(), around.clock.now())
        phase = (self._pod.get("status") or {}).get("phase", "")
        if phase in ("Succeeded", "Failed"):
            record.phase = phase
        around.records.write(record)
        return record

    def _run(self) -> None:
        while not self._leaving:
            self._wake.clear()
            try:
                pause = self._step()
            except ApiError as problem:
                self._log.info("API server away", detail=str(problem))
                pause = _AGAIN_S
            except Exception:  # one pod's bug must not end the node: it is said, and tried again
                self._log.exception("step failed")
                pause = _AGAIN_S
            if pause is None:
                self._around.records.forget(self.identity.uid)
                self._home.ended(self)
                return
            self._wake.wait(pause if pause else None)

    def _step(self) -> float | None:
        """Do the next thing. Seconds until the next look (0: when told), None when all is done."""
        if self._gone:
            self._clear()
            return None
        if self._pod["metadata"].get("deletionTimestamp"):
            return self._delete()
        if self._record.phase:
            self._tell()
            self._report()
            return _AGAIN_S if self._record.untold else 0
        if self._container is None:
            self._start()
        else:
            self._look(self._container)
        self._tell()
        self._report()
        return _LOOK_S

    def _start(self) -> None:
        """Admit and start, unless a restart has to wait."""
        if self._around.clock.monotonic() < self._restart_at:
            return
        record = self._record
        try:
            spec = podspec.read(self._pod)
            if spec.wanted:
                self._around.plugins.admit(self.identity.uid, spec.container, spec.wanted)
            launch = self._launch(spec)
            folder = self._around.records.attempt(record)
            self._container = Container.start(folder, launch)
            self._log.info("started", process=self._container.pid, held=launch.held)
        except NotAdmitted as refused:
            self._settle("Failed", ("UnexpectedAdmissionError", str(refused)))
        except (NotRunnable, StartFailed) as refused:
            self._settle("Failed", ("CreateContainerError", str(refused)))

    def _launch(self, spec: PodSpec) -> Launch:
        around = self._around
        facts = podspec.Facts(pod=self._pod, pod_ip=self.pod_ip, host_ip=around.host_ip)
        given = around.plugins.environment(self.identity.uid)
        own = podspec.environment(spec, facts, given)
        return Launch(
            command=podspec.command(spec, own),
            environment={**around.inherited, **own},
            working_dir=spec.working_dir,
            held=spec.held,
            log=around.records.log(self.identity),
        )

    def _look(self, container: Container) -> None:
        """See whether it ended, and what follows from that."""
        code = container.exit_code()
        if code is None:
            return
        now = self._around.clock.now()
        ended = Ended(exit_code=code, since=container.started_at, at=now)
        self._log.info("ended", code=code)
        container.sweep()
        record = self._record
        record.last = ended
        self._remember_exit(code)
        policy = podspec.read(self._pod).restart_policy
        if policy == "Always" or (policy == "OnFailure" and code != 0):
            self._restart_later(ended)
        else:
            self._settle("Succeeded" if code == 0 else "Failed", None)

    def _restart_later(self, ended: Ended) -> None:
        record = self._record
        if ended.at - ended.since > _CALM_S:
            record.restarts = 0
        doubled = self._around.restart_after * 2 ** (record.restarts - 1)
        wait = min(doubled, _LONGEST_S) if record.restarts else 0.0
        self._restart_at = self._around.clock.monotonic() + wait
        record.restarts += 1
        record.attempt += 1
        record.told = False
        self._container = None
        self._around.records.write(record)

    def _settle(self, phase: str, failure: tuple[str, str] | None) -> None:
        """It will not run again: its devices are free."""
        self._record.phase, self._record.failure = phase, failure
        self._around.records.write(self._record)
        self._home.settled()
        if failure:
            self._log.warning("failed", reason=failure[0], detail=failure[1])

    def _delete(self) -> float | None:
        """SIGTERM, grace, SIGKILL; then the last status, and the pod is gone."""
        container = self._container
        if container is not None and not self._record.phase:
            code = container.exit_code()
            if code is None:
                return self._end(container)
            now = self._around.clock.now()
            self._record.last = Ended(exit_code=code, since=container.started_at, at=now)
            container.sweep()
            self._remember_exit(code)
            self._settle("Succeeded" if code == 0 else "Failed", None)
        self._tell()
        if self._record.untold and self._patient():
            return _LOOK_S
        self._report()
        self._status.remove()
        return None

    def _end(self, container: Container) -> float:
        now = self._around.clock.monotonic()
        if self._kill_at is None:
            grace = self._pod["metadata"].get("deletionGracePeriodSeconds", _DEFAULT_GRACE_S)
            self._kill_at = now + grace
            container.terminate()
        elif now >= self._kill_at:
            container.kill()
        return _LOOK_S

    def _clear(self) -> None:
        """The pod was removed by force."""
        if self._container is not None:
            self._remember_exit(self._container.end())
        self._tell()
        return

    def _remember_exit(self, code: int) -> None:
        if self._held():
            self._news.ended(self._record, code)
        self._around.records.write(self._record)

    def _tell(self) -> None:
        running = self._container if self._held() and not self._record.phase else None
        name = self._pod["spec"]["containers"][0]["name"]
        self._news.tell(self._record, name, running)

    def _held(self) -> bool:
        return podspec.held(self._pod)

    def _patient(self) -> bool:
        """Whether to wait longer for the agent before the pod is removed."""
        now = self._around.clock.monotonic()
        if self._silent_until is None:
            self._silent_until = now + _LAST_WORDS_S
        return now < self._silent_until

    def _report(self) -> None:
        container = self._pod["spec"]["containers"][0]
        name, image = container["name"], container.get("image", "")
        self._status.write(podstatus.status(self._pod, self._state(), name, image))

    def _state(self) -> PodState:
        record = self._record
        return PodState(
            phase=record.phase or ("Running" if self._ran() else "Pending"),
            started_at=record.started_at,
            host_ip=self._around.host_ip,
            pod_ip="" if record.failure else record.pod_ip,
            container=self._container_state(),
            last=record.last if self._container is None or not record.phase else None,
            container_id=record.container_id if self._container is not None else "",
            restarts=record.restarts,
            failure=record.failure,
        )

    def _ran(self) -> bool:
        return self._container is not None or self._record.restarts > 0

    def _container_state(self) -> ContainerState | None:
        record = self._record
        if record.phase:
            return record.last
        if self._container is not None:
            return Running(since=self._container.started_at)
        if record.restarts:
            return Waiting(reason="CrashLoopBackOff", message="restarting after a while")
        return Waiting(reason="ContainerCreating")
