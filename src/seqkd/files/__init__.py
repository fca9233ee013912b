"""What is written and read: checkpoints, folders for the Hub, the authors' archives, Markdown."""
