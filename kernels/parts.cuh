// What follows a sum that was split into parts, in every module that has one.
#pragma once
#include "common.cuh"

// parts (P, count) -> out (count,): the sum over the parts, in order: the same bits every time. Traffic: P + 1 numbers per element.
extern "C" __global__ void __launch_bounds__(256) sum_parts(const Sum* __restrict__ parts, Real* __restrict__ out, int part_count, int count) {
    FOR_EACH(e, count) {
        Sum total = 0;
        for (int p = 0; p < part_count; p++) total += parts[p * count + e];
        out[e] = Real(total);
    }
}
