// Memory checks for CUDA's memory model: out of bounds, races, reads of shared memory that nobody wrote.
//
// In check mode the kernel is compiled with -fsanitize=thread, which puts a call before every access. The library behind that option is
// not linked: these are its functions, and they apply the rules of a GPU instead. Two accesses of different threads to the same bytes,
// one of them a write, race unless a __syncthreads (same block) or a __syncwarp (same warp) lies between them; blocks are never ordered;
// atomics do not race with atomics. -fsanitize=undefined is served the same way at the end of this file.
#include <cstdio>
#include <cstdlib>

#include "scheduler.h"

namespace sim {

void Scheduler::race(const char* what, const void* address, uint32_t other_block, uint32_t other, const void* earlier, const void* code) {
    bool is_shared = address >= arena && address < arena + ARENA;
    unsigned x = launch.block[0], y = launch.block[1];
    fail("RACE (%s) on %s memory at %p: this access @code%#zx, an earlier one by block %u, thread (%u,%u,%u) @code%#zx, no barrier between", what,
         is_shared ? "shared" : "global", address, in_library(code), other_block, other % x, other / x % y, other / x / y, in_library(earlier));
}

// The cell of `address`, or nullptr where accesses need no check: the running thread's own stack, constants, threadIdx and the like.
Cell* Scheduler::find_cell(char* p, size_t bytes, Access kind, const void* code, bool& is_shared, int& grain) {
    const char* verb = kind == READ ? "read" : "write";
    if (p >= reinterpret_cast<char*>(&registers) && p < reinterpret_cast<char*>(&registers + 1)) return nullptr;
    if (p >= arena && p < arena + ARENA) {
        size_t offset = p - arena;
        bool inside = offset + bytes <= launch.shared_bytes;
        for (const SharedArray& a : shared_arrays) inside = inside || (offset >= a.offset && offset + bytes <= a.offset + a.bytes);
        if (!inside) fail("OUT OF BOUNDS shared %s of %zu bytes at offset %zu @code%#zx", verb, bytes, offset, in_library(code));
        is_shared = true;
        grain = 2;
        return &shared[offset / 2];
    }
    for (Shadow& s : global)
        if (p >= s.start && p + bytes <= s.start + s.bytes) {
            grain = s.itemsize;
            return &s.cells[(p - s.start) / s.itemsize];
        }
    for (const Shadow& s : global)
        if (p + GUARD > s.start && p < s.start + s.bytes + GUARD)
            fail("OUT OF BOUNDS global %s of %zu bytes, %td bytes %s an array of %zu bytes @code%#zx", verb, bytes,
                 p < s.start ? s.start - p : p - (s.start + s.bytes), p < s.start ? "before" : "past the end of", s.bytes, in_library(code));
    if (p >= running->stack && p + bytes <= running->stack + STACK) return nullptr;
    if (p >= kernel.low && p < kernel.high && kind == READ) return nullptr;
    for (const Fiber* f : fibers)
        if (p >= f->stack && p < f->stack + STACK) fail("access to another thread's local memory @code%#zx", in_library(code));
    fail("INVALID %s of %zu bytes at %p: neither an argument nor shared nor local memory @code%#zx", verb, bytes, static_cast<void*>(p), in_library(code));
}

void Scheduler::access(const void* address, size_t bytes, Access kind, const void* code) {
    char* p = static_cast<char*>(const_cast<void*>(address));
    bool is_shared = false;
    int grain = 1;
    Cell* cell = find_cell(p, bytes, kind, code, is_shared, grain);
    if (!cell) return;
    uint32_t me = current, warp_epoch = warps[me / 32].epoch;
    auto unordered = [&](uint32_t other_block, uint64_t other_epoch, uint32_t other, uint32_t other_warp_epoch) {
        if (other_block != block) return true;
        bool warp_barrier_between = other / 32 == me / 32 && other_warp_epoch != warp_epoch;
        return other_epoch == epoch && other != me && !warp_barrier_between;
    };
    for (size_t i = 0; i < bytes; i += grain, cell++) {
        if (is_shared && kind != WRITE && !cell->written)
            fail("UNINITIALISED shared read at offset %td @code%#zx", p - arena, in_library(code));
        bool both_atomic = kind == ATOMIC && cell->atomic;
        if (cell->write_epoch && !both_atomic && unordered(cell->write_block, cell->write_epoch, cell->write_thread, cell->write_warp_epoch))
            race(kind == READ ? "read after write" : "write after write", p, cell->write_block, cell->write_thread, cell->write_at, code);
        if (kind == READ) {
            if (cell->read_block != block) cell->read_epoch[0] = cell->read_epoch[1] = 0;
            int slot = cell->read_epoch[0] == epoch && cell->read_thread[0] != me ? 1 : 0;
            cell->read_block = block;
            cell->read_epoch[slot] = epoch;
            cell->read_thread[slot] = me;
            cell->read_warp_epoch[slot] = warp_epoch;
            cell->read_at = code;
        } else {
            for (int r = 0; r < READERS; r++)
                if (cell->read_epoch[r] && unordered(cell->read_block, cell->read_epoch[r], cell->read_thread[r], cell->read_warp_epoch[r]))
                    race("write after read", p, cell->read_block, cell->read_thread[r], cell->read_at, code);
            cell->write_block = block;
            cell->write_epoch = epoch;
            cell->write_thread = me;
            cell->write_warp_epoch = warp_epoch;
            cell->write_fences = threads[me].proxy_fences;
            cell->write_at = code;
            cell->written = true;
            cell->atomic = kind == ATOMIC;
        }
    }
}

}  // namespace sim

