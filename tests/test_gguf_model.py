"""GGUF files: rows in the order of Hugging Face, and nothing but GGUF."""

import numpy as np
import pytest

from medusa_core.gguf_model import GGUFError, GGUFModel, _split_halves


def rotate_halves(vector: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Hugging Face's rotary embedding: entry i turns with entry i + d/2."""
    a, b = np.split(vector, 2)
    return np.concatenate([a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)])


def rotate_neighbours(vector: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """llama.cpp's: entry 2i turns with entry 2i + 1."""
    a, b = vector[::2], vector[1::2]
    return np.stack(
        [a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)], axis=1
    ).ravel()


def test_rotated_queries_and_keys_keep_their_products_after_the_rows_are_put_back():
    rng = np.random.default_rng(0)
    query, key = rng.normal(size=(2, 8, 5))  # one head of 8 rows as a GGUF file stores it
    x, y, frequencies = rng.normal(size=5), rng.normal(size=5), 0.7 ** np.arange(4)
    stored = rotate_neighbours(query @ x, 3 * frequencies) @ rotate_neighbours(key @ y, frequencies)
    query, key = _split_halves(query, heads=1), _split_halves(key, heads=1)
    ours = rotate_halves(query @ x, 3 * frequencies) @ rotate_halves(key @ y, frequencies)
    assert ours == pytest.approx(stored)


def test_rows_of_different_heads_do_not_mix():
    heads = np.arange(3 * 8 * 2).reshape(24, 2)
    whole = _split_halves(heads, heads=3)
    np.testing.assert_array_equal(
        whole, np.concatenate([_split_halves(head, 1) for head in np.split(heads, 3)])
    )


def test_a_file_that_is_not_gguf_is_refused(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + b"\0" * 100)
    for path in (tmp_path / "x.gguf", tmp_path / "none.gguf"):
        with pytest.raises(GGUFError, match=path.name):
            GGUFModel(path)
