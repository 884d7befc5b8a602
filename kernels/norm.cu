// Batch norm on channels-last images, seen as rows of C channels: x (M, C), M = N H W. Also plain sums over rows.
//
// A block runs over a share of the rows, for the channels of all its threads: 32 runs of them (see runs.cuh) x 8 rows, or of few channels fewer runs and
// more rows; about 1024 blocks, but at least 8 rows a thread, or in moments 64 a share. Neighbouring threads have neighbouring runs.
// Reductions take two steps. 1: such a block writes what it finds in its share into (shares, C) arrays in double. 2: a block of 8 channels x 32 rows
// combines the shares, each row every 32nd of them, then the rows in order: the same bits every time.
//
// Batch norm is 4 launches forward (moments, combine_moments, track, normalize) and 3 back (gradient_sums, add_shares, normalize_grad). Tried before:
// what there is one of for each channel by array code, two dozen launches more, each for a few hundred numbers: so each thread works out from mean, rstd
// and weight what it needs, once for all its rows.
//
// moments, row_sums   step 1 over x: M C numbers read.
// gradient_sums       step 1 over g and x: 2 M C numbers read.
// combine_moments, add_shares   step 2: 2 shares C doubles, the former of them twice, or shares C; eight loads of a thread are under way. Tried before: a
//                     thread for each channel over all shares, the moments one share after the other by the update of Chan, Golub & LeVeque (1979),
//                     which divides each time; and the GPU has nothing else to do meanwhile.
// track               a thread for each channel.
// normalize           2 M C numbers, one read, one written. Tried before: a thread for each element of all, which had to divide to know its channel;
//                     threads on (channels, rows), four channels each, which read one number at a time and what is of a channel for each again.
// normalize_grad      3 M C numbers, g and x read, dx written.
// So training moves 3 M C numbers forward and 5 M C backward; a ReLU behind it none more. Bound by memory.
// Not chosen: sums of x and of x^2 in one pass, whose difference has no digits left where the mean is large. Not tried: one block that keeps its
// channels' rows between the two passes, where they fit. Nothing here has been timed.
// Images are Real; weight, bias and their gradients are Sum, so beside float16 images float32; mean and rstd are double.
// __launch_bounds__ asks for two blocks on a multiprocessor: unasked, compilers try for more and spill registers for it.
#include "runs.cuh"

constexpr int THREADS = 256;

// What a thread works on: the run of channels from c on, and every blockDim.y-th row of its block's share. A thread beyond the last channel has no row.
struct Part {
    int c, begin, end;
    __device__ __forceinline__ Part(int rows, int channels, int share) : begin(blockIdx.y * share) {
        const int first = (blockIdx.x * blockDim.x + threadIdx.x) * RUN;
        c = min(first, channels - RUN);
        end = first < channels ? min(begin + share, rows) : begin;
    }
};

// Every step-th of i up to end, BATCH of them at a time: first `read(i)` of all of them, then `use(i, what was read)`, so that so many loads of a thread
// are under way. Compilers that unroll a loop leave each load behind the store or the test of the one before. What is read twice at the end is not used.
template <int BATCH, typename Read, typename Use> __device__ __forceinline__ void batched(int i, int end, int step, Read read, Use use) {
    #pragma unroll 1
    for (; i < end; i += BATCH * step) {
        decltype(read(i)) got[BATCH];
        #pragma unroll
        for (int b = 0; b < BATCH; b++) got[b] = read(min(i + b * step, end - 1));
        #pragma unroll
        for (int b = 0; b < BATCH; b++)
            if (i + b * step < end) use(i + b * step, got[b]);
    }
}
template <typename Read, typename Use> __device__ __forceinline__ void each_row(const Part& part, Read read, Use use) {
    batched<4>(part.begin + threadIdx.y, part.end, blockDim.y, read, use);
}
template <typename Read, typename Use> __device__ __forceinline__ void each_share(int shares, Read read, Use use) {
    batched<8>(threadIdx.y, shares, blockDim.y, read, use);
}

__device__ __forceinline__ int thread() { return threadIdx.y * blockDim.x + threadIdx.x; }

// Adds the N numbers of each thread over the rows of the block, in order. A row of threads has a power of 2 of numbers, and thread t gets the total of
// the t-th of them; in rows further down they are found again.
template <typename T, int N> __device__ __forceinline__ double over_rows(const T (&v)[N]) {
    __shared__ T part[THREADS * N];
    const int width = blockDim.x * N, mine = thread() & (width - 1);
    __syncthreads();  // part[] may still be read from the call before
    #pragma unroll
    for (int j = 0; j < N; j++) part[threadIdx.y * width + threadIdx.x * N + j] = v[j];
    __syncthreads();
    double total = 0;
    for (int r = 0; r < blockDim.y; r++) total += part[r * width + mine];
    return total;
}

