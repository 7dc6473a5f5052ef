"""The only entry: python run.py COMMAND [--flags]. `python run.py help` lists them."""

import sys

from big_mm.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
