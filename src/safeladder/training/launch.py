"""Start one process a core (or GPU) on this machine, torchrun style, and see them to the end.

A process that finds RANK in its environment is a worker and is never launched again, so the same command also runs
under `torchrun` on a cluster.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def is_worker() -> bool:
    """Whether this process was started by `launch` or torchrun."""
    return "RANK" in os.environ


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run ``python -m safeladder ARGUMENTS`` in `processes` workers; returns rank 0's exit code or the first failure's.

    Rank 0 keeps the terminal. The others write to a log that is shown only if one of them fails by itself. Killing
    this process, even with SIGKILL, ends the workers (on Linux).
    """
    with tempfile.TemporaryDirectory(prefix="safeladder-") as folder:
        base = {
            **os.environ,
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1",
            "SAFELADDER_RENDEZVOUS": str(Path(folder) / "rendezvous"),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "SAFELADDER_PARENT": str(os.getpid()),
        }
        base.setdefault("GLOO_SOCKET_IFNAME", "lo")
        workers = []
        with _interrupts_held():
            for rank in range(processes):
                log = None if rank == 0 else open(Path(folder) / f"rank-{rank}.log", "w", encoding="utf-8")  # noqa: SIM115
                workers.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "safeladder", *arguments],
                        env={**base, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                        stdin=subprocess.DEVNULL if rank else None,
                        stdout=log,
                        stderr=log,
                    )
                )
                if log is not None:
                    log.close()
        return _wait(workers, Path(folder))


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold SIGINT back, here and in processes started here: a worker takes it once it can say so in one line."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(workers: Sequence[subprocess.Popen[bytes]], folder: Path) -> int:
    previous = signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    try:
        while True:
            codes = [worker.poll() for worker in workers]
            if codes[0] is not None and (codes[0] != 0 or all(c is not None for c in codes)):
                failed = [(r, c) for r, c in enumerate(codes) if c not in (0, None)]
                # When another rank died first, rank 0 only saw its connection break: that rank's words count.
                return _report(failed, folder) if failed else 0
            failed = [(r, c) for r, c in enumerate(codes) if r and c not in (0, None)]
            if failed:
                time.sleep(2.0)  # rank 0 may be about to say it better
                if workers[0].poll() is None:
                    return _report(failed, folder)
                continue
            time.sleep(0.05)
    except KeyboardInterrupt:
        for worker in workers:
            worker.send_signal(signal.SIGINT)
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline and any(w.poll() is None for w in workers):
            time.sleep(0.05)
        return 130
    finally:
        signal.signal(signal.SIGTERM, previous)
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()


def _report(failed: Sequence[tuple[int, int | None]], folder: Path) -> int:
    rank, code = failed[0]
    if rank:
        text = (folder / f"rank-{rank}.log").read_text(encoding="utf-8", errors="replace").strip()
        last = text.splitlines()[-1] if text else f"killed by signal {-code}" if code and code < 0 else "no message"
        print(f"safeladder: error: process {rank} failed: {last}", file=sys.stderr)
    return code if code and code > 0 else 1


def follow_parent() -> None:
    """In a worker: die with the launcher, however it dies."""
    parent = os.environ.get("SAFELADDER_PARENT")
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it died before we asked
        os.kill(os.getpid(), signal.SIGKILL)
