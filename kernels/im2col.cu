// im2col and its adjoint col2im, on channels-last images. Columns are (N, OH, OW, KH, KW, C): one run of C numbers per tap.
//
// im2col   each column element written once, read from the image through the cache: about (KH KW + 1) N OH OW C numbers. Bound by memory.
// col2im   gather form: a thread adds up the taps that touch its pixel and channel, in a fixed order: no atomics, so the same bits every time.
//          Traffic: the columns read once, the image written once. Bound by memory.
//
// Launch: a block works on a row, of positions or of pixels, threads (KW x channels, columns) for im2col, which write a run of KW C numbers for each
// row of taps, and (channels, columns) for col2im; a thread has up to four of a column. Tried before: a thread for each element of the whole. It took
// five divisions to know its place, where now one does for KH elements, and in col2im four more for each tap, of which without dilation none is left.
// Convolutions do without columns (conv.cu, direct.cu); these are unfold and fold. Nothing here has been timed.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256) im2col(const Real* __restrict__ x, Real* __restrict__ cols, GEOMETRY_PARAMETERS) {
    const Geometry g = GEOMETRY;
    const int top = (int)blockIdx.x % g.oh * g.sh - g.ph, image = (int)blockIdx.x / g.oh * g.h, run = g.kw * g.c;
    FOR_EACH_COLUMN(j, g.ow) FOR_EACH_CHANNEL(e, run) {
        const int b = e / g.c, w = j * g.sw + b * g.dw - g.pw, to = ((int)blockIdx.x * g.ow + j) * g.kh * run + e;
        for (int a = 0; a < g.kh; a++) {
            int h = top + a * g.dh;
            bool inside = h >= 0 && h < g.h && w >= 0 && w < g.w;
            cols[to + a * run] = inside ? x[((image + h) * g.w + w) * g.c + e - b * g.c] : Real(0);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256) col2im(const Real* __restrict__ cols, Real* __restrict__ x, GEOMETRY_PARAMETERS) {
    const Geometry g = GEOMETRY;
    const int image = (int)blockIdx.x / g.h * g.oh;
    const Touching rows((int)blockIdx.x % g.h + g.ph, g.sh, g.oh);
    FOR_EACH_COLUMN(j, g.w) {
        const Touching columns(j + g.pw, g.sw, g.ow);
        FOR_EACH_CHANNEL(c, g.c) {
            Sum total = 0;
            FOR_EACH_TOUCHING(u, a, rows, g.kh, g.dh, g.sh) FOR_EACH_TOUCHING(l, b, columns, g.kw, g.dw, g.sw)
                total += cols[((((image + u.i) * g.ow + l.i) * g.kh + a) * g.kw + b) * g.c + c];
            x[((int)blockIdx.x * g.w + j) * g.c + c] = Real(total);
        }
    }
}
