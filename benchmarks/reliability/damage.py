"""Random damage to files, drawn from a generator: cut off, bytes flipped, emptied, overwritten, keys changed."""

import json
import random
import struct
from collections.abc import Callable

Damage = Callable[[bytes, random.Random], bytes]


def cut(content: bytes, luck: random.Random) -> bytes:
    """The file up to a random place before its end."""
    return content[: luck.randrange(len(content))]


def flip_byte(content: bytes, luck: random.Random) -> bytes:
    """One byte, anywhere, becomes another."""
    return flipped(content, luck.randrange(len(content)), luck)


def flip_many(content: bytes, luck: random.Random) -> bytes:
    """Twenty bytes, anywhere, become others."""
    for _ in range(20):
        content = flip_byte(content, luck)
    return content


def flipped(content: bytes, place: int, luck: random.Random) -> bytes:
    """The byte at ``place`` becomes another one."""
    changed = content[place] ^ luck.randrange(1, 256)
    return content[:place] + bytes([changed]) + content[place + 1 :]


def zeroed(content: bytes, luck: random.Random) -> bytes:
    """A block of 512 bytes of zeros, as a disk leaves that lost one; not where that changes nothing."""
    for _ in range(100):
        start = luck.randrange(max(len(content) - 512, 1))
        found = content[:start] + bytes(min(512, len(content) - start)) + content[start + 512 :]
        if found != content:
            return found
    return bytes(len(content))


def emptied(content: bytes, luck: random.Random) -> bytes:
    """Nothing."""
    return b""


def lengthened(content: bytes, luck: random.Random) -> bytes:
    """The file with its own beginning behind it."""
    return content + content[: luck.randrange(1, len(content))]


def noise(content: bytes, luck: random.Random) -> bytes:
    """As many random bytes."""
    return luck.randbytes(len(content))


def renamed_key(content: bytes, luck: random.Random) -> bytes:
    """A safetensors file, whole, one of whose tensors has another name."""
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    name = luck.choice([key for key in header if key != "__metadata__"])
    header[f"{name}_"] = header.pop(name)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


ANY: tuple[Damage, ...] = (cut, flip_byte, flip_many, zeroed, emptied, lengthened, noise)
"""What can befall any file."""
