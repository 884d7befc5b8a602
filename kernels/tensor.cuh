// Multiplies a stage on tensor cores: factors rounded to tf32 (TENSOR=1) or bf16 (TENSOR=2) on their way from shared memory into fragments, split
// into two tf32 (TENSOR=4), or stored in float16 (TENSOR=3) and taken as they are; sums in float. 2 x 4 warps, each with BM / 2 x BN / 4 results.
//
// The hardware adds over k in an order of its own, so it does not matter which k is called which, as long as both factors agree: 16 ks are
// dealt out so that lane t of a row's four holds the neighbours 4 t .. 4 t + 3, one read of 16 bytes. Of these the first two take the
// lane's two places along k in the first product (tf32: k = t and t + 4) and the last two in the second; for 16 bits the first pair is its
// lower register and the last pair its upper one. Where NEIGHBOURS is 2, 8 ks are dealt out in pairs.
//
// TENSOR=4, "tf32x3": each float is high + low, two tf32, and of its product with another the three largest of four are added: low high + high low +
// high high. What is left out is less than 2^-22 of the product, what low does not hold less than 2^-23 of the factor. The tensor cores cut their sums off
// instead of rounding them (by what the paper measured; the simulator rounds). So each 16 ks are summed up from zero there, the small products first, and
// that is added to the result as float32 is everywhere else. After H. Ootomo and R. Yokota, "Recovering single precision accuracy from Tensor Cores while
// surpassing the FP32 theoretical peak performance", Int. J. High Performance Computing Applications 36(4), 2022, arXiv:2203.03341, which scales low up
// for float16; tf32 has the exponents of float and needs no scale. Not by wgmma: it would read both parts from shared memory, which would have to hold them.
#pragma once
#include "mma.cuh"

// Where a thread's results lie: in the fragments of its warp.
struct Fragments : AtOnce {
    static constexpr int MT = BM / 2 / 16, NT = BN / 4 / 8;  // fragments of a warp
    static_assert(BM % 32 == 0 && BN % 32 == 0 && BK % 16 == 0, "whole fragments");
    static constexpr int ROWS = 2 * MT, COLUMNS = 2 * NT, NEXT = 2;  // of `result`; stored together
    float result[ROWS][COLUMNS];
    int lane, m, n;  // m, n: where the warp begins

    __device__ __forceinline__ Fragments() : lane(threadIdx.x % 32), m(threadIdx.x / 128 * (BM / 2)), n(threadIdx.x / 32 % 4 * (BN / 4)) {}
    __device__ __forceinline__ int row(int i) const { return m + i / 2 * 16 + i % 2 * 8 + lane / 4; }
    __device__ __forceinline__ int column(int j) const { return n + j / 2 * 8 + j % 2 + lane % 4 * 2; }
};

struct TensorCores : Fragments {
    static constexpr int WORDS = TENSOR == 1 ? 4 : 2;  // registers that four numbers take; two to a product

    template <class A, class B>
    __device__ __forceinline__ void add(const A& a, const B& b) {
        const int g = lane / 4, t = lane % 4;
        #pragma unroll
        for (int k = 0; k < BK; k += 16) {
            unsigned x[MT][2][WORDS];
            #pragma unroll
            for (int i = 0; i < MT; i++)
                #pragma unroll
                for (int half = 0; half < 2; half++) words(a, m + g, i * 16 + half * 8, k + 4 * t, x[i][half]);
            #pragma unroll
            for (int j = 0; j < NT; j++) {
                unsigned y[WORDS];
                words(b, n + g, j * 8, k + 4 * t, y);
                #pragma unroll
                for (int w = 0; w < WORDS; w += 2)
                    #pragma unroll
                    for (int i = 0; i < MT; i++) {
                        float &c0 = result[2 * i][2 * j], &c1 = result[2 * i][2 * j + 1];
                        float &c2 = result[2 * i + 1][2 * j], &c3 = result[2 * i + 1][2 * j + 1];
                        unsigned fa[4] = {x[i][0][w], x[i][1][w], x[i][0][w + 1], x[i][1][w + 1]}, fb[2] = {y[w], y[w + 1]};
                        if (TENSOR == 1) mma_tf32(c0, c1, c2, c3, fa, fb);
                        else if (TENSOR == 3) mma_f16(c0, c1, c2, c3, fa, fb);
                        else mma_bf16(c0, c1, c2, c3, fa, fb);
                    }
            }
        }
    }

