"""Every code that a rejected file can carry, with its rule; spec/inrv.md explains each where the rule stands.

A published code never changes its meaning. `fail` is the only way the container raises, so that no code is
made up on the spot and each has one error class.
"""

from __future__ import annotations

from ..errors import FormatError, InrError, LimitError, UnsupportedError

FORMAT: dict[str, str] = {
    # layout.py: the file header
    "bad-magic": "The file begins with the 8 bytes of the magic.",
    "text-mode-damage": "The magic has not been through a text-mode or 7-bit transfer.",
    "truncated": "The file is as long as its header says, and long enough for its header and section table.",
    "trailing-bytes": "Nothing follows the file's footer.",
    "bad-header-crc": "The header's CRC-32C matches bytes 0 to 23 and the section table.",
    "reserved-not-zero": "Every reserved field is zero.",
    "no-sections": "A file has at least one section.",
    # layout.py: the section table, the sections, the footer
    "bad-section-type": "A section's type is four ASCII letters.",
    "duplicate-section": "No two sections have the same type.",
    "sections-not-contiguous": "Sections follow each other without a gap, from the table to the footer.",
    "section-out-of-bounds": "No section reaches into the footer or past the end of the file.",
    "bad-section-crc": "A section's CRC-32C matches its bytes.",
    "bad-file-hash": "The footer is the SHA-256 of everything before it.",
    "bad-first-section": "The first section is HEAD (a volume), MODL (a model) or FILE (a pack).",
    "missing-section": "Every section that the file's kind needs is there.",
    "unknown-critical-section": "A decoder knows every critical section of the file.",
    # bundle.py
    "bad-bundle": "A bundle is one whole DEFLATE stream of whole sections, one at least.",
    "part-out-of-bounds": "A part that a section's own index names lies inside that section.",
    # records.py
    "record-truncated": "A record holds all that its lengths announce.",
    "record-trailing-bytes": "Nothing follows the one object of a record.",
    "record-bad-type": "A record uses nil, bool, int, float, str, bin, array and map only.",
    "record-bad-utf8": "A str is valid UTF-8.",
    "record-bad-key": "A map's keys are ASCII strings.",
    "record-duplicate-key": "A map has no key twice.",
    "record-not-finite": "A float is finite.",
    "record-not-canonical": "A record is the one canonical encoding of its object.",
    # fields.py and headers.py
    "bad-type": "A field has the type that its table names.",
    "out-of-range": "A field's value lies in the range, list or pattern that its table names.",
    "missing-key": "Every field of a record is there.",
    "unknown-key": "A critical record has no field that its table does not name.",
    "not-printable": "A text field has printable characters only: no control, format or bidi characters.",
    "duplicate-tensor": "No two tensors of a model have the same name.",
    "tensor-size-mismatch": "The tensors of a model fill its TENS section exactly.",
    "weight-not-finite": "Every weight of a model is finite.",
    "model-hash-mismatch": "A model has the SHA-256 that the volume names.",
    # metadata.py
    "metadata-bad-frame": "Source metadata is exactly one whole Zstandard frame, without a dictionary.",
    "metadata-no-size": "The Zstandard frame of source metadata declares its content size.",
    # originals.py
    "bad-path": "A path is relative, and no part of it is empty, '.' or '..'.",
    "duplicate-path": "No two files have the same path.",
    "duplicate-slice": "No slice belongs to two files.",
    "pixels-out-of-bounds": "A file's pixels lie inside it, and are slices of the volume.",
    "rest-bad-frame": "The bytes beside the pixels are whole Zstandard frames.",
    "rest-size-mismatch": "The bytes beside the pixels are as many as the list of files says.",
    # coding/: the entropy code and the base network
    "rans-truncated": "An entropy code holds its lanes' states, and as many words and low bits as it needs.",
    "rans-bad-state": "Each lane's state is 2^16 or more.",
    "rans-bad-end": "Decoding uses up all words, and leaves every lane's state at 2^16.",
    "padding-not-zero": "The bits that fill up a last byte are zero.",
    "model-mismatch": "A model is of the kind that is needed, and does the volume's factors.",
    "network-truncated": "Sections SIRN, PRED, TUNE, ZONE, SRTU and LATU hold their records or kinds whole.",
    "bad-index": "The index of the bricks has an entry for each, and their lengths fill section BRIX.",
    "damaged-brick": "A brick's CRC-32C matches its bytes, and its code is whole.",
    "base-mismatch": "What makes the LR grid is there, as HEAD's base says, and nothing else that would.",
    "bad-latents": "Section LATD holds the latents of the pyramid, all of them and nothing else.",
    "network-overflow": "No product of the base network can reach 2^52.",
}
"""FormatError: the file breaks a rule."""

LIMIT: dict[str, str] = {
    "too-many-sections": "At most Limits.max_sections sections.",
    "section-too-large": "A section has at most Limits.max_section_bytes bytes.",
    "bundle-too-large": "A bundle holds at most 2^16 bytes.",
    "record-too-large": "A record has at most Limits.max_record_bytes bytes.",
    "record-too-deep": "Arrays and maps nest at most Limits.max_record_depth deep (metadata: its own).",
    "record-too-many-items": "A record has at most Limits.max_record_items items (metadata: its own).",
    "metadata-too-large": "Source metadata has at most Limits.max_metadata_bytes bytes when decompressed.",
    "too-many-voxels": "A volume has at most Limits.max_voxels voxels.",
    "too-many-parameters": "A network has at most Limits.max_parameters parameters.",
    "model-too-large": "A model's tensors have at most Limits.max_model_bytes bytes.",
    "too-many-layers": "A network has at most Limits.max_layers layers.",
    "too-much-work": "Evaluating a network or a model takes at most Limits.max_work multiply-adds.",
    "too-many-latents": "The LR grid of latents has at most Limits.max_latents points.",
    "brick-too-large": "A brick of the lattice has at most Limits.max_brick_voxels voxels.",
    "too-much-memory": "A layer of a model makes at most Limits.max_activations numbers at a time.",
}
"""LimitError: the file asks for more than the caller's `Limits` allow."""

UNSUPPORTED: dict[str, str] = {
    "unsupported-version": "The file's major version is one that the decoder knows.",
    "unknown-dictionary": "A bundle's dictionary is one that the decoder knows.",
}
"""UnsupportedError: the file may well be right, but this decoder is too old for it."""

CODES: dict[str, str] = {**FORMAT, **LIMIT, **UNSUPPORTED}


def fail(code: str, message: str, *, section: str | None = None, offset: int | None = None) -> InrError:
    """The error for a known code, of the class that the code belongs to; the caller raises it."""
    if code in LIMIT:
        return LimitError(code, message, section=section, offset=offset)
    if code in UNSUPPORTED:
        return UnsupportedError(f"{message} [{code}]")
    if code in FORMAT:
        return FormatError(code, message, section=section, offset=offset)
    raise AssertionError(f"unknown error code {code!r}: list it in container/codes.py")


def show(value: object, longest: int = 60) -> str:
    """A value from a file as it may stand in a message or on a terminal: ASCII, escaped, cut to `longest`."""
    if isinstance(value, (str, bytes)):
        value = value[: longest + 1]  # so that ascii() does no more work than is shown
    elif isinstance(value, (list, tuple, dict)):
        return f"a {type(value).__name__} of {len(value)}"
    text = ascii(value)
    return text if len(text) <= longest else text[: longest - 3] + "..."
