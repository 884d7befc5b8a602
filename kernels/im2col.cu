// im2col and its adjoint col2im, on channels-last images. Columns are (N, OH, OW, KH, KW, C): one run of C numbers per tap.
//
// im2col   one thread per element of the columns. Traffic: each column element written once, read from the image through the cache:
//          about (KH KW + 1) N OH OW C numbers. Bound by memory.
// col2im   gather form: one thread per pixel and channel adds up the taps that touch it, in a fixed order: no atomics, so the same
//          bits every time. Traffic: the columns read once, the image written once. Bound by memory.
//
// Launch of both: blocks of 256, a thread for each element, at most 65536 blocks, which go round. Neighbouring threads have neighbouring channels, so
// that accesses of a warp are runs of memory. Each element also costs its thread up to five divisions to know its place, and col2im four more for
// each tap: not timed, so not known whether they hide behind memory. Convolutions of one group do without columns (conv.cu).
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256) im2col(const Real* __restrict__ x, Real* __restrict__ cols, GEOMETRY_PARAMETERS) {
    const Geometry g = GEOMETRY;
    FOR_EACH(e, g.n * g.oh * g.ow * g.kh * g.kw * g.c) {
        int c = e % g.c, rest = e / g.c;
        int b = rest % g.kw; rest /= g.kw;
        int a = rest % g.kh; rest /= g.kh;
        int j = rest % g.ow; rest /= g.ow;
        int i = rest % g.oh, n = rest / g.oh;
        int h = i * g.sh + a * g.dh - g.ph, w = j * g.sw + b * g.dw - g.pw;
        bool inside = h >= 0 && h < g.h && w >= 0 && w < g.w;
        cols[e] = inside ? x[((n * g.h + h) * g.w + w) * g.c + c] : Real(0);
    }
}

extern "C" __global__ void __launch_bounds__(256) col2im(const Real* __restrict__ cols, Real* __restrict__ x, GEOMETRY_PARAMETERS) {
    const Geometry g = GEOMETRY;
    FOR_EACH(e, g.n * g.h * g.w * g.c) {
        int c = e % g.c, rest = e / g.c;
        int w = rest % g.w; rest /= g.w;
        int h = rest % g.h, n = rest / g.h;
        Sum total = 0;
        for (int a = 0; a < g.kh; a++) {
            int i = position_of(h + g.ph, a, g.sh, g.dh, g.oh);
            if (i < 0) continue;
            for (int b = 0; b < g.kw; b++) {
                int j = position_of(w + g.pw, b, g.sw, g.dw, g.ow);
                if (j >= 0) total += cols[((((n * g.oh + i) * g.ow + j) * g.kh + a) * g.kw + b) * g.c + c];
            }
        }
        x[e] = Real(total);
    }
}
