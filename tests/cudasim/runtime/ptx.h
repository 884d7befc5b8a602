// What PTX instructions mean, for kernels that ptx.py has turned into C++: each is a function with the instruction's name, its result first.
//
// Written after the documentation of each instruction in PTX. Registers are unsigned numbers of 16, 32 or 64 bits, or bool; the type of an
// instruction says how their lower bits are to be read. What is approximate on a GPU is exact here.
#pragma once
#include <cfenv>

#include "device.h"

namespace ptx {

// -- registers, parameters and places in memory -------------------------------------------------------------------------------------------

// A parameter: what it holds is known to the instruction that reads it only.
template <size_t SIZE, size_t ALIGN> struct Bits { alignas(ALIGN) char bytes[SIZE]; };

template <class T, class From> inline T get(From from) {
    if constexpr (std::is_same_v<T, bool>) return from & 1;
    else {
        uint64_t bits = from;
        T value;
        memcpy(&value, &bits, sizeof value);  // the lower bytes
        return value;
    }
}
template <class T, class To> inline void put(To& to, T value) {
    if constexpr (std::is_integral_v<T>) to = static_cast<To>(value);  // a signed number widens as one
    else {
        static_assert(sizeof(To) == sizeof(T));
        memcpy(&to, &value, sizeof to);
    }
}
inline float* number(uint32_t& held) { return reinterpret_cast<float*>(&held); }

inline uint64_t address(unsigned shared) { return shared; }
inline uint64_t address(const char* local) { return reinterpret_cast<uintptr_t>(local); }
template <size_t SIZE, size_t ALIGN> inline uint64_t address(Bits<SIZE, ALIGN>& parameter) { return address(parameter.bytes); }

enum Space { GENERIC, GLOBAL, LOCAL, PARAM, CONST, SHARED };
template <Space SPACE> inline char* place(uint64_t base, int64_t offset) {
    if constexpr (SPACE == SHARED) return static_cast<char*>(sim::dynamic_shared()) + static_cast<uint32_t>(base + offset);
    else return reinterpret_cast<char*>(base + offset);
}

// What the memory of a warp has to do for it (traffic.cpp) is counted where TRAFFIC is defined.
template <Space SPACE> inline void touch([[maybe_unused]] const char* at, [[maybe_unused]] size_t bytes, [[maybe_unused]] sim::Access kind) {
#ifdef TRAFFIC
    if constexpr (SPACE == SHARED || SPACE == GLOBAL) sim::count_access(at, bytes, kind, SPACE == SHARED);
#endif
}

template <class T, size_t N> struct alignas(sizeof(T) * N) Pack { T values[N]; };
template <class T, Space SPACE, class... To> inline void load(uint64_t base, int64_t offset, To&... to) {
    const char* from = place<SPACE>(base, offset);
    touch<SPACE>(from, sizeof(T) * sizeof...(To), sim::READ);
    if constexpr (sizeof...(To) == 1) (put(to, *reinterpret_cast<const T*>(from)), ...);
    else {
        Pack<T, sizeof...(To)> pack = *reinterpret_cast<const Pack<T, sizeof...(To)>*>(from);
        size_t i = 0;
        (put(to, pack.values[i++]), ...);
    }
}
template <class T, Space SPACE, class... From> inline void store(uint64_t base, int64_t offset, From... from) {
    char* to = place<SPACE>(base, offset);
    touch<SPACE>(to, sizeof(T) * sizeof...(From), sim::WRITE);
    if constexpr (sizeof...(From) == 1) *reinterpret_cast<T*>(to) = (get<T>(from), ...);
    else *reinterpret_cast<Pack<T, sizeof...(From)>*>(to) = {{get<T>(from)...}};
}
inline void copy(char* to, const char* from, size_t bytes, uint64_t given) {
    touch<SHARED>(to, bytes, sim::WRITE);
    if (given) touch<GLOBAL>(from, bytes, sim::READ);
    sim::async_copy(to, from, bytes, bytes - std::min<size_t>(bytes, static_cast<uint32_t>(given)));
}

// {a, b, ...} as one register and back, the first in the lowest bits.
template <class To, class... From> inline void pack(To& to, From... from) {
    constexpr int width = 8 * sizeof(To) / sizeof...(From);
    uint64_t all = 0;
    int at = 0;
    ((all |= (static_cast<uint64_t>(from) & ((1ull << width) - 1)) << at, at += width), ...);
    to = static_cast<To>(all);
}
struct Sink {};  // "_": a half that nobody wants
constexpr Sink sink;
template <class A> inline void unpack(A& a, Sink, uint64_t from) { a = static_cast<A>(from); }
template <class B> inline void unpack(Sink, B& b, uint64_t from) { b = static_cast<B>(from >> 8 * sizeof(B)); }
template <class A, class B> inline void unpack(A& a, B& b, uint64_t from) {
    static_assert(sizeof(A) == sizeof(B));
    a = static_cast<A>(from);
    b = static_cast<B>(from >> 8 * sizeof(A));
}

// -- arithmetic: integers wrap, which signed numbers of C++ may not -----------------------------------------------------------------------

template <class T, bool = std::is_integral_v<T>> struct Wrapping { using type = T; };
template <class T> struct Wrapping<T, true> { using type = std::make_unsigned_t<T>; };
template <> struct Wrapping<bool, true> { using type = bool; };
template <class T> using wrapping = typename Wrapping<T>::type;
template <class T> using wide = std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>;

#define UNARY(name, expression)                                                         \
    template <class T, class D, class A> inline void name##_(D& d, A given) {           \
        using W [[maybe_unused]] = wrapping<T>;                                         \
        T a = get<T>(given);                                                            \
        put<T>(d, static_cast<T>(expression));                                          \
    }
#define BINARY(name, expression)                                                        \
    template <class T, class D, class A, class B> inline void name##_(D& d, A x, B y) { \
        using W [[maybe_unused]] = wrapping<T>;                                         \
        T a = get<T>(x), b = get<T>(y);                                                 \
        put<T>(d, static_cast<T>(expression));                                          \
    }
UNARY(mov, a)
UNARY(neg, -W(a))
UNARY(abs, std::abs(a))
UNARY(sqrt, std::sqrt(a))
UNARY(rcp, 1 / a)
UNARY(rcp_approx, 1 / a)
UNARY(ex2_approx, std::exp2(a))
UNARY(lg2_approx, std::log2(a))
UNARY(rsqrt_approx, 1 / std::sqrt(a))
BINARY(add, W(a) + W(b))
BINARY(sub, W(a) - W(b))
BINARY(mul, W(a) * W(b))
BINARY(div, a / b)
BINARY(rem, a % b)
BINARY(min, ::min(a, b))
BINARY(max, ::max(a, b))
BINARY(and, a & b)
BINARY(or, a | b)
BINARY(xor, a ^ b)

template <class T, class D, class A> inline void not_(D& d, A a) {
    if constexpr (std::is_same_v<T, bool>) d = !a;
    else put<T>(d, static_cast<T>(~get<T>(a)));
}
template <class T, class D, class A, class B> inline void mul_wide_(D& d, A a, B b) { d = static_cast<D>(wide<T>(get<T>(a)) * wide<T>(get<T>(b))); }
template <class T, class D, class A, class B, class C> inline void mad_(D& d, A a, B b, C c) {
    using W = wrapping<T>;
    put<T>(d, static_cast<T>(W(get<T>(a)) * W(get<T>(b)) + W(get<T>(c))));
}
template <class T, class D, class A, class B, class C> inline void fma_(D& d, A a, B b, C c) { put<T>(d, std::fma(get<T>(a), get<T>(b), get<T>(c))); }
template <class T, class D, class A, class B, class C> inline void fma_rm_(D& d, A a, B b, C c) {  // rounded down
    std::fesetround(FE_DOWNWARD);
    volatile T x = get<T>(a);
    volatile T sum = std::fma(x, get<T>(b), get<T>(c));
    std::fesetround(FE_TONEAREST);
    put<T>(d, T(sum));
}

// Shifts by more than a register has fill it with zeros, or with the sign.
template <class T, class D, class A, class B> inline void shl_(D& d, A a, B by) {
    uint32_t n = get<uint32_t>(by);
    put<T>(d, n < 8 * sizeof(T) ? static_cast<T>(get<T>(a) << n) : T(0));
}
template <class T, class D, class A, class B> inline void shr_(D& d, A a, B by) {
    uint32_t n = std::min<uint32_t>(get<uint32_t>(by), 8 * sizeof(T));
    T value = get<T>(a);
    put<T>(d, static_cast<T>(n < 8 * sizeof(T) ? value >> n : value < 0 ? T(-1) : T(0)));
}
template <class T, class D, class A, class B, class P, class L> inline void bfi_(D& d, A field, B base, P position, L length) {
    uint32_t at = get<uint8_t>(position), count = get<uint8_t>(length);
    uint64_t mask = (count < 64 ? (1ull << count) - 1 : ~0ull) << at;
    d = static_cast<D>((static_cast<uint64_t>(base) & ~mask) | (static_cast<uint64_t>(field) << at & mask));
}
template <class T, class D, class A, class B, class C> inline void prmt_(D& d, A a, B b, C selector) {
    uint64_t bytes = get<uint32_t>(a) | static_cast<uint64_t>(get<uint32_t>(b)) << 32;
    uint32_t picks = get<uint32_t>(selector), result = 0;
    for (int i = 0; i < 4; i++) {
        uint32_t pick = picks >> 4 * i & 15, byte = bytes >> 8 * (pick & 7) & 255;
        if (pick & 8) byte = byte & 128 ? 255 : 0;
        result |= byte << 8 * i;
    }
    d = result;
}

// -- comparisons: those that end in u are true where a number is none -----------------------------------------------------------------------

