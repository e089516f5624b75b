"""Run a command of the trainer: `python -m trainer NAME`."""

from trainer.cli import main

if __name__ == "__main__":
    main()
