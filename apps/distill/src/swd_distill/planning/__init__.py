"""What a run will cost: FLOPs, memory, time."""
