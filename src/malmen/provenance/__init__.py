"""What a result depends on: digests of code and files."""
