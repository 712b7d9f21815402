"""Language models: loading any Hugging Face directory, and training the tiny models of the demo."""
