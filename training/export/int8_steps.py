"""The rounding to 8 bits that torch networks and graphs built node by node share."""

from __future__ import annotations

#: Bits of a weight. Processors without VNNI add two products in 16 bits, which 8-bit weights overflow (seen on AVX2).
BITS = 7
#: The largest rounded input, and the number that stands for zero in unsigned 8 bits.
LARGEST_INPUT, ZERO = 127, 128
#: An input row is never divided by less.
SMALLEST = 1e-12
