"""Made-up sounds to calibrate on, mono at 16 kHz: real recordings are not at hand."""

from __future__ import annotations

from typing import Any

import numpy as np

RATE = 16000
Array = np.ndarray[Any, Any]


def machine(rng: Any, seconds: float = 2.0) -> Array:
    """The sound of some motor: overtones of its speed, and noise that falls off with frequency."""
    time = np.arange(int(seconds * RATE)) / RATE
    speed = rng.uniform(30, 150)
    turns = 2 * np.pi * np.cumsum(speed * (1 + 0.02 * np.sin(2 * np.pi * 0.7 * time))) / RATE
    hum = sum(rng.uniform(0.2, 1) / k * np.sin(k * turns + rng.uniform(0, 6)) for k in range(1, 30))
    return np.asarray(0.05 * hum + rng.uniform(0.002, 0.02) * coloured(rng, time.size))


def voice(rng: Any, seconds: float) -> Array:
    """Overtones of a wandering pitch under three wandering formants, in syllables."""
    size = int(seconds * RATE)
    knots = int(seconds * 5) + 2

    def wander(low: float, high: float) -> Array:
        return np.interp(
            np.linspace(0, knots - 1, size), range(knots), rng.uniform(low, high, knots)
        )

    pitch = wander(90, 220)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    formants = [wander(300, 800), wander(900, 2300), wander(2300, 3300)]
    sound = np.zeros(size)
    for k in range(1, 36):
        gain = sum(np.exp(-(((k * pitch - f) / 150) ** 2)) for f in formants)
        sound += (gain + 0.02) * np.sin(k * phase)
    loud = np.maximum(wander(-0.5, 1), 0)
    return np.asarray(sound * loud)


def coloured(rng: Any, size: int) -> Array:
    """Noise of standard deviation 1 whose power falls with frequency."""
    spectrum = np.fft.rfft(rng.standard_normal(size))
    spectrum /= np.maximum(np.arange(spectrum.size), 50) ** rng.uniform(0.3, 0.8)
    noise = np.fft.irfft(spectrum, size)
    return np.asarray(noise / noise.std())


def log_mel_frames(sound: Array) -> Array:
    """Log-mel energies, 5 frames in a row of 640: windows of 1,024, every 512, 128 bands."""
    windows = np.lib.stride_tricks.sliding_window_view(sound, 1024)[::512] * np.hanning(1024)
    power = np.abs(np.fft.rfft(windows)) ** 2
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, 130) / 2595) - 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    at = np.fft.rfftfreq(1024, 1 / RATE)
    triangles = np.minimum((at - low) / (middle - low), (high - at) / (high - middle))
    # Slaney's norm: a band's energy does not grow with its width.
    mel = power @ (np.maximum(triangles, 0) * 2 / (high - low)).T
    decibels = (10 * np.log10(mel + 1e-10)).astype(np.float32)
    return np.stack([decibels[i : i + 5].reshape(-1) for i in range(len(decibels) - 4)])
