"""Scale-wise distillation of a diffusion model: generate, encode, train."""
