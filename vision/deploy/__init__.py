"""Networks outside of training: exported, run and measured; it knows tasks, no system."""
