"""The command line: ``mechxai COMMAND ...``, one file per command."""

from mechxai.cli.main import main as main