// -- what -fsanitize=thread calls -------------------------------------------------------------------------------------------------------

using sim::READ;
using sim::scheduler;
using sim::WRITE;

#define ACCESS(name, bytes, kind) \
    extern "C" void name(void* p) { if (scheduler) scheduler->access(p, bytes, kind, __builtin_return_address(0)); }
#define ACCESSES(n)                                                                                         \
    ACCESS(__tsan_read##n, n, READ) ACCESS(__tsan_write##n, n, WRITE)                                       \
    ACCESS(__tsan_unaligned_read##n, n, READ) ACCESS(__tsan_unaligned_write##n, n, WRITE)                   \
    ACCESS(__tsan_volatile_read##n, n, READ) ACCESS(__tsan_volatile_write##n, n, WRITE)
ACCESSES(1) ACCESSES(2) ACCESSES(4) ACCESSES(8) ACCESSES(16)
extern "C" void __tsan_read_range(void* p, size_t n) { if (scheduler && n) scheduler->access(p, n, READ, __builtin_return_address(0)); }
extern "C" void __tsan_write_range(void* p, size_t n) { if (scheduler && n) scheduler->access(p, n, WRITE, __builtin_return_address(0)); }
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_init() {}

// -- what -fsanitize=undefined calls: the data of every handler begins with the place ------------------------------------------------------

struct Place { const char* file; uint32_t line, column; };
static void undefined(const char* what, const Place* place) {
    if (scheduler) scheduler->fail("%s at %s:%u", what, place->file, place->line);
    abort();
}
#define HANDLER(name, what) extern "C" void __ubsan_handle_##name##_abort(Place* place, ...) { undefined(what, place); }
HANDLER(out_of_bounds, "INDEX OUT OF BOUNDS of an array type")
HANDLER(type_mismatch_v1, "MISALIGNED or null access")
HANDLER(shift_out_of_bounds, "SHIFT out of range")
HANDLER(add_overflow, "INTEGER OVERFLOW in +")
HANDLER(sub_overflow, "INTEGER OVERFLOW in -")
HANDLER(mul_overflow, "INTEGER OVERFLOW in *")
HANDLER(negate_overflow, "INTEGER OVERFLOW in negation")
HANDLER(divrem_overflow, "DIVISION by zero or overflow")
HANDLER(float_cast_overflow, "FLOAT to int out of range")
