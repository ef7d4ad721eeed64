"""``pysim train``: a dense network from nothing to a checkpoint."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from pysim.data import load_dataset
from pysim.errors import DataError
from pysim.models import is_user_model, user_model_digest
from pysim.runner.methods import DENSE_LR
from pysim.runner.networks import fresh_model
from pysim.training import (
    Batches,
    Progress,
    Threads,
    TrainConfig,
    check_bf16,
    check_threads,
    evaluate,
    exclusive_state,
    find_device,
    no_progress,
    remove_state,
    save_tensors,
    train,
    training_threads,
)


def train_dense(
    model: str,
    data: str,
    *,
    pad_to: int | None = None,
    epochs: int,
    seed: int,
    out: Path,
    lr: float = DENSE_LR,
    resume: bool = True,
    save_every: int = 100,
    threads: Threads = None,
    device: str = "cpu",
    bf16: bool = False,
    progress: Progress = no_progress,
) -> dict[str, object]:
    """Trains ``model`` on ``data`` and writes its weights to ``out``.

    As it goes, the state is saved to ``out`` with ``.state`` added; the same call goes on from there.

    Args:
        model: A name in ``MODELS``.
        data: As in ``load_dataset``.
        pad_to: Pad images to this size in pixels; None leaves them.
        epochs: Passes over the training images.
        seed: Of weights and training.
        out: The checkpoint to write.
        lr: Highest learning rate.
        resume: Whether to go on from a saved state; otherwise it is removed.
        save_every: Steps between saves.
        threads: With how many CPU threads.
        device: ``cpu`` or ``cuda``.
        bf16: Train in bfloat16.
        progress: Told how far training is.

    Returns:
        The checkpoint's note: model, dataset, accuracy on the test images in percent, settings, threads.

    Raises:
        ConfigError: There is no such device, or it has no bfloat16.
        DataError: The data or the saved state is broken, or the state is of other settings.
        ModelError: The model is unknown.
    """
    where = find_device(device)
    if bf16:
        check_bf16(where)
    check_threads(threads)
    dataset = load_dataset(data)
    if pad_to is not None:
        dataset = dataset.padded(pad_to)
    config = TrainConfig(epochs=epochs, peak_lr=lr, seed=seed, bf16=bf16)
    network = fresh_model(model, dataset, seed)
    batches = Batches(dataset, crop_pad=config.crop_pad, device=where)
    code = user_model_digest(model) if is_user_model(model) else model
    with exclusive_state(out.with_name(f"{out.name}.state")) as state, training_threads(threads):
        if state is None:
            raise DataError(f"{out}: another process is training it", hint="Choose another --out.")
        if not resume:
            remove_state(state)
        train(
            network,
            batches,
            config,
            state_path=state,
            save_every=save_every,
            keep_state=True,
            identity=f"{code} on {dataset.fingerprint()}, threads {threads}",
            probe_threads=threads == "probe",
            progress=progress,
        )
        note: dict[str, object] = {
            "model": model,
            "dataset": dataset.name,
            "accuracy_percent": evaluate(network, batches, progress=progress),
            "training": asdict(config),
            "threads": torch.get_num_threads(),
        }
        save_tensors(out, network.state_dict(), note)
        remove_state(state)
    return note
