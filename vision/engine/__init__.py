"""The shared trainer: configuration, registry, loop, checkpoints and run folders. It knows no task."""
