// Convolution in groups of few channels, depthwise above all, without tiles: forward, transposed (= gradient of the input), gradient of the weight.
//
// A block of conv.cu has 64 x 64 results of one group. With fewer than 8 channels in and out, less than an eighth of them would be real, with one a
// sixty-fourth (of a weight's gradient still less), and what it fetches of a pixel would be shorter than the 32 bytes that memory gives at a time.
// Here a thread has one result and its neighbours those of the next channels, whatever their group: a warp reads and writes runs of memory. It is
// also what is left for more groups, times phases of a stride, than the third axis of a grid of tiles has room for.
// Weights lie in (KH, KW, channels of a group that are summed over, channels of the result), so that they are read in runs as well.
//
// direct_forward      a block for a row of y, threads (channels, columns), 32 x 8 for 32 channels and more, as in pool.cu.
// direct_transposed   the same for x. Each pixel asks the windows that touch it: no atomics.
// direct_weight       threads (output channels, taps x input channels), so that those of a block read the same pixels and their neighbours at the
//                     same time. Grid (output channels, taps x input channels, parts). A thread runs over the rows of its part; sum_parts adds up
//                     the parts in order: the same bits every time.
//
// Operations: 2 N OH OW O KH KW C/G. Traffic: x and y once, the one read and the other written, or for direct_weight both read; but each
// multiplication and addition asks the cache for two numbers. That is an eighth of what CUDA cores could do in float32, and by counting, not by
// timing, a depthwise 3 x 3 takes the first-level cache about as long as it takes memory. Not chosen: several columns a thread, which would read a
// weight once for all of them, but wants kernels of fixed size; tensor cores, which share nothing between groups. Four blocks on a multiprocessor are
// asked for: left alone, the compiler aims at eight and spills. Nothing here has been timed.
#include "common.cuh"
#include "parts.cuh"

// x (N, H, W, C), w (KH, KW, C/G, O), scale and offset (O,) or null -> y (N, OH, OW, O); inputs = C/G, outputs = O/G.
extern "C" __global__ void __launch_bounds__(256, 4)
direct_forward(const Real* __restrict__ x, const Real* __restrict__ w, const Sum* __restrict__ scale, const Sum* __restrict__ offset,
               Real* __restrict__ y, int channels, int relu, int inputs, int outputs, GEOMETRY_PARAMETERS) {
    const Geometry g = GEOMETRY;
    const Finish finish{scale, offset, relu};
    const int top = (int)blockIdx.x % g.oh * g.sh - g.ph, image = (int)blockIdx.x / g.oh * g.h;
    FOR_EACH_COLUMN(j, g.ow) FOR_EACH_CHANNEL(o, channels) {
        const int first = o / outputs * inputs;  // channel of o's group
        Sum total = 0;
        for (int a = 0; a < g.kh; a++) {
            int h = top + a * g.dh;
            if (h < 0 || h >= g.h) continue;
            for (int b = 0, v = j * g.sw - g.pw; b < g.kw; b++, v += g.dw) {
                if (v < 0 || v >= g.w) continue;
                const Real *from = x + ((image + h) * g.w + v) * g.c + first, *weight = w + (a * g.kw + b) * inputs * channels + o;
                for (int c = 0; c < inputs; c++) total += Sum(from[c]) * Sum(weight[c * channels]);
            }
        }
        y[((int)blockIdx.x * g.ow + j) * channels + o] = finish(total, o);
    }
}

// y (N, OH, OW, O), w (KH, KW, O/G, C), bias (C,) or null -> x (N, H, W, C).
extern "C" __global__ void __launch_bounds__(256, 4)
direct_transposed(const Real* __restrict__ y, const Real* __restrict__ w, const Sum* __restrict__ bias, Real* __restrict__ x, int channels,
                  int inputs, int outputs, GEOMETRY_PARAMETERS) {
    const Geometry g = GEOMETRY;
    const Finish finish{nullptr, bias, 0};
    const int image = (int)blockIdx.x / g.h * g.oh;
    const Touching rows((int)blockIdx.x % g.h + g.ph, g.sh, g.oh);
    FOR_EACH_COLUMN(j, g.w) {
        const Touching columns(j + g.pw, g.sw, g.ow);
        FOR_EACH_CHANNEL(c, g.c) {
            const int first = c / inputs * outputs;
            Sum total = 0;
            FOR_EACH_TOUCHING(u, a, rows, g.kh, g.dh, g.sh) FOR_EACH_TOUCHING(l, b, columns, g.kw, g.dw, g.sw) {
                const Real *from = y + ((image + u.i) * g.ow + l.i) * channels + first, *weight = w + (a * g.kw + b) * outputs * g.c + c;
                for (int o = 0; o < outputs; o++) total += Sum(from[o]) * Sum(weight[o * g.c]);
            }
            x[((int)blockIdx.x * g.w + j) * g.c + c] = finish(total, c);
        }
    }
}

// Along one axis: the positions first .. last - 1 whose tap lies inside the image.
struct Inside {
    int first, last;
    __device__ __forceinline__ Inside(int tap, int size, int positions, int stride, int padding, int dilation)
        : first(divide_up(max(padding - tap * dilation, 0), stride)),
          last(min(divide_up(max(size + padding - tap * dilation, 0), stride), positions)) {}
};

// x (N, H, W, C), y (N, OH, OW, O) -> parts (P, KH, KW, C/G, O), part p over the rows p share .. (p + 1) share - 1 of all N OH.
extern "C" __global__ void __launch_bounds__(256, 4)
direct_weight(const Real* __restrict__ x, const Real* __restrict__ y, Sum* __restrict__ parts, int channels, int share, int inputs, int outputs,
              GEOMETRY_PARAMETERS) {
    const Geometry g = GEOMETRY;
    const int o = blockIdx.x * blockDim.x + threadIdx.x, t = blockIdx.y * blockDim.y + threadIdx.y, depth = g.kh * g.kw * inputs;
    if (o >= channels || t >= depth) return;
    const int c = o / outputs * inputs + t % inputs, b = t / inputs % g.kw, a = t / inputs / g.kw;
    const Inside rows(a, g.h, g.oh, g.sh, g.ph, g.dh), columns(b, g.w, g.ow, g.sw, g.pw, g.dw);
    Sum total = 0;
    for (int r = blockIdx.z * share; r < min((int)(blockIdx.z + 1) * share, g.n * g.oh); r++) {
        const int n = r / g.oh, i = r - n * g.oh;
        if (i < rows.first || i >= rows.last) continue;
        const Real* from = x + ((n * g.h + i * g.sh + a * g.dh - g.ph) * g.w + b * g.dw - g.pw) * g.c + c;
        const Real* with = y + r * g.ow * channels + o;
        #pragma unroll 4
        for (int j = columns.first; j < columns.last; j++) total += Sum(from[j * g.sw * g.c]) * Sum(with[j * channels]);
    }
    parts[(blockIdx.z * depth + t) * channels + o] = total;
}
