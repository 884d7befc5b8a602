// Multiplies a stage on tensor cores: factors rounded to tf32 (TENSOR=1) or bf16 (TENSOR=2) on their way from shared memory into fragments, or
// stored in float16 (TENSOR=3) and taken as they are; sums in float. 2 x 4 warps, each with BM / 2 x BN / 4 results.
//
// The hardware adds over k in an order of its own, so it does not matter which k is called which, as long as both factors agree: 16 ks are
// dealt out so that lane t of a row's four holds the neighbours 4 t .. 4 t + 3, one read of 16 bytes. Of these the first two take the
// lane's two places along k in the first product (tf32: k = t and t + 4) and the last two in the second; for 16 bits the first pair is its
// lower register and the last pair its upper one.
#pragma once
#include "mma.cuh"

struct TensorCores : AtOnce {
    static constexpr int MT = BM / 2 / 16, NT = BN / 4 / 8;  // fragments of a warp
    static constexpr int WORDS = TENSOR == 1 ? 4 : 2;        // registers that four numbers take; two to a product
    static_assert(BM % 32 == 0 && BN % 32 == 0 && BK % 16 == 0, "whole fragments");
    static constexpr int ROWS = 2 * MT, COLUMNS = 2 * NT;  // of `result`
    float result[ROWS][COLUMNS];
    int lane, m, n;  // m, n: where the warp begins

    __device__ __forceinline__ TensorCores() : lane(threadIdx.x % 32), m(threadIdx.x / 128 * (BM / 2)), n(threadIdx.x / 32 % 4 * (BN / 4)) {}
    __device__ __forceinline__ int row(int i) const { return m + i / 2 * 16 + i % 2 * 8 + lane / 4; }
    __device__ __forceinline__ int column(int j) const { return n + j / 2 * 8 + j % 2 + lane % 4 * 2; }

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
