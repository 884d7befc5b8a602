// CUDA C++ as far as our kernels use it, for g++: qualifiers, built-in variables, barriers, warp functions, atomics, intrinsics.
// A kernel file is compiled with this header in front of it and nothing else changed but its __shared__ declarations (translate.py).
#pragma once
#include <algorithm>
#include <cfloat>
#include <climits>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "mma.h"
#include "runtime.h"

#define CUDASIM 1
#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __grid_constant__

// -- vector types: their alignment is the device's, so that misaligned vector accesses are found -------------------------------------

struct dim3 { unsigned x = 1, y = 1, z = 1; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

#define threadIdx (sim::registers.thread)
#define blockIdx (sim::registers.block)
#define blockDim (sim::registers.block_dim)
#define gridDim (sim::registers.grid_dim)
constexpr int warpSize = 32;

// -- shared memory and barriers ----------------------------------------------------------------------------------------------------

// Stand where a kernel says `__shared__ T name dims;` and `extern __shared__ T name[];`.
#define SIM_SHARED(T, name, dims, align)                                                              \
    static char name##_key;                                                                           \
    using name##_type = std::remove_reference_t<decltype((*(T(*) dims)nullptr))>;                     \
    auto& name = *static_cast<name##_type*>(                                                          \
        sim::static_shared(&name##_key, sizeof(name##_type), std::max<size_t>(alignof(name##_type), align)))
#define SIM_DYNAMIC_SHARED(T, name) T* name = static_cast<T*>(sim::dynamic_shared())

inline int sim_vote(int line, sim::Vote vote, int predicate) {
    sim::sync_block(line, vote, &predicate);
    return predicate;
}
#define __syncthreads() sim::sync_block(__LINE__, sim::NO_VOTE, nullptr)
#define __syncthreads_or(p) sim_vote(__LINE__, sim::ANY, !!(p))
#define __syncthreads_and(p) sim_vote(__LINE__, sim::ALL, !!(p))
#define __syncthreads_count(p) sim_vote(__LINE__, sim::COUNT, !!(p))

inline unsigned sim_mask(unsigned mask = ~0u) { return mask; }
#define __syncwarp(...) sim::warp_collective(sim_mask(__VA_ARGS__), nullptr, nullptr, __LINE__, true)
inline void __threadfence() {}
inline void __threadfence_block() {}
#define __trap() sim::trap("__trap()", __LINE__)
#undef assert
#define assert(c) ((c) ? (void)0 : sim::trap("assert(" #c ")", __LINE__))

// -- shuffles and votes ----------------------------------------------------------------------------------------------------------------

namespace sim {

template <class T> struct Shuffle {
    T mine, result;
    int source;
};

template <class T> T shuffle(unsigned mask, T mine, int source, int line) {
    Shuffle<T> payload{mine, mine, source};
    warp_collective(mask, &payload, [](void** lanes, unsigned present) SIM_UNCHECKED {
        for (int i = 0; i < 32; i++) {
            if (!(present >> i & 1)) continue;
            auto* me = static_cast<Shuffle<T>*>(lanes[i]);
            if (me->source < 0 || me->source > 31) continue;
            if (present >> me->source & 1) me->result = static_cast<Shuffle<T>*>(lanes[me->source])->mine;
            else if constexpr (std::is_floating_point_v<T>) me->result = NAN;  // undefined on the device: let it show
        }
    }, line, false);
    return payload.result;
}

// Lane `wanted`, or this one where that lies in another segment of `width` lanes.
inline int in_segment(int wanted, int width) {
    int first = registers.lane & ~(width - 1);
    return wanted < first || wanted >= first + width ? registers.lane : wanted;
}

}  // namespace sim

#define SIM_SHUFFLE(name, source)                                                                                            \
    template <class T> inline T name(unsigned mask, T value, int d, int width = 32, int line = __builtin_LINE()) {           \
        [[maybe_unused]] int lane = sim::registers.lane;                                                                     \
        return sim::shuffle(mask, value, source, line);                                                                      \
    }
SIM_SHUFFLE(__shfl_sync, (lane & ~(width - 1)) | (d & (width - 1)))
SIM_SHUFFLE(__shfl_down_sync, sim::in_segment(lane + d, width))
SIM_SHUFFLE(__shfl_up_sync, sim::in_segment(lane - d, width))
SIM_SHUFFLE(__shfl_xor_sync, sim::in_segment(lane ^ d, width))

inline unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    sim::Shuffle<unsigned> payload{static_cast<unsigned>(!!predicate), 0, 0};
    sim::warp_collective(mask, &payload, [](void** lanes, unsigned present) SIM_UNCHECKED {
        unsigned votes = 0;
        for (int i = 0; i < 32; i++)
            if ((present >> i & 1) && static_cast<sim::Shuffle<unsigned>*>(lanes[i])->mine) votes |= 1u << i;
        for (int i = 0; i < 32; i++)
            if (present >> i & 1) static_cast<sim::Shuffle<unsigned>*>(lanes[i])->result = votes;
    }, line, false);
    return payload.result;
}
inline int __any_sync(unsigned mask, int p, int line = __builtin_LINE()) { return __ballot_sync(mask, p, line) != 0; }
inline int __all_sync(unsigned mask, int p, int line = __builtin_LINE()) { return __ballot_sync(mask, !p, line) == 0; }

// -- atomics: real ones, as blocks run on several threads of the host --------------------------------------------------------------------

namespace sim {
template <class T, class F> SIM_UNCHECKED __attribute__((noinline)) T update(T* p, F change) {
    check_access(p, sizeof(T), ATOMIC);
    T before = *static_cast<volatile T*>(p), after;
    do after = change(before);
    while (!__atomic_compare_exchange(p, &before, &after, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return before;
}
}  // namespace sim

template <class T> using sim_same = std::common_type_t<T>;
template <class T> inline T atomicAdd(T* p, sim_same<T> v) { return sim::update(p, [v](T o) { return T(o + v); }); }
template <class T> inline T atomicSub(T* p, sim_same<T> v) { return sim::update(p, [v](T o) { return T(o - v); }); }
template <class T> inline T atomicMax(T* p, sim_same<T> v) { return sim::update(p, [v](T o) { return o > v ? o : v; }); }
template <class T> inline T atomicMin(T* p, sim_same<T> v) { return sim::update(p, [v](T o) { return o < v ? o : v; }); }
template <class T> inline T atomicExch(T* p, sim_same<T> v) { return sim::update(p, [v](T) { return v; }); }
template <class T> inline T atomicCAS(T* p, sim_same<T> c, sim_same<T> v) { return sim::update(p, [c, v](T o) { return o == c ? T(v) : o; }); }

// -- intrinsics ------------------------------------------------------------------------------------------------------------------------

template <class T> inline T __ldg(const T* p) { return *p; }
template <class T> inline T __ldcs(const T* p) { return *p; }
template <class T> inline void __stcs(T* p, T v) { *p = v; }
using std::max;
using std::min;
inline float max(float a, float b) { return fmaxf(a, b); }
inline float min(float a, float b) { return fminf(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __saturatef(float x) { return x < 0 ? 0 : x > 1 ? 1 : x; }
template <class To, class From> inline To sim_bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
inline int __float_as_int(float f) { return sim_bits<int>(f); }
inline float __int_as_float(int i) { return sim_bits<float>(i); }
inline unsigned __float_as_uint(float f) { return sim_bits<unsigned>(f); }
inline float __uint_as_float(unsigned i) { return sim_bits<float>(i); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32); }
