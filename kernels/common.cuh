// What all kernels share: number types, loops over the grid, window geometry, what finishes the sums of a convolution.
//
// Images lie in channels-last memory, (N, H, W, C). REAL and SUM are set by the launcher, one module per dtype: values are stored as
// Real and added up as Sum (float for float and Half, double for double). Results never depend on the order of blocks: no floating-point atomics.
#pragma once
#include "half.cuh"
#ifndef REAL
#define REAL float
#endif
#ifndef SUM
#define SUM float
#endif
typedef REAL Real;
typedef SUM Sum;

// Elements 0 .. count - 1, each once, over all threads of the grid. count < 2^31 - 2^25, as of all arrays here, so that a step
// past the end still counts in 32 bits: what is larger goes to the reference (`suits` in minidcnn/backend/cuda/launcher.py).
#define FOR_EACH(i, count) for (int i = blockIdx.x * blockDim.x + threadIdx.x, i##_step = gridDim.x * blockDim.x; i < (count); i += i##_step)

// The columns of one row of a channels-last image, the row that blockIdx.x counts, and the channels of each. What follows from the row is worked
// out once a thread, what follows from the column once for its channels, and no division tells an element where it is.
#define FOR_EACH_COLUMN(j, width) for (int j = blockIdx.y * blockDim.y + threadIdx.y; j < (width); j += gridDim.y * blockDim.y)
#define FOR_EACH_CHANNEL(c, channels) for (int c = blockIdx.z * blockDim.x + threadIdx.x; c < (channels); c += gridDim.z * blockDim.x)

// A window sliding over images: tap (a, b) of position (i, j) touches pixel (i sh + a dh - ph, j sw + b dw - pw).
struct Geometry { int n, c, h, w, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw; };
#define GEOMETRY_PARAMETERS \
    int n_, int c_, int h_, int w_, int oh_, int ow_, int kh_, int kw_, int sh_, int sw_, int ph_, int pw_, int dh_, int dw_
#ifdef WINDOW  // kh, kw, sh, sw, ph, pw, dh, dw: for one window that is met often, so that loops over its taps and divisions by its strides fold away
#define GEOMETRY {n_, c_, h_, w_, oh_, ow_, WINDOW}
#else
#define GEOMETRY {n_, c_, h_, w_, oh_, ow_, kh_, kw_, sh_, sw_, ph_, pw_, dh_, dw_}
#endif

__device__ __forceinline__ int divide_up(int a, int b) { return (a + b - 1) / b; }  // a >= 0

// The windows along an axis that touch padded pixel `p`, by ascending tap: their position i, and how far into them p lies.
struct Touching {
    int i, offset;
    __device__ __forceinline__ Touching(int p, int stride, int positions) : i(min(p / stride, positions - 1)), offset(p - i * stride) {}
    __device__ __forceinline__ bool more(int kernel, int dilation) const { return i >= 0 && offset <= (kernel - 1) * dilation; }
    __device__ __forceinline__ void next(int stride) { i--; offset += stride; }
    __device__ __forceinline__ int tap(int dilation) const { return dilation == 1 ? offset : offset % dilation ? -1 : offset / dilation; }  // -1: between taps
};
// For each such window `u`, and the tap `a` by which it touches; those that touch it between taps are passed over.
#define FOR_EACH_TOUCHING(u, a, first, kernel, dilation, stride) \
    for (Touching u = first; u.more(kernel, dilation); u.next(stride)) if (const int a = u.tap(dilation); a >= 0)

// What happens to the sum of a convolution on its way to memory: v scale + offset by channel, then ReLU (NaN stays NaN). Either array may be null.
struct Finish {
    const Sum *scale, *offset;
    int relu;
    __device__ __forceinline__ Real operator()(Sum v, int channel) const {
        if (scale) v *= scale[channel];
        if (offset) v += offset[channel];
        return Real(relu && v <= Sum(0) ? Sum(0) : v);
    }
};
