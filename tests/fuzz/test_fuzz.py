"""Files and bodies of strangers, by Hypothesis: each is read, or refused by one line that says what was expected.

CI tries each target from a fixed seed. `nox -s fuzz` sets SWD_FUZZ_SECONDS, and goes on from random seeds for as long.
A failure prints its seed, which SWD_FUZZ_SEED repeats.
"""

import asyncio
import json
import os
import random
import shutil
import struct
import time
from contextlib import closing
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings, strategies as st
from safetensors.numpy import load, save

from swd_data import list_files, own, read_pairs, read_prompts, read_rows, read_samples
from swd_data.errors import is_expected
from swd_distill.data.cache import Cache
from swd_distill.training.checkpoints import newest_whole
from swd_eval.runs.results import read_results
from swd_eval.study.app import StudyApp
from swd_eval.study.exchange import import_votes
from swd_eval.study.pairs import Key
from swd_eval.study.votes import Votes
from swd_models.loading import empty_denoiser
from swd_models.lora.files import read_lora
from swd_schedules import ScaleSchedule, presets
from swd_spectral.measure import Measurement

SECONDS = float(os.environ.get("SWD_FUZZ_SECONDS", "0"))
EXAMPLES = 150
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["", "..", "/etc"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture
def fuzz():
    """Try a check on what strategies draw: for SWD_FUZZ_SECONDS, or once from a fixed seed."""

    def call(check, *strategies):
        began = time.monotonic()
        number = int(os.environ.get("SWD_FUZZ_SEED") or (random.randrange(2**32) if SECONDS else 0))
        options = settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        )
        while True:
            print(f"seed {number}")
            options(seed(number)(given(*strategies)(check)))()
            number += 1
            if time.monotonic() - began >= SECONDS:
                return

    return call


def attempt(read, *args):
    """Read, or be refused by a line for users, which `shell` prints as one; anything else is a fault."""
    try:
        return read(*args)
    except (ValueError, OSError) as error:
        if not (is_expected(error) or isinstance(error, OSError)):
            raise AssertionError(repr(error)) from error
        return None


@st.composite
def mutated(draw, data):
    """Change, insert and take out some bytes of a file."""
    found = bytearray(data)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, min(len(found), draw(st.sampled_from([64, 1000, len(found)]))))))
        match draw(st.integers(0, 3)):
            case 0:
                found[at : at + 1] = draw(st.binary(min_size=1, max_size=8))
            case 1:
                found[at:at] = draw(st.binary(max_size=8))
            case 2:
                del found[at : at + draw(st.integers(1, 16))]
            case 3:
                del found[at:]
    return bytes(found)


@st.composite
def harmed(draw, document):
    """Put anything in the place of one or two values of a JSON document, or take them out."""
    root = [json.loads(json.dumps(document))]
    for _ in range(draw(st.integers(0, 2))):
        node, key = root, 0
        while isinstance(node[key], dict | list) and node[key] and draw(st.integers(0, 3)):
            node = node[key]
            key = draw(st.sampled_from(sorted(node)) if isinstance(node, dict) else st.integers(0, len(node) - 1))
        if draw(st.booleans()) or node is root:
            node[key] = draw(JSON)
        else:
            del node[key]
        if not root or not isinstance(root[0], dict | list):
            break
    return root[0] if root else None


