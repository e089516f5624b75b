"""``python -m streamderain`` is the ``streamderain`` command."""

from streamderain.cli.main import main

main()
