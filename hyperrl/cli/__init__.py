"""The command line, one file a command: arguments in, tables out."""

from hyperrl.cli.main import main as main
