"""A DICOM series -> .inrv -> a new DICOM series, marked as lossy and referring to its source.

Usage: python examples/dicom_there_and_back.py SERIES_FOLDER NEW_FOLDER [RATIO]
"""

from __future__ import annotations

import sys

import inrformat


def main(series: str, target: str, ratio: str = "100") -> None:
    """Encode to a size that was asked for, and write the decoded series."""
    volume = inrformat.read(series)  # sorted by position; refuses mixed, incomplete and broken series
    try:
        data = inrformat.encode(volume, ratio=float(ratio))
    except inrformat.InrError as error:  # of one tree: the input, the call, or a target out of reach
        sys.exit(f"not encoded: {error}")
    inrformat.write(inrformat.decode(data), target)
    print(f"{len(data):,} bytes for {volume.shape[0]} slices; the decoded series is in {target}")


if __name__ == "__main__":
    main(*sys.argv[1:])
