// Max-pool with its gather and scatter, gather and scatter at flat plane indices, average pool with its adjoint.
//
// Winners are stored as taps, a KW + b, in TAP (one byte for up to 256 taps, two for up to 65536, else four). Scatters are written as gathers over the
// few windows that touch a pixel, in a fixed order, without atomics. With X = N H W C numbers in the larger image and Y = N OH OW C in the smaller:
//
// max_pool           X numbers read (overlapping windows from the cache), Y numbers and Y taps written.
// pool_gather        Y taps read and up to 32 bytes around each of Y numbers, Y written.
// pool_scatter       Y numbers and Y taps read, X written.
// avg_pool, avg_pool_adjoint   X and Y numbers, one read, one written.
// gather             Y indices of 8 bytes, Y numbers read, Y written.
// scatter_link, scatter_sum    Y indices read, X + 3 Y links of 4 bytes, Y numbers read, X written.
//
// All but scatter_sum: a block works on a row of its result (gather, scatter_link: on some of an image's indices), threads (channels, columns), 32 x 8
// for 32 runs of channels (see runs.cuh) and more; a thread has up to four runs of a column. Where what a tap or an index points at is another pixel for
// each channel, as in the gathers and in scatter_link, it has up to four channels. Tried before: a thread for each element of the whole image. It took
// two or three divisions to know its place and in pool_scatter two for each tap, some 280 instructions an element by the listing for sm_90a; then this
// with one channel at a time, 70 to 115 (2 x 2 windows), with 5 bytes to move meanwhile.
// The usual windows of max-pool have kernels of their own (WINDOW): there, nothing is divided but the number of the block.
// scatter_sum: blocks of 256, a thread for each element, at most 65536 blocks, which go round: it has nothing to divide. Neighbouring threads have
// neighbouring channels. Bound by memory. Not tried: a thread for each window that writes all its pixels. Nothing here has been timed.
#include "runs.cuh"
#ifndef TAP
#define TAP unsigned char
#endif
typedef TAP Tap;

// x (N, H, W, C) -> maxima y and winning taps, (N, OH, OW, C). Padding is -inf, the first maximum wins, NaN wins over all.
extern "C" __global__ void __launch_bounds__(256, 4)
max_pool(const Real* __restrict__ x, Real* __restrict__ y, Tap* __restrict__ taps, GEOMETRY_PARAMETERS) {
    const Geometry g = GEOMETRY;
    const int top = (int)blockIdx.x % g.oh * g.sh - g.ph, image = (int)blockIdx.x / g.oh * g.h, row = blockIdx.x * g.ow;
    FOR_EACH_COLUMN(j, g.ow) FOR_EACH_RUN(c, g.c) {
        Run<Real> best = {};
        Run<Tap> winner = {};
        bool any = false;
        for (int a = 0; a < g.kh; a++) {
            int h = top + a * g.dh;
            if (h < 0 || h >= g.h) continue;
            for (int b = 0, w = j * g.sw - g.pw; b < g.kw; b++, w += g.dw) {
                if (w < 0 || w >= g.w) continue;
                const Run<Real> value = run_at(x, ((image + h) * g.w + w) * g.c + c);
                FOR_EACH_OF_RUN(i) if (!any || value.at[i] > best.at[i] || value.at[i] != value.at[i]) {
                    best.at[i] = value.at[i];
                    winner.at[i] = Tap(a * g.kw + b);
                }
                any = true;
            }
        }
        const int e = (row + j) * g.c + c;
        run_at(y, e) = best;
        run_at(taps, e) = winner;
    }
}

// x (N, H, W, C) at the winning taps -> y (N, OH, OW, C); 0 where the tap lies in the padding.
extern "C" __global__ void __launch_bounds__(256, 4)
pool_gather(const Real* __restrict__ x, const Tap* __restrict__ taps, Real* __restrict__ y, GEOMETRY_PARAMETERS) {
    const Geometry g = GEOMETRY;
    const int top = (int)blockIdx.x % g.oh * g.sh - g.ph, image = (int)blockIdx.x / g.oh * g.h, row = blockIdx.x * g.ow;
    FOR_EACH_COLUMN(j, g.ow) FOR_EACH_CHANNEL(c, g.c) {
        const int e = (row + j) * g.c + c, tap = taps[e], a = tap / g.kw, h = top + a * g.dh, w = j * g.sw + (tap - a * g.kw) * g.dw - g.pw;
        bool inside = h >= 0 && h < g.h && w >= 0 && w < g.w;
        y[e] = inside ? x[((image + h) * g.w + w) * g.c + c] : Real(0);
    }
}

