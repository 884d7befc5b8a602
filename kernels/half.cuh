// float16 as kernels store it: two bytes, a float as soon as anything is computed. Headers of CUDA's are not found by every NVRTC here (CuPy 13 and
// minidcnn/backend/cuda/compiler.py name no folder of them), so the type is our own.
//
// Reading widens exactly; writing rounds to nearest, ties to even, and what is beyond 65504 becomes infinite. The PTX is one conversion each way; the
// simulator has the same in C++.
#pragma once

#ifdef CUDASIM

__device__ __forceinline__ unsigned short half_bits(float v) {
    unsigned u = __float_as_uint(v), sign = u >> 16 & 0x8000u;
    u &= 0x7fffffffu;
    if (u > 0x7f800000u) return 0x7fff;                    // NaN, as cvt makes it
    if (u >= 0x477ff000u) return sign | 0x7c00u;           // 65520 and more
    if (u < 0x38800000u) return sign | (__float_as_uint(__uint_as_float(u) + 0.5f) - 0x3f000000u);  // below 2^-14: whole multiples of 2^-24
    return sign | ((u + 0xfffu + (u >> 13 & 1u) - 0x38000000u) >> 13);
}
__device__ __forceinline__ float half_value(unsigned short bits) {
    unsigned magnitude = bits & 0x7fffu, sign = (bits & 0x8000u) << 16;
    if (magnitude >= 0x7c00u) return __uint_as_float(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
    if (magnitude >= 0x400u) return __uint_as_float(sign | ((magnitude << 13) + 0x38000000u));
    return __uint_as_float(sign | __float_as_uint(magnitude * 5.9604644775390625e-8f));  // 2^-24
}

#else

__device__ __forceinline__ unsigned short half_bits(float v) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(v));
    return bits;
}
__device__ __forceinline__ float half_value(unsigned short bits) {
    float v;
    asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(bits));
    return v;
}

#endif

struct Half {
    unsigned short bits;
    Half() = default;
    __device__ __forceinline__ explicit Half(float v) : bits(half_bits(v)) {}
    __device__ __forceinline__ operator float() const { return half_value(bits); }
};
