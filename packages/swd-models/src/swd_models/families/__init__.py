"""Model families, one a file: denoiser, text and latents as its pipeline of diffusers has them."""
