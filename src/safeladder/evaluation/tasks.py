"""Evaluation in process: rollouts for the ladder, an Inspect log (`.eval`) for people."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safeladder.evaluation.rollouts import Judge
from safeladder.models.identity import checkpoint_hash
from safeladder.rollout.collect import Format, collect
from safeladder.rollout.parse import ResponseFormat
from safeladder.types import Engine, Environment, Rollout, SafeladderError, Sample, SamplingParams

IN_PROCESS: Mapping[str, Any] = {
    "log_format": "eval",
    "display": "none",
    "score_display": False,
    "ctl_server": False,
    "log_realtime": False,
    "log_images": False,
    "log_model_api": False,
    "fail_on_error": True,
}
"""Settings of every Inspect run of ours: a log and nothing else, and the first error ends it."""


def run_inspect(
    engine: Engine,
    samples: Sequence[Sample],
    *,
    name: str,
    log_dir: str | Path,
    params: SamplingParams,
    format: ResponseFormat,
    judge: Judge,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    batch_size: int = 64,
    environment: Environment | None = None,
    max_turns: int = 1,
    trace_format: Format | None = None,
) -> tuple[list[Rollout], Path]:
    """Evaluate an engine on samples, and leave an Inspect log of it.

    The engine is asked and the judge called directly. Only the log is Inspect's: its scheduler costs ten times as much
    as a short reply of a small model.

    Args:
        name: the task's and the model's name, e.g. the rung; a steered model needs a name of its own.
        log_dir: folder of the log; opens in `inspect view`.
        params: `n` must be 1.
        judge: scores rollouts, e.g. a router's method, or `judge_with(verifiers)`.
        checkpoint: folder the engine's weights came from; its hash becomes part of the model's name.
        seed: of the engine.
        batch_size: requests an engine call.
        environment: what answers the policy between its turns, for at most `max_turns` turns.
        trace_format: how such a reply is read; `format` where it is None.

    Returns:
        Judged rollouts in the order of `samples`, one a sample, and the log's path. Images stay out of the
        log: each is shown as "[image]".

    Raises:
        SafeladderError: inspect_ai is missing, no samples, a sample id twice, or `params.n` is not 1.
        Exception: whatever the engine or a verifier raised.
        RuntimeError: the judge gave back other rollouts than it was given.
    """
    require_inspect()
    ids = [sample.id for sample in samples]
    if not ids or len(set(ids)) < len(ids):
        raise SafeladderError(f"{name}: evaluation needs samples with ids that occur once; got {len(ids)} samples")
    if params.n != 1:
        raise SafeladderError(f"{name}: Inspect scores one reply a sample, got n = {params.n}")
    begun = datetime.now(UTC)
    judged: list[Rollout] = []
    for start in range(0, len(samples), batch_size):
        groups = collect(
            engine,
            samples[start : start + batch_size],
            params,
            trace_format or format,
            seed=seed,
            environment=environment,
            max_turns=max_turns,
        )
        judged += judge([rollout for (rollout,) in groups])
    if [rollout.sample.id for rollout in judged] != ids:
        raise RuntimeError(f"{name}: the judge gave back {len(judged)} of {len(ids)} rollouts, or in another order")
    # Imported where it is needed: Inspect takes a second.
    from safeladder.evaluation.inspect_log import write_log

    with guarded():
        log = write_log(
            judged,
            Path(log_dir),
            name=name,
            model=name if checkpoint is None else f"{name}@{checkpoint_hash(checkpoint)}",
            params=params,
            seed=seed,
            format=format,
            turns=environment is not None,
            begun=begun,
        )
    return judged, log


def require_inspect() -> None:
    """Raises `SafeladderError` where inspect_ai is missing."""
    try:
        import inspect_ai  # noqa: F401
    except ImportError:
        raise SafeladderError("evaluation needs inspect-ai: pip install 'safeladder[eval]'") from None


@contextmanager
def guarded() -> Iterator[None]:
    """Undo what Inspect does to the root logger, and keep the garbage collector from taking a quarter of the
    time.

    Inspect makes thousands of objects a sample, and every full collection would walk all of torch as well.
    """
    root = logging.getLogger()
    level, handlers, thresholds = root.level, list(root.handlers), gc.get_threshold()
    gc.freeze()
    gc.set_threshold(200_000, 10, 10)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
        root.setLevel(level)
        root.handlers[:] = handlers