def files_of(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@cache
def denoiser():
    return empty_denoiser("embedded")


LAYER = "transformer_blocks.0.attn.to_q"
METADATA = {
    "swd_family": "sd3",
    "swd_schedule": presets.TINY_4.to_json(),
    "lora_adapter_metadata": json.dumps(
        {"transformer.r": 2, "transformer.lora_alpha": 4, "transformer.alpha_pattern": {}}
    ),
}


@st.composite
def loras(draw):
    """A LoRA of two layers, with other names, shapes, types, numbers and headers."""
    width = denoiser().backbone.config.attention_head_dim * denoiser().backbone.config.num_attention_heads
    tensors = {}
    for layer in (LAYER, LAYER.replace("0", "1")):
        for kind, shape in (("A", (2, width)), ("B", (width, 2))):
            name = draw(
                st.sampled_from([f"transformer.{layer}.lora_{kind}.weight"] * 6)
                | st.sampled_from(
                    [f"{layer}.lora_{kind}.weight", f"base_model.model.{layer}.lora_{kind}.weight", layer]
                )
                | st.text(max_size=30)
            )
            shape = draw(st.sampled_from([shape] * 6 + [shape[::-1], (), (0, 2), (2, width, 1, 1), (1, 1)]))
            dtype = draw(
                st.sampled_from([np.float32] * 5 + [np.float16, np.float64, np.int8, np.int64, np.uint8, bool])
            )
            value = draw(st.sampled_from([0.5] * 5 + [0.0, float("nan"), float("inf"), 1e30]))
            with np.errstate(all="ignore"):
                tensors[name] = np.full(shape, value).astype(dtype)
        if draw(st.booleans()):
            tensors[f"transformer.{layer}.alpha"] = np.array(draw(st.floats(width=32)), np.float32)
    metadata = {
        key: draw(st.just(value) | st.text(max_size=20)) for key, value in METADATA.items() if draw(st.integers(0, 3))
    }
    if draw(st.booleans()):
        metadata["lora_adapter_metadata"] = json.dumps(draw(harmed(json.loads(METADATA["lora_adapter_metadata"]))))
    return draw(mutated(save(tensors, metadata))) if draw(st.booleans()) else save(tensors, metadata)


def test_loras(fuzz, tmp_path):
    def check(data):
        (tmp_path / "a.safetensors").write_bytes(data)
        found = attempt(read_lora, tmp_path / "a.safetensors", denoiser())
        if found is not None:
            assert all(tensor.isfinite().all() for tensor in found.state.values())
            assert all(np.isfinite(scale) for scale in found.scales.values())

    fuzz(check, loras())


@st.composite
def headers(draw):
    """Safetensors of any header: offsets and shapes that lie about the file."""
    entry = st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "BF16", "F8_E4M3", "I64", "X", "BOOL"]),
            "shape": st.lists(st.integers(-1, 2**40), max_size=4),
            "data_offsets": st.lists(st.integers(-1, 2**40), min_size=2, max_size=2),
        }
    )
    names = st.sampled_from([f"transformer.{LAYER}.lora_{kind}.weight" for kind in "AB"]) | st.text(max_size=10)
    header = draw(st.dictionaries(names, entry, max_size=4))
    text = json.dumps(header | ({"__metadata__": draw(JSON)} if draw(st.booleans()) else {})).encode()
    length = draw(st.just(len(text)) | st.integers(0, 2**64 - 1))
    return struct.pack("<Q", length) + text + draw(st.binary(max_size=64))


def test_headers_of_safetensors(fuzz, tmp_path):
    def check(data):
        (tmp_path / "a.safetensors").write_bytes(data)
        attempt(read_lora, tmp_path / "a.safetensors", denoiser())

    fuzz(check, headers())


def test_adapter_configs(fuzz, tmp_path):
    whole = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "rank_pattern": {LAYER: 2}, "alpha_pattern": {"to_q": 2.0}}
    whole |= {"use_rslora": False, "target_modules": ["to_q"], "bias": "none", "init_lora_weights": True}
    width = denoiser().backbone.get_submodule(LAYER).in_features
    tensors = {f"base_model.model.{LAYER}.lora_A.weight": np.ones((2, width), np.float32)}
    tensors |= {f"base_model.model.{LAYER}.lora_B.weight": np.ones((width, 2), np.float32)}
    (tmp_path / "adapter_model.safetensors").write_bytes(save(tensors))

    def check(config):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
        attempt(read_lora, tmp_path, denoiser())

    fuzz(check, harmed(whole))


def test_schedules(fuzz, tmp_path):
    def check(value, text, name):
        for each in (json.dumps(value), text):
            (tmp_path / "a.json").write_text(each)
            for read in (ScaleSchedule.from_json, ScaleSchedule.parse, presets.resolve):
                found = attempt(read, each)
                if found is not None:
                    assert ScaleSchedule.from_json(found.to_json()) == found
                    assert all(0 < sigma <= 1 for sigma in found.sigmas)
            attempt(presets.resolve, str(tmp_path / "a.json"))
        attempt(presets.resolve, name)

    inline = st.from_regex(r"\d{1,5}(\.\d)?:\d{1,5}(x\d{1,5}){0,2}(,\d{1,4}:\d{1,3})?(,[a-z]{3,8})?", fullmatch=True)
    fuzz(check, harmed(json.loads(presets.TINY_4.to_json())), inline | st.text(max_size=40), st.text(max_size=20))


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv", "txt"])
def test_metadata_and_prompts(fuzz, tmp_path, suffix):
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(b"")
    texts = {
        "jsonl": b'{"file_name": "a.png", "text": "a cat"}\n{"file_name": "b.png", "text": "a dog"}\n',
        "json": b'[{"file_name": "a.png", "text": "a cat"}, {"file_name": "b.png", "text": "a dog"}]',
        "csv": b'file_name,text\na.png,"a cat, red"\nb.png,a dog\n',
        "tsv": b"file_name\ttext\na.png\ta cat\nb.png\ta dog\n",
        "txt": b"a cat\na dog\n",
    }
    path = folder / f"metadata.{suffix}"

    def check(data):
        path.write_bytes(data)
        for read in (read_rows, read_prompts):
            attempt(read, path)
        attempt(read_samples, folder, path)
        for sample in attempt(read_pairs, folder, "images") or ():
            assert sample.path.resolve().is_relative_to(folder.resolve())

    rows = st.lists(st.fixed_dictionaries({"file_name": st.text(max_size=20), "text": JSON}), max_size=3)
    anything = rows.map(lambda found: "\n".join(map(json.dumps, found)).encode()) | st.binary(max_size=200)
    fuzz(check, mutated(texts[suffix]) | anything)


