"""Weights are known by what is in their files."""

from swd_eval import weights


def test_a_folder_of_weights_is_the_same_whenever_it_was_loaded(tmp_path):
    for name, seconds in (("a", "1.0"), ("b", "2.0")):
        (tmp_path / name / ".cache" / "huggingface").mkdir(parents=True)
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
        (tmp_path / name / ".cache" / "huggingface" / "model.metadata").write_text(f"commit\netag\n{seconds}\n")
    assert weights._digest(tmp_path / "a") == weights._digest(tmp_path / "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "model.safetensors").write_bytes(b"others")
    assert weights._digest(tmp_path / "c") != weights._digest(tmp_path / "a")