// The adjoint: v (N, OH, OW, C) added at the winning taps -> x (N, H, W, C). Each pixel asks the windows that touch it.
extern "C" __global__ void __launch_bounds__(256, 4)
pool_scatter(const Real* __restrict__ v, const Tap* __restrict__ taps, Real* __restrict__ x, GEOMETRY_PARAMETERS) {
    const Geometry g = GEOMETRY;
    const int image = (int)blockIdx.x / g.h * g.oh, row = blockIdx.x * g.w;
    const Touching rows((int)blockIdx.x % g.h + g.ph, g.sh, g.oh);
    FOR_EACH_COLUMN(j, g.w) {
        const Touching columns(j + g.pw, g.sw, g.ow);
        FOR_EACH_RUN(c, g.c) {
            Sum total[RUN] = {};
            FOR_EACH_TOUCHING(u, a, rows, g.kh, g.dh, g.sh) FOR_EACH_TOUCHING(l, b, columns, g.kw, g.dw, g.sw) {
                const int at = ((image + u.i) * g.ow + l.i) * g.c + c;
                const Run<Tap> won = run_at(taps, at);
                const Run<Real> from = run_at(v, at);
                FOR_EACH_OF_RUN(i) if ((int)won.at[i] == a * g.kw + b) total[i] += Sum(from.at[i]);
            }
            Run<Real> result;
            FOR_EACH_OF_RUN(i) result.at[i] = Real(total[i]);
            run_at(x, (row + j) * g.c + c) = result;
        }
    }
}

// x (N, P, C) at flat plane indices (N, Q, C) -> y (N, Q, C).
extern "C" __global__ void __launch_bounds__(256, 4)
gather(const Real* __restrict__ x, const long long* __restrict__ indices, Real* __restrict__ y, int p, int q, int channels) {
    FOR_EACH_COLUMN(j, q) FOR_EACH_CHANNEL(c, channels) {
        const int e = ((int)blockIdx.x * q + j) * channels + c;
        y[e] = x[((int)blockIdx.x * p + (int)indices[e]) * channels + c];
    }
}

// The adjoint in two steps: y (N, Q, C) added at its indices -> x (N, P, C), where indices may repeat and point anywhere.
// 1. Every source hangs itself into the list of its target (an integer exchange: the order of a list is any). head starts as -1.
extern "C" __global__ void __launch_bounds__(256, 4)
scatter_link(const long long* __restrict__ indices, int* __restrict__ head, int* __restrict__ next, int p, int q, int channels) {
    FOR_EACH_COLUMN(j, q) FOR_EACH_CHANNEL(c, channels) {
        const int e = ((int)blockIdx.x * q + j) * channels + c;
        next[e] = atomicExch(head + ((int)blockIdx.x * p + (int)indices[e]) * channels + c, e);
    }
}

// 2. Every target adds up its list by ascending source, whatever order it hangs in: the same bits every time. A list of m sources is
// walked m times; max-pool indices repeat a few times at most.
extern "C" __global__ void __launch_bounds__(256, 4)
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
// Each row of a window is added up by itself: in one sum over a large window, a single pixel is too small to count in full.
extern "C" __global__ void __launch_bounds__(256, 4)
avg_pool(const Real* __restrict__ x, const Sum* __restrict__ weight, Real* __restrict__ y, GEOMETRY_PARAMETERS) {
    const Geometry g = GEOMETRY;
    const int i = (int)blockIdx.x % g.oh, top = i * g.sh - g.ph, image = (int)blockIdx.x / g.oh * g.h;
    FOR_EACH_COLUMN(j, g.ow) FOR_EACH_RUN(c, g.c) {
        Sum total[RUN] = {};
        for (int a = 0; a < g.kh; a++) {
            int h = top + a * g.dh;
            if (h < 0 || h >= g.h) continue;
            Sum line[RUN] = {};
            const int first = (image + h) * g.w * g.c + c;
            for (int b = 0, w = j * g.sw - g.pw; b < g.kw; b++, w += g.dw) {
                if (w < 0 || w >= g.w) continue;
                const Run<Real> v = run_at(x, first + w * g.c);
                FOR_EACH_OF_RUN(k) line[k] += Sum(v.at[k]);
            }
            FOR_EACH_OF_RUN(k) total[k] += line[k];
        }
        Run<Real> result;
        FOR_EACH_OF_RUN(k) result.at[k] = Real(total[k] * weight[i * g.ow + j]);
        run_at(y, ((int)blockIdx.x * g.ow + j) * g.c + c) = result;
    }
}

// The adjoint: v (N, OH, OW, C) times weight, added to each pixel of its window, row by row too -> x (N, H, W, C).
extern "C" __global__ void __launch_bounds__(256, 4)
avg_pool_adjoint(const Real* __restrict__ v, const Sum* __restrict__ weight, Real* __restrict__ x, GEOMETRY_PARAMETERS) {
    const Geometry g = GEOMETRY;
    const int image = (int)blockIdx.x / g.h * g.oh, row = blockIdx.x * g.w;
    const Touching rows((int)blockIdx.x % g.h + g.ph, g.sh, g.oh);
    FOR_EACH_COLUMN(j, g.w) {
        const Touching columns(j + g.pw, g.sw, g.ow);
        FOR_EACH_RUN(c, g.c) {
            Sum total[RUN] = {};
            FOR_EACH_TOUCHING(u, a, rows, g.kh, g.dh, g.sh) {
                Sum line[RUN] = {};
                FOR_EACH_TOUCHING(l, b, columns, g.kw, g.dw, g.sw) {
                    const Run<Real> from = run_at(v, ((image + u.i) * g.ow + l.i) * g.c + c);
                    FOR_EACH_OF_RUN(k) line[k] += weight[u.i * g.ow + l.i] * Sum(from.at[k]);
                }
                FOR_EACH_OF_RUN(k) total[k] += line[k];
            }
            Run<Real> result;
            FOR_EACH_OF_RUN(k) result.at[k] = Real(total[k]);
            run_at(x, (row + j) * g.c + c) = result;
        }
    }
}
