"""What every part stands on: files, progress, signals, saved states, digests of code, DVC."""
