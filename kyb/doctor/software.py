"""
Checks of the kernel, CRIU, containerd and the kubelet. Pure.

Called by: `checks`; `seen` shares those that the API server can tell about, too.
"""

from kyb.doctor import runtimeconf, supported
from kyb.doctor.facts import Containerd, NodeFacts, RuntimeConf, Unknown
from kyb.doctor.findings import Finding, Grade, versioned
from kybernate.api import names

OURS = names.RUNTIME_CLASS
GUIDE = "docs/how-to/prepare-a-node.md"


def kernel(facts: NodeFacts) -> Finding:
    """Its version."""
    return kernel_version(facts.kernel)


def kernel_version(found: str) -> Finding:
    """Of a machine or a node."""
    return versioned("kernel", found, supported.KERNEL, "a newer kernel")


def kernel_config(facts: NodeFacts) -> Finding:
    """What it was built with."""
    wanted = ", ".join(supported.KERNEL_NEEDED)
    config = facts.kernel_config
    if isinstance(config, Unknown):
        return Finding(
            check="kernel config", grade=Grade.WARNING, found=config.why, wanted=wanted,
            mend="trust `criu check` below, or make /proc/config.gz readable (modprobe configs)",
        )  # fmt: skip
    missing = [one for one in supported.KERNEL_NEEDED if config.get(one) not in ("y", "m")]
    soft = "" if config.get("MEM_SOFT_DIRTY") == "y" else "; MEM_SOFT_DIRTY off, which is not used"
    return Finding(
        check="kernel config",
        grade=Grade.FAULT if missing else Grade.OK,
        found=f"missing: {', '.join(missing)}" if missing else f"all there{soft}",
        wanted=wanted,
        mend="a kernel with these built in or as modules" if missing else "",
    )


def cgroups(facts: NodeFacts) -> Finding:
    """Parked pods are frozen by them."""
    one, wanted = facts.cgroups, "v2 with its freezer"
    if not one.freezer:
        return Finding(
            check="cgroups", grade=Grade.FAULT, found=f"v{one.version} without a freezer",
            wanted=wanted, mend="boot with cgroup v2: systemd.unified_cgroup_hierarchy=1",
        )  # fmt: skip
    if one.version == 1:
        return Finding(
            check="cgroups", grade=Grade.WARNING, found="v1 with its freezer", wanted=wanted,
            mend="cgroup v2; on v1 the kubelet needs failCgroupV1: false since 1.35",
        )  # fmt: skip
    return Finding(check="cgroups", grade=Grade.OK, found=wanted, wanted=wanted)


def criu(facts: NodeFacts) -> Finding:
    """Present where containerd's runc looks for it, new enough, and content with the kernel."""
    wanted = f"{supported.CRIU.oldest} or newer (tried: {supported.CRIU.tried}), `criu check` good"
    found = facts.criu
    if isinstance(found, Unknown):
        return Finding(
            check="CRIU", grade=Grade.FAULT, found=found.why, wanted=wanted,
            mend=f"install CRIU on the PATH of containerd: {GUIDE}",
        )  # fmt: skip
    said = f"{found.version} at {found.path}"
    if not supported.at_least(found.version, supported.CRIU.oldest):
        return Finding(
            check="CRIU", grade=Grade.FAULT, found=said, wanted=wanted,
            mend=f"a newer CRIU ({supported.CRIU.why}): {GUIDE}",
        )  # fmt: skip
    if found.problem:
        return Finding(
            check="CRIU", grade=Grade.FAULT, found=f"{said}: {found.problem}", wanted=wanted,
            mend="run `criu check` as root; it names what the kernel lacks",
        )  # fmt: skip
    if not found.locks_network:
        return Finding(
            check="CRIU", grade=Grade.WARNING, wanted=wanted,
            found=f"{said}; it cannot keep packets away (no nftables, no iptables-restore)",
            mend="install iptables, or a CRIU built with nftables",
        )  # fmt: skip
    return Finding(check="CRIU", grade=Grade.OK, found=f"{said}, check good", wanted=wanted)


def runc(facts: NodeFacts) -> Finding:
    """The real one, behind kybernate-runc."""
    if isinstance(facts.runc, Unknown):
        return Finding(
            check="runc", grade=Grade.FAULT, found=facts.runc.why, wanted="on containerd's PATH",
            mend="install runc, or name it in runtime.conf: runc = /path/to/runc",
        )  # fmt: skip
    return versioned("runc", facts.runc, supported.RUNC, "a newer runc")


def containerd_version(facts: NodeFacts) -> Finding:
    """New enough for the kubelet, and for drop-in files."""
    if isinstance(facts.containerd, Unknown):
        return Finding(
            check="containerd", grade=Grade.FAULT, found=facts.containerd.why,
            wanted=f"{supported.CONTAINERD.oldest} or newer", mend=f"start it: {GUIDE}",
        )  # fmt: skip
    return versioned("containerd", facts.containerd.version, supported.CONTAINERD, "a newer one")