#define COMPARE(name, expression)                                                              \
    template <class T, class A, class B> inline void setp_##name##_(bool& d, A x, B y) {       \
        T a = get<T>(x), b = get<T>(y);                                                        \
        d = expression;                                                                        \
    }
COMPARE(eq, a == b)
COMPARE(ne, a != b && a == a && b == b)
COMPARE(lt, a < b)
COMPARE(le, a <= b)
COMPARE(gt, a > b)
COMPARE(ge, a >= b)
COMPARE(equ, !(a != b && a == a && b == b))
COMPARE(neu, a != b)
COMPARE(ltu, !(a >= b))
COMPARE(leu, !(a > b))
COMPARE(gtu, !(a <= b))
COMPARE(geu, !(a < b))
COMPARE(num, a == a && b == b)
COMPARE(nan, a != a || b != b)
template <class T, class D, class A, class B> inline void selp_(D& d, A a, B b, bool p) { put<T>(d, p ? get<T>(a) : get<T>(b)); }

// -- conversions ---------------------------------------------------------------------------------------------------------------------------

template <class To, class From, class D, class A> inline void cvt_(D& d, A a) { put<To>(d, static_cast<To>(get<From>(a))); }
template <class T, class D, class A> inline void cvta_(D& d, A a) { d = a; }
template <class T, class D, class A> inline void cvta_to_global_(D& d, A a) { d = a; }
template <class T, class D, class A> inline void cvta_to_shared_(D& d, A a) { d = sim::shared_address(reinterpret_cast<void*>(a)); }
template <class T, class D, class A> inline void cvta_shared_(D& d, A a) { d = address(place<SHARED>(a, 0)); }
template <class T, class D, class A> inline void cvta_local_(D& d, A a) { d = a; }
template <class D, class A> inline void cvt_sat_f32_f32_(D& d, A given) {
    float a = get<float>(given);
    put<float>(d, a > 0 ? std::min(a, 1.0f) : 0.0f);  // NaN becomes 0
}
template <class D, class A> inline void cvt_rzi_f64_f64_(D& d, A a) { put<double>(d, std::trunc(get<double>(a))); }
template <class D, class A> inline void cvt_f16_f32_(D& d, A a) {
    float value = get<float>(a);
    _Float16 half = static_cast<_Float16>(value);
    d = value != value ? 0x7fff : sim_bits<uint16_t>(half);
}
template <class D, class A> inline void cvt_f32_f16_(D& d, A a) { put<float>(d, sim::half_number(get<uint16_t>(a))); }
inline uint32_t as_bf16(uint32_t bits) {
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
    uint32_t rest = bits & 0xffff, kept = bits >> 16;
    return rest > 0x8000 || (rest == 0x8000 && kept & 1) ? kept + 1 : kept;
}
template <class D, class A, class B> inline void cvt_bf16x2_f32_(D& d, A upper, B lower) {
    d = as_bf16(get<uint32_t>(upper)) << 16 | as_bf16(get<uint32_t>(lower));
}
template <class D, class A> inline void cvt_rna_tf32_f32_(D& d, A a) {  // nearest, halves away from zero
    uint32_t bits = get<uint32_t>(a);
    d = (bits & 0x7fffffff) > 0x7f800000 ? 0x7fffffff : (bits & 0xffffe000) + (bits & 0x1000) * 2;
}

// -- barriers, atomics and tensor cores ----------------------------------------------------------------------------------------------------

inline void vote(bool& d, bool predicate, sim::Vote kind, int line) {
    int votes = predicate;
    sim::sync_block(line, kind, &votes);
    d = votes;
}

#define ATOMIC(name, function)                                                                                             \
    template <class T, class... Operands> inline void atomic_##name(char* at, Operands&&... given) {                       \
        auto run = [at](auto... values) { return function(reinterpret_cast<T*>(at), values...); };                         \
        keep<T>(run, given...);                                                                                            \
    }
// With a result in front of the values, or without.
template <class T, class F, class D, class V> inline void keep(F run, D& d, V value) { put<T>(d, run(get<T>(value))); }
template <class T, class F, class V> inline void keep(F run, V value) { run(get<T>(value)); }
ATOMIC(add, atomicAdd)
ATOMIC(min, atomicMin)
ATOMIC(max, atomicMax)
ATOMIC(exch, atomicExch)

inline void mma(sim::Factors factors, const uint32_t (&a)[4], const uint32_t (&b)[2], uint32_t (&c)[4], int line) {
    float sums[4];
    memcpy(sums, c, sizeof sums);
    sim::mma(factors, a, b, sums, line);
    memcpy(c, sums, sizeof sums);
}
template <class... To> inline void take(const uint32_t (&from)[4], To&... to) {
    int i = 0;
    ((to = from[i++]), ...);
}

}  // namespace ptx

template <size_t SIZE, size_t ALIGN> constexpr bool sim::untyped<ptx::Bits<SIZE, ALIGN>> = true;
