"""Language models: loading any Hugging Face directory, and training the demo's tiny ones."""
