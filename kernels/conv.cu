// Convolution as a closed triple, by implicit GEMM on channels-last images: forward, transposed (= gradient of the input), gradient of
// the weight. Weights lie in (O, KH, KW, C/G) memory. Products are tiles of tile.cuh: blocks of 256 threads, each with BM x BN results. Each of
// the G groups of channels has a product of its own, all in one launch: what is said of channels is said of those of a group.
//
// conv_forward      rows: positions (n, i, j); columns: output channels; k = (tap, input channel).
//                   Grid (tiles of positions, tiles of channels, groups).
// conv_transposed   rows: pixels; columns: input channels; k = (tap, output channel). At stride s a pixel is touched by every s-th tap
//                   only, so the pixels are sorted into sh x sw phases (theorem T6 of docs/math) and each phase runs over its own taps:
//                   no multiplication by inserted zeros. Grid (tiles of one phase's pixels, tiles of channels, groups x phases).
// conv_weight       rows: output channels; columns: (tap, input channel); k = positions, split into parts that are added up in order by
//                   sum_parts: the same bits every time. There are as many as fill rounds of blocks (`parts` in backend/cuda/base.py): before,
//                   "at least 264 blocks" gave 270 or 288, a round for a few of them. Grid (tiles of columns, tiles of channels, parts x groups).
//                   SWAPPED, for at most 64 output channels: rows and columns of the tile are exchanged, as tiles have 128 rows or 64, and those of 64
//                   are the slowest.
// A bias, or in conv_forward batch norm's scale and offset in inference and ReLU, are applied on the way to memory and move nothing more.
//
// Operations: 2 N OH OW O KH KW C/G each, bound by arithmetic wherever k is more than a few dozen. Traffic: every tile reads its rows and
// columns of both operands over all of k, (BM + BN) K numbers, an image's pixel KH KW times, nearly all of them from the L2 cache; results are
// written once, those of conv_weight once for each part, in whole sectors of 32 bytes (float16: in halves) where channels are even.
// Not chosen: columns in device memory (im2col and a product), KH KW times the images; tiles for groups of few channels (direct.cu); groups without
// a module of their own, at up to 60 registers a thread for everybody else. Counted in the assembly, not timed: two divisions for each element of
// conv_transposed are gone (Phase), and those of k in every step (Digits). Nothing here has been timed.
#include "tile.cuh"

#ifndef GROUPED
#define GROUPED 0
#endif
#ifndef TURNED
#define TURNED 0
#endif
#ifndef SWAPPED
#define SWAPPED 0
#endif
// The channels of a group, in and out; without groups what is known anyway, so that nothing more is kept in registers.
#define GROUP_PARAMETERS int inputs_, int outputs_
#define GROUP const int inputs = GROUPED ? inputs_ : g.c, outputs = GROUPED ? outputs_ : channels

// -- operands: rules that say where the element of a row and a k lies, or that it is zero (tile.cuh) -----------------------------------------

// Pixel (i sh - ph + a dh, j sw - pw + b dw) of image n, for position (n, i, j) and tap and channel (a, b, first + c). Null in the padding.
__device__ __forceinline__ const Real* pixel(const Geometry& g, const Real* x, int first, const Digits& position, const Digits& tap) {
    int h = position.mid * g.sh + tap.high * g.dh - g.ph, w = position.low * g.sw + tap.mid * g.dw - g.pw;
    return h >= 0 && h < g.h && w >= 0 && w < g.w ? x + ((position.high * g.h + h) * g.w + w) * g.c + first + tap.low : nullptr;
}

struct Columns {  // im2col: rows are positions, k is (tap, channel)
    typedef Digits Outer, Inner;
    static constexpr bool ALONG_K = true;
    const Geometry& g;
    const Real* data;
    int first, inputs;  // channels of the group; where they begin is an offset, as a pointer of its own would take two registers instead of one
    Base positions{g.oh, g.ow}, taps{g.kw, inputs};
    __device__ __forceinline__ Outer outer(int m) const { return positions.split(m); }
    __device__ __forceinline__ Inner inner(int k) const { return taps.split(k); }
    __device__ __forceinline__ void advance(Inner& k) const { taps.advance(k); }
    __device__ __forceinline__ const Real* find(const Outer& m, const Inner& k) const { return pixel(g, data, first, m, k); }
};

struct ColumnsTransposed {  // im2col the other way round: rows are (tap, channel), k is the position
    typedef Digits Outer, Inner;
    static constexpr bool ALONG_K = false;
    const Geometry& g;
    const Real* data;
    int first, inputs;
    Base positions{g.oh, g.ow}, taps{g.kw, inputs};
    __device__ __forceinline__ Outer outer(int k) const { return taps.split(k); }
    __device__ __forceinline__ Inner inner(int m) const { return positions.split(m); }
    __device__ __forceinline__ void advance(Inner& m) const { positions.advance(m); }
    __device__ __forceinline__ const Real* find(const Outer& k, const Inner& m) const { return pixel(g, data, first, m, k); }
};

