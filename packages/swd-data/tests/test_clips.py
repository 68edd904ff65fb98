import struct
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from swd_data import Clip, read_frames, save_image

av = pytest.importorskip("av")

SIZE = (48, 32)
BITS = 6
FIELDS = np.arange(6).reshape(2, 3)
UP = np.kron(FIELDS * 40, np.ones((16, 16))).astype(np.uint8)[..., None].repeat(3, 2)  # six greys, 32 high, 48 wide


def counter(number):
    """Draw a number as six bars, black or white."""
    bits = np.array([number >> bit & 1 for bit in range(BITS)], np.uint8) * 255
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(bits.repeat(8)[None, :, None], (32, 48, 3))))


def number_of(image):
    bars = np.asarray(image.convert("L")).reshape(32, BITS, 8).mean((0, 2)) > 127
    return int(bars @ (1 << np.arange(BITS)))


def encode(path, images, rate=16, times=None, codec="libx264", pixels="yuv420p", form=None, options=None):
    """Write frames at a rate, or each at its time in 1/90000 seconds."""
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=Fraction(rate), options=options or {})
        stream.width, stream.height, stream.pix_fmt = *images[0].size, pixels
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_image(image)
            if times:
                frame.pts, frame.time_base = times[index], Fraction(1, 90000)
                stream.codec_context.time_base = Fraction(1, 90000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def numbers(path, count, fps=None):
    return [number_of(image) for image in read_frames(path, count, fps)]


def tag(path, a, b, c, d):
    """Write a display matrix into the header of an MP4's track."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


TURNS = {  # the matrix, and what was filmed of what is shown
    (1, 0, 0, 1): lambda a: a,
    (0, 1, -1, 0): lambda a: np.rot90(a),
    (-1, 0, 0, -1): lambda a: a[::-1, ::-1],
    (0, -1, 1, 0): lambda a: np.rot90(a, -1),
    (-1, 0, 0, 1): lambda a: a[:, ::-1],
    (1, 0, 0, -1): lambda a: a[::-1],
    (0, 1, 1, 0): lambda a: a.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda a: a[::-1, ::-1].transpose(1, 0, 2),
}


@pytest.mark.parametrize("matrix", TURNS)
def test_clips_stand_upright(tmp_path, matrix):
    filmed = Image.fromarray(np.ascontiguousarray(TURNS[matrix](UP)))
    path = encode(tmp_path / "a.mp4", [filmed] * 3, pixels="yuv444p", options={"crf": "8"})
    tag(path, *matrix)
    for found in (
        np.asarray(read_frames(path, 1)[0]),
        Clip.open(path).frames([2])[0],
        np.asarray(read_frames(path, 1, 8)[0]),
    ):
        assert found.shape == UP.shape
        assert np.abs(found.astype(int) - UP).max() <= 8


@pytest.mark.parametrize("rate", ["16", "48", "24", "12", "24000/1001", "30000/1001"])
def test_frames_are_sampled_by_time(tmp_path, rate):
    path, rate = encode(tmp_path / "a.mp4", [counter(i) for i in range(60)], rate), Fraction(rate)
    late = Fraction(1, 1000)  # at NTSC's rates frames begin up to half a millisecond behind a sixteenth
    shown = [int(rate * (Fraction(i, 16) + late)) for i in range(16)]  # the last that has begun at i / 16 seconds
    assert numbers(path, 16, 16) == shown
    assert numbers(path, 16) == list(range(16))
    assert numbers(path, 60, float(rate)) == list(range(60))


def test_the_asked_rate_may_be_a_fraction(tmp_path):
    path = encode(tmp_path / "a.mp4", [counter(i) for i in range(48)], "24000/1001")
    assert numbers(path, 48, 23.976) == list(range(48))
    assert numbers(path, 24, 24000 / 1001 / 2) == list(range(0, 48, 2))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.ts"])
def test_variable_rates_are_sampled_by_time(tmp_path, name):
    starts = [0, 1, 2, 3, 8, 8.5, 12, 15.5]  # in sixteenths of a second
    times = [int(start * 90000 / 16) for start in starts]
    path = encode(tmp_path / name, [counter(i) for i in range(8)], times=times, options={"bf": "2"})
    wanted = [max(i for i, start in enumerate(starts) if start <= at) for at in range(16)]
    assert wanted == [0, 1, 2, 3, 3, 3, 3, 3, 4, 5, 5, 5, 6, 6, 6, 6]
    assert numbers(path, 16, 16) == wanted


@pytest.mark.parametrize(
    ("name", "form", "codec"),
    [
        ("a.avi", "avi", "libx264"),
        ("a.avi", "avi", "mpeg4"),
        ("a.h264", "h264", "libx264"),
        ("a.webm", None, "libvpx-vp9"),
    ],
)
def test_containers_without_times_have_a_rate(tmp_path, name, form, codec):
    path = encode(tmp_path / name, [counter(i) for i in range(20)], form=form, codec=codec)
    assert numbers(path, 10, 8) == list(range(0, 20, 2))


def test_gifs_are_clips_and_what_is_transparent_shows_the_background(tmp_path):
    frames = [counter(i) for i in range(5)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    assert numbers(tmp_path / "a.gif", 5, 10) == [0, 1, 2, 3, 4]
    assert numbers(tmp_path / "a.gif", 3, 5) == [0, 2, 4]
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[4:8, 4:8] = (255, 0, 0, 255)
    pixels[8:, :, :3] = (0, 255, 255)
    both = [Image.fromarray(pixels), Image.fromarray(pixels[:, ::-1])]
    both[0].save(tmp_path / "b.gif", save_all=True, append_images=both[1:], duration=100, disposal=2)
    for image in read_frames(tmp_path / "b.gif", 2, background=(1, 2, 3)):
        assert image.getpixel((0, 0)) == image.getpixel((0, 12)) == (1, 2, 3)
    assert read_frames(tmp_path / "b.gif", 1)[0].getpixel((0, 12)) == (255, 255, 255)


def test_clips_that_are_too_short_say_what_they_lack(tmp_path, refused):
    path = encode(tmp_path / "a.mp4", [counter(i) for i in range(8)], 8)
    assert "expected 9 frames in" in refused(path, read_frames, path, 9)
    line = refused(path, read_frames, path, 17, 16)
    assert "expected 17 frames at 16 a second in" in line
    assert "got 16" in line
    assert numbers(path, 16, 16) == [i // 2 for i in range(16)]


def test_folders_of_frames_are_clips_in_natural_order(tmp_path, refused):
    for number in (10, 1, 2, 11):
        save_image(counter(number), tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / "._1.png").write_bytes(b"\0\5\x16\7 resource fork")
    assert numbers(tmp_path, 4) == numbers(tmp_path, 4, 16) == [1, 2, 10, 11]
    assert "expected 5 frames" in refused(tmp_path, read_frames, tmp_path, 5)
    (tmp_path / "2.png").write_bytes(b"half")
    refused(tmp_path / "2.png", read_frames, tmp_path, 4)


def test_files_that_are_no_clips_get_one_line_with_their_name(tmp_path, refused):
    good = encode(tmp_path / "good.mp4", [counter(i) for i in range(20)]).read_bytes()
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    files = {"empty.mp4": b"", "words.mp4": b"a red circle\n" * 99, "cut.mp4": good[:200], "sound.mp4": None}
    (tmp_path / "folder.mp4").mkdir()
    for name, data in files.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
    for name in [*files, "missing.mp4", "folder.mp4"]:
        line = refused(tmp_path / name, Clip.open, tmp_path / name)
        assert refused(tmp_path / name, read_frames, tmp_path / name, 1, 16)
        assert ("got audio alone" in line) == (name == "sound.mp4")


def test_an_unknown_codec_gets_a_line(tmp_path, refused):
    path = encode(tmp_path / "a.mp4", [counter(0)])
    path.write_bytes(path.read_bytes().replace(b"avc1", b"what").replace(b"avcC", b"whaC"))
    for read in (Clip.open, lambda path: read_frames(path, 1), lambda path: read_frames(path, 1, 16)):
        assert "a codec that PyAV does not know" in refused(path, read, path)


def test_frames_that_a_trim_leaves_out_do_not_count(tmp_path):
    """As phones and `ffmpeg -ss ... -c copy` trim: packets before the start are there, and an edit list skips them."""
    whole, trimmed = tmp_path / "whole.mp4", tmp_path / "trimmed.mp4"
    encode(whole, [counter(i) for i in range(20)], 24, options={"bf": "0"})
    with av.open(str(whole)) as source, av.open(str(trimmed), "w") as target:
        stream = source.streams.video[0]
        out = target.add_stream_from_template(stream)
        before = int(6 / 24 / stream.time_base)
        for packet in source.demux(stream):
            if packet.dts is None:
                continue
            packet.pts, packet.dts, packet.stream = packet.pts - before, packet.dts - before, out
            target.mux(packet)
    clip = Clip.open(trimmed)
    assert clip.num_frames == 14
    assert number_of(Image.fromarray(clip.frames([0, 13])[1])) == 19


def test_frames_are_decoded_by_index(tmp_path, refused):
    clip = Clip.open(encode(tmp_path / "a.mp4", [counter(i) for i in range(20)], 24))
    assert (clip.fps, clip.num_frames) == (24.0, 20)
    frames = clip.frames([7, 0, 19, 7])
    assert (frames.shape, frames.dtype) == ((4, 32, 48, 3), np.uint8)
    assert [number_of(Image.fromarray(frame)) for frame in frames] == [7, 0, 19, 7]
    assert "none at index 20" in refused(clip.path, clip.frames, [3, 20])