@st.composite
def requests(draw, whole):
    """A request to the study: any path, any query, a vote that is harmed, lengths that lie."""
    body = json.dumps(draw(harmed(whole))).encode()
    body = draw(st.just(body) | mutated(body) | st.binary(max_size=5000))
    path = draw(st.sampled_from(["/", "/api/vote", "/api/state", "/media/a.png", "/healthz"]) | st.text(max_size=20))
    names = st.sampled_from([b"content-length", b"host", b"range", b"transfer-encoding", b"x"])
    values = (
        st.just(str(len(body)).encode()) | st.integers(0, 10**20).map(lambda n: str(n).encode()) | st.binary(max_size=9)
    )
    headers = draw(st.lists(st.tuples(names, values), max_size=3))
    if draw(st.booleans()):
        headers = [(b"host", b"a"), (b"content-length", str(len(body)).encode())]
    # As h11 gives them: a length is digits.
    headers = [(name, value) for name, value in headers if name != b"content-length" or value.isdigit()]
    visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20)  # h11 takes no other
    query = draw(st.sampled_from([b"rater=anna", b"rater=", b""]) | visible.map(str.encode))
    return draw(st.sampled_from(["GET", "POST", "HEAD", "PUT"])), path, query, headers, body


def test_requests_to_a_study(fuzz, tmp_path):
    (tmp_path / "a.png").write_bytes(b"pixels")
    whole = {"id": "vote-0001", "rater": "anna", "pair": "p0", "criterion": "relevance", "answer": 1}
    with closing(Votes(tmp_path / "v", ["p0"])) as votes:
        app = StudyApp(b"page", {"/media/a.png": tmp_path / "a.png"}, ["anna"], votes)
        votes.stand("anna")

        def check(request):
            method, path, query, headers, body = request
            scope = {"type": "http", "http_version": "1.1", "method": method, "path": path, "query_string": query}
            scope |= {"headers": headers, "raw_path": b"", "root_path": "", "scheme": "http", "server": ("a", 80)}
            sent, parts = [], [body]

            async def receive():
                if not parts:  # nothing comes until the client leaves
                    await asyncio.Event().wait()
                return {"type": "http.request", "body": parts.pop(), "more_body": False}

            async def send(message):
                sent.append(message)

            asyncio.run(app(scope, receive, send))
            assert sent[0]["status"] in {200, 206, 400, 403, 404, 405, 409, 411, 413, 416}
            if sent[0]["status"] == 200 and path == "/api/vote":
                assert {answer.rater for answer in votes.answers()} == {"anna"}

        fuzz(check, requests(whole))


def test_files_of_votes(fuzz, tmp_path):
    pair = {"id": "p0", "prompt": "a cat", "item": "x", "runs": [0, 1], "media": ["0" * 16 + ".png", "1" * 16 + ".png"]}
    key = {"study": "s", "kind": "image", "seed": 1, "runs": ["a", "b"], "pairs": [pair]}
    (tmp_path / "key.json").write_text(json.dumps(key))
    vote = {"study": "s", "id": "vote-0001", "rater": "anna", "pair": "p0", "criterion": "relevance", "answer": 1}
    line = json.dumps(vote).encode() + b"\n"

    def check(data, other):
        (tmp_path / "a.jsonl").write_bytes(data)
        attempt(import_votes, tmp_path, [tmp_path / "a.jsonl"])
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / "key.json").write_text(json.dumps(other))
        found = attempt(Key.read, tmp_path / "other")
        if found is not None:
            assert all("/" not in name for each in found.pairs for name in each.media)

    rows = st.lists(harmed(vote), max_size=3).map(lambda found: "\n".join(map(json.dumps, found)).encode())
    fuzz(check, mutated(line) | rows, harmed(key))