struct Matrix {  // rows first .. of `pitch` numbers, k along them
    typedef int Outer, Inner;
    static constexpr bool ALONG_K = true;
    const Real* data;
    int first, pitch;
    __device__ __forceinline__ Outer outer(int row) const { return (first + row) * pitch; }
    __device__ __forceinline__ Inner inner(int k) const { return k; }
    __device__ __forceinline__ void advance(Inner& k) const { k += BK; }
    __device__ __forceinline__ const Real* find(Outer row, Inner k) const { return data + row + k; }
};

struct MatrixTransposed {  // k runs over rows of `pitch` numbers
    typedef int Outer, Inner;
    static constexpr bool ALONG_K = false;
    const Real* data;
    int pitch;
    __device__ __forceinline__ Outer outer(int row) const { return row; }
    __device__ __forceinline__ Inner inner(int k) const { return k * pitch; }
    __device__ __forceinline__ void advance(Inner& k) const { k += BK * pitch; }
    __device__ __forceinline__ const Real* find(Outer row, Inner k) const { return data + k + row; }
};

// Along one axis: the pixels first, first + stride, ... and the taps tap, tap + step, ... that touch them. The u-th pixel is touched by the
// q-th tap of position u + shift - q jump.
struct Phase {
    int first, pixels, tap, taps, step, shift, jump;
    __device__ __forceinline__ Phase(int r, int size, int kernel, int stride, int padding, int dilation) {
        first = ((r - padding) % stride + stride) % stride;
        pixels = first < size ? (size - first + stride - 1) / stride : 0;
        for (step = 1; step * dilation % stride; step++) {}
        for (tap = 0; tap < step && tap * dilation % stride != r; tap++) {}
        taps = tap < step && tap < kernel ? (kernel - tap + step - 1) / step : 0;  // none in a dead phase (T7)
        shift = (first + padding - tap * dilation) / stride;
        jump = step * dilation / stride;
    }
};

struct Gradients {  // rows are the pixels of a phase, k is (tap of the phase, output channel)
    typedef Digits Outer, Inner;
    static constexpr bool ALONG_K = true;
    const Geometry& g;
    const Phase &ph, &pw;
    const Real* data;
    int channels, outputs;  // from pixel to pixel, of the group
    Base taps{pw.taps, outputs};
    __device__ __forceinline__ Outer outer(int m) const {
        Digits p = Base{ph.pixels, pw.pixels}.split(m);
        return {p.high, p.mid + ph.shift, p.low + pw.shift};
    }
    __device__ __forceinline__ Inner inner(int k) const { return taps.split(k); }
    __device__ __forceinline__ void advance(Inner& k) const { taps.advance(k); }
    __device__ __forceinline__ const Real* find(const Outer& p, const Inner& t) const {
        int i = p.mid - t.high * ph.jump, j = p.low - t.mid * pw.jump;
        return i >= 0 && i < g.oh && j >= 0 && j < g.ow ? data + ((p.high * g.oh + i) * g.ow + j) * channels + t.low : nullptr;
    }
};

struct PhaseWeights {  // rows are input channels, k is (tap of the phase, output channel); TURNED: the weight lies in (C, KH, KW, O) memory
    typedef int Outer;
    typedef Digits Inner;
    static constexpr bool ALONG_K = TURNED;
    const Geometry& g;
    const Phase &ph, &pw;
    const Real* data;
    int inputs, outputs;
    Base taps{pw.taps, outputs};
    __device__ __forceinline__ Outer outer(int c) const { return TURNED ? c * g.kh * g.kw * outputs : c; }
    __device__ __forceinline__ Inner inner(int k) const { return taps.split(k); }
    __device__ __forceinline__ void advance(Inner& k) const { taps.advance(k); }
    __device__ __forceinline__ const Real* find(Outer c, const Inner& t) const {
        int a = ph.tap + t.high * ph.step, b = pw.tap + t.mid * pw.step;
        return data + (TURNED ? (a * g.kw + b) * outputs + t.low : ((t.low * g.kh + a) * g.kw + b) * inputs) + c;
    }
};

// -- kernels -----------------------------------------------------------------------------------------------------------------------------

// x (N, H, W, C), w (O, KH, KW, C/G), scale and offset (O,) or null -> y (N, OH, OW, O).
extern "C" __global__ void __launch_bounds__(256, ProductOf<Columns, Matrix>::BLOCKS)
conv_forward(const Real* __restrict__ x, const Real* __restrict__ w, const Sum* __restrict__ scale, const Sum* __restrict__ offset,
             Real* __restrict__ y, int channels, int relu, GROUP_PARAMETERS, GEOMETRY_PARAMETERS) {
    const Geometry g = GEOMETRY;
    const Finish finish{scale, offset, relu};
    GROUP;
    const int group = GROUPED ? blockIdx.z : 0, positions = g.n * g.oh * g.ow, depth = g.kh * g.kw * inputs, first = group * outputs;
    ProductOf<Columns, Matrix> tile;
    tile.multiply(Columns{g, x, group * inputs, inputs}, Matrix{w, first, depth}, blockIdx.x * BM, positions, blockIdx.y * BN, outputs, 0,
                  depth);
    const bool whole = tile.whole(y, channels, first, outputs);
    #pragma unroll
    for (int i = 0; i < tile.ROWS; i++)
        #pragma unroll
        for (int j = 0; j < tile.COLUMNS; j += tile.NEXT) {
            const int m = tile.row(i), o = tile.column(j);
            if (m >= positions || o >= outputs) continue;
            tile.put(y + (m * channels + first + o), whole, outputs - o, [&](int s) { return finish(tile.result[i][j + s], first + o + s); });
        }
}

