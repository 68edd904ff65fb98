"""Weights into the user's folder: from the Hugging Face hub, unless offline."""

from collections.abc import Sequence
from pathlib import Path

from swd_eval.measure import require
from swd_eval.processes import is_main, together
from swd_eval.weights import INCEPTION, Weights


def fetch(wanted: Sequence[Weights], folder: Path, *, offline: bool) -> None:
    """Make sure that all weights are in a folder; the main process loads them, and the others wait.

    Raises:
        ValueError: offline, or where they are not on the hub: the missing ones, each with its id and size.
    """
    missing = [weights for weights in dict.fromkeys(wanted) if not (folder / weights.name).exists()]
    by_hand = missing if offline else [weights for weights in missing if weights == INCEPTION]
    if by_hand:
        names = "; ".join(f"{weights.id} ({weights.size}) as {folder / weights.name}" for weights in by_hand)
        how = "download them there, or leave --offline out" if offline else "download them there"
        raise ValueError(f"expected weights, got {len(by_hand)} missing: {names}; {how}")
    with together():
        for weights in missing if is_main() else ():
            require("clip", "huggingface_hub")
            _download(weights, folder)


def _download(weights: Weights, folder: Path) -> None:
    try:
        _load(weights, folder)
    except Exception as error:  # the hub's client raises many kinds, and not all are OSError
        raise ValueError(
            f"expected {weights.id} ({weights.size}) from the Hugging Face hub as {folder / weights.name}, "
            f"got {type(error).__name__}: load it there yourself"
        ) from error


def _load(weights: Weights, folder: Path) -> None:
    from huggingface_hub import hf_hub_download, snapshot_download

    repository, _, file = weights.id.partition(": ")
    if file:
        hf_hub_download(repository, file, local_dir=folder)
        return
    partial = folder / f"{weights.name}.part"  # kept where a download stops, and gone on with
    snapshot_download(repository, allow_patterns=list(weights.files), local_dir=partial)
    partial.rename(folder / weights.name)
