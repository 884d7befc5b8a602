// Softmax and cross-entropy in one pass, on rows of C logits: x (P, C), one row per pixel.
//
// A target is a class, or -1 where the pixel is left out. Weights are by class. No one-hot array, no softmax array.
//
// clean_target         a thread for each pixel; its label, 8 bytes, is read, and written where that is not a class.
// cross_entropy        a thread for each pixel, which runs over its classes twice: two to a few dozen, contiguous, so that what a warp asks for fills
//                      whole lines, and the second run finds them in the cache. P C + 3 P numbers and P labels.
// cross_entropy_grad   a thread for each element. Reads P C + 3 P numbers and P labels, writes P C numbers. It divides once to know its pixel:
//                      threads on (classes, pixels) would not, but so few classes, seldom a power of two, would leave many of them idle.
//
// Launch of all: blocks of 256, at most 65536 of them, which go round. Bound by memory for few classes; an exponential for each element, and in
// cross_entropy an addition in double, which many GPUs do slowly. Not tried: a warp for each pixel, for hundreds of classes.
// Nothing here has been timed.
#include "common.cuh"

__device__ __forceinline__ float exponential(float v) { return expf(v); }
__device__ __forceinline__ double exponential(double v) { return exp(v); }

// Labels as the kernels below want them, in place: -1 for `ignored` and for what is no class; the least index of the latter goes to `first`, which
// begins as -1. Nobody has to wait for that number: the host reads it when it reads a result.
extern "C" __global__ void __launch_bounds__(256)
clean_target(long long* __restrict__ target, int* __restrict__ first, int classes, long long ignored, int pixels) {
    FOR_EACH(p, pixels) {
        long long y = target[p];
        if (y != ignored && y >= 0 && y < classes) continue;
        if (y != ignored) atomicMin((unsigned*)first, (unsigned)p);  // as unsigned, -1 is the largest
        target[p] = -1;
    }
}

// weight_sum (1,) is read where smoothing is not 0, else it may be null.
// losses (P,) = (1 - s) w_y r_y + s / C sum_c w_c r_c with r_c = top + logs - x_c;
// top (P,) = max(x) and logs (P,) = log(sum(exp(x - top))), kept apart so that small losses keep their digits.
extern "C" __global__ void __launch_bounds__(256)
cross_entropy(const Real* __restrict__ x, const long long* __restrict__ target, const Real* __restrict__ weight, Real* __restrict__ losses,
              Real* __restrict__ tops, Real* __restrict__ logs, const double* __restrict__ weight_sum, double smoothing, int pixels, int classes) {
    FOR_EACH(p, pixels) {
        const Real* row = x + p * classes;
        Sum top = row[0];
        for (int c = 1; c < classes; c++) top = max(top, Sum(row[c]));
        double total = 0, weighted = 0;
        for (int c = 0; c < classes; c++) {
            total += exponential(Sum(row[c]) - top);
            if (smoothing != 0) weighted += double(weight[c]) * double(Sum(row[c]) - top);
        }
        double logarithm = log(total);
        int y = (int)target[p];
        double loss = 0;
        if (y >= 0) {
            loss = (1 - smoothing) * double(weight[y]) * (logarithm - double(Sum(row[y]) - top));
            if (smoothing != 0) loss += smoothing / classes * (weight_sum[0] * logarithm - weighted);
        }
        losses[p] = Real(loss);
        tops[p] = Real(top);
        logs[p] = Real(logarithm);
    }
}

// dx (P, C) = g ((a + b sum(w)) softmax(x) - a e_y - b w), a = (1 - s) w_y, b = s / C; 0 where the pixel is left out. One thread per element.
extern "C" __global__ void __launch_bounds__(256)
cross_entropy_grad(const Real* __restrict__ g, const Real* __restrict__ x, const Real* __restrict__ tops, const Real* __restrict__ logs,
                   const long long* __restrict__ target, const Real* __restrict__ weight, Real* __restrict__ dx, const double* __restrict__ weight_sum,
                   double smoothing, int pixels, int classes) {
    Sum every = weight_sum ? Sum(weight_sum[0]) : Sum(0);
    FOR_EACH(e, pixels * classes) {
        int p = e / classes, c = e % classes, y = (int)target[p];
        Sum slope = 0;
        if (y >= 0) {
            Sum a = Sum((1 - smoothing) * double(weight[y])), b = Sum(smoothing / classes);
            slope = (a + b * every) * exponential(Sum(x[e]) - Sum(tops[p]) - Sum(logs[p])) - b * Sum(weight[c]);
            if (c == y) slope -= a;
            slope *= Sum(g[p]);
        }
        dx[e] = Real(slope);
    }
}
