// Blocks, warps and threads on the CPU: a fiber for each CUDA thread that has to wait, blocks spread over the host's threads.
//
// A thread runs until it waits at a barrier or a warp operation. The scheduler then goes on with the same warp as far as it can
// before it turns to the next (depth first: taking warps in turn hid a race), in forward, reverse or random order. Threads that never
// wait share one stack and cost no switch at all.
#include "scheduler.h"

#include <sys/mman.h>
#include <xmmintrin.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#ifndef __x86_64__
#error "the simulator switches fibers with x86-64 instructions"
#endif

// switch_stack(&save, load): keep the callee-saved registers and the stack pointer of one fiber, go on with another's.
extern "C" void switch_stack(void** save, void* load);
asm(".text\n.hidden switch_stack\n.globl switch_stack\n.type switch_stack,@function\nswitch_stack:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\npopq %rcx\njmp *%rcx\n");

namespace sim {

__thread Registers registers;
__thread Scheduler* scheduler;

static uint32_t draw(uint64_t& state) {  // xorshift
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return static_cast<uint32_t>(state >> 16);
}

static char* map_memory(size_t bytes) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        fprintf(stderr, "the simulator found no memory for %zu bytes\n", bytes);
        abort();
    }
    return static_cast<char*>(p);
}

Scheduler::Scheduler(const Kernel& k, void** a, const Launch& l, std::atomic<bool>& s, bool check, int id)
    : checking(check), kernel(k), arguments(a), launch(l), stop(s), random(l.seed * 2654435761u + 88172645463325252ull + id) {
    arena = map_memory(ARENA);
    if (checking) {
        shared.resize(ARENA / 2);
        for (int i = 0; i < l.array_count; i++) {
            const Array& array = l.arrays[i];
            global.push_back({array.start, array.bytes, array.itemsize, std::vector<Cell>(array.bytes / array.itemsize + 1)});
        }
    }
    auto [x, y, z] = l.block;
    for (unsigned k = 0; k < z; k++)
        for (unsigned j = 0; j < y; j++)
            for (unsigned i = 0; i < x; i++) indices.push_back({i, j, k});
    count = static_cast<int>(indices.size());
    threads.resize(count);
    order.resize(count);
}

Scheduler::~Scheduler() {
    for (Fiber* f : fibers) {
        munmap(f->stack, STACK);
        delete f;
    }
    munmap(arena, ARENA);
}

void Scheduler::fail(const char* format, ...) {
    if (!stop.exchange(true)) {
        va_list values;
        va_start(values, format);
        int length = vsnprintf(launch.error, launch.error_size, format, values);
        va_end(values);
        if (length < static_cast<int>(launch.error_size))
            snprintf(launch.error + length, launch.error_size - length, " [kernel %s, block (%u,%u,%u), thread (%u,%u,%u)]", kernel.name,
                     registers.block.x, registers.block.y, registers.block.z, registers.thread.x, registers.thread.y, registers.thread.z);
    }
    yield();  // the scheduler sees `stop` and never comes back to this fiber
    abort();
}

// -- fibers ----------------------------------------------------------------------------------------------------------------------------

void Scheduler::enter(int thread) {
    current = thread;
    registers.thread = indices[thread];
    registers.lane = thread & 31;
}

void Scheduler::fiber_main() {
    for (;;) {
        Scheduler& s = *scheduler;
        for (bool first = true; s.next < s.count; first = false) {
            int t = s.order[s.next];
            bool somebody_waits = s.next > s.count - s.live;
            if (!first && somebody_waits && t / 32 != s.current / 32) break;  // a warp with waiting lanes goes ahead first
            s.next++;
            s.threads[t].fiber = s.running;
            s.running->thread = t;
            s.enter(t);
            s.kernel.call(s.arguments);
            s.finish(t);
        }
        s.running->thread = -1;
        s.idle.push_back(s.running);
        s.yield();
    }
}

Fiber* Scheduler::idle_fiber() {
    if (!idle.empty()) {
        Fiber* f = idle.back();
        idle.pop_back();
        return f;
    }
    Fiber* f = new Fiber{};
    fibers.push_back(f);
    f->stack = map_memory(STACK);
    mprotect(f->stack, 4096, PROT_NONE);
    void** top = reinterpret_cast<void**>(f->stack + STACK - fibers.size() % 61 * 256) - 2;  // staggered: equal offsets share cache sets
    *top = reinterpret_cast<void*>(&fiber_main);
    f->stack_pointer = top - 6;
    return f;
}

