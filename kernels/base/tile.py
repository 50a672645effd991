"""From packed bits to a tile of weights for a tensor-core product: signs, one step of interleaving, then two
instructions a pair of edges.

A tile is 128 columns of some rows: four mask words and four sign words (or one Philox call) a row. A weight is made in
units of half the layer's constant, so that it is +-2.0 or zero: 2.0 is a single exponent bit in float16, bfloat16 and
float32 alike, 0x4000 or 0x40000000, right below the sign. So where a word holds an edge's mask bit and above it the
edge's sign bit, one shift and one AND are all that turns them into a weight (a masked-out one may be -0.0), and in 16
bits they make two weights at once:

    even = edges 0, 2, .. 30 of a word, two bits each; odd = edges 1, 3, .. 31
    code 0 = low halves of even and odd, code 1 = high halves
    (code << (14 - 2 i)) & 0xC000C000 = weights of the columns 2 i (low half) and 2 i + 1 (high half) of 16

A layer of several coats has a tile, and a product, a coat: all of them exact.
"""

from supermask.kernels.base.launch import interpreted, jit, tl, triton


@jit
def sign_quad(signs_ptr, flips_ptr, seed, layer, stream, row, tile, words, inside):
    """Sign words int32 [R, 4] of column tile `tile` of rows `row` int64 [R], `inside` where they exist.

    Args:
        signs_ptr: packed int32 [rows, words], or None to draw them.
        flips_ptr: packed int32 [rows, words], XORed in, or None.
        seed, layer, stream: of the draw, as in the op schemas.
        tile: index of 128 columns.
        words: of a row.
    """
    at = row[:, None] * words + tile * 4 + tl.arange(0, 4)[None, :]
    if signs_ptr is not None:
        quad = tl.load(signs_ptr + at, mask=inside[:, None], other=0)
    else:
        a, b, c, d = tl.philox(seed, tile, row.to(tl.int32), layer, stream)
        quad = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), (row.shape[0], 4)).to(tl.int32, bitcast=True)
    if flips_ptr is not None:
        quad ^= tl.load(flips_ptr + at, mask=inside[:, None], other=0)
    return quad


@jit
def codes(mask, signs):
    """Mask words and sign words [R, 4] interleaved: uint32 [R, 8], 16 columns a code."""
    mask = mask.to(tl.uint32, bitcast=True)
    signs = signs.to(tl.uint32, bitcast=True)
    even = (mask & 0x55555555) | ((signs << 1) & 0xAAAAAAAA)
    odd = ((mask >> 1) & 0x55555555) | (signs & 0xAAAAAAAA)
    low = (even & 0xFFFF) | (odd << 16)
    high = (even >> 16) | (odd & 0xFFFF0000)
    return tl.reshape(tl.join(low, high), (mask.shape[0], 8))


@jit
def _halves(pair, DTYPE: tl.constexpr):
    """The two weights of each pair of fields, at the tops of its halves: [..., 2] of DTYPE."""
    if DTYPE.primitive_bitwidth == 16:
        both = tl.join(pair.to(tl.uint16), (pair >> 16).to(tl.uint16))
    else:
        both = tl.join(pair << 16, pair & 0xC0000000)
    return both.to(DTYPE, bitcast=True)


@jit
def weights(code, DTYPE: tl.constexpr):
    """Weights [R, 16 * N] of DTYPE from codes uint32 [R, N]: 2.0, -2.0, 0.0 or -0.0."""
    place = 14 - 2 * tl.arange(0, 8)[None, None, :]
    pair = (code[:, :, None] << place) & 0xC000C000
    return tl.reshape(_halves(pair, DTYPE), (code.shape[0], 16 * code.shape[1]))


@jit
def weights_transposed(code, DTYPE: tl.constexpr):
    """The same as [128, R]; a pair is of two rows, so that neighbours along the second axis share a register."""
    R: tl.constexpr = code.shape[0]
    above, below = tl.split(tl.permute(tl.reshape(code, (R // 2, 2, 8)), (0, 2, 1)))
    even = (above & 0xFFFF) | (below << 16)
    odd = (above >> 16) | (below & 0xFFFF0000)
    place = 14 - 2 * tl.arange(0, 8)[None, None, :, None]
    pair = (tl.join(even, odd)[:, :, None, :] << place) & 0xC000C000
    rows = _halves(tl.reshape(pair, (R // 2, 128)), DTYPE)
    return tl.reshape(tl.permute(rows, (1, 0, 2)), (128, R))


@jit
def weight_tile(mask_ptr, signs, row, tile, words, inside, DTYPE: tl.constexpr, TRANSPOSED: tl.constexpr = False):
    """Weights [R, 128] of DTYPE in units of half the constant: 2.0, -2.0, 0.0 or -0.0.

    Args:
        mask_ptr: packed int32 [rows, words], one coat.
        signs: int32 [R, 4] of `sign_quad`.
        row, tile, words, inside: as there.
        DTYPE: float16, bfloat16 or float32. The interpreter cannot multiply bfloat16: ask for float32 there.
        TRANSPOSED: make them [128, R].
    """
    at = row[:, None] * words + tile * 4 + tl.arange(0, 4)[None, :]
    code = codes(tl.load(mask_ptr + at, mask=inside[:, None], other=0), signs)
    return weights_transposed(code, DTYPE) if TRANSPOSED else weights(code, DTYPE)


def warps_of(threads: int) -> int:
    """`num_warps` of a program of `threads`: a warp has 64 lanes on some devices, and one too many of them would make
    every Philox call twice."""
    return threads // (32 if interpreted() else triton.runtime.driver.active.get_current_target().warp_size)
