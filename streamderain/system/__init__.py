"""What the machine and its operating system give."""
