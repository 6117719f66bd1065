"""Train the demo checkpoint: record, encode, train, write.

Run from the repository: `.venv/bin/python -m tests.demo_training --help`.
"""

import argparse
import json
import time
from pathlib import Path

import msgspec
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_export.reference.model import MemoryWam
from memorywam_robot.sim.tasks import INSTRUCTIONS, TASKS, script_from_seed
from memorywam_runtime.contract import (
    InferenceContract,
    contract_from_json,
    contract_to_json,
)
from memorywam_runtime.memory import Visible
from tests.demo_training.encoder import encode_all, train_encoder
from tests.demo_training.episodes import record_all
from tests.demo_training.policy import Batches, open_loop_accuracy, train_policy
from tests.demo_training.prompts import embedding_from_text

FIRST_SEEDS = {"train": 100_000, "held_out": 900_000}
ABLATIONS = {
    "all": Visible(),
    "no_anchors": Visible(anchors=False),
    "no_gists": Visible(gists=False),
    "no_window": Visible(window=False),
    "window_only": Visible(anchors=False, gists=False),
}


def main() -> None:
    """Run the stages that were asked for; each reads what the one before it wrote."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="+", choices=["record", "encode", "train"])
    parser.add_argument("--work", type=Path, default=Path("build/demo_training"))
    parser.add_argument("--out", type=Path, default=Path("build/demo_training/checkpoint"))
    parser.add_argument("--episodes", type=int, default=600, help="per task")
    parser.add_argument("--encoder-steps", type=int, default=600)
    parser.add_argument("--policy-steps", type=int, default=2400)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    contract = contract_from_preset("demo")
    if "record" in args.stages:
        record(args, contract)
    if "encode" in args.stages:
        encode(args, contract)
    if "train" in args.stages:
        train(args, contract)


def record(args: argparse.Namespace, contract: InferenceContract) -> None:
    """Write train.npz and held_out.npz."""
    start = time.monotonic()
    for name, count in (("held_out", 30), ("train", args.episodes)):
        path, seed = args.work / f"{name}.npz", FIRST_SEEDS[name]
        record_all(contract, path, episodes_per_task=count, first_seed=seed)
    print(f"recorded in {time.monotonic() - start:.0f} s", flush=True)


def encode(args: argparse.Namespace, contract: InferenceContract) -> None:
    """Train the encoder; write its weights and the latents of both sets."""
    with np.load(args.work / "train.npz") as arrays:
        images = arrays["images"]
    encoder = train_encoder(
        contract, images, num_steps=args.encoder_steps, batch=16, seed=args.seed
    )
    save_file(encoder.state_dict(), args.work / "encoder.safetensors")
    latents = {"train": encode_all(encoder, images)}
    with np.load(args.work / "held_out.npz") as arrays:
        latents["held_out"] = encode_all(encoder, arrays["images"])
    std, mean = torch.std_mean(latents["train"], dim=(0, 2, 3, 4))
    shape = (1, -1, 1, 1, 1)
    latents = {
        name: ((value - mean.view(shape)) / std.view(shape)).contiguous()
        for name, value in latents.items()
    }
    save_file(latents, args.work / "latents.safetensors")
    (args.work / "contract.json").write_bytes(contract_to_json(with_latents(contract, mean, std)))


def with_latents(
    contract: InferenceContract, mean: torch.Tensor, std: torch.Tensor
) -> InferenceContract:
    """Return the contract with the statistics of the latents, six digits each."""
    vae = msgspec.structs.replace(
        contract.vae,
        latent_mean=tuple(round(float(value), 6) for value in mean),
        latent_std=tuple(round(float(value), 6) for value in std),
    )
    return msgspec.structs.replace(contract, vae=vae)


def train(args: argparse.Namespace, contract: InferenceContract) -> None:
    """Train the experts; write the checkpoint with its statistics, prompts and report."""
    start = time.monotonic()
    torch.manual_seed(args.seed)
    contract = contract_from_json((args.work / "contract.json").read_bytes())
    model = MemoryWam(contract)
    model.vae.load_state_dict(load_file(args.work / "encoder.safetensors"))
    stats = statistics(args.work / "train.npz")
    sets = {name: batches(args.work, name, stats, contract) for name in ("train", "held_out")}
    curve = {}
    averaged = model
    for step, averaged in train_policy(
        model,
        sets["train"],
        sets["held_out"],
        num_steps=args.policy_steps,
        batch=args.batch,
        learning_rate=args.learning_rate,
        seed=args.seed,
    ):
        curve[step] = open_loop_accuracy(averaged, sets["held_out"])
        write(args.out, averaged, contract, stats)
    report = {
        "seed": args.seed,
        "policy_steps": args.policy_steps,
        "batch": args.batch,
        "learning_rate": args.learning_rate,
        "encoder_steps": args.encoder_steps,
        "episodes_per_task": len(sets["train"].task) // len(TASKS),
        "parameters": sum(p.numel() for p in model.parameters()),
        "minutes": round((time.monotonic() - start) / 60, 1),
        "tasks": list(TASKS),
        "open_loop_by_step": curve,
        "open_loop_by_ablation": {
            name: open_loop_accuracy(averaged, sets["held_out"], visible)
            for name, visible in ABLATIONS.items()
        },
    }
    (args.out / "training_report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report["open_loop_by_ablation"]), flush=True)


def statistics(path: Path) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Return FastWAM's dataset statistics of actions and states."""
    with np.load(path) as arrays:
        rows = {
            "action": arrays["chunks"].reshape(-1, 14),
            "state": arrays["states"].reshape(-1, 14),
        }
    return {
        kind: {
            "default": {
                "global_min": values.min(0).tolist(),
                "global_max": values.max(0).tolist(),
                "global_mean": values.mean(0).tolist(),
                "global_std": values.std(0).tolist(),
                "global_q01": np.quantile(values, 0.01, axis=0).tolist(),
                "global_q99": np.quantile(values, 0.99, axis=0).tolist(),
            }
        }
        for kind, values in rows.items()
    }


