// Max-pool with its gather and scatter, gather and scatter at flat plane indices, average pool with its adjoint.
//
// Winners are stored as taps, a KW + b, in TAP (one byte for up to 256 taps, else two). Scatters are written as gathers over the few windows that
// touch a pixel, in a fixed order, without atomics. With X = N H W C numbers in the larger image and Y = N OH OW C in the smaller:
//
// max_pool           X numbers read (overlapping windows from the cache), Y numbers and Y taps written.
// pool_gather        Y taps read and up to 32 bytes around each of Y numbers, Y written.
// pool_scatter       Y numbers and Y taps read, X written.
// avg_pool, avg_pool_adjoint   X and Y numbers, one read, one written.
// gather             Y indices of 8 bytes, Y numbers read, Y written.
// scatter_link, scatter_sum    Y indices read, X + 3 Y links of 4 bytes, Y numbers read, X written.
//
// Launch of all: blocks of 256, a thread for each element of the result (scatter_link: of the source), at most 65536 blocks, which go round;
// neighbouring threads have neighbouring channels. Bound by memory as far as bytes go; each element also costs three divisions to know its place, and in
// pool_scatter and avg_pool_adjoint two more for each row and each column of the window, which may well cost more than its few bytes: not timed.
// Not tried: a block for each row of an image, so that all its threads share the vertical places; several channels a thread.
#include "common.cuh"
#ifndef TAP
#define TAP unsigned char
#endif
typedef TAP Tap;

// (n, i, j, c) of element e of a channels-last array of height h, width w and c channels.
struct Place { int n, i, j, c; };
__device__ __forceinline__ Place place_of(int e, int h, int w, int channels) {
    Place p;
    p.c = e % channels; e /= channels;
    p.j = e % w; e /= w;
    p.i = e % h;
    p.n = e / h;
    return p;
}

// x (N, H, W, C) -> maxima y and winning taps, (N, OH, OW, C). Padding is -inf, the first maximum wins, NaN wins over all.
extern "C" __global__ void __launch_bounds__(256)
max_pool(const Real* __restrict__ x, Real* __restrict__ y, Tap* __restrict__ taps, GEOMETRY_PARAMETERS) {
    const Geometry g = GEOMETRY;
    FOR_EACH(e, g.n * g.oh * g.ow * g.c) {
        Place p = place_of(e, g.oh, g.ow, g.c);
        Real best = Real(0);
        int winner = -1;
        for (int a = 0; a < g.kh; a++) {
            int h = p.i * g.sh + a * g.dh - g.ph;
            if (h < 0 || h >= g.h) continue;
            for (int b = 0; b < g.kw; b++) {
                int w = p.j * g.sw + b * g.dw - g.pw;
                if (w < 0 || w >= g.w) continue;
                Real value = x[((p.n * g.h + h) * g.w + w) * g.c + p.c];
                if (winner < 0 || value > best || value != value) { best = value; winner = a * g.kw + b; }
            }
        }
        y[e] = best;
        taps[e] = Tap(winner);
    }
}

// x (N, H, W, C) at the winning taps -> y (N, OH, OW, C); 0 where the tap lies in the padding.
extern "C" __global__ void __launch_bounds__(256)
pool_gather(const Real* __restrict__ x, const Tap* __restrict__ taps, Real* __restrict__ y, GEOMETRY_PARAMETERS) {
    const Geometry g = GEOMETRY;
    FOR_EACH(e, g.n * g.oh * g.ow * g.c) {
        Place p = place_of(e, g.oh, g.ow, g.c);
        int tap = taps[e], h = p.i * g.sh + tap / g.kw * g.dh - g.ph, w = p.j * g.sw + tap % g.kw * g.dw - g.pw;
        bool inside = h >= 0 && h < g.h && w >= 0 && w < g.w;
        y[e] = inside ? x[((p.n * g.h + h) * g.w + w) * g.c + p.c] : Real(0);
    }
}

