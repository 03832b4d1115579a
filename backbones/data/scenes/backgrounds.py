"""Backgrounds of `scenes`: a texture and a colour family each, always dark.

A texture function takes the generator and coordinates u, v (S, S) float32 in about [0, 1] (slightly rotated and scaled,
so that no two images share a grid) and returns a pattern (S, S) in [0, 1] that blends the two colours of the image.
"""

from collections.abc import Callable

import cv2
import numpy as np

TAU = 2 * np.pi


def noise(rng: np.random.Generator, size: int, columns: int, rows: int) -> np.ndarray:
    """Draw smooth noise (size, size) in [0, 1] with about columns x rows bumps."""
    coarse = rng.random((rows, columns), dtype=np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR)


def wave(x: np.ndarray) -> np.ndarray:
    """Return a sine of period 1 between 0 and 1."""
    return 0.5 + 0.5 * np.sin(TAU * x)


def bricks(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Draw rows of bricks, every second one shifted by half a brick, with bright mortar."""
    row = np.floor(v * 8)
    across, down = (u * 4 + 0.5 * (row % 2)) % 1, (v * 8) % 1
    mortar = (across < 0.1) | (down < 0.2)
    return np.where(mortar, 1.0, 0.35 * noise(rng, len(u), 9, 9))


def grass(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Draw noise of thin upright blades."""
    return 0.6 * noise(rng, len(u), 40, 7) + 0.4 * noise(rng, len(u), 24, 12)


def water(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Draw horizontal waves, bent by noise."""
    return wave(6 * v + 0.35 * np.sin(TAU * (1.5 * u + rng.random())) + 0.6 * noise(rng, len(u), 4, 4))


def sand(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Draw white noise on smooth dunes."""
    return 0.45 * rng.random(u.shape, dtype=np.float32) + 0.55 * noise(rng, len(u), 5, 5)


def night(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Draw a dark sky with specks."""
    specks = (rng.random((44, 44)) > 0.96).astype(np.float32)
    return np.clip(0.25 * noise(rng, len(u), 3, 3) + cv2.resize(specks, u.shape), 0, 1)


def wood(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Draw upright rings, bent and dimmed by noise."""
    return wave(9 * u + 1.3 * noise(rng, len(u), 3, 4)) * (0.75 + 0.25 * noise(rng, len(u), 30, 3))


def checks(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Draw a chessboard of 6 x 6 squares."""
    return ((np.floor(u * 6) + np.floor(v * 6)) % 2).astype(np.float32)


def stripes(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Draw six diagonal stripes with hard edges."""
    return (wave(6 * (u + v)) > 0.5).astype(np.float32)


def dots(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Draw discs on a 6 x 6 grid."""
    across, down = (u * 6) % 1 - 0.5, (v * 6) % 1 - 0.5
    return (across**2 + down**2 < 0.09).astype(np.float32)


def clouds(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Draw smooth noise of two sizes."""
    return 0.6 * noise(rng, len(u), 4, 4) + 0.4 * noise(rng, len(u), 9, 9)


def grid(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Draw a 7 x 7 grid of thin lines."""
    return (((u * 7) % 1 < 0.16) | ((v * 7) % 1 < 0.16)).astype(np.float32)


def zigzag(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Draw horizontal zigzag waves."""
    return wave(7 * v + 0.9 * np.abs((5 * u) % 1 - 0.5) * 2)


# texture, hue in degrees, saturation
KINDS: dict[str, tuple[Callable, float, float]] = {
    "bricks": (bricks, 8, 0.65),
    "grass": (grass, 110, 0.6),
    "water": (water, 205, 0.65),
    "sand": (sand, 44, 0.55),
    "night": (night, 235, 0.7),
    "wood": (wood, 26, 0.7),
    "checks": (checks, 275, 0.5),
    "stripes": (stripes, 172, 0.6),
    "dots": (dots, 325, 0.55),
    "clouds": (clouds, 220, 0.08),
    "grid": (grid, 75, 0.6),
    "zigzag": (zigzag, 355, 0.25),
}
BACKGROUNDS: tuple[str, ...] = tuple(KINDS)


def colour(hue: float, saturation: float, value: float) -> np.ndarray:
    """Convert hue (degrees), saturation and value to RGB (3,) in [0, 1]."""
    sector = (np.array([5.0, 3.0, 1.0]) + hue / 60) % 6
    return (value - value * saturation * np.clip(np.minimum(sector, 4 - sector), 0, 1)).astype(np.float32)


def draw_background(kind: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a background of a kind: (size, size, 3) float32 RGB in [0, 1], with values below about 0.4."""
    texture, hue, saturation = KINDS[kind]
    turn, scale = rng.uniform(-0.2, 0.2), rng.uniform(0.75, 1.3)
    # Python floats: a numpy float64 would convert every float32 array here to float64, at half the speed.
    cos, sin = float(scale * np.cos(turn)), float(scale * np.sin(turn))
    x = np.arange(size, dtype=np.float32) / size
    y = x[:, None]
    u, v = x * cos - y * sin + rng.random(), x * sin + y * cos + rng.random()
    hue, saturation = hue + rng.uniform(-15, 15), min(max(saturation + rng.uniform(-0.12, 0.12), 0.0), 1.0)
    dark = colour(hue, saturation, rng.uniform(0.08, 0.18))
    light = colour(hue, saturation * rng.uniform(0.7, 1.0), rng.uniform(0.24, 0.36))
    pattern = texture(rng, u, v).astype(np.float32, copy=False)[..., None]
    lighting = 1 + rng.uniform(-0.25, 0.25) * (x - 0.5) + rng.uniform(-0.25, 0.25) * (y - 0.5)  # uneven
    image = pattern * (light - dark)
    image += dark
    image *= lighting[..., None]
    return image
