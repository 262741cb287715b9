"""One GRPO step, safeladder against TRL: the same work on the same machine in one run.

    python benchmarks/rl_step.py [--checkpoint DIR] [--prompts 16] [--group 8] [--steps 12]

Both sides take the same checkpoint of a laptop-size Qwen2.5-VL, the same prompts with one image each, the same group
size, temperature, learning rate, loss (DAPO-style clip, token mean, no reference) and reward, in float32, on all cores.
No group is dropped. Two settings: `fixed`, where the end token is forbidden and every response has the same number of
tokens on both sides, and `natural`, where the policy ends its responses itself (needs a trained --checkpoint).

TRL runs in an environment of its own (made on first use beside this file), as one process with all threads and as one
process a core; its better figure counts. Medians over steps after three warm-up steps. Results go to
benchmarks/results/rl_step.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
TRL_PYTHON = HERE / ".venv-trl" / "bin" / "python"
TRL_PINS = ("transformers==5.23.0", "tokenizers==0.23.3", "trl==1.16.0", "accelerate==1.15.0", "datasets==5.2.0",
            "numpy==2.4.6", "pillow==13.0.0", "pydantic==2.14.3", "pyyaml", "scikit-learn")  # fmt: skip
WARM_UP = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="trained checkpoint, e.g. runs/demo/checkpoints/cot-sft")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32, help="tokens a response in the fixed setting")
    parser.add_argument("--limit", type=int, default=72, help="token budget in the natural setting")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    _trl_environment()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = options.checkpoint or _untrained(folder, options.seed)
        settings = ["fixed", "natural"] if options.checkpoint else ["fixed"]
        results = {}
        for setting in settings:
            job = {
                "checkpoint": str(checkpoint),
                "setting": setting,
                "prompts": options.prompts,
                "group": options.group,
                "tokens": options.tokens if setting == "fixed" else options.limit,
                "steps": options.steps + WARM_UP,
                "seed": options.seed,
            }
            rows = {
                "safeladder": _run(sys.executable, "rl_step_ours.py", job, folder, cores, 1),
                "TRL, one process": _run(TRL_PYTHON, "rl_step_trl.py", job, folder, 1, cores),
                "TRL, one process a core": _run(TRL_PYTHON, "rl_step_trl.py", job, folder, cores, 1),
            }
            results[setting] = rows
            _print(setting, job, rows, cores)
    out = HERE / "results"
    out.mkdir(exist_ok=True)
    (out / "rl_step.json").write_text(json.dumps({"cores": cores, **results}, indent=1) + "\n")


def _print(setting: str, job: dict, rows: dict, cores: int) -> None:
    rollouts = job["prompts"] * job["group"]
    print(f"\n{setting}: {job['prompts']} prompts x {job['group']}, {job['tokens']} tokens, {cores} cores, float32")
    best = max(rollouts / statistics.median(r["seconds"]) for name, r in rows.items() if name != "safeladder")
    for name, row in rows.items():
        median = statistics.median(row["seconds"])
        low, high = min(row["seconds"]), max(row["seconds"])
        print(
            f"  {name:24s} {median * 1e3:7.0f} ms a step ({low * 1e3:.0f}-{high * 1e3:.0f})"
            f"  {rollouts / median:6.0f} rollouts/s  mean response {statistics.mean(row['lengths']):.1f} tokens"
        )
    ours = rows["safeladder"]
    print(f"  ratio to the better TRL: {rollouts / statistics.median(ours['seconds']) / best:.2f}x")
    for part in ("generate", "judge", "logprob", "train"):
        share = statistics.median(ours[part]) / statistics.median(ours["seconds"])
        print(f"    {part:10s} {statistics.median(ours[part]) * 1e3:7.1f} ms  {100 * share:4.0f} %")
    print(
        f"    matmul peak of one core {ours['peak_gflops']:.0f} GFLOP/s; reached while generating "
        f"{100 * ours['generate_share_of_peak']:.0f} %, while training {100 * ours['train_share_of_peak']:.0f} %"
    )


def _run(python: str | Path, script: str, job: dict, folder: str, processes: int, threads: int) -> dict:
    """Run one side as `processes` ranks with `threads` threads each; rank 0 writes the result."""
    result = Path(folder) / "result.json"
    result.unlink(missing_ok=True)
    workers = []
    with tempfile.TemporaryDirectory() as meeting:
        for rank in range(processes):
            environment = {
                **os.environ,
                "PYTHONPATH": str(HERE.parent / "src"),
                "OMP_NUM_THREADS": str(threads),
                "TOKENIZERS_PARALLELISM": "false",
                "HF_HUB_OFFLINE": "1",
                "GLOO_SOCKET_IFNAME": "lo",
                "SAFELADDER_RENDEZVOUS": f"{meeting}/rendezvous",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": "29599",
            }
            if processes > 1:
                environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes),
                                "LOCAL_WORLD_SIZE": str(processes)}  # fmt: skip
            log = open(Path(folder) / f"{script}-{rank}.log", "w")  # noqa: SIM115
            command = [str(python), str(HERE / script), json.dumps(job | {"threads": threads, "out": str(result)})]
            workers.append((subprocess.Popen(command, env=environment, stdout=log, stderr=log), log))
        codes = [worker.wait() for worker, _ in workers]
    if any(codes) or not result.is_file():
        raise SystemExit(Path(workers[0][1].name).read_text()[-3000:])
    return json.loads(result.read_text())


def _untrained(folder: str, seed: int) -> Path:
    from safeladder.models.load import save_checkpoint
    from safeladder.models.tiny import build_tiny
    from safeladder.world import World, WorldConfig

    path = Path(folder) / "untrained"
    model, processor = build_tiny("qwen2_5_vl", World(WorldConfig()).texts(), seed=seed, vocab_size=1152)
    save_checkpoint(model, processor, path)
    return path


def _trl_environment() -> None:
    if TRL_PYTHON.is_file():
        return
    print("making the TRL environment (once, a few minutes)", flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(HERE / ".venv-trl")], check=True)
    pip = [str(TRL_PYTHON), "-m", "pip", "install", "-q"]
    subprocess.run([*pip, "torch==2.13.0"], check=True)
    subprocess.run([*pip, *TRL_PINS], check=True)


if __name__ == "__main__":
    main()
