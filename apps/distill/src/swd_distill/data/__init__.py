"""From prompts or images to a cache: what a student is trained on."""
