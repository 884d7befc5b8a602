// Batch norm on channels-last images, seen as rows of C channels: x (M, C), M = N H W. Also plain sums over rows.
//
// Reductions take two steps. 1: a block of 32 channels x 8 rows runs over its share of the rows; lanes are channels, so a warp reads runs
// of memory; partial results of every share go to (shares, C) arrays in double. 2: a block of 8 channels x 32 rows combines the shares, each
// row every 32nd of them, then the rows in order: the same bits every time.
//
// Batch norm is 4 launches forward (moments, combine_moments, track, normalize) and 3 back (gradient_sums, add_shares, normalize_grad). Tried before:
// what there is one of for each channel by array code, two dozen launches more, each for a few hundred numbers: so each thread works out from mean, rstd
// and weight what it needs, once for all its rows.
//
// moments, row_sums   step 1 over x: M C numbers read. Grid (C / 32, shares) of blocks of 32 x 8; about 1024 blocks, at least 64 rows a share.
// gradient_sums       step 1 over g and x: 2 M C numbers read. The same launch.
// combine_moments, add_shares   step 2: 2 shares C doubles, the former of them twice, or shares C; eight loads of a thread are under way. Tried before: a
//                     thread for each channel over all shares, the moments one share after the other by the update of Chan, Golub & LeVeque (1979),
//                     which divides each time; and the GPU has nothing else to do meanwhile.
// track               a thread for each channel.
// normalize           threads (channels, rows), 32 x 8 for 32 channels and more, up to four channels each: 2 M C numbers, one read, one written.
//                     Tried before: a thread for each element of all, which had to divide to know its channel.
// normalize_grad      the same: 3 M C numbers, g and x read, dx written.
// So training moves 3 M C numbers forward and 5 M C backward; a ReLU behind it none more. What is of a channel is read from the cache. Bound by memory.
// Where the result has two readers (a skip connection), its gradient is the sum of two, g and `also`: both are read where g would be, so 7 M C numbers
// move, where a kernel that adds them first moves 3 M C and this one then 5: 8, and takes a launch.
// Not chosen: sums of x and of x^2 in one pass, whose difference has no digits left where the mean is large. Not tried: one block that keeps its
// channels' rows between the two passes, where they fit; 16-byte loads. Nothing here has been timed.
// Images are Real; weight, bias and their gradients are Sum, so beside float16 images float32; mean and rstd are double.
#include "common.cuh"

constexpr int LANES = 32, ROWS = 8;

// Adds v over the rows of the block, in order; every row gets the total.
__device__ __forceinline__ double over_rows(double v) {
    __shared__ double part[256];
    __syncthreads();  // part[] may still be read from the call before
    part[threadIdx.y * blockDim.x + threadIdx.x] = v;
    __syncthreads();
    double total = 0;
    for (int r = 0; r < blockDim.y; r++) total += part[r * blockDim.x + threadIdx.x];
    return total;
}

// Per share and channel: the mean and the sum of squared distances from it. Sums are taken of x - x[begin], the first row of the
// share, which keeps their digits; no share is empty.
extern "C" __global__ void __launch_bounds__(256)
moments(const Real* __restrict__ x, double* __restrict__ means, double* __restrict__ squares, int rows, int channels, int share) {
    int c = blockIdx.x * LANES + threadIdx.x, begin = blockIdx.y * share, end = min(begin + share, rows);
    bool real = c < channels;
    Sum shift = real ? Sum(x[begin * channels + c]) : Sum(0), sum = 0, square = 0;
    for (int m = begin + threadIdx.y; m < end && real; m += ROWS) {
        Sum d = Sum(x[m * channels + c]) - shift;
        sum += d;
        square += d * d;
    }
    double s = over_rows(sum), q = over_rows(square), count = end - begin;
    if (real && threadIdx.y == 0) {
        means[blockIdx.y * channels + c] = double(shift) + s / count;
        squares[blockIdx.y * channels + c] = q - s * s / count;
    }
}

