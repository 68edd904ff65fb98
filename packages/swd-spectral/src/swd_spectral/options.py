"""What `swd-spectral` may be told, and which numbers it takes: checked before any work."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import tyro

from swd_spectral.limits import check_folder, check_law, check_range, check_tau, check_timesteps

ProcessName = Literal["flow", "vp"]
Family = Literal["sd35-medium", "sd35-large", "flux", "wan", "sdxl", "tokens"]
MULTIPLE = 16  # pixels


def default_folder(kind: str, *sources: str) -> Path:
    """Return a folder of a command's own for what is made of sources, by their path: none overwrites another's.

    A spectrum.json has its folder's. What lies outside this folder, and several sources, have a digest in the name.
    """
    path = Path(sources[0]) if sources else Path()
    path = path.parent if path.name == "spectrum.json" else path
    parts = path.parts[2:] if path.parts[:2] == ("runs", "spectrum") else path.parts
    if len(sources) == 1 and parts and not path.is_absolute() and ".." not in parts:
        return Path("runs", kind, *parts)
    every = "\n".join(str(Path(source).resolve()) for source in sources)
    return Path("runs", kind, f"{path.resolve().name}-{sha256(every.encode()).hexdigest()[:6]}")


@dataclass(frozen=True)
class Source:
    """What images and videos are encoded with."""

    model: str = "embedded"
    """A diffusers directory or hub id whose autoencoder encodes; "embedded" ships with swd-models."""
    tiny: Path | None = None
    """Weights of a tiny autoencoder (TAESD, TAEF2, TAEW): a file, or a folder of its two. It encodes instead;
    its latents are normalised channel by channel, by the mean and variance of these images."""
    pixels: int | None = None
    """Images are cut to this square. Default: the smallest image's shorter side, at most 512."""
    num_frames: int = 21
    """Frames of each video."""
    fps: float = 16.0
    """Frames a second at which videos are looked at; 16 is Wan2.1's."""
    drop_first: bool = False
    """Leave out the first latent frame over time: a causal video autoencoder's covers one frame, not four."""
    max_bad: float = 0.01
    """Share of samples that may be bad: they are left out and listed in skipped.jsonl. 0: none may be."""

    def check(self) -> None:
        """Raise ValueError for numbers that nothing can be encoded with."""
        if self.pixels is not None and (self.pixels < MULTIPLE or self.pixels % MULTIPLE):
            raise ValueError(f"expected --pixels in multiples of {MULTIPLE}, got {self.pixels}: for example 512")
        check_range("--num-frames", self.num_frames, 1, 4096, "frames of each video")
        check_range("--fps", self.fps, 1, 240, "frames a second")
        check_range("--max-bad", self.max_bad, 0, 1, "a share of the samples")


@dataclass(frozen=True)
class Analyze:
    """Measure spectra; draw what noise masks at which timestep, and which sizes that allows (figures 1 and 13)."""

    inputs: tyro.conf.Positional[tuple[str, ...]]
    """Images, videos or latents (.safetensors): files, folders, a cache or a run of swd-distill."""
    source: tyro.conf.OmitArgPrefixes[Source] = Source()
    timesteps: tuple[float, ...] = (800.0, 600.0, 400.0)
    """Timesteps to draw."""
    process: ProcessName = "flow"
    """Forward process: flow matching, or SDXL's variance-preserving one."""
    tau: float = 0.1
    """Signal-to-noise ratio up to which a loss counts as hidden."""
    out: Path | None = None
    """Folder for spectrum.json, spectrum.csv, masking.png and masking.svg. Default: runs/spectrum/NAME of the input."""

    @property
    def folder(self) -> Path:
        """Return where to write."""
        return self.out or default_folder("spectrum", *self.inputs)

    def check(self) -> None:
        """Raise ValueError for numbers out of range."""
        self.source.check()
        check_timesteps(self.timesteps)
        check_tau(self.tau)
        check_folder(self.folder)


@dataclass(frozen=True)
class Design:
    """Propose scale schedules for a spectrum."""

    spectrum: tyro.conf.Positional[str]
    """spectrum.json of `analyze`, anything that `analyze` reads, or a published law: flux, wan."""
    steps: int = 4
    """Number of sampling steps."""
    family: Family = "tokens"
    """Whose cost a forward pass has; "tokens": proportional to the latent's cells."""
    full: str | None = None
    """Full latent size such as 128x128 or 21x60x104, for a published law."""
    temporal: tuple[float, float] | None = None
    """Amplitude and exponent of a law over time, for a published law."""
    multiple: int = 2
    """What divides height and width: the patch of a transformer, 4 for SDXL's U-Net."""
    smallest: str | None = None
    """Smallest latent size that the teacher knows, such as 8x8. Default: a quarter of the full one."""
    sizes: tuple[str, ...] = ()
    """Sizes to propose timesteps for, such as 8x8 10x10 12x12 16x16. Default: --steps sizes that grow evenly, if none
    repeats."""
    process: ProcessName = "flow"
    """Forward process: flow matching, or SDXL's variance-preserving one."""
    tau: float = 0.1
    """Signal-to-noise ratio up to which a loss counts as hidden."""
    source: tyro.conf.OmitArgPrefixes[Source] = Source()
    out: Path | None = None
    """Folder for the schedules (JSON for `swd-distill --schedule`) and report.txt. Default: runs/design/NAME of the
    spectrum."""

    @property
    def folder(self) -> Path:
        """Return where to write."""
        return self.out or default_folder("design", self.spectrum)

    def check(self) -> None:
        """Raise ValueError for numbers out of range."""
        self.source.check()
        check_range("--steps", self.steps, 1, 64, "sampling steps")
        check_range("--multiple", self.multiple, 1, 64, "the patch of the model, 2 mostly")
        check_law(self.temporal)
        check_tau(self.tau)
        check_folder(self.folder)


@dataclass(frozen=True)
class Check:
    """Say what each step of a schedule loses; exit code 1 if noise does not hide it."""

    schedule: tyro.conf.Positional[str]
    """A preset of swd-schedules, a JSON file, or 1000:64x64,896:80x80,..."""
    spectrum: tyro.conf.Positional[str]
    """spectrum.json of `analyze`, anything that `analyze` reads, or a published law: flux, wan."""
    temporal: tuple[float, float] | None = None
    """Amplitude and exponent of a law over time, for a published law."""
    process: ProcessName = "flow"
    """Forward process: flow matching, or SDXL's variance-preserving one."""
    matched: bool = False
    """Count the noise at each step's own size, as the sampler adds it, which hides more."""
    tau: float = 0.1
    """Signal-to-noise ratio up to which a loss counts as hidden."""
    source: tyro.conf.OmitArgPrefixes[Source] = Source()
    out: Path | None = None
    """Folder for skipped.jsonl, where samples are bad. Default: runs/check/NAME of the spectrum."""

    @property
    def folder(self) -> Path:
        """Return where to write."""
        return self.out or default_folder("check", self.spectrum)

    def check(self) -> None:
        """Raise ValueError for numbers out of range."""
        self.source.check()
        check_law(self.temporal)
        check_tau(self.tau)
        check_folder(self.folder)
