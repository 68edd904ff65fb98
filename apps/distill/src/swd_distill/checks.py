"""What is checked of a config before any work, each where the knowledge is."""

from importlib.util import find_spec
from pathlib import Path

from swd_data import is_hub_id
from swd_distill.config import Config


def check(config: Config) -> None:
    """Raise ValueError for what would fail later, in one line."""
    from swd_distill.data.sources import background_of
    from swd_distill.training.batches import check_levels  # which takes seconds to import: after the flags are parsed

    config.check()
    check_backends(config)
    background_of(config)
    check_levels(config.recipe)
    if config.training.base != "bf16":
        from swd_models.quantized import check_base

        check_base(config.training.base)
    if config.init_lora and not (Path(config.init_lora).exists() or is_hub_id(config.init_lora, ".safetensors")):
        raise ValueError(
            f"expected a file, a folder or OWNER/NAME of the hub as --init-lora, got {config.init_lora}, which does "
            "not exist: check the path"
        )
    if config.teacher_lora:
        from swd_models.lora.loading import split_weight

        for lora in config.teacher_lora:
            split_weight(lora)
    if config.evaluation.metrics:
        from swd_distill.training.evaluation import check_evaluation

        check_evaluation(config)


def check_model(config: Config) -> None:
    """Raise ValueError for sizes or a block that the model does not have, or an expert without a stage."""
    from swd_distill.data.buckets import schedules_of
    from swd_distill.training.batches import check_levels, recipe_within
    from swd_models.loading import check_fit, check_text, experts_of

    experts = experts_of(config.model)
    for expert in experts:
        check_levels(recipe_within(config.recipe, expert.levels))
    if len(experts) > 1:
        config.halves(experts[0].levels[0])
    if len(experts) > 1 and config.data.buckets:
        raise ValueError(f"expected no --data.buckets for {config.model}, of two experts, got some: leave them out")
    if len(experts) > 1 and config.evaluation.metrics:
        raise ValueError(
            f"expected no --evaluation.metrics for {config.model}, whose two experts sample together, got "
            f"{' '.join(config.evaluation.metrics)}: take swd-sample --prompts-file and swd-eval when it is done"
        )
    check_text(config.model, config.data.text_tokens)
    check_fit(config.model, config.scales.sizes, config.training.block)
    try:
        check_fit(config.model, [size for schedule in schedules_of(config) for size in schedule.sizes])
    except ValueError as error:  # the schedule itself was checked before
        what = str(error).partition(";")[0]
        raise ValueError(
            f"{what}; that size is of --data.buckets {' '.join(config.data.buckets)}: choose others"
        ) from error


def check_loras(config: Config) -> None:
    """Raise ValueError for LoRAs that the model, or the student, cannot take; those of the hub are downloaded."""
    if not (config.teacher_lora or config.init_lora):
        return
    import torch

    from swd_models import share_base
    from swd_models.loading import empty_denoiser, experts_of
    from swd_models.lora.loading import check_mergeable, start_from

    empty = empty_denoiser(config.model)
    if config.init_lora:
        with torch.device("meta"):
            student = share_base(empty_denoiser(config.model), config.training.rank, fake=False).student
    for expert in experts_of(config.model):
        empty.expert = expert
        for lora in config.teacher_lora:
            check_mergeable(empty, lora)
        if config.init_lora:
            student.expert = expert
            start_from(student, config.init_lora)


def check_extras(config: Config) -> None:
    """Raise ValueError for an optimizer or a tracker whose library is not there."""
    if config.training.optimizer == "adamw-8bit" and find_spec("torchao") is None:
        raise ValueError(
            "expected torchao for --training.optimizer adamw-8bit, got none: pip install 'swd-distill[8bit]'"
        )
    if "wandb" in config.training.trackers and find_spec("wandb") is None:
        raise ValueError("expected wandb for --training.trackers, got none: pip install wandb")


def check_backends(config: Config) -> None:
    """Raise ValueError for a backend of torch.compile that is not there."""
    if config.training.compile or config.data.compile:
        from swd_models.compiling import check_backend

        check_backend(config.training.compile)
        check_backend(config.data.compile)
