"""Two gloo processes give the step of one: replicated, and sharded by FSDP2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from safeladder.training.parallel import Parallel
from training.workers import steps

WORKER = Path(steps.__file__)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Mode -> the folder of what two processes gave (run once a module)."""

    @cache
    def run(mode: str) -> Path:
        folder = tmp_path_factory.mktemp(mode)
        env = {
            **os.environ,
            "WORLD_SIZE": "2",
            "GLOO_SOCKET_IFNAME": "lo",
            "OMP_NUM_THREADS": "1",
            "SAFELADDER_RENDEZVOUS": str(folder / "rendezvous"),
        }
        workers = [
            subprocess.Popen(
                [sys.executable, str(WORKER), mode, str(folder)],
                env={**env, "RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(2)
        ]
        deadline = time.monotonic() + 180
        while any(w.poll() is None for w in workers) and time.monotonic() < deadline:
            if any(w.poll() not in (None, 0) for w in workers):
                break
            time.sleep(0.1)
        failed = [w for w in workers if w.poll() != 0]
        for w in workers:
            if w.poll() is None:
                w.kill()
        said = [w.communicate()[0] for w in workers]
        assert not failed, "\n".join(text[-2000:] for text in said)
        return folder

    return run


@cache
def single(name: str, fused: bool) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """One process. Sharded models run their own modules, and so does what they are compared with: AdamW's first step
    divides every gradient by its size, so the rounding by which the fused pass differs (test_trunk) would show.
    """
    with pytest.MonkeyPatch.context() as patch:
        if not fused:
            patch.setattr("safeladder.models.trunk.supports", lambda *_: False)
        return steps.run(steps.CASES[name], Parallel(), "replicated")


def _determined(key: str, difference: torch.Tensor) -> torch.Tensor:
    """Without the bias of the vision tower's keys: softmax ignores all of it but what rotary positions turn, so its
    gradient is rounding around almost zero, which AdamW divides by its own size.
    """
    if key.endswith("attn.qkv.bias"):
        query, _, value = difference.chunk(3)
        return torch.cat((query, value))
    return difference


@pytest.mark.parametrize(
    ("mode", "name"), [(mode, name) for mode in ("replicated", "sharded") for name in steps.cases(mode)]
)
def test_two_processes_take_the_step_of_one(two, mode, name):
    """Parameters after two AdamW steps agree to 1e-5, also where a process has no image, fewer micro-
    batches, no rows.
    """
    folder = two(mode)
    expected, wanted = single(name, mode == "replicated")
    found = load_file(folder / f"{name}.safetensors")
    assert found.keys() == expected.keys()
    worst = {key: float(_determined(key, found[key] - value).abs().max()) for key, value in expected.items()}
    key = max(worst, key=lambda k: worst[k])
    assert worst[key] <= 1e-5, key
    ranks = [json.loads((folder / f"{name}.{rank}.json").read_text()) for rank in (0, 1)]
    for step in range(steps.STEPS):
        for metric in ("loss", "entropy", "logprob_gap", "grad_norm", "counted_tokens", "learning_rate"):
            for metrics in ranks:
                assert metrics[step][metric] == pytest.approx(wanted[step][metric], rel=1e-4, abs=1e-5), metric


def test_the_cases_are_what_they_say():
    """One process really has no image, fewer micro-batches, no rows; and the steps move the weights."""
    made = {name: steps.prepare(case, Parallel(), "replicated") for name, case in steps.CASES.items()}
    for name in ("no-image-on-one", "no-image-on-one-cpgd"):
        parts = [steps.CASES[name].share(made[name][3], rank) for rank in (0, 1)]
        assert [any(r.prompt.has_visuals for r in part) for part in parts] == [True, False]
    case, (_, _, learner, rows) = steps.CASES["fewer-micro-batches"], made["fewer-micro-batches"]
    counts = [len(learner._micro_batches(case.share(rows, rank))) for rank in (0, 1)]
    assert counts[0] > counts[1] > 0
    assert steps.CASES["no-rows-on-one"].share(made["no-rows-on-one"][3], 1) == []
    start = dict(made["sft"][0].named_parameters())
    moved = {
        key for key, value in single("sft", True)[0].items() if float((value - start[key]).detach().abs().max()) > 1e-4
    }
    assert any("visual" in key for key in moved)
    frozen = single("frozen-vision", True)[0]
    assert all(torch.equal(value, start[key]) for key, value in frozen.items() if "visual" in key)


@pytest.mark.parametrize("mode", ["replicated", "sharded"])
def test_resume_on_two_processes_is_bit_identical(two, mode):
    """The state is stored whole, loaded by fresh processes and goes on: the third step has the same bits."""
    folder = two(mode)
    unbroken, resumed = (load_file(folder / f"{name}.safetensors") for name in ("unbroken", "resumed"))
    assert unbroken and unbroken.keys() == resumed.keys()
    for key, value in unbroken.items():
        assert torch.equal(value, resumed[key]), key
    stored = load_file(next((folder / "state").glob("step-*")) / "tensors.safetensors")
    shapes = {key: tuple(value.shape) for key, value in unbroken.items()}
    assert {
        key.removeprefix("/model/"): tuple(v.shape) for key, v in stored.items() if key.startswith("/model/")
    }.items() >= shapes.items()
    moments = [tuple(v.shape) for key, v in stored.items() if key.endswith("exp_avg")]
    assert sorted(moments) == sorted(shapes.values()), "optimizer state is stored whole"
