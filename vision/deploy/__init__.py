"""Networks outside of training: exported, run by other runtimes, and measured."""