void Scheduler::yield() { switch_stack(&running->stack_pointer, main_stack_pointer); }

void Scheduler::resume(Fiber* f) {
    running = f;
    if (f->thread >= 0) enter(f->thread);
    switch_stack(&main_stack_pointer, f->stack_pointer);
}

// -- blocks ----------------------------------------------------------------------------------------------------------------------------

void Scheduler::shuffle_order() {
    int warp_count = (count + 31) / 32, at = 0;
    std::vector<int> sequence(warp_count);
    for (int i = 0; i < warp_count; i++) sequence[i] = launch.order == 1 ? warp_count - 1 - i : i;
    if (launch.order == 2)
        for (int i = warp_count - 1; i > 0; i--) std::swap(sequence[i], sequence[draw(random) % (i + 1)]);
    for (int w : sequence) {
        int begin = at, lanes = std::min(32, count - w * 32);
        for (int i = 0; i < lanes; i++) order[at++] = w * 32 + (launch.order == 1 ? lanes - 1 - i : i);
        if (launch.order == 2)
            for (int i = lanes - 1; i > 0; i--) std::swap(order[begin + i], order[begin + draw(random) % (i + 1)]);
    }
}

void Scheduler::run_block(uint32_t index) {
    const unsigned* grid = launch.grid;
    block = index;
    registers.block = {index % grid[0], index / grid[0] % grid[1], index / grid[0] / grid[1]};
    live = count;
    next = arrived = votes = 0;
    vote = NO_VOTE;
    released = false;
    epoch++;
    warps.assign((count + 31) / 32, Warp{});
    warpgroups.assign((count + 127) / 128, Warpgroup{});
    for (int i = 0; i < count; i++) {
        threads[i].state = NEW;
        threads[i].copies.clear();
        threads[i].groups = threads[i].product_groups = 0;
        threads[i].begun = threads[i].committed = threads[i].waited = 0;
        threads[i].fenced = false;
        threads[i].sums.clear();
        threads[i].proxy_fences = threads[i].ordered_fences = 0;
        warps[i / 32].alive |= 1u << (i & 31);
    }
    shuffle_order();
    shared_high = std::max(shared_high, launch.shared_bytes);
    memset(arena, 0xFF, shared_high);  // NaN, -1, a huge unsigned: who reads before writing shall see it
    if (checking) std::fill(shared.begin(), shared.begin() + std::min(shared.size(), shared_high / 2 + GAP), Cell{});
    shared_arrays.clear();
    shared_top = (launch.shared_bytes + GAP + 127) / 128 * 128;
    while (live > 0) {
        bool progress = false;
        for (int begin = 0, end; begin < count && !released; begin = end) {  // each warp in turn, as far ahead as it can go
            for (end = begin; end < count && order[end] / 32 == order[begin] / 32;) end++;
            for (bool again = true; again && !released;) {
                again = false;
                for (int i = begin; i < end && !released; i++) {
                    Thread& t = threads[order[i]];
                    if (t.state != NEW && t.state != READY) continue;
                    progress = again = true;
                    resume(t.state == NEW ? idle_fiber() : t.fiber);
                    if (stop.load(std::memory_order_relaxed)) return;
                }
            }
        }
        if (released) {
            released = false;
            if (launch.order == 2) shuffle_order();
        } else if (!progress) {
            report_deadlock();
            return;
        }
    }
}

void Scheduler::report_deadlock() {
    int at_barrier = -1, at_warp = -1;
    for (int i = 0; i < count; i++) {
        if (threads[i].state == AT_BLOCK_BARRIER) at_barrier = i;
        if (threads[i].state == AT_WARP_OPERATION || threads[i].state == AT_WGMMA_WAIT) at_warp = i;
    }
    if (!stop.exchange(true))
        snprintf(launch.error, launch.error_size,
                 "DEADLOCK in kernel %s, block %u: %d of %d live threads at __syncthreads (line %d); thread %d waits at a warp operation "
                 "(line %d, mask %08x)",
                 kernel.name, block, arrived, live, at_barrier >= 0 ? threads[at_barrier].line : 0, at_warp,
                 at_warp >= 0 ? threads[at_warp].line : 0, at_warp >= 0 ? threads[at_warp].mask : 0);
}

