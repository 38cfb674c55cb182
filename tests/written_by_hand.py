"""Picture files that Pillow does not write."""

import struct
import zlib


def png(width, height, depth, colour, channels, samples):
    """A PNG written by hand: Pillow writes none of 16 bits a channel."""
    lines = samples.reshape(height, width * channels).astype(">u2" if depth == 16 else "u1")
    raw = b"".join(b"\0" + line.tobytes() for line in lines)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)),
        (b"IDAT", zlib.compress(raw)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