def handler(facts: NodeFacts) -> Finding:
    """containerd knows the runtime of seat pods, as configured now."""
    wanted = f"{OURS} → kybernate-runc, with the annotations kyb.ai/*"
    if isinstance(facts.containerd, Unknown):
        return Finding(
            check="runtime handler", grade=Grade.UNKNOWN, found=facts.containerd.why, wanted=wanted
        )
    problem, mend = _handler_problem(facts.containerd)
    program = facts.containerd.handler.program if facts.containerd.handler else ""
    return Finding(
        check="runtime handler",
        grade=Grade.FAULT if problem else Grade.OK,
        found=problem or f"{OURS} → {program}",
        wanted=wanted,
        mend=mend,
    )


def _handler_problem(found: Containerd) -> tuple[str, str]:
    """What is wrong with it and how to mend that; empty when it is well."""
    one, again = found.handler, "kyb install-node, then restart containerd (pods run on)"
    if one is None:
        return f"no runtime {OURS} in its configuration", again
    if not one.program:
        return "it has no BinaryName, so nothing is held until its turn", again
    if not one.runs:
        return f"{one.program} is no program that can be run", again
    if "kyb.ai/*" not in one.annotations:
        return f"it passes on the annotations {', '.join(one.annotations) or 'none'}", again
    if one.systemd_cgroup != found.of_others:
        return f"SystemdCgroup is {one.systemd_cgroup}, but {found.of_others} for runc", again
    if found.stale:
        return "its configuration is newer than its process", "restart containerd (pods run on)"
    return "", ""


def kubelet_version(facts: NodeFacts) -> Finding:
    """New enough for what the agents' safety rests on."""
    if isinstance(facts.kubelet, Unknown):
        return Finding(
            check="kubelet", grade=Grade.FAULT, found=facts.kubelet.why,
            wanted=f"{supported.KUBERNETES.oldest} or newer", mend="join the node to a cluster",
        )  # fmt: skip
    return versioned("kubelet", facts.kubelet.version, supported.KUBERNETES, "a newer Kubernetes")


def agent_wait(facts: NodeFacts) -> Finding:
    """`create` gives up waiting for the agent before the kubelet gives up on `create`."""
    return _wait(facts, runtimeconf.AGENT_WAIT)


def wake_wait(facts: NodeFacts) -> Finding:
    """And so it does waiting for a checkpoint on its way."""
    return _wait(facts, runtimeconf.WAKE_WAIT)


def _wait(facts: NodeFacts, name: str) -> Finding:
    timeout = facts.kubelet
    if isinstance(timeout, Unknown):
        return Finding(
            check=name, grade=Grade.UNKNOWN, found=timeout.why,
            wanted="below the kubelet's runtimeRequestTimeout",
        )  # fmt: skip
    return patience(name, facts.runtime_conf, timeout.request_timeout)


def patience(name: str, conf: RuntimeConf, timeout: float) -> Finding:
    """One of runtime.conf's waits against runtimeRequestTimeout, in seconds."""
    wanted = f"below the kubelet's runtimeRequestTimeout, {timeout:g} s"
    if conf.faults:
        return Finding(
            check=name, grade=Grade.FAULT, found="; ".join(conf.faults), wanted=wanted,
            mend=f"correct {conf.path}",
        )  # fmt: skip
    seconds = runtimeconf.waits(conf)[name]
    late = seconds >= timeout
    shorter = f"{name} = {runtimeconf.fitting(timeout)[name]:g} in {conf.path}"
    return Finding(
        check=name,
        grade=Grade.FAULT if late else Grade.OK,
        found=f"{seconds:g} s",
        wanted=wanted,
        mend=f"{shorter}, or a longer runtimeRequestTimeout" if late else "",
    )


def static_pods(facts: NodeFacts) -> Finding:
    """They pass no webhook."""
    if isinstance(facts.kubelet, Unknown):
        why = facts.kubelet.why
        return Finding(check="static pods", grade=Grade.UNKNOWN, found=why, wanted="none on seats")
    return seats_of_static_pods(facts.kubelet.static_seats)


def seats_of_static_pods(found: tuple[str, ...]) -> Finding:
    """`found`: files or names of those that ask for seats."""
    return Finding(
        check="static pods",
        grade=Grade.FAULT if found else Grade.OK,
        found=", ".join(found) or "none on seats",
        wanted="none on seats: they pass no webhook",
        mend="make them Deployments or DaemonSets" if found else "",
    )


def foreign_plugin(facts: NodeFacts) -> Finding:
    """Nobody else hands out the same GPUs."""
    found = facts.foreign_plugins
    if isinstance(found, Unknown):
        return Finding(
            check="device plugins", grade=Grade.UNKNOWN, found=found.why, wanted="no other for GPUs"
        )
    return others_for_gpus(found)


def others_for_gpus(found: tuple[str, ...]) -> Finding:
    """`found`: resources or sockets."""
    return Finding(
        check="device plugins",
        grade=Grade.FAULT if found else Grade.OK,
        found=", ".join(found) or "no other for GPUs",
        wanted="no other for GPUs",
        mend=f"keep NVIDIA's device plugin off this node: {GUIDE}" if found else "",
    )
