// Optimizer steps of many parameters in one launch, however many and however unequal they are; gradients scaled in the same way, and their norm.
//
// A table says where they lie: a row of ROW numbers for each, its elements, the first block that works on it, and the addresses of parameter,
// gradient and state, 0 where there is none. A second table has a row of settings for each step. A block takes `share` elements of one parameter; it
// finds its row by bisection, seven steps for a hundred parameters, the same loads for all its threads. So a network's step costs one launch
// and two small copies instead of a launch for each of its weights and biases. What was not chosen: a table of all blocks, which is thousands of
// rows to upload, and pointers as arguments of the launch, of which 4 KB hold fewer than SegNet has.
//
// The norm is part of what a CUDA graph records, where nothing may be uploaded. It needs an address, a size and a first block of each gradient, 16
// bytes, of which 4 KB hold 240, more than SegNet's 102: so its table is an argument, which the launch itself keeps. power_parts leaves a double for
// each block, power_total adds these up, each in an order that sizes alone decide: the same bits every time. Whether all are finite follows from the
// norm to the power of infinity, the largest |x|, which is NaN if one of them is. Not chosen: the last block to finish adds up what the others left,
// which saves a launch, but needs a counter that somebody has to zero; squares added up in float, which overflow from 1.8e19 on.
//
// Launch: `rows[last] first block + its blocks` blocks of 256 threads; power_total one. Traffic: sgd_step reads p and g, writes p, and with momentum
// reads and writes the buffer; adam_step reads p, g, mean and square and writes all but g; scale_all reads and writes g; power_parts reads g, and
// writes 8 bytes a block that power_total reads. Bound by memory; power_parts nearly as much by its two operations in double on each element where
// these are few (1 for 64 of float), any_power_parts by pow. Not tried: loads of 16 bytes. Nothing here has been timed.
#include "common.cuh"

constexpr int ROW = 7;  // elements, first block, p, g, three arrays of state

// The last of `rows` rows whose first block, first(row), is not beyond this one.
template <class First> __device__ __forceinline__ int row_of_block(int rows, const First& first) {
    int low = 0, high = rows - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (first(middle) <= (int)blockIdx.x) low = middle;
        else high = middle - 1;
    }
    return low;
}

// What this block works on: elements begin .. end - 1 of the arrays of a row.
struct Part {
    int row, begin, end;
    const long long* arrays;
    __device__ __forceinline__ Part(const long long* __restrict__ table, int rows, int share) {
        row = row_of_block(rows, [&](int r) { return (int)table[r * ROW + 1]; });
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

constexpr int MOST = 240;  // gradients of one launch
struct Gradients {         // as minidcnn/backend/cuda/optim.py fills it
    const Real* x[MOST];
    int size[MOST], first[MOST];  // elements, the first block that works on them
};

// Of two sums their sum, or if the largest is wanted the larger one, NaN if one of them is.
__device__ __forceinline__ double join(double a, double b, bool largest) { return !largest ? a + b : b > a || b != b ? b : a; }

// v of all threads joined, in a fixed order; the result is valid in thread 0.
__device__ __forceinline__ double over_block(double v, bool largest) {
    __shared__ double part[256];
    part[threadIdx.x] = v;
    for (int half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) part[threadIdx.x] = v = join(v, part[threadIdx.x + half], largest);
    }
    return v;
}

__device__ __forceinline__ bool infinite(double power) { return power - power != 0; }  // it is never NaN

// What this block works on: elements begin .. end - 1 of one gradient.
struct Share {
    const Real* __restrict__ x;
    int begin, end;
    __device__ __forceinline__ Share(const Gradients& all, int rows, int share) {
        const int row = row_of_block(rows, [&](int r) { return all.first[r]; });
        x = all.x[row];
        begin = ((int)blockIdx.x - all.first[row]) * share;
        end = min(begin + share, all.size[row]);
    }
    template <int UNROLL, class Add> __device__ __forceinline__ double fold(const Add& add) const {  // total = add(total, |x|) of a thread's elements
        double total = 0;
        #pragma unroll UNROLL
        for (int e = begin + threadIdx.x; e < end; e += 256) total = add(total, fabs(double(Sum(x[e]))));
        return total;
    }
};

// parts[block] = the largest |x|, sum |x| or sum |x|^2 of what the block works on.
extern "C" __global__ void __launch_bounds__(256)
power_parts(const Gradients gradients, double* __restrict__ parts, int rows, int share, double power) {
    const Share part(gradients, rows, share);
    double total;
    if (power == 2) total = part.fold<4>([](double total, double v) { return total + v * v; });
    else if (power == 1) total = part.fold<4>([](double total, double v) { return total + v; });
    else total = part.fold<4>([](double total, double v) { return join(total, v, true); });
    total = over_block(total, infinite(power));
    if (threadIdx.x == 0) parts[blockIdx.x] = total;
}

// sum |x|^power for any other power: a kernel of its own, since pow takes twice the registers.
extern "C" __global__ void __launch_bounds__(256)
any_power_parts(const Gradients gradients, double* __restrict__ parts, int rows, int share, double power) {
    const double total = over_block(Share(gradients, rows, share).fold<1>([=](double total, double v) { return total + pow(v, power); }), false);
    if (threadIdx.x == 0) parts[blockIdx.x] = total;
}

// total = parts[0] + ... + parts[count - 1], or the largest of them: one block of 256 threads.
extern "C" __global__ void __launch_bounds__(256)
power_total(const double* __restrict__ parts, double* __restrict__ total, int count, double power) {
    const bool largest = infinite(power);
    double sum = 0;
    #pragma unroll 4
    for (int i = threadIdx.x; i < count; i += 256) sum = join(sum, parts[i], largest);
    sum = over_block(sum, largest);
    if (threadIdx.x == 0) *total = sum;
}
