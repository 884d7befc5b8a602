// wgmma: products of four warps, whose factors the tensor cores read from shared memory by themselves.
//
// Written after the documentation of wgmma.mma_async in PTX, not after the kernels' use of it: a descriptor is decoded, each element's address
// follows from the canonical layout that it names, and the swizzle exchanges address bits. A product happens as late as its wait allows, so that whoever
// overwrites a factor too early, or reads sums before they are waited for, gets wrong numbers; or with late_copies off at once.
// Check mode asks for more. Its reads of shared memory, once when it is begun and once when it ends, are accesses like any other, and what
// they find must have been made visible to the asynchronous proxy by a fence of the thread that wrote it, before the barrier in between.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "scheduler.h"

namespace sim {

constexpr int ROWS = 64, ROW_BYTES = 32;  // of the first factor; of k, in each factor

static float from_half(uint16_t bits) {
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    float size = exponent == 31 ? (fraction ? NAN : INFINITY) : std::ldexp(float(exponent ? fraction + 1024 : fraction), (exponent ? exponent : 1) - 25);
    return bits >> 15 ? -size : size;
}
static const std::vector<float> halves = [] {
    std::vector<float> all(1 << 16);
    for (int bits = 0; bits < 1 << 16; bits++) all[bits] = from_half(uint16_t(bits));
    return all;
}();

// A factor's rows x K numbers, as the descriptor says where they lie. Lines are 16 bytes; `wide` lines are swizzled together.
std::vector<float> Scheduler::factor(uint64_t descriptor, int rows, Factors factors, bool across, const void* code) {
    const size_t start = (descriptor & 0x3fff) << 4, leading = (descriptor >> 16 & 0x3fff) << 4, stride = (descriptor >> 32 & 0x3fff) << 4;
    const int mode = descriptor >> 62, size = factors == F16 ? 2 : 4, depth = ROW_BYTES / size, per_line = 16 / size;
    const size_t wide = mode == 0 ? 1 : size_t(16) >> mode;  // 1: 128 bytes, 2: 64, 3: 32
    if (descriptor & ~(0x3fffull | 0x3fffull << 16 | 0x3fffull << 32 | 3ull << 62))
        fail("a wgmma descriptor %#zx with a base offset or reserved bits, which the simulator does not know @code%#zx", size_t(descriptor), in_library(code));
    std::vector<float> result(rows * depth);
    for (int row = 0; row < rows; row++)
        for (int k = 0; k < depth; k++) {
            size_t at;
            if (!across) at = row % 8 * wide * 16 + row / 8 * stride + (mode ? k / per_line * 16 : k / per_line * leading) + k % per_line * size;
            else if (mode) at = row / per_line % wide * 16 + row / (per_line * wide) * leading + k % 8 * wide * 16 + k / 8 * stride + row % per_line * size;
            else at = row / per_line * stride + k % 8 * 16 + k / 8 * leading + row % per_line * size;
            at += start;
            at ^= (at >> 7 & (wide - 1)) << 4;
            if (at + size > ARENA) fail("OUT OF BOUNDS: a wgmma reads shared memory at offset %zu @code%#zx", at, in_library(code));
            uint32_t bits = 0;
            memcpy(&bits, arena + at, size);
            if (checking) access(arena + at, size, READ, code);
            if (checking) {
                const Cell& cell = shared[at / 2];
                if (cell.write_fences >= threads[cell.write_thread].ordered_fences)
                    fail("UNFENCED: a wgmma reads shared memory at offset %zu that thread %u wrote @code%#zx, without fence.proxy.async before the barrier @code%#zx",
                         at, cell.write_thread, in_library(cell.write_at), in_library(code));
            }
            if (factors == F16) result[row * depth + k] = halves[bits];
            else {
                bits &= 0xffffe000;  // not rounded
                memcpy(&result[row * depth + k], &bits, 4);
            }
        }
    return result;
}

void Scheduler::multiply(Wgmma& product, int warpgroup) {
    const std::vector<float> a = factor(product.a, ROWS, product.factors, product.a_across, product.code);
    const std::vector<float> b = factor(product.b, product.n, product.factors, product.b_across, product.code);
    const int depth = ROW_BYTES / (product.factors == F16 ? 2 : 4), held = product.n / 2;
    for (int t = 0; t < 128; t++) {
        std::vector<float>& sums = threads[warpgroup * 128 + t].sums;
        for (int r = 0; r < held; r++) {
            float& mine = *product.registers[t * held + r];
            if (memcmp(&mine, &sums[r], sizeof mine)) fail("thread %d wrote registers of a wgmma under way @code%#zx", t, in_library(product.code));
            int row = t / 32 * 16 + t % 32 / 4 + r / 2 % 2 * 8, column = r / 4 * 8 + t % 4 * 2 + r % 2;
            float sum = 0;
            for (int k = 0; k < depth; k++) sum += a[row * depth + k] * b[column * depth + k];
            sums[r] = mine += sum;
        }
    }
    product.done = true;
    product.registers = {};
}

void Scheduler::warpgroup_multiply(float* const* registers, int n, Factors factors, bool a_across, bool b_across, uint64_t a, uint64_t b, const void* code) {
    Thread& me = threads[current];
    Warpgroup& group = warpgroups[current / 128];
    const int held = n / 2;
    const size_t at = in_library(code);
    if ((current / 128 + 1) * 128 > count) fail("a wgmma needs four whole warps @code%#zx", at);
    if (n % 8 || n < 8 || n > 256) fail("a wgmma of %d columns @code%#zx", n, at);
    if (factors == TF32 && (a_across || b_across)) fail("a wgmma reads tf32 along k only @code%#zx", at);
    std::vector<float> sums(held);
    for (int r = 0; r < held; r++) sums[r] = *registers[r];
    if (me.sums.size() != sums.size() || memcmp(me.sums.data(), sums.data(), held * sizeof(float))) {
        if (!me.fenced) fail("a wgmma adds to registers that were written without wgmma.fence @code%#zx", at);
        if (me.waited < me.begun) fail("registers of a wgmma under way were written before another one @code%#zx", at);
        me.sums = sums;
    }
    if (me.begun == group.products.size()) {
        group.products.push_back({a, b, n, factors, a_across, b_across, code, false, 0, {}, std::vector<float*>(128 * held)});
        std::fill_n(group.products.back().group, 128, -1);
    }
    Wgmma& product = group.products[me.begun++];
    if (product.a != a || product.b != b || product.n != n || product.factors != factors || product.a_across != a_across || product.b_across != b_across)
        fail("threads of one warpgroup begin different wgmmas @code%#zx and @code%#zx", in_library(product.code), at);
    std::copy_n(registers, held, product.registers.begin() + current % 128 * held);
    if (++product.begun < 128) return;
    if (!launch.late_copies) {
        multiply(product, current / 128);
    } else if (checking) {  // it may read from now on
        factor(a, ROWS, factors, a_across, code);
        factor(b, n, factors, b_across, code);
    }
}

void Scheduler::warpgroup_commit() {
    Thread& me = threads[current];
    for (; me.committed < me.begun; me.committed++) warpgroups[current / 128].products[me.committed].group[current % 128] = me.product_groups;
    me.product_groups++;
}

// Who waits for something waits for all 128 threads; the last to come carries out what they wait for.
void Scheduler::warpgroup_wait(int groups_left, const void* code) {
    Thread& me = threads[current];
    Warpgroup& group = warpgroups[current / 128];
    const int first = current / 128 * 128;
    me.waits_for = me.product_groups - groups_left;
    size_t end = me.waited;
    while (end < me.committed && group.products[end].group[current % 128] < me.waits_for) end++;
    if (end == me.waited) return;
    me.waited = end;
    me.state = AT_WGMMA_WAIT;
    if (++group.waiting == 128) {
        group.waiting = 0;
        for (int t = first; t < first + 128; t++)
            if (threads[t].waited != end) fail("threads of one warpgroup wait for different wgmmas @code%#zx", in_library(code));
        for (size_t i = 0; i < end; i++) {
            Wgmma& product = group.products[i];
            if (!product.done) multiply(product, current / 128);
        }
        for (int t = first; t < first + 128; t++) {
            threads[t].state = READY;
            threads[t].fenced = false;
        }
    }
    yield();
}

}  // namespace sim