// The shares' moments combined: mean and biased variance of each channel. Two passes, as over the pixels: the means' mean, taken from the first of
// them, which keeps its digits; then what is squared inside the shares and between them.
extern "C" __global__ void __launch_bounds__(256)
combine_moments(const double* __restrict__ means, const double* __restrict__ squares, double* __restrict__ mean, double* __restrict__ var, int rows,
                int channels, int share, int shares) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x, end = c < channels ? shares : 0;
    const double first = end ? means[c] : 0;
    double sum = 0, square = 0;
    #pragma unroll 8
    for (int s = threadIdx.y; s < end; s += blockDim.y) sum += min(share, rows - s * share) * (means[s * channels + c] - first);
    const double m = first + over_rows(sum) / rows;
    #pragma unroll 8
    for (int s = threadIdx.y; s < end; s += blockDim.y) {
        const double d = means[s * channels + c] - m;
        square += squares[s * channels + c] + min(share, rows - s * share) * (d * d);
    }
    square = over_rows(square);
    if (end && threadIdx.y == 0) {
        mean[c] = m;
        var[c] = square / rows;
    }
}

// rstd = (var + eps)^(-1/2), and the running statistics, of those that are not null: new = (1 - momentum) old + momentum batch, with the variance
// times `unbiased`. momentum is read from `rate` unless that is null: there it has been computed on the device.
extern "C" __global__ void __launch_bounds__(256)
track(const double* __restrict__ mean, const double* __restrict__ var, Real* __restrict__ running_mean, Real* __restrict__ running_var,
      double* __restrict__ rstd, int channels, double unbiased, double eps, double momentum, const double* __restrict__ rate) {
    if (rate) momentum = rate[0];
    FOR_EACH(c, channels) {
        if (running_mean) running_mean[c] = Real((1 - momentum) * Sum(running_mean[c]) + momentum * mean[c]);
        if (running_var) running_var[c] = Real((1 - momentum) * Sum(running_var[c]) + momentum * (unbiased * var[c]));
        rstd[c] = 1 / sqrt(var[c] + eps);
    }
}

// Batch norm of one channel: (x - mean) rstd weight + bias. The bias may be null.
struct Affine {
    Sum mean, rstd, scale, bias;
    __device__ __forceinline__ Affine(const double* __restrict__ means, const double* __restrict__ rstds, const Sum* __restrict__ weights,
                                      const Sum* __restrict__ biases, int c)
        : mean(means[c]), rstd(rstds[c]), scale(rstds[c] * double(weights[c])), bias(biases ? biases[c] : Sum(0)) {}
    __device__ __forceinline__ Sum operator()(Sum x) const { return (x - mean) * scale + bias; }
};

// y = (x - mean) rstd weight + bias, by channel; with relu, max(y, 0), where NaN stays NaN.
extern "C" __global__ void __launch_bounds__(256)
normalize(const Real* __restrict__ x, const double* __restrict__ mean, const double* __restrict__ rstd, const Sum* __restrict__ weight,
          const Sum* __restrict__ bias, Real* __restrict__ y, int rows, int channels, int relu) {
    FOR_EACH_CHANNEL(c, channels) {
        const Affine affine(mean, rstd, weight, bias, c);
        FOR_EACH_COLUMN(m, rows) {
            Sum v = affine(x[m * channels + c]);
            y[m * channels + c] = Real(relu && v <= Sum(0) ? Sum(0) : v);
        }
    }
}

// Element e of the gradient: of g, or unless `also` is null of the sum of both. It is rounded to Sum only: in float and double these are the bits of
// an addition before, in Half it is more exact than one.
__device__ __forceinline__ Sum gradient(const Real* __restrict__ g, const Real* __restrict__ also, int e) {
    return also ? Sum(g[e]) + Sum(also[e]) : Sum(g[e]);
}

