"""`safeladder serve`: the OpenAI-compatible server over a checkpoint, until it is told to stop."""

from __future__ import annotations

import argparse
import contextlib
import math
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safeladder.arguments import port, positive
from safeladder.types import SafeladderError

if TYPE_CHECKING:
    from safeladder.rollout.continuous import ContinuousEngine
    from safeladder.serving import api
    from safeladder.serving.joined import JoinedGuidance
    from safeladder.serving.limits import Limits
    from safeladder.serving.steered import Host, Treble

PORT = 8000
GRACE = 30
"""Seconds that running replies have to end once the server is told to stop."""
FOLDERS: dict[api.Steering, str] = {"value-guidance": "steering/value-guidance", "treble": "steering/treble"}
"""Where a model's steering lies, in its own folder; and what makes it."""
_MAKERS = {"value-guidance": "safeladder pvm train", "treble": "safeladder directions fit"}


def add_parser(verbs: Any) -> None:
    """Add the verb `serve`; its `run` takes the parsed options."""
    parser = verbs.add_parser(
        "serve",
        allow_abbrev=False,
        help="answer OpenAI-compatible requests with a model, steered or searching, and serve the editor page",
        epilog="API keys are read from the environment (SAFELADDER_API_KEY, several with commas); see docs/serving.md.",
    )
    parser.add_argument("model", metavar="MODEL", help="folder of a checkpoint (runs/NAME/checkpoints/m3-rl)")
    parser.add_argument("--host", default="127.0.0.1", metavar="HOST", help="default: 127.0.0.1, this machine only")
    parser.add_argument("--port", type=port, default=PORT, metavar="N", help=f"0: any free one (default: {PORT})")
    parser.add_argument("--name", metavar="NAME", help="what clients call the model (default: the folder's name)")
    parser.add_argument("--device", default="cpu", metavar="DEVICE", help="default: cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="default: float32")
    steer = f"steering to load and apply, with commas: {', '.join(FOLDERS)} (a request may choose fewer)"
    parser.add_argument("--steer", default="", metavar="LIST", help=steer)
    parser.add_argument("--search", metavar="DIR", help="an index, or http://host:port of `safeladder search serve`")
    parser.add_argument("--memory", metavar="FILE", help="edit memory (JSONL), made where there is none")
    parser.add_argument("--key-env", metavar="NAME", help="environment variable of the API keys")
    parser.add_argument(
        "--no-api-key", action="store_true", help="let everybody ask who reaches a --host other than this machine"
    )
    parser.add_argument("--audit", metavar="FILE", help="append a line of JSON for every finished request")
    parser.add_argument("--audit-prompts", action="store_true", help="with what was asked and said; default: digests")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-rows", type=positive, default=64, metavar="N", help="replies at once (default: 64)")
    limits.add_argument(
        "--max-waiting", type=positive, default=256, metavar="N", help="requests in work or waiting (default: 256)"
    )
    limits.add_argument(
        "--max-tokens", type=positive, default=4096, metavar="N", help="longest reply, in tokens (default: 4096)"
    )
    limits.add_argument("--max-n", type=positive, default=8, metavar="N", help="choices a request (default: 8)")
    limits.add_argument("--max-images", type=positive, default=16, metavar="N", help="a request (default: 16)")
    limits.add_argument(
        "--max-pixels", type=positive, default=16_000_000, metavar="N", help="of an image (default: 16000000)"
    )
    limits.add_argument("--max-body-mb", type=positive, default=32, metavar="N", help="of a request (default: 32)")
    limits.add_argument(
        "--max-seconds", type=positive, default=300, metavar="N", help="a request may take (default: 300)"
    )
    limits.add_argument(
        "--max-rate", type=positive, metavar="N", help="requests a minute of one key or client (default: no limit)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted; returns the exit code.

    Raises:
        SafeladderError: no such checkpoint, steering or index, a wrong option, or an address that cannot be had.
    """
    from safeladder.search.extras import import_extra
    from safeladder.search.server import is_loopback, listen
    from safeladder.serving.audit import AuditLog
    from safeladder.serving.limits import KEY_VARIABLE, read_keys
    from safeladder.serving.scoring import shipped_verifiers
    from safeladder.serving.server import create_app

    import_extra("fastapi", "serve")
    import_extra("uvicorn", "serve")
    steering = _steering(options.steer)
    keys = read_keys(options.key_env)
    if options.no_api_key and keys:
        raise SafeladderError("--no-api-key: API keys are set in the environment")
    local = is_loopback(options.host)
    if not (local or keys or options.no_api_key):
        raise SafeladderError(
            f"--host {options.host} lets every machine that reaches this one use the model: set API keys "
            f"({KEY_VARIABLE}), or say --no-api-key"
        )
    if options.audit_prompts and not options.audit:
        raise SafeladderError("--audit-prompts: give --audit FILE too")
    audit = AuditLog(options.audit) if options.audit else None
    limits = _limits(options)
    with listen(options.host, options.port, protected=True) as at:
        host = load_host(options, steering, limits)
        app = create_app(
            host,
            limits=limits,
            verifiers=shipped_verifiers(),
            keys=keys,
            audit=audit,
            audit_prompts=options.audit_prompts,
            names=frozenset({"localhost", "127.0.0.1", "::1", options.host}) if local and not keys else None,
            grace=GRACE,
        )
        address = f"[{options.host}]" if ":" in options.host else options.host
        print(f"serving {host.name} at http://{address}:{at.getsockname()[1]}/v1 (editor: /editor)", flush=True)
        serve(app, at)
    print("stopped", flush=True)
    return 0


def serve(app: Any, at: Any) -> None:
    """Run the application on a socket until SIGINT or SIGTERM; running replies may end, a second signal ends them."""
    from safeladder.search.extras import import_extra
    from safeladder.search.server import KEPT_ALIVE

    uvicorn = import_extra("uvicorn", "serve")

    class Server(uvicorn.Server):
        """Says that it is stopping before it waits, and leaves the exit code to us."""

        async def shutdown(self, sockets: Any = None) -> None:
            app.state.desk.stopping = True
            await super().shutdown(sockets)

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            if threading.current_thread() is not threading.main_thread():
                yield
                return
            before = {s: signal.signal(s, self.handle_exit) for s in (signal.SIGINT, signal.SIGTERM)}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=GRACE,
        timeout_keep_alive=KEPT_ALIVE,
    )
    Server(config).run(sockets=[at])


def load_host(options: argparse.Namespace, steering: tuple[api.Steering, ...], limits: Limits) -> Host:
    """The model and what was asked to be loaded beside it.

    Raises:
        SafeladderError: it is not there; the message names the command that makes it.
    """
    from safeladder.models.identity import checkpoint_hash
    from safeladder.models.load import load_checkpoint
    from safeladder.models.policy import Policy
    from safeladder.rollout.continuous import ContinuousEngine
    from safeladder.search.client import open_retriever
    from safeladder.search.settings import SearchSettings
    from safeladder.serving.memory import MemoryFile
    from safeladder.serving.steered import Host

    folder = Path(options.model)
    _check_device(options.device)
    retriever = open_retriever(options.search) if options.search else None
    memory = MemoryFile(Path(options.memory)) if options.memory else None
    for name in steering:
        if not (folder / FOLDERS[name]).is_dir():
            raise SafeladderError(
                f"--steer {name}: {folder / FOLDERS[name]} is not there; make it with `{_MAKERS[name]}`"
            )
    model, processor, family = load_checkpoint(options.model, dtype=options.dtype, device=options.device)
    policy = Policy(model, processor, family).to(options.device).eval().requires_grad_(False)
    engine = ContinuousEngine(policy, max_rows=limits.rows, max_waiting=limits.waiting * limits.choices)
    try:
        treble = _treble(folder, engine) if "treble" in steering else None
        return Host(
            engine,
            name=options.name or folder.resolve().name,
            revision=checkpoint_hash(folder),
            guidance=_guidance(folder, engine, treble) if "value-guidance" in steering else None,
            treble=treble,
            retriever=retriever,
            searching=SearchSettings.of(folder),
            memory=memory,
        )
    except BaseException:
        engine.close()
        raise


def _check_device(name: str) -> None:
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise SafeladderError(f"--device {name}: PyTorch has no such device on this machine") from None


def _treble(folder: Path, engine: ContinuousEngine) -> Treble:
    from safeladder.serving.steered import Treble
    from safeladder.steering.directions import decoder_edit, load_directions
    from safeladder.steering.hooks import Steerer

    directions = load_directions(folder / FOLDERS["treble"])
    model, family = engine.policy.model, engine.policy.family
    directions.require(model, family)
    vision = directions.of("vision")
    return Treble(
        edit=decoder_edit(directions) if directions.of("language") else None,
        vision_edit=(lambda: Steerer(model, family, vision, this_thread=True)) if vision else None,
    )


def _guidance(
    folder: Path, engine: ContinuousEngine, treble: Treble | None
) -> dict[tuple[api.Steering, ...], JoinedGuidance]:
    from safeladder.serving.joined import JoinedGuidance
    from safeladder.steering.guided import Guidance

    guidance = Guidance.load(folder / FOLDERS["value-guidance"], engine)
    found: dict[tuple[api.Steering, ...], JoinedGuidance] = {("value-guidance",): JoinedGuidance(guidance, engine)}
    if treble is not None:
        found["value-guidance", "treble"] = JoinedGuidance(
            guidance, engine, edit=treble.edit, vision_edit=treble.vision_edit
        )
    return found


def _steering(text: str) -> tuple[api.Steering, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in FOLDERS:
            raise SafeladderError(f"--steer: no steering {name!r}; allowed: {', '.join(FOLDERS)}")
    return tuple(name for name in FOLDERS if name in names)


def _limits(options: argparse.Namespace) -> Limits:
    from safeladder.serving.limits import Limits

    return Limits(
        body_bytes=options.max_body_mb * 2**20,
        images=options.max_images,
        image_pixels=options.max_pixels,
        tokens=options.max_tokens,
        choices=options.max_n,
        seconds=float(options.max_seconds),
        requests_a_minute=float(options.max_rate) if options.max_rate else math.inf,
        rows=options.max_rows,
        waiting=options.max_waiting,
    )
