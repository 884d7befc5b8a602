// A sparse linear map along one axis: bilinear and nearest interpolation, adaptive average pooling, padding by mirrors, and the adjoints.
//
// The map is a matrix in compressed rows (see AxisMap): y[i] = sum over t from starts[i] up to starts[i + 1] of weights[t] x[indices[t]].
// Arrays are (outer, length, inner), so that one kernel serves both axes of channels-last images. An adjoint is the transposed map, again
// gathered: no atomics. Two axes are two launches with an image between them.
//
// Launch: blocks (outer, outputs, inner), threads (inner, outputs), 32 x 8 where inner has 32 runs (see runs.cuh) or more; a thread has up to four runs of
// one output, which share its taps. Neighbours in memory read neighbours. Traffic: x read once, again from the cache where taps overlap, y written once; the tables stay
// in the cache. Bound by memory. Tried before: a thread for each result of all, which took two divisions to know its place; then one number at a time in
// the place of runs. Not chosen: both axes at
// once, which reads the square of the taps for each result. Nothing here has been timed.
#include "runs.cuh"

// weights may be null: then all are 1.
extern "C" __global__ void __launch_bounds__(256, 4)
along_axis(const Real* __restrict__ x, Real* __restrict__ y, const int* __restrict__ starts, const int* __restrict__ indices,
           const Sum* __restrict__ weights, int size, int outputs, int inner) {
    const int from = blockIdx.x * size * inner, to = blockIdx.x * outputs * inner;
    FOR_EACH_COLUMN(i, outputs) {
        const int begin = starts[i], end = starts[i + 1];
        FOR_EACH_RUN(k, inner) {
            Sum total[RUN] = {};
            for (int t = begin; t < end; t++) {
                const Run<Real> v = run_at(x, from + indices[t] * inner + k);
                const Sum weight = weights ? weights[t] : Sum(1);
                FOR_EACH_OF_RUN(j) total[j] += weight * Sum(v.at[j]);
            }
            Run<Real> result;
            FOR_EACH_OF_RUN(j) result.at[j] = Real(total[j]);
            run_at(y, to + i * inner + k) = result;
        }
    }
}