def batches(
    work: Path,
    name: str,
    stats: dict[str, dict[str, dict[str, list[float]]]],
    contract: InferenceContract,
) -> Batches:
    """Return one set as normalized tensors."""
    with np.load(work / f"{name}.npz") as arrays:
        found = {key: arrays[key] for key in arrays.files if key != "images"}
    contexts = torch.zeros(len(TASKS), contract.conventions.text_len, contract.text_dim)
    for index, task in enumerate(TASKS):
        rows = torch.from_numpy(embedding_from_text(INSTRUCTIONS[task], contract.text_dim))
        contexts[index, : len(rows)] = rows
    return Batches(
        latents=load_file(work / "latents.safetensors")[name],
        states=normalized(found["states"], stats["state"]["default"]),
        chunks=normalized(found["chunks"], stats["action"]["default"]),
        contexts=contexts,
        cue_end=torch.tensor(cue_ends(found["task"], name)),
        **{key: torch.from_numpy(found[key]) for key in ("task", "target", "go", "length")},
    )


def cue_ends(tasks: np.ndarray, name: str) -> list[int]:
    """Return the last frame of each episode's cue, from the script of its seed.

    Episodes stand in the order in which `record_all` made them.
    """
    ends = []
    for index, task in enumerate(TASKS):
        count = int((tasks == index).sum())
        seeds = list(range(FIRST_SEEDS[name], FIRST_SEEDS[name] + count))
        order = [seed for i in range(8) for seed in seeds[i::8]]
        ends += [max(script_from_seed(task, seed).cue_frames) for seed in order]
    return ends


def normalized(values: np.ndarray, stats: dict[str, list[float]]) -> torch.Tensor:
    """Return values in [-1, 1] by minimum and maximum; a constant maps to 0."""
    low, high = np.array(stats["global_min"]), np.array(stats["global_max"])
    span = high - low
    still = span < 1e-4
    scale = np.where(still, 1.0, 2 / np.where(still, 1.0, span))
    offset = np.where(still, -low, -1 - low * scale)
    return torch.from_numpy(values * scale + offset).float()


def write(
    out: Path,
    model: MemoryWam,
    contract: InferenceContract,
    stats: dict[str, dict[str, dict[str, list[float]]]],
) -> None:
    """Write weights, contract, statistics and prompts as one checkpoint folder."""
    out.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        out / "model.safetensors",
    )
    (out / "contract.json").write_bytes(contract_to_json(contract))
    (out / "dataset_stats.json").write_text(json.dumps(stats, indent=1) + "\n")
    prompts = {
        text: torch.from_numpy(embedding_from_text(text, contract.text_dim))
        for text in INSTRUCTIONS.values()
    }
    save_file(prompts, out / "prompts.safetensors")


if __name__ == "__main__":
    main()
