"""LoRA files of the Hugging Face hub, into the hub's own cache."""

import re
import sys
from pathlib import Path


def download(text: str, names: tuple[str, ...]) -> Path:
    """Download a repository's LoRA and return its folder, or its file where the text names one.

    Of a repository come the files of these names, or else the one weights file in its first folder. What the cache has
    needs no network.

    Raises:
        ValueError: no such repository or file, none that is reachable, or several weights files.
    """
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    owner, name, *rest = text.split("/", 2)
    repository = f"{owner}/{name}"
    print(f"{text} is no path here: the LoRA of that name on the Hugging Face hub is taken", file=sys.stderr)
    try:
        if rest:
            beside = rest[0].rpartition("/")[0]
            snapshot_download(repository, allow_patterns=[f"{beside}/{each}" if beside else each for each in names])
            return Path(hf_hub_download(repository, rest[0]))
        folder = Path(snapshot_download(repository, allow_patterns=list(names)))
        if not any(folder.glob("*.safetensors")):
            files = [each for each in HfApi().list_repo_files(repository) if re.fullmatch(r"[^/]+\.safetensors", each)]
            if len(files) != 1:
                few = ", ".join(files[:5]) or "none"
                raise ValueError(f"expected one weights file in {repository}, got {few}: name it, {repository}/FILE")
            hf_hub_download(repository, files[0])
        return folder
    except Exception as error:  # the hub's client raises many kinds, and not all are OSError
        if str(error).startswith("expected "):
            raise
        raise ValueError(
            f"expected a LoRA on disk or on the Hugging Face hub, got {text!r}, which is neither here nor reachable "
            f"({type(error).__name__}): check the name, log in with `hf auth login` if it is gated, or download it"
        ) from error
