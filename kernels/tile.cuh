// One tile of a matrix product, C[m][n] = sum over k of A[m][k] B[n][k], on CUDA cores: the inside of every convolution.
//
// A and B are not arrays but rules ("operands"): im2col, transposed weights and the like are made on the way into shared memory, so that
// no column is ever written to device memory. An operand has
//     Outer outer(int row)          what of a row can be worked out once, before the loop over k
//     Inner inner(int k)            the same of a k
//     Real at(Outer, Inner)         the element; both inside their ranges
//     ALONG_K                       whether its neighbours in memory are neighbours in k, or else neighbouring rows
// A block of THREADS threads computes BM x BN results, each thread TM x TN of them in registers. Two stages of shared memory: while one is
// multiplied the next is read. Per step of BK, a block reads (BM + BN) BK numbers and does 2 BM BN BK operations: with 128 x 128 tiles 64
// operations a number read from device memory or cache, and TM TN / (TM + TN) = 4 multiply-adds a number read from shared memory.
#pragma once
#include "common.cuh"

constexpr int THREADS = 256;

// Copies the rows of one operand into shared memory, rows x BK at a time; a thread keeps to its rows, or to its ks.
template <class Operand, int ROWS, int BK>
struct Feeder {
    static constexpr int COUNT = ROWS * BK / THREADS;
    static_assert(ROWS * BK % THREADS == 0 && THREADS % BK == 0 && THREADS % ROWS == 0, "each thread copies the same number of elements");
    static constexpr int FIXED_ROWS = Operand::ALONG_K ? COUNT : 1, KS = Operand::ALONG_K ? 1 : COUNT;
    const Operand& operand;
    int rows, first_row, first_k;
    typename Operand::Outer outer[FIXED_ROWS];
    Real held[COUNT];

    __device__ __forceinline__ Feeder(const Operand& o, int row0, int row_count) : operand(o), rows(row_count) {
        first_row = row0 + (Operand::ALONG_K ? threadIdx.x / BK : threadIdx.x % ROWS);
        first_k = Operand::ALONG_K ? threadIdx.x % BK : threadIdx.x / ROWS;
        #pragma unroll
        for (int e = 0; e < FIXED_ROWS; e++) {
            int row = first_row + e * (THREADS / BK);
            outer[e] = operand.outer(row < rows ? row : 0);
        }
    }
    // Reads the elements of k0 .. k0 + BK - 1 into registers; zeros beyond the rows and beyond k_end.
    __device__ __forceinline__ void read(int k0, int k_end) {
        #pragma unroll
        for (int q = 0; q < KS; q++) {
            int k = k0 + first_k + q * (THREADS / ROWS);
            bool within = k < k_end;
            typename Operand::Inner inner = operand.inner(within ? k : 0);
            #pragma unroll
            for (int e = 0; e < FIXED_ROWS; e++)
                held[q + e] = within && first_row + e * (THREADS / BK) < rows ? operand.at(outer[e], inner) : Real(0);
        }
    }
    // Writes them to shared memory, k by k.
    template <int PITCH>
    __device__ __forceinline__ void write(Sum (*tile)[PITCH], int row0) const {
        #pragma unroll
        for (int q = 0; q < KS; q++)
            #pragma unroll
            for (int e = 0; e < FIXED_ROWS; e++)
                tile[first_k + q * (THREADS / ROWS)][first_row - row0 + e * (THREADS / BK)] = Sum(held[q + e]);
    }
};

template <int BM, int BN, int BK, int TM, int TN>
struct Tile {
    static_assert(BM / TM * (BN / TN) == THREADS, "one thread for each TM x TN results");
    static constexpr int ROWS = TM, COLUMNS = TN;  // of `result`

    Sum result[TM][TN];
    int m, n;  // of result[0][0]; the others are STRIDE apart so that threads of a warp read neighbours in shared memory

    static constexpr int STRIDE_M = BM / TM, STRIDE_N = BN / TN;
    __device__ __forceinline__ int row(int i) const { return m + i * STRIDE_M; }
    __device__ __forceinline__ int column(int j) const { return n + j * STRIDE_N; }

    // The product over k_begin <= k < k_end of rows m0 .. of `a` (of m_count) and rows n0 .. of `b` (of n_count).
    template <class A, class B>
    __device__ __forceinline__ void multiply(const A& a, const B& b, int m0, int m_count, int n0, int n_count, int k_begin, int k_end) {
        __shared__ Sum as[2][BK][BM + 4];
        __shared__ Sum bs[2][BK][BN + 4];
        int tm = threadIdx.x / STRIDE_N, tn = threadIdx.x % STRIDE_N;
        m = m0 + tm;
        n = n0 + tn;
        #pragma unroll
        for (int i = 0; i < TM; i++)
            #pragma unroll
            for (int j = 0; j < TN; j++) result[i][j] = Sum(0);
        Feeder<A, BM, BK> feed_a(a, m0, m_count);
        Feeder<B, BN, BK> feed_b(b, n0, n_count);
        if (k_begin < k_end) {
            feed_a.read(k_begin, k_end);
            feed_b.read(k_begin, k_end);
            feed_a.write(as[0], m0);
            feed_b.write(bs[0], n0);
        }
        __syncthreads();
        for (int k0 = k_begin, stage = 0; k0 < k_end; k0 += BK, stage ^= 1) {
            bool more = k0 + BK < k_end;
            if (more) {
                feed_a.read(k0 + BK, k_end);  // on their way while this stage is multiplied
                feed_b.read(k0 + BK, k_end);
            }
            #pragma unroll
            for (int k = 0; k < BK; k++) {
                Sum x[TM], y[TN];
                #pragma unroll
                for (int i = 0; i < TM; i++) x[i] = as[stage][k][tm + i * STRIDE_M];
                #pragma unroll
                for (int j = 0; j < TN; j++) y[j] = bs[stage][k][tn + j * STRIDE_N];
                #pragma unroll
                for (int i = 0; i < TM; i++)
                    #pragma unroll
                    for (int j = 0; j < TN; j++) result[i][j] += x[i] * y[j];
            }
            if (more) {
                feed_a.write(as[stage ^ 1], m0);
                feed_b.write(bs[stage ^ 1], n0);
            }
            __syncthreads();
        }
    }
};

