"""A file is taken for what its name may be, and for nothing that starts programs or opens other files."""

import subprocess
from io import BytesIO

import pytest
from PIL import Image

from swd_data import Clip, image_size, open_image, read_frames, write_video

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n20 20 scale\nshowpage\n%%EOF\n"


@pytest.fixture
def no_programs(monkeypatch):
    """Fail where a program is started."""

    def started(*args, **options):
        raise AssertionError(f"{args} was started")

    for name in ("Popen", "call", "check_call", "check_output", "run"):
        monkeypatch.setattr(subprocess, name, started)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tiff", "a.eps"])
def test_postscript_starts_no_ghostscript(tmp_path, refused, no_programs, name):
    (tmp_path / name).write_bytes(EPS)
    for read in (open_image, image_size):
        refused(tmp_path / name, read, tmp_path / name)
    refused("row 1", open_image, EPS, "row 1")


@pytest.mark.parametrize("form", ["ICNS", "ICO", "PCX", "SGI", "TGA", "IM", "MSP", "SPIDER", "DDS", "XBM", "PDF"])
def test_formats_that_no_name_promises_are_refused(tmp_path, refused, form):
    file = BytesIO()
    mode = {"MSP": "1", "XBM": "1", "SPIDER": "F"}.get(form, "RGB")
    Image.effect_noise((32, 32), 50).convert(mode).save(file, form)
    (tmp_path / "a.png").write_bytes(file.getvalue())
    refused(tmp_path / "a.png", open_image, tmp_path / "a.png")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "AVIF", "GIF", "PPM"])
def test_a_raster_image_under_the_name_of_another_is_read(tmp_path, form):
    """Pictures from the web are often called what they are not."""
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png", form)
    assert open_image(tmp_path / "a.png").getpixel((4, 4))[0] > 240


@pytest.fixture
def clip(tmp_path):
    pytest.importorskip("av")
    write_video(tmp_path / "private.mp4", [Image.effect_noise((32, 32), 50) for _ in range(4)], 8)
    return tmp_path / "private.mp4"


def playlists(clip):
    """Write playlists and scripts that FFmpeg follows to other files, or to addresses."""
    segment = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{clip}\n#EXT-X-ENDLIST\n"
    return {
        "hls": segment,
        "hls of an address": segment.replace(str(clip), "http://127.0.0.1:9/a.ts"),
        "concat": f"ffconcat version 1.0\nfile '{clip}'\n",
        "dash": f'<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet><Representation '
        f'id="1" mimeType="video/mp4"><BaseURL>{clip}</BaseURL></Representation></AdaptationSet></Period></MPD>',
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
    }


@pytest.mark.parametrize("kind", ["hls", "hls of an address", "concat", "dash", "sdp"])
@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.m3u8"])
def test_a_playlist_leads_nowhere(tmp_path, refused, clip, kind, name):
    (tmp_path / name).write_text(playlists(clip)[kind])
    refused(tmp_path / name, read_frames, tmp_path / name, 1)
    refused(tmp_path / name, Clip.open, tmp_path / name)


def test_a_clip_under_the_name_of_another_is_read(tmp_path, clip):
    (tmp_path / "a.webm").write_bytes(clip.read_bytes())
    assert len(read_frames(tmp_path / "a.webm", 4)) == 4


def test_frames_that_no_memory_holds_are_refused_before_they_are_decoded(tmp_path, refused, monkeypatch, clip):
    monkeypatch.setattr("swd_data.decoding.MAX_PIXELS", 1000)
    assert "got 32x32" in refused(clip, Clip.open, clip)
    assert "got 32x32" in refused(clip, read_frames, clip, 1)
