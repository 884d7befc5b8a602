// The runtime's inside: what it knows of blocks, warps, threads and of every byte of memory that a kernel may touch.
#pragma once
#include <atomic>
#include <vector>

#include "runtime.h"

namespace sim {

constexpr size_t STACK = 256 << 10;   // bytes of a fiber's stack
constexpr size_t ARENA = 512 << 10;   // bytes of one block's shared memory, gaps included
constexpr size_t GAP = 64;            // bytes between two shared arrays, so that an overrun of one does not land in the other
constexpr size_t GUARD = 64 << 10;    // bytes around each global array that belong to nobody; module.py allocates them

// A launch, as module.py describes it.
struct Array { char* start; size_t bytes; int itemsize; };
struct Launch {
    unsigned grid[3], block[3];
    size_t shared_bytes, shared_limit;
    int order;       // of threads and blocks: 0 forward, 1 reverse, 2 random
    unsigned seed;
    int host_threads;
    int late_copies; // cp.async: 1 at the wait, as late as allowed; 0 at once, as early as allowed
    int array_count;
    const Array* arrays;
    char* error;
    size_t error_size;
};

// A fiber: a stack that a CUDA thread runs on until it blocks.
struct Fiber { void* stack_pointer; char* stack; int thread; };

struct Copy { void* to; const void* from; size_t bytes, zeros; int group; const void* code; };  // code: where it was begun

// A product that four warps have begun, or are beginning: see warpgroup.cpp.
struct Wgmma {
    uint64_t a, b;  // descriptors
    int n;
    Factors factors;
    bool a_across, b_across;
    const void* code;
    bool done;
    int begun, group[128];          // by how many threads; of each, -1 before its commit
    std::vector<float*> registers;  // n / 2 of each
};
struct Warpgroup { std::vector<Wgmma> products; int waiting; };

enum State { NEW, READY, AT_BLOCK_BARRIER, AT_WARP_OPERATION, AT_WGMMA_WAIT, DONE };
struct Thread {
    State state;
    Fiber* fiber;
    int line;                 // of the barrier or warp operation it waits at
    unsigned mask;            // of the warp operation
    int* predicate;           // of a voting barrier
    std::vector<Copy> copies; // cp.async copies under way
    int groups;               // cp.async groups committed
    size_t begun, committed, waited;  // wgmma products so far
    int product_groups, waits_for;    // committed; up to which, at a wait
    bool fenced;                      // wgmma.fence since the last wait
    std::vector<float> sums;          // the registers of the last product, as wgmma left or found them
    uint32_t proxy_fences, ordered_fences;  // fence.proxy.async so far, and before the last block barrier
};
struct Warp { unsigned alive; uint32_t epoch; void* payload[32]; };  // epoch: __syncwarps passed

// The last accesses to a few bytes. An epoch is one stretch between two block barriers.
constexpr int READERS = 2;
struct Cell {
    uint64_t write_epoch, read_epoch[READERS];
    uint32_t write_block, read_block, write_thread, read_thread[READERS], write_warp_epoch, read_warp_epoch[READERS];
    uint32_t write_fences;           // fence.proxy.async of the writer before it wrote
    const void *write_at, *read_at;  // code addresses
    bool written, atomic;
};
struct Shadow { char* start; size_t bytes; int itemsize; std::vector<Cell> cells; };
struct SharedArray { const void* key; size_t offset, bytes; };

// Runs blocks one after another on one thread of the host.
class Scheduler {
public:
    Scheduler(const Kernel&, void** arguments, const Launch&, std::atomic<bool>& stop, bool checking, int id);
    ~Scheduler();
    void run_block(uint32_t index);

    // Called by CUDA threads through runtime.h.
    void sync_block(int line, Vote vote, int* predicate);
    void warp_collective(unsigned mask, void* payload, Combine, int line, bool orders_memory);
    void* static_shared(const void* key, size_t size, size_t align);
    void async_copy(void* to, const void* from, size_t bytes, size_t zeros, const void* code);
    void async_commit();
    void async_wait(int groups_left);
    void warpgroup_multiply(float* const* registers, int n, Factors, bool a_across, bool b_across, uint64_t a, uint64_t b, const void* code);
    void warpgroup_fence() { threads[current].fenced = true; }
    void warpgroup_commit();
    void warpgroup_wait(int groups_left, const void* code);
    void proxy_fence() { threads[current].proxy_fences++; }
    void access(const void* address, size_t bytes, Access kind, const void* code);  // memory_checker.cpp
    void count_access(const void* address, size_t bytes, Access kind, bool is_shared, const void* code);  // traffic.cpp
    void end_traffic();
    [[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 2, 3)));

    char* arena = nullptr;  // the block's shared memory, dynamic first
    const bool checking;

private:
    static void fiber_main();
    Fiber* idle_fiber();
    void enter(int thread);
    void resume(Fiber*);
    void yield();
    void finish(int thread);
    void release_barrier();
    void try_warp(int warp, unsigned mask, Combine);
    void shuffle_order();
    void copy(const Copy&);
    void report_deadlock();
    std::vector<float> factor(uint64_t descriptor, int rows, Factors, bool across, const void* code);
    void multiply(Wgmma&, int warpgroup);

    Cell* find_cell(char* address, size_t bytes, Access, const void* code, bool& shared, int& grain);
    [[noreturn]] void race(const char* what, const void* address, uint32_t block, uint32_t thread, const void* earlier, const void* code);
    size_t in_library(const void* code) const { return static_cast<const char*>(code) - kernel.low; }

    const Kernel& kernel;
    void** arguments;
    const Launch& launch;
    std::atomic<bool>& stop;

    int count = 0, next = 0, live = 0, current = -1;  // threads of the block; the next to start; not yet done; running
    int arrived = 0, votes = 0, barrier_line = 0;     // at the block barrier
    Vote vote = NO_VOTE;
    bool released = false;                            // a barrier opened: begin a new round
    uint32_t block = 0;
    uint64_t epoch = 0, random;
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    std::vector<Warpgroup> warpgroups;
    std::vector<int> order;  // in which threads run, warp by warp
    std::vector<uint3> indices;

    std::vector<Fiber*> fibers, idle;
    Fiber* running = nullptr;
    void* main_stack_pointer = nullptr;

    size_t shared_top = 0, shared_high = 0;
    std::vector<SharedArray> shared_arrays;
    std::vector<Shadow> global;  // a shadow for each array argument
    std::vector<Cell> shared;    // a cell for every two bytes of the arena
};

extern __thread Scheduler* scheduler __attribute__((tls_model("initial-exec")));

}  // namespace sim
