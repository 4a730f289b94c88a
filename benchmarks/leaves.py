"""Dead leaves in three dimensions: volumes made by code, to train super-resolution on.

Solids of all sizes, balls, shells, boxes and winding tubes, lie over each other as leaves do (Matheron 1968; what
restores pictures can be learned from them: Achddou, Gousseau, Ladjal 2021). Most are plain, some have a texture; all
of it is blurred, and noisier where it is brighter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

Floats = npt.NDArray[np.floating[Any]]

COUNT, FIRST_SEED = 12, 100
ANISOTROPY = (1.0, 1.3, 2.2, 1.0, 1.3, 1.0, 3.0, 1.0)
"""Of the volumes in turn: the distance of slices in pixels."""
THIN, THICK = (144, 208, 208), (80, 224, 224)
LEVELS = [0, 0.02, 0.25, 0.3, 0.33, 0.36, 0.4, 0.5, 0.7, 1.0]
"""Values that leaves have, about: air, fat, muscle, bone."""
KINDS, TEXTURES = 40, 30
WHITE = 4095


def leaves(number: int) -> tuple[npt.NDArray[np.uint16], tuple[float, float, float]]:
    """The volume (z, y, x) of that number, 0 to WHITE, and its spacing."""
    rng = np.random.default_rng(FIRST_SEED + number)
    distance = ANISOTROPY[number % len(ANISOTROPY)]
    shape = THIN if distance < 2 else THICK
    values, which = _fallen(shape, rng, distance)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    strength = np.abs(rng.normal(size=TEXTURES)) * rng.uniform(0, 0.06) * (rng.random(TEXTURES) < 0.6)
    texture: Tensor | float = 0
    for sigma in (1.0, 2.5, 6.0):
        grain = _blurred(torch.randn(shape, generator=generator), (sigma / distance, sigma, sigma))
        texture = texture + grain / grain.std() * rng.uniform(0.2, 1)
    volume = values + torch.from_numpy(strength.astype(np.float32))[which.long()] * texture
    sigma = rng.uniform(0.5, 1.1)
    along = sigma * rng.uniform(0.6, 1.2) / distance if distance > 1 else sigma
    volume = _blurred(volume, (along, sigma, sigma))
    noise = torch.randn(shape, generator=generator)
    sigma = rng.uniform(0, 0.9)
    noise = _blurred(noise, (sigma * rng.random(), sigma, sigma))
    noise /= noise.std()
    level = float(np.exp(rng.uniform(np.log(0.001), np.log(0.03))))
    volume = volume + noise * level * (0.3 + volume.clamp(0, 1))
    return (volume.clamp(0, 1).numpy() * WHITE).astype(np.uint16), (distance, 1.0, 1.0)


def _fallen(shape: tuple[int, int, int], rng: np.random.Generator, distance: float) -> tuple[Tensor, Tensor]:
    """The leaves' values, and the texture that each has."""
    volume, which = np.zeros(shape, np.float32), np.zeros(shape, np.int16)
    levels = rng.choice(LEVELS, size=KINDS) + rng.normal(size=KINDS) * 0.02
    count = rng.integers(900, 2600)
    least, most = 1.5, rng.uniform(40, 90)
    share = rng.random(count)
    power = rng.uniform(0.8, 1.6)
    radii = (least**-power + share * (most**-power - least**-power)) ** (-1 / power)
    radii = np.sort(radii)[::-1] if rng.random() < 0.6 else rng.permutation(radii)
    volume += levels[0]
    for i, radius in enumerate(radii):
        centre = rng.random(3) * np.array(shape)
        turn, kind = _rotation(rng), rng.random()
        value = levels[rng.integers(KINDS)] + rng.normal() * 0.02
        tube = kind < 0.2
        if tube:
            balls = _walk(centre, min(radius * 0.3 + 0.7, 6.0), rng, distance)
        else:
            balls, axes = [(centre, radius)], np.exp(rng.normal(size=3) * 0.45)
        for place, size in balls:
            reach = np.array([size / distance, size, size]) * (1 if tube else 1.9) + 1
            low = np.maximum(np.floor(place - reach), 0).astype(int)
            high = np.minimum(np.ceil(place + reach) + 1, shape).astype(int)
            if (high <= low).any():
                continue
            box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            z, y, x = np.ogrid[box]
            offset = (z - place[0]) * distance, y - place[1], x - place[2]
            if tube:
                inside = offset[0] ** 2 + offset[1] ** 2 + offset[2] ** 2 < size * size
            else:
                inside = _solid(offset, turn, size * axes, kind, rng)
            volume[box][inside], which[box][inside] = value, i % TEXTURES
    return torch.from_numpy(volume), torch.from_numpy(which)


def _walk(
    centre: Floats, radius: float, rng: np.random.Generator, distance: float
) -> list[tuple[Floats, float]]:
    """Balls along a winding way: a vessel that grows thinner."""
    place, way, balls = centre.copy(), rng.normal(size=3), []
    for _ in range(int(rng.integers(10, 60))):
        way = way / np.linalg.norm(way) + rng.normal(size=3) * 0.15
        place = place + way / np.linalg.norm(way) * radius * 0.7 / np.array([distance, 1, 1])
        balls.append((place.copy(), radius))
        radius *= 0.99
    return balls


def _solid(
    offset: tuple[Floats, Floats, Floats], turn: Floats, axes: Floats, kind: float, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Where an ellipsoid, a shell or a box is."""
    z, y, x = offset
    a, b, c = ((turn[k, 0] * z + turn[k, 1] * y + turn[k, 2] * x) / axes[k] for k in range(3))
    if kind >= 0.75:
        box: npt.NDArray[np.bool_] = np.maximum(np.maximum(abs(a), abs(b)), abs(c)) < 0.8
        return box
    square = a**2 + b**2 + c**2
    inside: npt.NDArray[np.bool_] = square < 1
    if kind > 0.6:
        inner = rng.uniform(0.75, 0.93)
        inside &= ~(square < inner * inner)
    return inside


def _rotation(rng: np.random.Generator) -> Floats:
    """A rotation, all alike likely: of a random unit quaternion."""
    w, x, y, z = (q := rng.normal(size=4)) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _blurred(volume: Tensor, sigmas: tuple[float, float, float]) -> Tensor:
    """By a Gaussian along each axis; none below 0.2."""
    out = volume[None, None]
    for axis, sigma in enumerate(sigmas):
        if sigma >= 0.2:
            reach = max(1, int(3 * sigma + 1))
            kernel = torch.exp(-(torch.arange(-reach, reach + 1).float() ** 2) / (2 * sigma * sigma))
            shape, padding = [1, 1, 1, 1, 1], [0] * 6
            shape[2 + axis] = -1
            padding[2 * (2 - axis)] = padding[2 * (2 - axis) + 1] = reach
            padded = functional.pad(out, padding, mode="replicate")
            out = functional.conv3d(padded, (kernel / kernel.sum()).view(shape))
    return out[0, 0]
