"""The ground floor: files, progress, signals, checkpoints, digests of code, DVC."""