// y (N, OH, OW, O), w (O, KH, KW, C/G), bias (C,) or null -> x (N, H, W, C).
extern "C" __global__ void __launch_bounds__(256, ASYNC ? ProductOf<Gradients, PhaseWeights>::BLOCKS : 1 + FEW_REGISTERS)
conv_transposed(const Real* __restrict__ y, const Real* __restrict__ w, const Sum* __restrict__ bias, Real* __restrict__ x, int channels,
                GROUP_PARAMETERS, GEOMETRY_PARAMETERS) {
    const Geometry g = GEOMETRY;
    const Finish finish{nullptr, bias, 0};
    GROUP;
    const int phases = g.sh * g.sw, group = GROUPED ? blockIdx.z / phases : 0, phase = blockIdx.z - group * phases;
    const Phase ph(phase / g.sw, g.h, g.kh, g.sh, g.ph, g.dh), pw(phase % g.sw, g.w, g.kw, g.sw, g.pw, g.dw);
    const int pixels = g.n * ph.pixels * pw.pixels, depth = ph.taps * pw.taps * outputs, m0 = blockIdx.x * BM;
    if (m0 >= pixels) return;  // the grid is made for the largest phase
    ProductOf<Gradients, PhaseWeights> tile;
    tile.multiply(Gradients{g, ph, pw, y + group * outputs, channels, outputs},
                  PhaseWeights{g, ph, pw, w + group * outputs * g.kh * g.kw * inputs, inputs, outputs}, m0, pixels, blockIdx.y * BN, inputs, 0,
                  depth);
    const int first = group * inputs;
    const bool whole = tile.whole(x, g.c, first, inputs);
    #pragma unroll
    for (int i = 0; i < tile.ROWS; i++) {
        int m = tile.row(i);
        if (m >= pixels) continue;
        int v = m % pw.pixels, u = m / pw.pixels % ph.pixels, n = m / (pw.pixels * ph.pixels);
        int at = ((n * g.h + ph.first + u * g.sh) * g.w + pw.first + v * g.sw) * g.c + first;
        #pragma unroll
        for (int j = 0; j < tile.COLUMNS; j += tile.NEXT) {
            const int c = tile.column(j);
            if (c < inputs) tile.put(x + (at + c), whole, inputs - c, [&](int s) { return finish(tile.result[i][j + s], first + c + s); });
        }
    }
}

// x (N, H, W, C), y (N, OH, OW, O) -> parts (P, O, KH, KW, C/G), part p over the positions p share .. (p + 1) share - 1.
extern "C" __global__ void __launch_bounds__(256, TOGETHER)
conv_weight(const Real* __restrict__ x, const Real* __restrict__ y, Sum* __restrict__ parts, int channels, int share, GROUP_PARAMETERS,
            GEOMETRY_PARAMETERS) {
    const Geometry g = GEOMETRY;
    GROUP;
    const int groups = GROUPED ? g.c / inputs : 1, group = blockIdx.z % groups, part = blockIdx.z / groups, first = group * outputs;
    const int positions = g.n * g.oh * g.ow, columns = g.kh * g.kw * inputs, begin = part * share;
    const MatrixTransposed gradients{y + first, channels};
    const ColumnsTransposed images{g, x, group * inputs, inputs};
    const int k0 = blockIdx.x * (SWAPPED ? BM : BN), o0 = blockIdx.y * (SWAPPED ? BN : BM), end = min(begin + share, positions);
#if SWAPPED
    ProductOf<ColumnsTransposed, MatrixTransposed> tile;
    tile.multiply(images, gradients, k0, columns, o0, outputs, begin, end);
#else
    ProductOf<MatrixTransposed, ColumnsTransposed> tile;
    tile.multiply(gradients, images, o0, outputs, k0, columns, begin, end);
#endif
    Sum* to = parts + (part * channels + first) * columns;
#if SWAPPED
    #pragma unroll
    for (int i = 0; i < tile.ROWS; i++)
        #pragma unroll
        for (int j = 0; j < tile.COLUMNS; j++) {
            int k = tile.row(i), o = tile.column(j);
            if (o < outputs && k < columns) to[o * columns + k] = tile.result[i][j];
        }
#else
    const bool whole = tile.whole(to, columns, 0, columns);
    #pragma unroll
    for (int i = 0; i < tile.ROWS; i++)
        #pragma unroll
        for (int j = 0; j < tile.COLUMNS; j += tile.NEXT) {
            const int o = tile.row(i), k = tile.column(j);
            if (o < outputs && k < columns) tile.put(to + (o * columns + k), whole, columns - k, [&](int s) { return tile.result[i][j + s]; });
        }
#endif
}