// The channel whose total this thread has to write, or -1: there are more threads than channels in a block, or as many.
__device__ __forceinline__ int written(int channels) {
    const int c = blockIdx.x * blockDim.x * RUN + thread();
    return thread() < blockDim.x * RUN && c < channels ? c : -1;
}

// Per share and channel: the mean and the sum of squared distances from it. Sums are taken of x - x[begin], the first row of the
// share, which keeps their digits; no share is empty.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
moments(const Real* __restrict__ x, double* __restrict__ means, double* __restrict__ squares, int rows, int channels, int share) {
    const Part part(rows, channels, share);
    const Run<Real> shift = run_at(x, part.begin * channels + part.c);
    Sum sum[RUN] = {}, square[RUN] = {};
    each_row(part, [&](int m) { return run_at(x, m * channels + part.c); }, [&](int, const Run<Real>& v) {
        FOR_EACH_OF_RUN(j) {
            const Sum d = Sum(v.at[j]) - Sum(shift.at[j]);
            sum[j] += d;
            square[j] += d * d;
        }
    });
    const double s = over_rows(sum), q = over_rows(square), count = min(share, rows - part.begin);
    if (const int c = written(channels); c >= 0) {
        means[blockIdx.y * channels + c] = double(Sum(x[part.begin * channels + c])) + s / count;
        squares[blockIdx.y * channels + c] = q - s * s / count;
    }
}

// The shares' moments combined: mean and biased variance of each channel. Two passes, as over the pixels: the means' mean, taken from the first of
// them, which keeps its digits; then what is squared inside the shares and between them.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
combine_moments(const double* __restrict__ means, const double* __restrict__ squares, double* __restrict__ mean, double* __restrict__ var, int rows,
                int channels, int share, int shares) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x, end = c < channels ? shares : 0;
    const double first = end ? means[c] : 0;
    double sum[1] = {0}, square[1] = {0};
    each_share(end, [&](int s) { return means[s * channels + c]; }, [&](int s, double mean) {
        sum[0] += min(share, rows - s * share) * (mean - first);
    });
    const double m = first + over_rows(sum) / rows;
    struct Moments { double mean, square; };
    each_share(end, [&](int s) { return Moments{means[s * channels + c], squares[s * channels + c]}; }, [&](int s, const Moments& of) {
        const double d = of.mean - m;
        square[0] += of.square + min(share, rows - s * share) * (d * d);
    });
    const double q = over_rows(square);
    if (end && threadIdx.y == 0) {
        mean[c] = m;
        var[c] = q / rows;
    }
}

// rstd = (var + eps)^(-1/2), and the running statistics, of those that are not null: new = (1 - momentum) old + momentum batch, with the variance
// times `unbiased`. momentum is read from `rate` unless that is null: there it has been computed on the device.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
track(const double* __restrict__ mean, const double* __restrict__ var, Real* __restrict__ running_mean, Real* __restrict__ running_var,
      double* __restrict__ rstd, int channels, double unbiased, double eps, double momentum, const double* __restrict__ rate) {
    if (rate) momentum = rate[0];
    FOR_EACH(c, channels) {
        if (running_mean) running_mean[c] = Real((1 - momentum) * Sum(running_mean[c]) + momentum * mean[c]);
        if (running_var) running_var[c] = Real((1 - momentum) * Sum(running_var[c]) + momentum * (unbiased * var[c]));
        rstd[c] = 1 / sqrt(var[c] + eps);
    }
}

// Batch norm of a run of channels: (x - mean) rstd weight + bias. The bias may be null.
struct Affine {
    Sum mean[RUN], rstd[RUN], scale[RUN], bias[RUN];
    __device__ __forceinline__ Affine(const double* __restrict__ means, const double* __restrict__ rstds, const Sum* __restrict__ weights,
                                      const Sum* __restrict__ biases, int c) {
        FOR_EACH_OF_RUN(j) {
            mean[j] = Sum(means[c + j]);
            rstd[j] = Sum(rstds[c + j]);
            scale[j] = Sum(rstds[c + j] * double(weights[c + j]));
            bias[j] = biases ? biases[c + j] : Sum(0);
        }
    }
    __device__ __forceinline__ Sum operator()(Sum x, int j) const { return (x - mean[j]) * scale[j] + bias[j]; }
};

// y = (x - mean) rstd weight + bias, by channel; with relu, max(y, 0), where NaN stays NaN.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
normalize(const Real* __restrict__ x, const double* __restrict__ mean, const double* __restrict__ rstd, const Sum* __restrict__ weight,
          const Sum* __restrict__ bias, Real* __restrict__ y, int relu, int rows, int channels, int share) {
    const Part part(rows, channels, share);
    const Affine affine(mean, rstd, weight, bias, part.c);
    each_row(part, [&](int m) { return run_at(x, m * channels + part.c); }, [&](int m, const Run<Real>& at) {
        Run<Real> result;
        FOR_EACH_OF_RUN(j) {
            const Sum v = affine(at.at[j], j);
            result.at[j] = Real(relu && v <= Sum(0) ? Sum(0) : v);
        }
        run_at(y, m * channels + part.c) = result;
    });
}

