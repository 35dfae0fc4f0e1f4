"""``python -m hyperrl`` is the command ``hyperrl``."""

from hyperrl.cli.main import main

if __name__ == "__main__":
    main()