// The same product on tensor cores: factors rounded to tf32 (TENSOR=1) or bf16 (TENSOR=2) on their way from shared memory into
// fragments, sums in float. 2 x 4 warps, each with BM / 2 x BN / 4 results. Pitches of 8 more than a multiple of 32 keep the lanes of a
// warp, 8 rows by 4 ks, in different banks.
#ifndef TENSOR
#define TENSOR 0
#endif
#if TENSOR
#include "mma.cuh"

template <int BM, int BN, int BK>
struct TensorTile {
    static constexpr int MT = BM / 2 / 16, NT = BN / 4 / 8, DEPTH = TENSOR == 1 ? 8 : 16;
    static_assert(BM % 32 == 0 && BN % 32 == 0 && BK % DEPTH == 0, "whole fragments");
    static constexpr int ROWS = 2 * MT, COLUMNS = 2 * NT;  // of `result`

    float result[ROWS][COLUMNS];
    int m, n;

    __device__ __forceinline__ int row(int i) const { return m + i / 2 * 16 + i % 2 * 8; }
    __device__ __forceinline__ int column(int j) const { return n + j / 2 * 8 + j % 2; }

    template <class A, class B>
    __device__ __forceinline__ void multiply(const A& a, const B& b, int m0, int m_count, int n0, int n_count, int k_begin, int k_end) {
        __shared__ Sum as[2][BK][BM + 8];
        __shared__ Sum bs[2][BK][BN + 8];
        int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
        int wm = warp / 4 * (BM / 2), wn = warp % 4 * (BN / 4);
        m = m0 + wm + g;
        n = n0 + wn + 2 * t;
        #pragma unroll
        for (int i = 0; i < ROWS; i++)
            #pragma unroll
            for (int j = 0; j < COLUMNS; j++) result[i][j] = 0;
        Feeder<A, BM, BK> feed_a(a, m0, m_count);
        Feeder<B, BN, BK> feed_b(b, n0, n_count);
        if (k_begin < k_end) {
            feed_a.read(k_begin, k_end);
            feed_b.read(k_begin, k_end);
            feed_a.write(as[0], m0);
            feed_b.write(bs[0], n0);
        }
        __syncthreads();
        for (int k0 = k_begin, stage = 0; k0 < k_end; k0 += BK, stage ^= 1) {
            bool more = k0 + BK < k_end;
            if (more) {
                feed_a.read(k0 + BK, k_end);  // on their way while this stage is multiplied
                feed_b.read(k0 + BK, k_end);
            }
            #pragma unroll
            for (int k = 0; k < BK; k += DEPTH) {
                unsigned x[MT][4], y[NT][2];
                #pragma unroll
                for (int i = 0; i < MT; i++)
                    #pragma unroll
                    for (int r = 0; r < 4; r++) x[i][r] = fragment(as[stage], k, t, r / 2, wm + i * 16 + r % 2 * 8 + g);
                #pragma unroll
                for (int j = 0; j < NT; j++)
                    #pragma unroll
                    for (int r = 0; r < 2; r++) y[j][r] = fragment(bs[stage], k, t, r, wn + j * 8 + g);
                #pragma unroll
                for (int i = 0; i < MT; i++)
                    #pragma unroll
                    for (int j = 0; j < NT; j++) {
                        float &c0 = result[2 * i][2 * j], &c1 = result[2 * i][2 * j + 1];
                        float &c2 = result[2 * i + 1][2 * j], &c3 = result[2 * i + 1][2 * j + 1];
                        if (TENSOR == 1) mma_tf32(c0, c1, c2, c3, x[i], y[j]);
                        else mma_bf16(c0, c1, c2, c3, x[i], y[j]);
                    }
            }
            if (more) {
                feed_a.write(as[stage ^ 1], m0);
                feed_b.write(bs[stage ^ 1], n0);
            }
            __syncthreads();
        }
    }

    // Register `half` of a fragment along k, for row or column `at`.
    template <int PITCH>
    __device__ __forceinline__ static unsigned fragment(const Sum (*tile)[PITCH], int k, int t, int half, int at) {
        if (TENSOR == 1) return to_tf32(tile[k + t + 4 * half][at]);
        int pair = k + 2 * t + 8 * half;
        return to_bf16(tile[pair][at], tile[pair + 1][at]);
    }
};
#endif

// SMALL=1 is for few results and for double: less waste at the edges, more blocks.
#ifndef SMALL
#define SMALL 0
#endif
constexpr int BM = SMALL ? 64 : 128, BN = SMALL ? 64 : 128, BK = TENSOR ? 16 : 8;
#if TENSOR
typedef TensorTile<BM, BN, BK> Product;
#else
typedef Tile<BM, BN, BK, SMALL ? 4 : 8, SMALL ? 4 : 8> Product;
#endif