// Per share and channel: the sums of g and of g z, z = (x - mean) rstd. Unless `gate` is null, it is the bias, and g counts only where batch norm is
// above 0, so that the gradient of a ReLU behind it costs no pass of its own. `also` is added to g, unless it is null.
extern "C" __global__ void __launch_bounds__(256)
gradient_sums(const Real* __restrict__ g, const Real* __restrict__ also, const Real* __restrict__ x, const double* __restrict__ mean,
              const double* __restrict__ rstd, const Sum* __restrict__ weight, const Sum* __restrict__ gate, double* __restrict__ sums,
              double* __restrict__ products, int rows, int channels, int share) {
    const int c = blockIdx.x * LANES + threadIdx.x, begin = blockIdx.y * share, end = min(begin + share, rows);
    const bool real = c < channels;
    const Affine affine(mean, rstd, weight, gate, real ? c : 0);
    Sum sum = 0, product = 0;
    for (int m = begin + threadIdx.y; m < end && real; m += ROWS) {
        Sum at = x[m * channels + c], v = gradient(g, also, m * channels + c);
        if (gate && !(affine(at) > Sum(0))) v = 0;
        sum += v;
        product += v * ((at - affine.mean) * affine.rstd);
    }
    double s = over_rows(sum), p = over_rows(product);
    if (real && threadIdx.y == 0) {
        sums[blockIdx.y * channels + c] = s;
        products[blockIdx.y * channels + c] = p;
    }
}

// dx = scale (g - dbias / M - z dweight / M), z = (x - mean) rstd, scale = rstd weight, by channel; `gate` and `also` as above. per_row: 1 / M.
extern "C" __global__ void __launch_bounds__(256)
normalize_grad(const Real* __restrict__ g, const Real* __restrict__ also, const Real* __restrict__ x, const double* __restrict__ mean,
               const double* __restrict__ rstd, const Sum* __restrict__ weight, const Sum* __restrict__ gate, const Sum* __restrict__ dbias,
               const Sum* __restrict__ dweight, Real* __restrict__ dx, int rows, int channels, Sum per_row) {
    FOR_EACH_CHANNEL(c, channels) {
        const Affine affine(mean, rstd, weight, gate, c);
        const Sum b = dbias[c] * per_row, w = dweight[c] * per_row;
        FOR_EACH_COLUMN(m, rows) {
            const int e = m * channels + c;
            Sum v = gradient(g, also, e), at = x[e];
            if (gate && !(affine(at) > Sum(0))) v = 0;
            dx[e] = Real(affine.scale * (v - b - (at - affine.mean) * affine.rstd * w));
        }
    }
}

// Per share and channel: the sum of x.
extern "C" __global__ void __launch_bounds__(256)
row_sums(const Real* __restrict__ x, double* __restrict__ sums, int rows, int channels, int share) {
    int c = blockIdx.x * LANES + threadIdx.x, begin = blockIdx.y * share, end = min(begin + share, rows);
    Sum sum = 0;
    for (int m = begin + threadIdx.y; m < end && c < channels; m += ROWS) sum += Sum(x[m * channels + c]);
    double s = over_rows(sum);
    if (c < channels && threadIdx.y == 0) sums[blockIdx.y * channels + c] = s;
}

// Sums or products of all shares (shares, C) added up by channel, by the first and the second row of blocks; there may be only one.
extern "C" __global__ void __launch_bounds__(256)
add_shares(const double* __restrict__ sums, const double* __restrict__ products, Real* __restrict__ sum, Real* __restrict__ product, int channels,
           int shares) {
    const double* parts = blockIdx.y ? products : sums;
    const int c = blockIdx.x * blockDim.x + threadIdx.x, end = c < channels ? shares : 0;
    double total = 0;
    #pragma unroll 8
    for (int s = threadIdx.y; s < end; s += blockDim.y) total += parts[s * channels + c];
    total = over_rows(total);
    if (end && threadIdx.y == 0) (blockIdx.y ? product : sum)[c] = Real(total);
}
