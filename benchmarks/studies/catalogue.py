"""All studies of students, by the name that `--of` takes."""

from benchmarks.studies.claims import CLIPS, LOSSES, SCENES, SCHEDULES
from benchmarks.studies.large import LARGE
from benchmarks.studies.questions import (
    BALANCE,
    BASES,
    DATA,
    LEVERS,
    SHARES,
    TEXTURE,
    UPSCALERS,
    VIDEO_BALANCE,
    VIDEO_BASES,
)

STUDIES = {
    "scenes": SCENES,
    "data": DATA,
    "bases": BASES,
    "video-bases": VIDEO_BASES,
    "balance": BALANCE,
    "shares": SHARES,
    "video-balance": VIDEO_BALANCE,
    "clips": CLIPS,
    "schedules": SCHEDULES,
    "losses": LOSSES,
    "levers": LEVERS,
    "upscalers": UPSCALERS,
    "texture": TEXTURE,
    "large": LARGE,
}
