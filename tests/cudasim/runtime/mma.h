// mma.sync: the product of two small matrices whose numbers lie spread over the registers of a warp's 32 lanes.
//
// Fragments of m16n8kK, by lane (g = lane / 4, t = lane % 4), as PTX's documentation of the instruction lays them out:
//     result   c[r] is row g + 8 (r / 2), column 2 t + r % 2
//     tf32     K = 8:  a[i] is row g + 8 (i % 2), k = t + 4 (i / 2);   b[i] is k = t + 4 i, column g
//     f16      K = 16: two ks in a register, the lower in the lower half: a[i] is row g + 8 (i % 2), k = 2 t + 8 (i / 2) and the next;
//     and bf16 b[i] is k = 2 t + 8 i and the next, column g
// tf32 ignores the lower 13 bits. Sums are float, in the order of k, where tensor cores have their own.
#pragma once
#include <cmath>
#include <cstring>

#include "runtime.h"

namespace sim {

inline float number_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
inline float half_number(uint16_t bits) {
    _Float16 half;
    memcpy(&half, &bits, sizeof half);
    return half;
}

struct Fragments {
    Factors factors;
    const uint32_t *a, *b;
    float* c;

    // Number k of row `place` of the left factor, or of column `place` of the right one, from the registers of the lane that holds it.
    SIM_UNCHECKED static float factor(void** lanes, bool left, int place, int k) {
        const bool pairs = static_cast<Fragments*>(lanes[0])->factors != TF32;
        const auto* holder = static_cast<Fragments*>(lanes[place % 8 * 4 + (pairs ? k % 8 / 2 : k % 4)]);
        const int half = pairs ? k / 8 : k / 4;
        const uint32_t bits = left ? holder->a[place / 8 + 2 * half] : holder->b[half];
        if (!pairs) return number_of(bits & 0xffffe000u);
        if (holder->factors == F16) return half_number(static_cast<uint16_t>(k % 2 ? bits >> 16 : bits));
        return number_of(k % 2 ? bits & 0xffff0000u : bits << 16);
    }
    SIM_UNCHECKED static void multiply(void** lanes, unsigned) {
        const int depth = static_cast<Fragments*>(lanes[0])->factors == TF32 ? 8 : 16;
        for (int lane = 0; lane < 32; lane++)
            for (int r = 0; r < 4; r++) {
                float sum = 0;
                for (int k = 0; k < depth; k++) sum += factor(lanes, true, lane / 4 + r / 2 * 8, k) * factor(lanes, false, lane % 4 * 2 + r % 2, k);
                static_cast<Fragments*>(lanes[lane])->c[r] += sum;
            }
    }
};

// c += a b
inline void mma(Factors factors, const uint32_t (&a)[4], const uint32_t (&b)[2], float (&c)[4], int line) {
    Fragments mine{factors, a, b, c};
    warp_collective(~0u, &mine, &Fragments::multiply, line, false);
}

}  // namespace sim
