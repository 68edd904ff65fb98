import json
import threading

from PIL import Image, ImageChops

from swd_distill.data import generate as generate_module
from swd_distill.data.generate import prompts_of
from swd_models.parts import Teacher


def _furthest(folder, other):
    names = sorted(path.name for path in folder.glob("*.png"))
    assert names == sorted(path.name for path in other.glob("*.png"))
    pairs = [(Image.open(folder / name), Image.open(other / name)) for name in names]
    return max(high for pair in pairs for _, high in ImageChops.difference(*pair).getextrema())


def test_images_are_an_imagefolder_of_the_prompts(finished, configure):
    rows = [json.loads(line) for line in (finished / "images" / "metadata.jsonl").read_text().splitlines()]
    assert [row["file_name"] for row in rows] == [f"{i:06d}.png" for i in range(6)]
    assert [row["text"] for row in rows] == prompts_of(configure(finished))[:6]
    assert {Image.open(finished / "images" / row["file_name"]).size for row in rows} == {(64, 64)}


def test_only_what_is_missing_is_made_and_it_is_the_same(cli, argv, copied, snapshot):
    images = copied / "images"
    before = snapshot(images)
    (images / "000002.png").unlink()
    (images / "metadata.jsonl").unlink()
    leftover = images / ".000002.0.1.tmp.png"
    leftover.write_bytes(b"an interrupted write")
    assert cli(*argv("generate", copied)) == f"images in {images}\n"
    leftover.unlink()
    after = snapshot(images)
    assert after.keys() == before.keys()
    for name, (content, time) in before.items():
        assert after[name][0] == content, name
        assert (after[name][1] == time) == (name not in {"000002.png", "metadata.jsonl"}), name


def test_more_images_can_be_asked_for_later(cli, argv, copied, snapshot):
    before = snapshot(copied / "images")
    cli(*argv("generate", copied, "--data.num-images", "7"))
    after = snapshot(copied / "images")
    assert after.keys() - before.keys() == {"000006.png"}
    assert all(after[name] == item for name, item in before.items() if name != "metadata.jsonl")


def test_images_do_not_depend_on_the_batch(cli, argv, finished, tmp_path):
    cli(*argv("generate", tmp_path, "--data.batch", "1"))
    assert _furthest(tmp_path / "images", finished / "images") <= 1


def test_prompts_repeat_and_every_image_has_its_own_seed(cli, argv, tmp_path):
    (tmp_path / "p.txt").write_text("a red circle\na blue square\n")
    cli(*argv("generate", tmp_path, "--data.prompts", tmp_path / "p.txt", "--data.num-images", "3"))
    rows = [json.loads(line) for line in (tmp_path / "images" / "metadata.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == ["a red circle", "a blue square", "a red circle"]
    first, third = ((tmp_path / "images" / f"00000{i}.png").read_bytes() for i in (0, 2))
    assert first != third


def test_another_schedule_of_the_same_final_size_takes_the_same_images(cli, argv, copied, snapshot):
    before = snapshot(copied / "images")
    cli(*argv("generate", copied, "--schedule", "1000:8,602:16"))
    after = snapshot(copied / "images")
    assert all(after[name] == item for name, item in before.items() if name != "metadata.jsonl")


def test_two_processes_make_the_images_of_one(two_workers, argv, finished, tmp_path):
    errors = two_workers(argv("generate", tmp_path))
    assert "3/3" in errors[0]  # half of the six
    assert _furthest(tmp_path / "images", finished / "images") <= 1
    assert (tmp_path / "images" / "metadata.jsonl").read_text() == (finished / "images" / "metadata.jsonl").read_text()


def test_images_are_written_while_the_next_are_sampled(monkeypatch, cli, argv, finished, tmp_path):
    pixels, save, started, sampled = Teacher.pixels, generate_module.save_media, threading.Event(), []

    def sample(self, prompts, **options):
        sampled.append(len(prompts))
        if len(sampled) == 2:
            started.set()
        return pixels(self, prompts, **options)

    def save_late(media, path, fps):
        assert started.wait(30)
        save(media, path, fps)

    monkeypatch.setattr(Teacher, "pixels", sample)
    monkeypatch.setattr(generate_module, "save_media", save_late)
    cli(*argv("generate", tmp_path))
    assert sampled == [4, 2]
    assert _furthest(tmp_path / "images", finished / "images") == 0


def test_an_image_that_cannot_be_written_ends_the_run_with_that_error(
    monkeypatch, refused, cli, argv, finished, tmp_path
):
    save = generate_module.save_media

    def fail(media, path, fps):
        if path.name == "000001.png":
            raise OSError("no space left on device")
        save(media, path, fps)

    with monkeypatch.context() as patched:
        patched.setattr(generate_module, "save_media", fail)
        assert "no space left on device" in refused(argv("generate", tmp_path), late=True)
    assert not (tmp_path / "images" / "metadata.jsonl").exists()
    cli(*argv("generate", tmp_path))
    assert _furthest(tmp_path / "images", finished / "images") <= 1


def test_compiled_blocks_make_the_same_images(cli, argv, finished, tmp_path):
    cli(*argv("generate", tmp_path, "--data.compile", "aot_eager"))
    assert _furthest(tmp_path / "images", finished / "images") <= 1
