"""NIfTI-1/2 <-> Volume. Stored values, slope and intercept are kept; RAS millimetres become LPS and back.

metadata: {'source': 'nifti', 'qform_code': int, 'sform_code': int}.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import InputError, OutputError, UnsupportedError
from ..volume import Array, Volume, spacing_of

_MM = {"mm": 1.0, "meter": 1e3, "micron": 1e-3, "unknown": 1.0}
_GZIP_MOST = 1100  # deflate cannot expand a byte to more than about 1032
_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # LPS <-> RAS


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise UnsupportedError("NIfTI files need nibabel: pip install inrformat[nifti]") from error
    return nibabel


def read_nifti(path: Path) -> Volume:
    """Read a .nii or .nii.gz with three axes (further axes of length 1 are dropped).

    The array stays in stored values; scl_slope and scl_inter become slope and intercept. InputError when
    the file is broken, has a time axis, colours or complex values, or an affine that does not span space.
    """
    nibabel = _nibabel()
    try:
        image = nibabel.load(path)
        if not isinstance(image, (nibabel.Nifti1Image, nibabel.Nifti2Image)):
            raise InputError(f"{path}: not a NIfTI file")
        shape = _shape(image, path)
        stored = np.asanyarray(image.dataobj.get_unscaled()).reshape(shape, order="F")
        slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
        unit = image.header.get_xyzt_units()[0]
        codes = {f"{form}_code": int(image.header[f"{form}_code"]) for form in ("qform", "sform")}
        affine = affine_from_ras(np.asarray(image.affine, float), _MM.get(unit, 1.0))
    except InputError:
        raise
    except Exception as error:  # nibabel, zlib and numpy fail in many ways on broken bytes
        raise InputError(f"{path}: broken or truncated NIfTI file ({type(error).__name__})") from error
    try:
        return Volume(
            stored.T,
            spacing_of(affine),
            affine,
            (slope,),
            (intercept,),
            {"source": "nifti", **codes},
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _shape(image: Any, path: Path) -> tuple[int, int, int]:
    """The (x, y, z) sizes, checked against what the file can hold before anything is allocated."""
    sizes = tuple(int(n) for n in image.shape)
    x, y, z, *rest = (*sizes, 1, 1, 1)[: max(3, len(sizes))]
    if any(n != 1 for n in rest):
        raise InputError(
            f"{path}: {len(sizes)} axes {sizes}; a volume has three, give one time point or channel"
        )
    dtype = image.get_data_dtype()
    if dtype.kind not in "iuf":
        raise InputError(f"{path}: cannot use values of type {dtype}")
    room = path.stat().st_size * (_GZIP_MOST if path.suffix.lower() == ".gz" else 1)
    if min(x, y, z) < 1 or x * y * z * dtype.itemsize > room:
        raise InputError(f"{path}: the header promises {x}x{y}x{z} voxels, which the file cannot hold")
    return x, y, z


def affine_from_ras(ras: Array, unit: float = 1.0) -> Array:
    """A 4x4 of index (x, y, z, 1) -> RAS, in units of `unit` mm, as index (z, y, x, 1) -> LPS mm."""
    scaled = np.diag([unit, unit, unit, 1.0]) @ ras
    lps: Array = (_FLIP @ scaled)[:, [2, 1, 0, 3]]
    return lps


def affine_to_ras(affine: Array) -> Array:
    """A 4x4 of index (z, y, x, 1) -> LPS as index (x, y, z, 1) -> RAS."""
    ras: Array = (_FLIP @ affine)[:, [2, 1, 0, 3]]
    return ras


def write_nifti(volume: Volume, file: BinaryIO, *, compress: bool) -> None:
    """Write NIfTI-1 (NIfTI-2 where an axis is longer than 32767), with sform, and qform where it fits.

    A sheared volume (gantry tilt) has an sform alone. Stored values, slope and intercept are kept (as
    float32, NIfTI's own limit), unless they change from slice to slice: then real-world values are written
    as float32. OutputError for a slope that float32 cannot hold, InputError for axes that span no space.
    """
    nibabel = _nibabel()
    assert volume.affine is not None
    with np.errstate(over="ignore", under="ignore"):
        slope, intercept = np.array(volume.slope, np.float32), np.array(volume.intercept, np.float32)
    if not (np.isfinite(slope).all() and np.isfinite(intercept).all() and slope.all()):
        raise OutputError("a slope or an intercept that float32, which NIfTI has for them, cannot hold")
    one_scale = len(set(volume.slope)) == 1 and len(set(volume.intercept)) == 1
    data = np.ascontiguousarray(volume.data if one_scale else volume.real_values())
    spacing_of(volume.affine)  # InputError for axes that NIfTI cannot write, either
    header = nibabel.Nifti1Header() if max(data.shape) <= 32767 else nibabel.Nifti2Header()
    header.set_data_dtype(data.dtype)
    header.set_data_shape(data.shape[::-1])
    ras = affine_to_ras(volume.affine)
    header.set_qform(ras, code=0 if is_sheared(volume.affine) else 1, strip_shears=True)
    header.set_sform(ras, code=1)
    header.set_xyzt_units("mm")
    if one_scale:
        header.set_slope_inter(volume.slope[0], volume.intercept[0])
    else:
        header.set_slope_inter(1.0, 0.0)
    header["vox_offset"] = offset = header.sizeof_hdr + 4  # four bytes: no extension follows
    header["magic"] = header.single_magic
    blocks: tuple[Any, ...] = (header.binaryblock, bytes(offset - header.sizeof_hdr), data.data)
    if compress:
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0) as packed:
            for block in blocks:
                packed.write(block)
    else:
        for block in blocks:
            file.write(block)


def is_sheared(affine: Array) -> bool:
    """Whether the three axes are not at right angles (by more than 1e-4), as after a gantry tilt."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > 1e-4)
