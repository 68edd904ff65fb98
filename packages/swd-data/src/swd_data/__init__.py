"""Images, clips, prompts and files of users, in and out: read once, the same for every command."""

from swd_data.captions import Sample, has_captions, metadata_of, read_pairs, read_samples
from swd_data.claims import check_own, claim, own
from swd_data.clips import Clip, read_frames, write_video
from swd_data.errors import reading, shell
from swd_data.files import checksum, read_json, read_object, write_json, write_text
from swd_data.folders import IMAGES, VIDEOS, Kind, find_files, list_files, natural, stem
from swd_data.images import fit_image, image_size, open_image, save_image
from swd_data.prompts import output_names, read_prompts, read_rows
from swd_data.skipped import Skipped
from swd_data.texts import cell, check_text, is_hub_id, read_text
from swd_data.whole import check_replaceable, flush, make_folder, whole, whole_folder, write_whole

__all__ = [
    "IMAGES", "VIDEOS", "Clip", "Kind", "Sample", "Skipped", "cell", "check_own", "check_replaceable", "check_text",
    "checksum", "claim", "find_files", "fit_image", "flush", "has_captions", "image_size", "is_hub_id", "list_files",
    "make_folder", "metadata_of", "natural", "open_image", "output_names", "own", "read_frames", "read_json",
    "read_object", "read_pairs", "read_prompts", "read_rows", "read_samples", "read_text", "reading", "save_image",
    "shell", "stem", "whole", "whole_folder", "write_json", "write_text", "write_video", "write_whole",
]  # fmt: skip
