"""What the command line says, typed: one field a flag of main.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Fields are named as the flags are; None: not given."""

    # what to do
    train: bool = False
    anomaly_test: bool = False
    compare: list[str] | None = None
    visualize: bool = False
    generate_test_images: int = 64
    export: str | None = None
    serve: int | None = None

    # images
    dataset: str = "celebA"
    data_dir: str = "data"
    input_fname_pattern: str | None = None
    train_size: int | None = None
    drop: str | None = None
    normal_class: int | None = None
    anomaly_class: int | None = None
    crop: bool | None = None
    input_height: int | None = None
    input_width: int | None = None
    output_height: int | None = None
    output_width: int | None = None
    channels: int | None = None
    window: int | None = None

    # networks
    preset: str | None = None
    z_dim: int | None = None
    gf_dim: int | None = None
    df_dim: int | None = None
    lambda_: float | None = None

    # training
    epochs: float | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    beta1: float | None = None
    validation_fraction: float | None = None
    seed: int | None = None
    strategy: str = "none"
    precision: str = "auto"

    # scoring
    test_dir: Sequence[str] | None = None
    search: str | None = None
    test_epoch: int | None = None
    test_learning_rate: float = 0.1
    test_batch_size: int = 256
    test_size: int | None = None

    # decision
    target_fpr: float | None = None
    threshold: float | None = None
    threshold_from: str | None = None
    labels: str | None = None
    mask_dir: str | None = None
    save_maps: bool = False
    report: bool = True
    json: bool = False
    fail_on_anomaly: bool = False

    # folders
    checkpoint_dir: str = "checkpoints"
    sample_dir: str = "samples"
    test_result_dir: str | None = None
    log_dir: str = "logs"
    export_dir: str | None = None

    # serving
    serve_host: str = "127.0.0.1"
