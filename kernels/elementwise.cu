// Elementwise work that is worth a kernel of its own: ReLU and dropout by counters. Arrays of any shape are seen as one run of memory.
//
// relu        reads x, writes y: 2 numbers moved for each element.
// relu_grad   reads g and y, writes dx: 3 numbers.
// dropout     reads x, writes y: 2 numbers. The mask is made anew from its counter, a dozen integer operations of 64 bits, each time that it is
//             needed. Not chosen: to keep it, a byte an element written and read again. Only where a whole plane has one number of the mask are there
//             two divisions an element, to know which; threads on (channels, pixels) would be a second launch shape for this one case.
//
// Launch of all: blocks of 256, a thread for each run (see runs.cuh), at most 65536 blocks, which go round. Bound by memory. Tried before: a thread for
// each element. Nothing here has been timed.
#include "runs.cuh"

// The first elements of all runs; `count` is a multiple of RUN.
#define FOR_EACH_RUN_OF(e, count) FOR_EACH(e##_run, (count) / RUN) if (const int e = e##_run * RUN; true)

// max(x, 0); NaN stays NaN.
extern "C" __global__ void __launch_bounds__(256) relu(const Real* __restrict__ x, Real* __restrict__ y, int count) {
    FOR_EACH_RUN_OF(e, count) {
        Run<Real> v = run_at(x, e);
        FOR_EACH_OF_RUN(j) if (Sum(v.at[j]) < Sum(0)) v.at[j] = Real(0);
        run_at(y, e) = v;
    }
}

// g where y > 0, else 0.
extern "C" __global__ void __launch_bounds__(256)
relu_grad(const Real* __restrict__ g, const Real* __restrict__ y, Real* __restrict__ dx, int count) {
    FOR_EACH_RUN_OF(e, count) {
        Run<Real> slope = run_at(g, e);
        const Run<Real> v = run_at(y, e);
        FOR_EACH_OF_RUN(j) if (!(Sum(v.at[j]) > Sum(0))) slope.at[j] = Real(0);
        run_at(dx, e) = slope;
    }
}

// Number i + 1 of the generator SplitMix64 started at `seed`, below 2^53 (Steele, Lea & Flood, 2014; see DropoutKernels.uniform_bits).
__device__ __forceinline__ unsigned long long uniform_bits(unsigned long long seed, unsigned long long i) {
    unsigned long long z = (i + 1) * 0x9E3779B97F4A7C15ull + seed;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return (z ^ (z >> 31)) >> 11;
}

// x (N, M, C) times a mask of 0 and `scale`: element i of the mask is kept where its number is at least `threshold`. Each element has its
// own (whole = 0), or each (n, c) has one for its whole plane (whole = 1). The seed is read from `place` unless that is null: in a CUDA graph, whose
// arguments are fixed.
extern "C" __global__ void __launch_bounds__(256)
dropout(const Real* __restrict__ x, Real* __restrict__ y, const unsigned long long* __restrict__ place, unsigned long long seed, unsigned long long threshold,
        Sum scale, int plane, int channels, int whole, int count) {
    if (place) seed = place[0];
    FOR_EACH_RUN_OF(e, count) {
        Run<Real> v = run_at(x, e);
        FOR_EACH_OF_RUN(j) {
            const int i = whole ? (e + j) / (plane * channels) * channels + (e + j) % channels : e + j;
            v.at[j] = Real(Sum(v.at[j]) * (uniform_bits(seed, i) >= threshold ? scale : Sum(0)));
        }
        run_at(y, e) = v;
    }
}
