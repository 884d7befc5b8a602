// Tensor-core products, in PTX. Each primitive has a second definition in C++ for the simulator, with the same fragments, so that the
// kernels above it are one and the same source.
//
// Fragments of mma.sync.m16n8kK, by lane (g = lane / 4, t = lane % 4), as PTX's documentation of the instruction lays them out:
//     result   c[r] is row g + 8 (r / 2), column 2 t + r % 2
//     tf32     K = 8:  a[i] is row g + 8 (i % 2), k = t + 4 (i / 2);   b[i] is k = t + 4 i, column g
//     bf16     K = 16: two ks in a register, the lower in the lower half: a[i] is row g + 8 (i % 2), k = 2 t + 8 (i / 2) and the next;
//              b[i] is k = 2 t + 8 i and the next, column g; f16 the same
// tests/test_cuda_ptx.py runs what NVRTC makes of the assembly on the simulator. Not yet confirmed on a device; tests/gpu will do that before anything
// else is believed.
#pragma once
#include "half.cuh"

#ifdef CUDASIM

// float -> the nearest tf32 (10 bits of mantissa), ties away from zero, as cvt.rna does.
__device__ __forceinline__ unsigned to_tf32(float v) { return (__float_as_uint(v) + 0x1000u) & 0xffffe000u; }
// Two floats -> two bf16, nearest, ties to even, as cvt.rn does.
__device__ __forceinline__ unsigned to_bf16(float low, float high) {
    auto round = [](float v) {
        unsigned u = __float_as_uint(v);
        return v != v ? 0x7fffu : (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
    };
    return round(low) | round(high) << 16;
}

inline void mma(sim::Factors kind, float& c0, float& c1, float& c2, float& c3, const unsigned (&a)[4], const unsigned (&b)[2], int line) {
    float c[4] = {c0, c1, c2, c3};
    sim::mma(kind, a, b, c, line);
    c0 = c[0], c1 = c[1], c2 = c[2], c3 = c[3];
}
#define MMA(name, kind)                                                                                                                       \
    inline void name(float& c0, float& c1, float& c2, float& c3, const unsigned (&a)[4], const unsigned (&b)[2], int line = __builtin_LINE()) { \
        mma(sim::kind, c0, c1, c2, c3, a, b, line);                                                                                            \
    }
MMA(mma_tf32, TF32)
MMA(mma_f16, F16)
MMA(mma_bf16, BF16)

#else

__device__ __forceinline__ unsigned to_tf32(float v) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(v));
    return bits;
}
__device__ __forceinline__ unsigned to_bf16(float low, float high) {
    unsigned bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));  // the first source becomes the upper half
    return bits;
}
__device__ __forceinline__ void mma_tf32(float& c0, float& c1, float& c2, float& c3, const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_f16(float& c0, float& c1, float& c2, float& c3, const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_bf16(float& c0, float& c1, float& c2, float& c3, const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif
