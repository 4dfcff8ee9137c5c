"""Results that nobody measured, in which it is known who is better at what."""

from __future__ import annotations

from bench.faults import FAULTS, Server
from bench.load import RATES
from bench.peers import PEERS
from bench.results import Results, Run


def made_up() -> Results:
    """claw is best at everything, and every peer was measured at every part."""
    results = Results(
        machine={"cores": 2, "processor": "P", "memory_gb": 8, "kernel": "Linux 6.1", "architecture": "x86_64"},
        peers={
            peer.name: {"label": peer.label, "package": peer.package, "ack": peer.ack, "version": "Python 3.11"}
            for peer in PEERS
        },
    )
    for place, peer in enumerate((peer for peer in PEERS if not peer.parts), start=1):
        costs: list[Run] = [
            {"per_s": 500.0 / place, "cpu_ms": 2.0 * place, "loaded_mb": 90.0 * place, "emulator_core": 0.5}
        ]
        results.put("throughput", peer.name, costs * 3)
        results.put("start", peer.name, [{"start_s": 0.5 * place, "idle_mb": 80.0 * place}])
        for rate in RATES:
            acks: Run = {"p50_ms": 2.0 * place, "p99_ms": 9.0 * place, "asked": 100, "answered": 101 - place}
            results.put(f"ack/{rate}", peer.name, [acks | {"loaded_mb": 100.0 * place, "emulator_core": 0.2}])
        for fault in FAULTS:
            runs: list[Run] = []
            for server in Server:
                run: Run = {"recovery_s": 0.05 * place, "registrations_peak": place, "asked": 50, "lost": place}
                runs.append(run | {"server": server.value, "twice": place, "lost_acked": place - 1, "deaths": 0})
            results.put(f"recovery/{fault.name}", peer.name, runs)
    return results