void Scheduler::finish(int thread) {
    threads[thread].state = DONE;
    live--;
    warps[thread / 32].alive &= ~(1u << (thread & 31));
    for (const Wgmma& product : warpgroups[thread / 128].products)
        if (!product.done) fail("the thread exits with a wgmma never waited for, begun @code%#zx", in_library(product.code));
    if (!threads[thread].copies.empty()) fail("the thread exits with %zu cp.async copies never waited for", threads[thread].copies.size());
    if (arrived && arrived == live) release_barrier();
}

// -- barriers ---------------------------------------------------------------------------------------------------------------------------

void Scheduler::sync_block(int line, Vote kind, int* predicate) {
    Thread& me = threads[current];
    if (arrived && barrier_line != line) fail("threads of one block meet at different __syncthreads (lines %d and %d)", barrier_line, line);
    barrier_line = line;
    me.state = AT_BLOCK_BARRIER;
    me.line = line;
    me.predicate = predicate;
    vote = kind;
    votes += predicate ? *predicate : 0;
    if (++arrived == live) release_barrier();
    yield();
}

void Scheduler::release_barrier() {
    for (Thread& t : threads) {
        if (t.state != AT_BLOCK_BARRIER) continue;
        t.ordered_fences = t.proxy_fences;
        t.state = READY;
        if (t.predicate) *t.predicate = vote == ANY ? votes > 0 : vote == ALL ? votes == arrived : votes;
    }
    arrived = votes = 0;
    vote = NO_VOTE;
    released = true;
    epoch++;
}

void Scheduler::warp_collective(unsigned mask, void* payload, Combine combine, int line, bool orders_memory) {
    int t = current, w = t / 32;
    if (!(mask >> (t & 31) & 1)) fail("line %d: lane %d calls with the mask %08x, in which it is not", line, t & 31, mask);
    threads[t].state = AT_WARP_OPERATION;
    threads[t].line = line;
    threads[t].mask = mask;
    warps[w].payload[t & 31] = payload;
    if (orders_memory) warps[w].epoch++;
    try_warp(w, mask, combine);
    yield();
}

void Scheduler::try_warp(int w, unsigned mask, Combine combine) {
    unsigned needed = mask & warps[w].alive;
    for (int i = 0; i < 32; i++) {
        if (!(needed >> i & 1)) continue;
        const Thread& t = threads[w * 32 + i];
        if (t.state != AT_WARP_OPERATION || t.mask != mask) return;
    }
    if (!needed) return;
    if (combine) combine(warps[w].payload, needed);
    for (int i = 0; i < 32; i++)
        if (needed >> i & 1) threads[w * 32 + i].state = READY;
}

// -- shared memory and asynchronous copies ----------------------------------------------------------------------------------------------

void* Scheduler::static_shared(const void* key, size_t size, size_t align) {
    size_t total = launch.shared_bytes + size;
    for (const SharedArray& array : shared_arrays) {
        if (array.key == key) return arena + array.offset;
        total += array.bytes;
    }
    if (total > launch.shared_limit) fail("%zu bytes of shared memory asked for, the limit is %zu", total, launch.shared_limit);
    size_t offset = (shared_top + align - 1) / align * align;
    if (offset / align % 2 == 0) offset += align;  // not better aligned than was asked for
    shared_top = (offset + size + GAP + 15) / 16 * 16;
    if (shared_top > ARENA) fail("the simulator's arena of %zu bytes is too small for this block's shared memory", ARENA);
    if (shared_top > shared_high) {
        memset(arena + shared_high, 0xFF, shared_top - shared_high);
        shared_high = shared_top;
    }
    shared_arrays.push_back({key, offset, size});
    return arena + offset;
}

void Scheduler::copy(const Copy& c) {
    if (checking) {
        if (c.bytes > c.zeros) access(c.from, c.bytes - c.zeros, READ, c.code);
        access(c.to, c.bytes, WRITE, c.code);
    }
    memcpy(c.to, c.from, c.bytes - c.zeros);
    memset(static_cast<char*>(c.to) + c.bytes - c.zeros, 0, c.zeros);
}

