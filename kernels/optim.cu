// Optimizer steps of many parameters in one launch, however many and however unequal they are; and gradients scaled in the same way.
//
// A table says where they lie: a row of ROW numbers for each, its elements, the first block that works on it, and the addresses of parameter,
// gradient and state, 0 where there is none. A second table has a row of settings for each step. A block takes `share` elements of one parameter; it
// finds its row by bisection, seven steps for a hundred parameters, the same loads for all its threads. So a network's step costs one launch
// and two small copies instead of a launch for each of its weights and biases. What was not chosen: a table of all blocks, which is thousands of
// rows to upload, and pointers as arguments of the launch, of which 4 KB hold fewer than SegNet has.
//
// Launch: `rows[last] first block + its blocks` blocks of 256 threads. Traffic: sgd_step reads p and g, writes p, and with momentum reads and writes
// the buffer; adam_step reads p, g, mean and square and writes all but g; scale_all reads and writes g. Bound by memory. Nothing here has been timed.
#include "common.cuh"

constexpr int ROW = 7;  // elements, first block, p, g, three arrays of state

// What this block works on: elements begin .. end - 1 of the arrays of a row.
struct Part {
    int row, begin, end;
    const long long* arrays;
    __device__ __forceinline__ Part(const long long* __restrict__ table, int rows, int share) {
        int low = 0, high = rows - 1;  // the last row whose first block is not beyond this one
        while (low < high) {
            int middle = (low + high + 1) / 2;
            if (table[middle * ROW + 1] <= (long long)blockIdx.x) low = middle;
            else high = middle - 1;
        }
        row = low;
        begin = ((int)blockIdx.x - (int)table[row * ROW + 1]) * share;
        end = min(begin + share, (int)table[row * ROW]);
        arrays = table + row * ROW + 2;
    }
};

// One loop for every rule: rule(e) is the step of element e. A Rule is made from its row of arrays and its SETTINGS numbers.
template <class Rule>
__device__ __forceinline__ void step_parameters(const long long* __restrict__ table, const double* __restrict__ settings, int rows, int share) {
    const Part part(table, rows, share);
    const Rule rule(part.arrays, settings + part.row * Rule::SETTINGS);
    for (int e = part.begin + threadIdx.x; e < part.end; e += blockDim.x) rule(e);
}

// d = g + decay p; buffer = momentum buffer + (1 - dampening) d, at first d; p -= lr (d + momentum buffer, buffer, or d). The buffer may be null.
struct Sgd {  // settings: first, lr, momentum, dampening, decay, nesterov
    static constexpr int SETTINGS = 6;
    Real *p, *buffer;
    const Real* g;
    bool first, nesterov;
    Sum lr, momentum, dampening, decay;

    __device__ __forceinline__ Sgd(const long long* arrays, const double* set)
        : p((Real*)arrays[0]), buffer((Real*)arrays[2]), g((const Real*)arrays[1]), first(set[0] != 0), nesterov(set[5] != 0), lr(Sum(set[1])),
          momentum(Sum(set[2])), dampening(Sum(set[3])), decay(Sum(set[4])) {}
    __device__ __forceinline__ void operator()(int e) const {
        Sum d = Sum(g[e]) + decay * Sum(p[e]);
        if (buffer) {
            Sum b = first ? d : momentum * Sum(buffer[e]) + (Sum(1) - dampening) * d;
            buffer[e] = Real(b);
            d = nesterov ? d + momentum * b : b;
        }
        p[e] = Real(Sum(p[e]) - lr * d);
    }
};

// Adam (decoupled = 0) and AdamW: rate = lr / (1 - beta1^t), root = sqrt(1 - beta2^t). The largest mean square may be null (no amsgrad).
struct Adam {  // settings: rate, root, lr, beta1, beta2, eps, decay, decoupled
    static constexpr int SETTINGS = 8;
    Real *p, *mean, *square, *largest;
    const Real* g;
    Sum rate, root, lr, beta1, beta2, eps, decay;
    bool decoupled;

    __device__ __forceinline__ Adam(const long long* arrays, const double* set)
        : p((Real*)arrays[0]), mean((Real*)arrays[2]), square((Real*)arrays[3]), largest((Real*)arrays[4]), g((const Real*)arrays[1]),
          rate(Sum(set[0])), root(Sum(set[1])), lr(Sum(set[2])), beta1(Sum(set[3])), beta2(Sum(set[4])), eps(Sum(set[5])), decay(Sum(set[6])),
          decoupled(set[7] != 0) {}
    __device__ __forceinline__ void operator()(int e) const {
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
};

extern "C" __global__ void __launch_bounds__(256)
sgd_step(const long long* __restrict__ table, const double* __restrict__ settings, int rows, int share) {
    step_parameters<Sgd>(table, settings, rows, share);
}

extern "C" __global__ void __launch_bounds__(256)
adam_step(const long long* __restrict__ table, const double* __restrict__ settings, int rows, int share) {
    step_parameters<Adam>(table, settings, rows, share);
}

// x factor, in place, of the first array of each row. `finite`, unless null, becomes 0 where one of them holds NaN or an infinity: one atomic a block
// at most, and nobody has to wait for it.
extern "C" __global__ void __launch_bounds__(256)
scale_all(const long long* __restrict__ table, int rows, int share, Sum factor, int* __restrict__ finite) {
    const Part part(table, rows, share);
    Real* x = (Real*)part.arrays[0];
    bool sound = true;
    for (int e = part.begin + threadIdx.x; e < part.end; e += blockDim.x) {
        const Sum v = x[e];
        sound = sound && v - v == Sum(0);
        x[e] = Real(v * factor);
    }
    if (!__syncthreads_and(sound) && threadIdx.x == 0 && finite) atomicExch(finite, 0);
}
