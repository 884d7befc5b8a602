// What a thread moves at once: a run of neighbouring numbers, 16 bytes of them where the launcher says WIDE, else a single one.
//
// With float16 numbers of two bytes, one at a time, a GPU would have to keep far more loads under way than it can. The launcher knows whether runs are
// whole: whether they begin on 16 bytes in all arrays, and what runs along memory is a multiple of RUN (minidcnn/backend/cuda/runs.py).
#pragma once
#include "common.cuh"
#ifndef WIDE
#define WIDE 0
#endif

constexpr int RUN = WIDE ? 16 / sizeof(Real) : 1;
template <typename T> struct alignas(RUN * sizeof(T)) Run { T at[RUN]; };

// The run that begins at element e, a multiple of RUN.
template <typename T> __device__ __forceinline__ Run<T>& run_at(T* array, int e) { return reinterpret_cast<Run<T>&>(array[e]); }
template <typename T> __device__ __forceinline__ const Run<T>& run_at(const T* array, int e) { return reinterpret_cast<const Run<T>&>(array[e]); }

#define FOR_EACH_OF_RUN(j) _Pragma("unroll") for (int j = 0; j < RUN; j++)

// As FOR_EACH_CHANNEL, but in runs: c is the first channel of each. `channels` is a multiple of RUN.
#define FOR_EACH_RUN(c, channels) for (int c = (blockIdx.z * blockDim.x + threadIdx.x) * RUN; c < (channels); c += gridDim.z * blockDim.x * RUN)
