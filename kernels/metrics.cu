// The confusion matrix: pixels counted by (true class, predicted class).
//
// Each block counts its pixels in a matrix of its own in shared memory, with integer atomics, and adds that to the result at the end: whole
// numbers, so the sum is the same in any order. A matrix too large for shared memory (PRIVATE=0, more than 110 classes) is counted where it lies.
// Traffic: 16 bytes a pixel, and the matrix once a block. Bound by memory, or where nearly all pixels are of one pair, by the atomics on one counter.
// Launch: at most 1024 blocks of 256, a block for 4096 pixels. Not tried: counting equal pairs within a warp first. Not timed.
#include "common.cuh"

#ifndef PRIVATE
#define PRIVATE 1
#endif

// matrix (classes, classes) int64 += pixels; a pixel is left out if `ignoring` and its truth is `ignored`, and if it holds no class: then `first`,
// which begins as -1, becomes the least index of such a pixel. Launch: blocks of 256 threads with 4 classes^2 bytes of shared memory, few enough
// pixels a block for 32-bit counters.
extern "C" __global__ void __launch_bounds__(256)
confusion(const long long* __restrict__ truth, const long long* __restrict__ prediction, long long* __restrict__ matrix, int* __restrict__ first, int pixels,
          int classes, long long ignored, int ignoring) {
#if PRIVATE
    extern __shared__ unsigned counts[];
    for (int i = threadIdx.x; i < classes * classes; i += blockDim.x) counts[i] = 0;
    __syncthreads();
#endif
    FOR_EACH(e, pixels) {
        long long t = truth[e], p = prediction[e];
        if (ignoring && t == ignored) continue;
        if (t < 0 || t >= classes || p < 0 || p >= classes) {
            atomicMin((unsigned*)first, (unsigned)e);  // -1 is the largest
            continue;
        }
#if PRIVATE
        atomicAdd(counts + (int)t * classes + (int)p, 1u);
#else
        atomicAdd((unsigned long long*)matrix + t * classes + p, 1ull);
#endif
    }
#if PRIVATE
    __syncthreads();
    for (int i = threadIdx.x; i < classes * classes; i += blockDim.x)
        if (counts[i]) atomicAdd((unsigned long long*)matrix + i, (unsigned long long)counts[i]);
#endif
}
