"""What a decoder is willing to do for a file that it does not know: checked before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..errors import UsageError


@dataclass(frozen=True)
class Limits:
    """Upper bounds on what a file may ask for; a file beyond one of them is refused with LimitError.

    The defaults admit a 2048 x 2048 x 2048 volume at full resolution with a 50k-parameter network. A service
    that reads strangers' files should pass smaller ones.

    max_voxels          voxels of the volume at full size.
    max_parameters      numbers in one network (the base network, or a super-resolution model).
    max_layers          layers of the base network.
    max_sections        entries in the section table.
    max_section_bytes   bytes of one section.
    max_record_bytes    bytes of one record; a header with a slope and an intercept for each of
                        65536 slices takes 1.2 MB.
    max_record_depth    nested arrays and maps in one record; the records of this version need 4.
    max_record_items    array elements plus map entries in one record.
    max_metadata_bytes  bytes of the source's metadata once decompressed.
    max_metadata_depth  nested arrays and maps in it (DICOM sequences nest).
    max_metadata_items  array elements plus map entries in it.
    max_model_bytes     bytes of a super-resolution model's tensors.
    max_work            multiply-adds to evaluate the base network, or a super-resolution model, over the
                        whole grid: its parameters times the grid's points.
    max_activations     numbers that one layer of a super-resolution model makes at a time.
    max_latents         points of an LR grid of latents: all of them are held at once.
    max_brick_voxels    voxels of one brick of the lattice.
    """

    max_voxels: int = 2**33
    max_parameters: int = 2**24
    max_layers: int = 64
    max_sections: int = 64
    max_section_bytes: int = 2**33
    max_record_bytes: int = 2**21
    max_record_depth: int = 8
    max_record_items: int = 2**18
    max_metadata_bytes: int = 2**26
    max_metadata_depth: int = 64
    max_metadata_items: int = 2**22
    max_model_bytes: int = 2**28
    max_work: int = 2**52
    max_activations: int = 2**30
    max_latents: int = 2**28
    max_brick_voxels: int = 2**23

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or value < 1:
                raise UsageError(f"Limits.{field.name} must be a positive int, not {value!r}")
        if max(self.max_record_depth, self.max_metadata_depth) > 128:
            raise UsageError("Limits: a depth above 128 is not supported (the reader is recursive)")


DEFAULT_LIMITS = Limits()
