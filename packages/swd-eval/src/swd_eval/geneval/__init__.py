"""GenEval: its prompts, its detectors and its verdicts."""