// What both gradient kernels read of a run that begins at element e.
struct Read { Run<Real> x, g; };
__device__ __forceinline__ Read read_at(const Real* __restrict__ x, const Real* __restrict__ g, int e) { return {run_at(x, e), run_at(g, e)}; }

// And what they make of it: z = (x - mean) rstd, and the gradient that came. If `gated`, it counts only where batch norm is above 0, so that the gradient
// of a ReLU behind it costs no pass of its own.
struct Slope {
    Sum g[RUN], z[RUN];
    __device__ __forceinline__ Slope(const Read& read, const Affine& affine, bool gated) {
        FOR_EACH_OF_RUN(j) {
            const Sum x = read.x.at[j];
            g[j] = read.g.at[j];
            if (gated && !(affine(x, j) > Sum(0))) g[j] = 0;
            z[j] = (x - affine.mean[j]) * affine.rstd[j];
        }
    }
};

// Per share and channel: the sums of g and of g z. Unless `gate` is null it is the bias, and the gradient gated.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
gradient_sums(const Real* __restrict__ g, const Real* __restrict__ x, const double* __restrict__ mean, const double* __restrict__ rstd,
              const Sum* __restrict__ weight, const Sum* __restrict__ gate, double* __restrict__ sums, double* __restrict__ products, int rows,
              int channels, int share) {
    const Part part(rows, channels, share);
    const Affine affine(mean, rstd, weight, gate, part.c);
    Sum sum[RUN] = {}, product[RUN] = {};
    each_row(part, [&](int m) { return read_at(x, g, m * channels + part.c); }, [&](int, const Read& read) {
        const Slope slope(read, affine, gate);
        FOR_EACH_OF_RUN(j) {
            sum[j] += slope.g[j];
            product[j] += slope.g[j] * slope.z[j];
        }
    });
    const double s = over_rows(sum), p = over_rows(product);
    if (const int c = written(channels); c >= 0) {
        sums[blockIdx.y * channels + c] = s;
        products[blockIdx.y * channels + c] = p;
    }
}

// dx = scale (g - dbias / M - z dweight / M), scale = rstd weight, by channel. per_row: 1 / M.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
normalize_grad(const Real* __restrict__ g, const Real* __restrict__ x, const double* __restrict__ mean, const double* __restrict__ rstd,
               const Sum* __restrict__ weight, const Sum* __restrict__ gate, const Sum* __restrict__ dbias, const Sum* __restrict__ dweight,
               Real* __restrict__ dx, Sum per_row, int rows, int channels, int share) {
    const Part part(rows, channels, share);
    const Affine affine(mean, rstd, weight, gate, part.c);
    Sum b[RUN], w[RUN];
    FOR_EACH_OF_RUN(j) {
        b[j] = dbias[part.c + j] * per_row;
        w[j] = dweight[part.c + j] * per_row;
    }
    each_row(part, [&](int m) { return read_at(x, g, m * channels + part.c); }, [&](int m, const Read& read) {
        const Slope slope(read, affine, gate);
        Run<Real> result;
        FOR_EACH_OF_RUN(j) result.at[j] = Real(affine.scale[j] * (slope.g[j] - b[j] - slope.z[j] * w[j]));
        run_at(dx, m * channels + part.c) = result;
    });
}

// Per share and channel: the sum of x.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
row_sums(const Real* __restrict__ x, double* __restrict__ sums, int rows, int channels, int share) {
    const Part part(rows, channels, share);
    Sum sum[RUN] = {};
    each_row(part, [&](int m) { return run_at(x, m * channels + part.c); }, [&](int, const Run<Real>& v) {
        FOR_EACH_OF_RUN(j) sum[j] += Sum(v.at[j]);
    });
    const double s = over_rows(sum);
    if (const int c = written(channels); c >= 0) sums[blockIdx.y * channels + c] = s;
}

// Sums or products of all shares (shares, C) added up by channel, by the first and the second row of blocks; there may be only one.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
add_shares(const double* __restrict__ sums, const double* __restrict__ products, Real* __restrict__ sum, Real* __restrict__ product, int channels,
           int shares) {
    const double* parts = blockIdx.y ? products : sums;
    const int c = blockIdx.x * blockDim.x + threadIdx.x, end = c < channels ? shares : 0;
    double total[1] = {0};
    each_share(end, [&](int s) { return parts[s * channels + c]; }, [&](int, double part) { total[0] += part; });
    const double all = over_rows(total);
    if (end && threadIdx.y == 0) (blockIdx.y ? product : sum)[c] = Real(all);
}