void Scheduler::async_copy(void* to, const void* from, size_t bytes, size_t zeros, const void* code) {
    bool aligned = reinterpret_cast<uintptr_t>(to) % bytes == 0 && (zeros == bytes || reinterpret_cast<uintptr_t>(from) % bytes == 0);
    if (!aligned) fail("MISALIGNED cp.async of %zu bytes @code%#zx", bytes, in_library(code));
    Copy c{to, from, bytes, zeros, -1, code};
    if (launch.late_copies) threads[current].copies.push_back(c);
    else copy(c);
}

void Scheduler::async_commit() {
    Thread& t = threads[current];
    for (Copy& c : t.copies)
        if (c.group < 0) c.group = t.groups;
    t.groups++;
}

void Scheduler::async_wait(int groups_left) {
    Thread& t = threads[current];
    size_t done = 0;
    for (; done < t.copies.size() && t.copies[done].group >= 0 && t.copies[done].group < t.groups - groups_left; done++) copy(t.copies[done]);
    t.copies.erase(t.copies.begin(), t.copies.begin() + done);
}

// -- runtime.h --------------------------------------------------------------------------------------------------------------------------

void sync_block(int line, Vote vote, int* predicate) { scheduler->sync_block(line, vote, predicate); }
void warp_collective(unsigned mask, void* payload, Combine combine, int line, bool orders_memory) {
    scheduler->warp_collective(mask, payload, combine, line, orders_memory);
}
void* static_shared(const void* key, size_t size, size_t align) { return scheduler->static_shared(key, size, align); }
void* dynamic_shared() { return scheduler->arena; }
void async_copy(void* to, const void* from, size_t bytes, size_t zeros) {
    scheduler->async_copy(to, from, bytes, zeros, __builtin_return_address(0));
}
void async_commit() { scheduler->async_commit(); }
void async_wait(int groups_left) { scheduler->async_wait(groups_left); }
unsigned shared_address(const void* p) { return static_cast<unsigned>(static_cast<const char*>(p) - scheduler->arena); }
void warpgroup_multiply(float* const* registers, int n, Factors factors, bool a_across, bool b_across, uint64_t a, uint64_t b) {
    scheduler->warpgroup_multiply(registers, n, factors, a_across, b_across, a, b, __builtin_return_address(0));
}
void warpgroup_fence() { scheduler->warpgroup_fence(); }
void warpgroup_commit() { scheduler->warpgroup_commit(); }
void warpgroup_wait(int groups_left) { scheduler->warpgroup_wait(groups_left, __builtin_return_address(0)); }
void proxy_fence() { scheduler->proxy_fence(); }
void trap(const char* what, int line) { scheduler->fail("%s failed at line %d", what, line); }
void check_access(const void* address, size_t bytes, Access kind) {
    if (scheduler->checking) scheduler->access(address, bytes, kind, __builtin_return_address(0));
}

}  // namespace sim

// Run a launch; nonzero if it failed, with the reason in launch->error. Checked launches run on one thread: blocks in a fixed order.
extern "C" __attribute__((visibility("default"))) int sim_launch(const sim::Kernel* kernel, void** arguments, const sim::Launch* launch, int checking) {
    using namespace sim;
    uint32_t blocks = launch->grid[0] * launch->grid[1] * launch->grid[2];
    std::atomic<uint32_t> taken{0};
    std::atomic<bool> stop{false};
    int host_threads = checking ? 1 : std::max(1, std::min<int>(launch->host_threads, blocks));
    auto work = [&](int id) {
        Scheduler mine(*kernel, arguments, *launch, stop, checking, id);
        scheduler = &mine;
        registers.block_dim = {launch->block[0], launch->block[1], launch->block[2]};
        registers.grid_dim = {launch->grid[0], launch->grid[1], launch->grid[2]};
        unsigned control = _mm_getcsr();
        _mm_setcsr(control | 0x8040);  // denormals are zero, as on the device: CuPy compiles with -ftz=true
        for (uint32_t i; (i = taken++) < blocks && !stop;) {
            mine.run_block(launch->order == 1 ? blocks - 1 - i : i);
            mine.end_traffic();
        }
        _mm_setcsr(control);
        scheduler = nullptr;
    };
    if (host_threads == 1) {
        work(0);
    } else {
        std::vector<std::thread> pool;
        for (int i = 0; i < host_threads; i++) pool.emplace_back(work, i);
        for (auto& t : pool) t.join();
    }
    return stop;
}
