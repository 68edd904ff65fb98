from .captions import (
    Sample as Sample,
    has_captions as has_captions,
    metadata_of as metadata_of,
    read_pairs as read_pairs,
    read_samples as read_samples,
)
from .claims import check_claim as check_claim, check_own as check_own, claim as claim, own as own
from .clips import Clip as Clip, read_frames as read_frames, write_video as write_video
from .errors import reading as reading, shell as shell
from .files import (
    checksum as checksum,
    read_json as read_json,
    read_object as read_object,
    write_json as write_json,
    write_text as write_text,
)
from .folders import (
    IMAGES as IMAGES,
    VIDEOS as VIDEOS,
    Kind as Kind,
    find_files as find_files,
    list_files as list_files,
    natural as natural,
    stem as stem,
)
from .images import fit_image as fit_image, image_size as image_size, open_image as open_image, save_image as save_image
from .prompts import output_names as output_names, read_prompts as read_prompts, read_rows as read_rows
from .skipped import Skipped as Skipped
from .texts import (
    cell as cell,
    check_text as check_text,
    is_hub_id as is_hub_id,
    read_text as read_text,
    typed as typed,
)
from .whole import (
    check_replaceable as check_replaceable,
    flush as flush,
    make_folder as make_folder,
    whole as whole,
    whole_folder as whole_folder,
    write_whole as write_whole,
)
