import torch
from PIL import Image

from swd_data import read_frames
from swd_sample.media import save_media, to_media


def test_a_tensor_of_videos_becomes_lists_of_frames():
    videos = torch.tensor([-1.0, 0.0, 1.0])[None, None, :, None, None].expand(2, 3, 3, 16, 24)
    media = to_media(videos)
    assert [len(frames) for frames in media] == [3, 3]
    assert [frame.getpixel((0, 0))[0] for frame in media[0]] == [0, 128, 255]
    assert media[0][0].size == (24, 16)


def test_images_and_videos_are_written_whole(tmp_path):
    frames = to_media(torch.zeros(1, 3, 4, 16, 16))[0]
    save_media(frames, tmp_path / "a.mp4", 16)
    save_media(frames[0], tmp_path / "a.png")
    assert len(read_frames(tmp_path / "a.mp4", 4)) == 4
    assert Image.open(tmp_path / "a.png").tobytes() == frames[0].tobytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "a.png"]