@pytest.fixture
def checkpoints(tmp_path):
    """Two whole checkpoints, of files that only their checksums know."""
    from swd_data import checksum, write_json

    for step in (1, 2):
        folder = tmp_path / "whole" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        for name in ("student.safetensors", "optimizers.pt"):
            (folder / name).write_bytes(f"{name} {step}".encode())
        sums = {path.name: checksum(path) for path in folder.iterdir()}
        write_json(folder / "state.json", {"step": step, "skips": {}, "scalers": {}, "sha256": sums})
    return tmp_path / "whole"


def test_folders_of_checkpoints(fuzz, checkpoints, tmp_path):
    whole = files_of(checkpoints)
    state = json.loads(whole["step-000002/state.json"])

    @st.composite
    def folders(draw):
        found = dict(whole)
        for name in draw(st.lists(st.sampled_from(sorted(found)), max_size=3)):
            kept = draw(st.none() | mutated(found.get(name, b"")))
            if kept is None:
                found.pop(name, None)
            else:
                found[name] = kept
        if draw(st.booleans()):
            found["step-000002/state.json"] = json.dumps(draw(harmed(state))).encode()
        strange = st.sampled_from(["step-000003", "step-x", "latest", "step-000003/state.json", "tmp-1/a", "step-9/a"])
        return found | {name: b"{}" for name in draw(st.lists(strange, max_size=2)) if name != "step-000003"}

    def check(files):
        folder = tmp_path / "found"
        shutil.rmtree(folder, ignore_errors=True)
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        folder.mkdir(exist_ok=True)
        name = attempt(newest_whole, folder)
        if name is not None:  # a harmed state may know fewer files, and be whole for all that can be told
            assert (folder / name / "state.json").is_file()

    fuzz(check, folders())


def test_manifests_of_caches(fuzz, tmp_path):
    file = {"file": "a.safetensors", "bytes": 1, "sha256": "0" * 64}
    whole = {"settings": {"buckets": [[1.0, 2]], "text_dtype": "model"}, "captions": ["a"], "prompts_per_text": 8}
    whole |= {"shards": [file | {"samples": [1]}], "texts": [file], "files": [file], "samples": 1, "read": 1}
    (tmp_path / "a.safetensors").write_bytes(save({"a": np.zeros(1, np.float32)}))

    def check(manifest, data):
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        for name in ("uncond", "index"):
            (tmp_path / f"{name}.safetensors").write_bytes(data)
        attempt(lambda: Cache.open(tmp_path, {}))
        attempt(lambda: Cache.open(tmp_path, {}, verify=False))

    assert load((tmp_path / "a.safetensors").read_bytes())
    fuzz(check, harmed(whole), mutated((tmp_path / "a.safetensors").read_bytes()))


def test_results_and_spectra(fuzz, tmp_path):
    number = {"metric": "fid", "value": 1.0, "num": 2, "notes": {}, "interval": [0, 2], "better": "lower"}
    density = {"extent": 8, "num_samples": 2, "frequency": [1.0, 2.0]}
    density |= dict.fromkeys(("power", "error", "count"), density["frequency"])

    def check(results, spectrum, listed):
        (tmp_path / "results.json").write_text(json.dumps(results))
        attempt(read_results, tmp_path)
        (tmp_path / "spectrum.json").write_text(json.dumps(spectrum))
        attempt(Measurement.load, tmp_path / "spectrum.json")
        (tmp_path / ".swd-files.json").write_text(json.dumps(listed))
        attempt(own, tmp_path, ["table.md"])

    spectrum = {"full": [8, 8], "space": density, "time": None}
    fuzz(check, harmed({"numbers": [number]}), harmed(spectrum), harmed(["table.md"]))


def test_names_of_files(fuzz, tmp_path):
    letters = st.characters(exclude_characters="/\0", exclude_categories=["Cs"]) | st.sampled_from("\udc80\udcff")
    names = st.lists(st.text(letters, min_size=1, max_size=20), max_size=4, unique=True)

    def check(found):
        folder = Path(tmp_path) / "names"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name in found:
            (folder / f"{name}.png").write_bytes(b"")
        listed = attempt(list_files, folder, {".png"})
        assert listed is None or all(path.is_file() for path in listed.values())

    fuzz(check, names)
