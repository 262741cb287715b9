"""One process of two (or the only one): runs every case of `CASES` and writes what came out.

Started as ``python steps.py replicated|sharded FOLDER``; the tests compare its files with a single process.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rollout.tiny_policies import ask, picture
from safeladder.models.policy import Policy
from safeladder.training.batching import Row
from safeladder.training.checkpoint import load_state, save_state
from safeladder.training.learner import Learner
from safeladder.training.parallel import Parallel, Replicated, Sharded
from safeladder.types import Sample
from training.tiny_runs import learner_of, policy, preset, rows, sft


@dataclass(frozen=True)
class Case:
    loss: Any
    samples: Callable[[], list[Sample]]
    tokens: int = 4096
    freeze: bool = False
    optimizer: Literal["adamw", "muon"] = "adamw"
    share: Callable[[list[Row], int], list[Row]] = lambda made, rank: made[rank::2]


def mixed() -> list[Sample]:
    return [
        ask("a", picture(1), "how many red circles?"),
        ask("b", picture(2), "what colour?"),
        ask("c", "what colour is the square? the square is blue"),
        ask("d", "how many?"),
        ask("e", picture(3, 84), "how many red circles?", picture(4)),
        ask("f", picture(5), "how many?"),
    ]


def one_sided() -> list[Sample]:
    """Every image goes to the first process."""
    return [
        ask("a", picture(1), "how many red circles?"),
        ask("b", "what colour is the square? the square is blue"),
        ask("c", picture(2), "what colour?"),
        ask("d", "how many?"),
    ]


CASES: dict[str, Case] = {
    "sft": Case(sft, mixed),
    "cpgd": Case(preset("cpgd"), mixed),
    "sequence-mean": Case(preset("gspo"), mixed),
    "muon": Case(sft, mixed, optimizer="muon"),
    "micro-batches": Case(sft, mixed, tokens=60),
    "no-image-on-one": Case(sft, one_sided),
    "no-image-on-one-cpgd": Case(preset("cpgd"), one_sided, tokens=50),
    "frozen-vision": Case(sft, one_sided, freeze=True),
    "fewer-micro-batches": Case(sft, mixed, tokens=45, share=lambda made, rank: made[:5] if rank == 0 else made[5:]),
    "no-rows-on-one": Case(preset("cpgd"), mixed, share=lambda made, rank: made if rank == 0 else []),
}
STEPS = 2


def cases(mode: str) -> dict[str, Case]:
    """What a backend can run: Muon needs whole matrices."""
    return {name: case for name, case in CASES.items() if mode == "replicated" or case.optimizer == "adamw"}


def prepare(case: Case, parallel: Parallel, mode: str) -> tuple[Policy, Any, Learner, list[Row]]:
    learned = policy("qwen2_5_vl")
    if case.freeze:
        learned.family.vision_module(learned.model).requires_grad_(False)
    made = rows(learned, case.samples())
    backend = Replicated(learned, parallel) if mode == "replicated" else Sharded(learned, parallel)
    learner = learner_of(learned, backend, tokens=case.tokens, clip=1.0, rate=1e-3, name=case.optimizer)
    if parallel.world_size == 2:
        made = case.share(made, parallel.rank)
    return learned, backend, learner, made


def run(case: Case, parallel: Parallel, mode: str) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    _, backend, learner, made = prepare(case, parallel, mode)
    metrics = [learner.step(made, case.loss) for _ in range(STEPS)]
    return named(backend), metrics


def named(backend: Any) -> dict[str, torch.Tensor]:
    """Full parameters under the model's own names, tied ones once (empty where only the main process
    has them).
    """
    return {name: value.clone() for name, value in backend.full_state_dict().items() if "lm_head" not in name}


def resume(parallel: Parallel, mode: str, folder: Path) -> None:
    """An unbroken run of three steps and one that is stored after two, loaded anew and goes on."""
    _, backend, learner, made = prepare(CASES["cpgd"], parallel, mode)
    for _ in range(2):
        learner.step(made, CASES["cpgd"].loss)
    state = {"model": backend.full_state_dict(), "learner": learner.state_dict()}
    if parallel.is_main:
        save_state(folder / "state", 2, state)
    parallel.barrier()
    learner.step(made, CASES["cpgd"].loss)
    unbroken = named(backend)
    _, backend, learner, made = prepare(CASES["cpgd"], parallel, mode)
    loaded = load_state(folder / "state")
    assert loaded is not None
    backend.load_model(loaded["model"])
    learner.load_state_dict(loaded["learner"])
    learner.step(made, CASES["cpgd"].loss)
    resumed = named(backend)
    if parallel.is_main:
        save_file(unbroken, folder / "unbroken.safetensors")
        save_file(resumed, folder / "resumed.safetensors")


def main(mode: str, folder: Path) -> None:
    torch.set_num_threads(1)
    parallel = Parallel()
    for name, case in cases(mode).items():
        weights, metrics = run(case, parallel, mode)
        if parallel.is_main:
            save_file(weights, folder / f"{name}.safetensors")
        (folder / f"{name}.{parallel.rank}.json").write_text(json.dumps(metrics))
        print(name, "done", flush=True)
    resume(parallel, mode, folder)
    parallel.close()


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    main(sys.argv[1], Path(sys.argv[2]))
