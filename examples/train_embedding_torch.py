"""The same as train_embedding.py, with PyTorch and pytorch-metric-learning.

    python examples/train_embedding_torch.py --data_dir DATA

--data batches reads P landmarks with K images each and mines semi-hard triplets within the batch, --data fresh reads
triplets drawn anew in every epoch. Both come from landmark_images, through PyTorch's DataLoader.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
import json
from pathlib import Path
import sys
from typing import Any

from held_out import HeldOut, describe, save_embeddings
import numpy as np
import numpy.typing as npt
from prepared import VALIDATION, NotPreparedError, open_images
from pytorch_metric_learning import losses, miners
import torch
from torch import nn
from torch.utils.data import DataLoader

from landmark_triplets_tfds import (
    EpochSampler,
    FreshTriplets,
    LandmarkBatches,
    LandmarkTripletsError,
    TensorFlowPixels,
    read_image_index,
)

ROLES = ("anchor_img", "positive_img", "negative_img")

_IMAGES_PER_BATCH = 256  # when embedding


class Network(nn.Sequential):
    """From uint8 images [n, height, width, 3], as the datasets hold them, to vectors of length 1, [n, dim]."""

    def __init__(self, embedding_size: int):
        blocks: list[nn.Module] = []
        num_channels = 3
        for num_filters in (32, 64, 128, 128):
            convolution = nn.Conv2d(num_channels, num_filters, 3, stride=2, padding=1, bias=False)
            blocks += [convolution, nn.BatchNorm2d(num_filters), nn.ReLU()]
            num_channels = num_filters
        super().__init__(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(num_channels, embedding_size))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images.permute(0, 3, 1, 2).float() / 127.5 - 1
        return nn.functional.normalize(super().forward(pixels))


def make_loader(dataset: Any, num_workers: int, **options: Any) -> Any:
    """Returns a DataLoader whose worker processes start afresh and stay.

    In a fork of this process array_record would crash (docs/reading.md). And as workers that stay hold the dataset as
    it was when they started, it is the sampler, here, that says which epoch they read.
    """
    if num_workers:
        options |= {"multiprocessing_context": "spawn", "persistent_workers": True}
    return DataLoader(dataset, num_workers=num_workers, **options)


def training_batches(args: argparse.Namespace, source: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor, Any]]:
    """Yields images, their landmarks, and which are anchors, positives and negatives; None: to be mined."""
    if args.data == "batches":
        batches = LandmarkBatches(source, args.landmarks_per_batch, args.images_per_landmark, seed=args.seed)
        loader = make_loader(source, args.workers, batch_sampler=batches)
        while True:  # each pass is the next epoch
            for batch in loader:
                yield batch["image"], batch["landmark_id"], None
    triplets = FreshTriplets(source, seed=args.seed)
    sampler = EpochSampler(triplets)
    loader = make_loader(triplets, args.workers, batch_size=args.batch_size, sampler=sampler, drop_last=True)
    if not len(loader):
        raise NotPreparedError(f"--batch_size {args.batch_size} is more than an epoch has triplets ({len(triplets)}).")
    numbers = torch.arange(len(ROLES) * args.batch_size).reshape(len(ROLES), -1)
    while True:
        for batch in loader:
            landmarks = [batch["landmark_id"], batch["landmark_id"], batch["negative_landmark_id"]]
            yield torch.cat([batch[role] for role in ROLES]), torch.cat(landmarks), tuple(numbers)


def embed(network: Network, loader: Any, device: str) -> npt.NDArray[np.float32]:
    """Returns the embeddings of all that a loader gives, float32[n, dim], in its order."""
    network.eval()
    with torch.no_grad():
        embeddings = np.concatenate([network(batch["image"].to(device)).cpu().numpy() for batch in loader])
    network.train()
    return embeddings


def train(args: argparse.Namespace) -> dict[str, float]:
    """Trains, evaluates and writes all files; returns the measures on held-out landmarks."""
    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = open_images(args.images_config, args.data_dir)
    decoders = {"image": TensorFlowPixels()}  # so that embeddings may be compared with those of TensorFlow's programs
    training = images.as_data_source(split="train", decoders=decoders)
    validation = images.as_data_source(split=VALIDATION, decoders=decoders)
    validation_loader = make_loader(validation, args.workers, batch_size=_IMAGES_PER_BATCH)
    held_out = HeldOut(read_image_index(images.data_dir, VALIDATION))
    network = Network(args.embedding_size).to(device)
    optimizer = torch.optim.Adam(network.parameters(), args.learning_rate)
    miner = miners.TripletMarginMiner(args.margin, type_of_triplets="semihard")
    compute_loss = losses.TripletMarginLoss(args.margin)

    print(f"Training with --data {args.data} on {images.info.full_name}, device {device}.")
    print(f"Evaluation on landmarks never trained on: {held_out.size}.")
    print(f"Before training: {describe(held_out.evaluate(embed(network, validation_loader, device)))}")
    total = 0.0
    batches = training_batches(args, training)
    for step, (pictures, landmarks, triplets) in zip(range(1, args.steps + 1), batches, strict=False):
        embeddings = network(pictures.to(device))
        landmarks = landmarks.to(device)
        loss = compute_loss(embeddings, landmarks, triplets or miner(embeddings, landmarks))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
        if step % args.evaluate_every == 0 or step == args.steps:
            metrics = held_out.evaluate(embed(network, validation_loader, device))
            print(f"Step {step:,}: mean loss so far {total / step:.4f}, {describe(metrics)}")

    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), out / "embedding.pt")
    held_out.draw(out / "results.png", embed(network, validation_loader, device), validation)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {out}: embedding.pt, results.png, metrics.json")
    if args.embeddings:

        def embed_split(split: str) -> npt.NDArray[np.float32]:
            source = images.as_data_source(split=split, decoders=decoders)
            return embed(network, make_loader(source, args.workers, batch_size=_IMAGES_PER_BATCH), device)

        save_embeddings(Path(args.embeddings), embed_split, images)
    return metrics


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Returns the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", choices=("batches", "fresh"), default="batches", help="(default: %(default)s)")
    add("--data_dir", metavar="DIR", help="where datasets are (default: ~/tensorflow_datasets)")
    add("--images_config", default="64px_all_holdout10", help="of landmark_images (default: %(default)s)")
    add("--out", default="build/embedding_torch", metavar="DIR", help="for all that is written (default: %(default)s)")
    add("--embeddings", metavar="DIR", help="write the embeddings of each split there, <split>.npy")
    add("--steps", type=int, default=600, help="batches to train on (default: %(default)s)")
    add("--evaluate_every", type=int, default=200, help="steps (default: %(default)s)")
    add("--batch_size", type=int, default=32, help="triplets in a batch (default: %(default)s)")
    add("--landmarks_per_batch", type=int, default=24, help="P, with --data batches (default: %(default)s)")
    add("--images_per_landmark", type=int, default=4, help="K, with --data batches (default: %(default)s)")
    add("--margin", type=float, default=0.2, help="of the loss, in distances (default: %(default)s)")
    add("--embedding_size", type=int, default=64, help="(default: %(default)s)")
    add("--learning_rate", type=float, default=1e-3, help="of Adam (default: %(default)s)")
    add("--seed", type=int, default=0, help="of weights and draws (default: %(default)s)")
    add("--workers", type=int, default=0, help="processes that read and decode; 0: this one (default: %(default)s)")
    args = parser.parse_args(arguments)
    for name in ("steps", "evaluate_every", "batch_size", "embedding_size"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(args, name)}.")
    return args


def main(arguments: list[str] | None = None) -> None:
    """Runs the program."""
    args = parse(arguments)
    try:
        train(args)
    except (NotPreparedError, LandmarkTripletsError) as error:
        sys.exit(f"train_embedding_torch.py: {error}")


if __name__ == "__main__":
    main()