// The adjoint: v (N, OH, OW, C) added at the winning taps -> x (N, H, W, C). Each pixel asks the windows that touch it.
extern "C" __global__ void __launch_bounds__(256)
pool_scatter(const Real* __restrict__ v, const Tap* __restrict__ taps, Real* __restrict__ x, GEOMETRY_PARAMETERS) {
    const Geometry g = GEOMETRY;
    FOR_EACH(e, g.n * g.h * g.w * g.c) {
        Place p = place_of(e, g.h, g.w, g.c);
        Sum total = 0;
        for (int a = 0; a < g.kh; a++) {
            int i = position_of(p.i + g.ph, a, g.sh, g.dh, g.oh);
            if (i < 0) continue;
            for (int b = 0; b < g.kw; b++) {
                int j = position_of(p.j + g.pw, b, g.sw, g.dw, g.ow);
                if (j < 0) continue;
                int at = ((p.n * g.oh + i) * g.ow + j) * g.c + p.c;
                if (taps[at] == a * g.kw + b) total += v[at];
            }
        }
        x[e] = Real(total);
    }
}

// x (N, P, C) at flat plane indices (N, Q, C) -> y (N, Q, C).
extern "C" __global__ void __launch_bounds__(256)
gather(const Real* __restrict__ x, const long long* __restrict__ indices, Real* __restrict__ y, int n, int p, int q, int c) {
    FOR_EACH(e, n * q * c) y[e] = x[(e / (q * c) * p + (int)indices[e]) * c + e % c];
}

// The adjoint in two steps: y (N, Q, C) added at its indices -> x (N, P, C), where indices may repeat and point anywhere.
// 1. Every source hangs itself into the list of its target (an integer exchange: the order of a list is any). head starts as -1.
extern "C" __global__ void __launch_bounds__(256)
scatter_link(const long long* __restrict__ indices, int* __restrict__ head, int* __restrict__ next, int n, int p, int q, int c) {
    FOR_EACH(e, n * q * c) next[e] = atomicExch(head + (e / (q * c) * p + (int)indices[e]) * c + e % c, e);
}

// 2. Every target adds up its list by ascending source, whatever order it hangs in: the same bits every time. A list of m sources is
// walked m times; max-pool indices repeat a few times at most.
extern "C" __global__ void __launch_bounds__(256)
scatter_sum(const Real* __restrict__ y, const int* __restrict__ head, const int* __restrict__ next, Real* __restrict__ x, int count) {
    FOR_EACH(t, count) {
        Sum total = 0;
        for (int last = -1;;) {
            int least = 0x7fffffff;
            for (int e = head[t]; e >= 0; e = next[e])
                if (e > last && e < least) least = e;
            if (least == 0x7fffffff) break;
            total += y[least];
            last = least;
        }
        x[t] = Real(total);
    }
}

// x (N, H, W, C) -> y (N, OH, OW, C): the sum of each window's pixels times weight (OH, OW).
extern "C" __global__ void __launch_bounds__(256)
avg_pool(const Real* __restrict__ x, const Sum* __restrict__ weight, Real* __restrict__ y, GEOMETRY_PARAMETERS) {
    const Geometry g = GEOMETRY;
    FOR_EACH(e, g.n * g.oh * g.ow * g.c) {
        Place p = place_of(e, g.oh, g.ow, g.c);
        Sum total = 0;
        for (int a = 0; a < g.kh; a++) {
            int h = p.i * g.sh + a * g.dh - g.ph;
            if (h < 0 || h >= g.h) continue;
            for (int b = 0; b < g.kw; b++) {
                int w = p.j * g.sw + b * g.dw - g.pw;
                if (w >= 0 && w < g.w) total += x[((p.n * g.h + h) * g.w + w) * g.c + p.c];
            }
        }
        y[e] = Real(total * weight[p.i * g.ow + p.j]);
    }
}

// The adjoint: v (N, OH, OW, C) times weight, added to each pixel of its window -> x (N, H, W, C).
extern "C" __global__ void __launch_bounds__(256)
avg_pool_adjoint(const Real* __restrict__ v, const Sum* __restrict__ weight, Real* __restrict__ x, GEOMETRY_PARAMETERS) {
    const Geometry g = GEOMETRY;
    FOR_EACH(e, g.n * g.h * g.w * g.c) {
        Place p = place_of(e, g.h, g.w, g.c);
        Sum total = 0;
        for (int a = 0; a < g.kh; a++) {
            int i = position_of(p.i + g.ph, a, g.sh, g.dh, g.oh);
            if (i < 0) continue;
            for (int b = 0; b < g.kw; b++) {
                int j = position_of(p.j + g.pw, b, g.sw, g.dw, g.ow);
                if (j >= 0) total += weight[i * g.ow + j] * Sum(v[((p.n * g.oh + i) * g.ow + j) * g.c + p.c]);
            }
        }
        x[e] = Real(total);
    }
}
