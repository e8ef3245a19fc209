"""What this project exists for: training by odds-ratio preference optimization."""
