"""A finished training run as the registry wants to hear of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from backend.registry.store import Candidate
from backend.training.checkpoint import Metadata, config_of
from backend.training.network import Architecture
from backend.training.train import Trained


def candidate_of(trained: Trained) -> Candidate:
    """The checkpoint of a run with what the registry stores of it, in the ai-service's names where they fit."""
    measures = trained.measures
    return candidate_of_file(trained.path, trained.metadata, measures.policy_accuracy, measures.value_accuracy)


def candidate_of_file(
    path: Path, metadata: Metadata, policy_accuracy: float | None, value_accuracy: float | None
) -> Candidate:
    """The same for a checkpoint that was trained elsewhere, with what its run measured."""
    settings = (metadata.training_info or {}).get("settings", {})
    data = metadata.data or {}
    return Candidate(
        file=path,
        config=config_of(metadata, path),
        architecture=Architecture(**metadata.architecture).label,
        encoder_version=metadata.encoder_version,
        data_digest=data.get("content_digest"),
        parent_sha256=metadata.parent_checkpoint,
        metrics={
            "policy_accuracy": policy_accuracy,
            "value_accuracy": value_accuracy,
            "games_played": 0,
        },
        training_config={
            "learning_rate": settings.get("learning_rate"),
            "batch_size": settings.get("batch_size"),
            "epochs": settings.get("epochs"),
            "optimizer": "adamw",
            "architecture": metadata.architecture_version,
            "num_residual_blocks": metadata.architecture["blocks"],
            "num_filters": metadata.architecture["channels"],
            "augmentation_enabled": True,
        },
        metadata=asdict(metadata),
    )
