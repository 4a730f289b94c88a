"""`python -m inrformat.container`: list, check or extract the sections of a file, without torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import InrError
from .files import write_bytes
from .layout import Reader


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m inrformat.container", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("list", "show the section table"),
        ("check", "check every checksum"),
        ("extract", "write one section's bytes to a file"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("file", type=Path)
    command.add_argument("type", help="four letters, such as HEAD")
    command.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    try:
        with Reader(options.file) as reader:
            if options.command == "list":
                print(f"{reader.kind}, format {reader.layout.major}.{reader.layout.minor}")
                for info in reader.sections:
                    print(f"{info.type} {info.length:14,} bytes at {info.offset}")
                if reader.bundled:
                    print(f"the bundle holds {', '.join(reader.bundled)}")
            elif options.command == "check":
                reader.check_all()
                print(f"{len(reader.sections)} sections, all checksums match")
            else:
                write_bytes(options.out, reader.read(options.type))
    except InrError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
