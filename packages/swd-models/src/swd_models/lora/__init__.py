"""LoRA of a denoiser: files of every form, and adapters made of them."""
