// Optimizer steps of many parameters in one launch, however many and however unequal they are.
//
// A table says where they lie: a row of ROW numbers for each, its elements, the first block that works on it, and the addresses of parameter,
// gradient and state, 0 where there is none. A second table has a row of settings for each. A block takes `share` elements of one parameter; it
// finds its row by bisection, seven steps for a hundred parameters, the same loads for all its threads. So a network's step costs one launch
// and two small copies instead of a launch for each of its weights and biases. What was not chosen: a table of all blocks, which is thousands of
// rows to upload, and pointers as arguments of the launch, of which 4 KB hold fewer than SegNet has.
//
// Launch: `rows[last] first block + its blocks` blocks of 256 threads. Traffic: sgd_step reads p and g, writes p, and with momentum reads and writes
// the buffer; adam_step reads p, g, mean and square and writes all but g. Bound by memory.
#include "common.cuh"

constexpr int ROW = 7;  // elements, first block, p, g, three arrays of state

// The last of `rows` rows whose first block is not beyond this one.
__device__ __forceinline__ const long long* row_of_block(const long long* __restrict__ table, int rows, int* index) {
    int low = 0, high = rows - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (table[middle * ROW + 1] <= (long long)blockIdx.x) low = middle;
        else high = middle - 1;
    }
    *index = low;
    return table + low * ROW;
}

// The elements of this block's parameter that are this thread's.
#define FOR_EACH_OF_ROW(e, row, share) \
    for (int e = ((int)blockIdx.x - (int)(row)[1]) * (share) + threadIdx.x, e##_end = min(e - (int)threadIdx.x + (share), (int)(row)[0]); e < e##_end; \
         e += blockDim.x)

// d = g + decay p; buffer = momentum buffer + (1 - dampening) d, at first d; p -= lr (d + momentum buffer, buffer, or d). The buffer may be null.
// Settings: first, lr, momentum, dampening, decay, nesterov.
extern "C" __global__ void __launch_bounds__(256)
sgd_step(const long long* __restrict__ table, const double* __restrict__ settings, int rows, int share) {
    int index;
    const long long* row = row_of_block(table, rows, &index);
    const double* set = settings + index * 6;
    Real* p = (Real*)row[2];
    const Real* g = (const Real*)row[3];
    Real* buffer = (Real*)row[4];
    bool first = set[0] != 0, nesterov = set[5] != 0;
    Sum lr = Sum(set[1]), momentum = Sum(set[2]), dampening = Sum(set[3]), decay = Sum(set[4]);
    FOR_EACH_OF_ROW(e, row, share) {
        Sum d = Sum(g[e]) + decay * Sum(p[e]);
        if (buffer) {
            Sum b = first ? d : momentum * Sum(buffer[e]) + (Sum(1) - dampening) * d;
            buffer[e] = Real(b);
            d = nesterov ? d + momentum * b : b;
        }
        p[e] = Real(Sum(p[e]) - lr * d);
    }
}

// Adam (decoupled = 0) and AdamW: rate = lr / (1 - beta1^t), root = sqrt(1 - beta2^t). The largest mean square may be null (no amsgrad).
// Settings: rate, root, lr, beta1, beta2, eps, decay, decoupled.
extern "C" __global__ void __launch_bounds__(256)
adam_step(const long long* __restrict__ table, const double* __restrict__ settings, int rows, int share) {
    int index;
    const long long* row = row_of_block(table, rows, &index);
    const double* set = settings + index * 8;
    Real* p = (Real*)row[2];
    const Real* g = (const Real*)row[3];
    Real *mean = (Real*)row[4], *square = (Real*)row[5], *largest = (Real*)row[6];
    Sum rate = Sum(set[0]), root = Sum(set[1]), lr = Sum(set[2]), beta1 = Sum(set[3]), beta2 = Sum(set[4]), eps = Sum(set[5]), decay = Sum(set[6]);
    bool decoupled = set[7] != 0;
    FOR_EACH_OF_ROW(e, row, share) {
        Sum v = p[e], d = g[e];
        if (decoupled) v *= Sum(1) - lr * decay;
        else d += decay * v;
        Sum m = Sum(mean[e]) + (Sum(1) - beta1) * (d - Sum(mean[e]));
        Sum q = beta2 * Sum(square[e]) + (Sum(1) - beta2) * (d * d);
        mean[e] = Real(m);
        square[e] = Real(q);
        if (largest) {
            q = max(Sum(largest[e]), q);
            largest[e] = Real(q);
        }
        p[e] = Real(v - rate * (m / (sqrt(q) / root + eps)));
    }
}
