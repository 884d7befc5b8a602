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
    static constexpr int COLUMNS = BN / TN;  // of threads

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
        int tm = threadIdx.x / COLUMNS, tn = threadIdx.x % COLUMNS;
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

// SMALL=1 is for few results and for double: less waste at the edges, more blocks.
#ifndef SMALL
#define SMALL 0
#endif
#if SMALL
constexpr int BM = 64, BN = 64, BK = 8;
typedef Tile<BM, BN, BK, 4, 4> Product;
#else
constexpr int BM = 128, BN = 128, BK = 8;
typedef Tile<BM, BN, BK, 8, 8> Product;
#endif
