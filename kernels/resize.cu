// A sparse linear map along one axis: bilinear and nearest interpolation, adaptive average pooling, padding by mirrors, and the adjoints.
//
// The map is a matrix in compressed rows (see AxisMap): y[i] = sum over t from starts[i] up to starts[i + 1] of weights[t] x[indices[t]].
// Arrays are (outer, length, inner), so that one kernel serves both axes of channels-last images. An adjoint is the transposed map, again
// gathered: no atomics. Two axes are two launches with an image between them.
//
// Launch: blocks of 256, a thread for each result, at most 65536 blocks, which go round; neighbours in memory read neighbours. Traffic: x read once,
// again from the cache where taps overlap, y written once; the tables stay in the cache. Bound by memory. Not chosen: both axes at once, which
// reads the square of the taps for each result. Nothing here has been timed.
#include "common.cuh"

// weights may be null: then all are 1.
extern "C" __global__ void __launch_bounds__(256)
along_axis(const Real* __restrict__ x, Real* __restrict__ y, const int* __restrict__ starts, const int* __restrict__ indices,
           const Sum* __restrict__ weights, int count, int size, int outputs, int inner) {
    FOR_EACH(e, count) {
        int k = e % inner, i = e / inner % outputs, outer = e / inner / outputs;
        const Real* line = x + outer * size * inner + k;
        Sum total = 0;
        for (int t = starts[i]; t < starts[i + 1]; t++) total += (weights ? weights[t] : Sum(1)) * Sum(line[indices[t] * inner]);
        y[e] = Real(total);
    }
}