    // The numbers k .. k + 3 of row + step, rounded unless they are stored so.
    template <class P>
    __device__ __forceinline__ static void words(const P& panel, int row, int step, int k, unsigned (&to)[WORDS]) {
        if constexpr (TENSOR == 3) {
            Half v[1][4];
            panel.read(row, step, k, v);
            #pragma unroll
            for (int w = 0; w < WORDS; w++) to[w] = v[0][2 * w].bits | (unsigned)v[0][2 * w + 1].bits << 16;
        } else {
            float v[1][4];
            panel.read(row, step, k, v);
            #pragma unroll
            for (int w = 0; w < WORDS; w++) to[w] = TENSOR == 1 ? to_tf32(v[0][w]) : to_bf16(v[0][2 * w % 4], v[0][(2 * w + 1) % 4]);
        }
    }
};

struct SplitCores : Fragments {
    static constexpr int KS = NEIGHBOURS;

    template <class A, class B>
    __device__ __forceinline__ void add(const A& a, const B& b) {
        const int g = lane / 4, t = lane % 4;
        static_assert(TENSOR != 4 || BK == 16, "all ks of a stage");
        #pragma unroll 1  // else the compiler reads all of the stage first
        for (int k = 0; k < BK; k += 4 * KS) {
            unsigned x[MT][2][2][KS];  // high, low
            #pragma unroll
            for (int i = 0; i < MT; i++)
                #pragma unroll
                for (int half = 0; half < 2; half++) split(a, m + g, i * 16 + half * 8, k + KS * t, x[i][half]);
            #pragma unroll
            for (int j = 0; j < NT; j++) {
                unsigned y[2][KS];
                split(b, n + g, j * 8, k + KS * t, y);
                #pragma unroll
                for (int i = 0; i < MT; i++) {
                    float c[4] = {0, 0, 0, 0};
                    multiply(c, x[i][0][1], x[i][1][1], y[0]);
                    multiply(c, x[i][0][0], x[i][1][0], y[1]);
                    multiply(c, x[i][0][0], x[i][1][0], y[0]);
                    #pragma unroll
                    for (int r = 0; r < 4; r++) result[2 * i + r / 2][2 * j + r % 2] += c[r];
                }
            }
        }
    }
    // c += rows g and g + 8 of a fragment times a column of the other.
    __device__ __forceinline__ static void multiply(float (&c)[4], const unsigned (&upper)[KS], const unsigned (&lower)[KS], const unsigned (&y)[KS]) {
        #pragma unroll
        for (int w = 0; w < KS; w += 2) {
            unsigned fa[4] = {upper[w], lower[w], upper[w + 1], lower[w + 1]}, fb[2] = {y[w], y[w + 1]};
            mma_tf32(c[0], c[1], c[2], c[3], fa, fb);
        }
    }

    // The numbers of row + step from k on: the nearest tf32, and what is left of each, cut off to tf32, which changes a quarter of them, by 2^-23 of the
    // number. An infinity is 1 + infinity: infinity - infinity were NaN, and so would be its products with a low part that is zero or of the other sign.
    template <class P>
    __device__ __forceinline__ static void split(const P& panel, int row, int step, int k, unsigned (&to)[2][KS]) {
        float v[1][KS];
        panel.read(row, step, k, v);
        #pragma unroll
        for (int w = 0; w < KS; w++) {
            unsigned high = (__float_as_uint(v[0][w]) + 0x1000u) & 0xffffe000u;
            if (fabsf(__uint_as_float(high)) == __uint_as_float(0x7f800000u)) high ^= 0x40000000u;
            to[0][w] = high;
            to[1][w] = __float_as_uint(v[0][w] - __uint_as_float(high)) & 0xffffe000u;  // NaN, if v is
        }
    }
};
