// Copies of 16 bytes from device memory straight into shared memory, which go on while the thread does something else (cp.async, compute
// capability 8.0 and up). Each has a second definition for the simulator, where a copy happens at once or as late as its wait allows.
#pragma once

#ifdef CUDASIM

__device__ __forceinline__ void copy_16(void* to, const void* from, bool zeros) { sim::async_copy(to, from, 16, zeros ? 16 : 0); }
__device__ __forceinline__ void copies_commit() { sim::async_commit(); }
template <int LEFT> __device__ __forceinline__ void copies_wait() { sim::async_wait(LEFT); }

#else

// Both addresses are multiples of 16. `zeros`: 16 zero bytes instead, and nothing is read; `from` has to be some address of device memory.
__device__ __forceinline__ void copy_16(void* to, const void* from, bool zeros) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"((unsigned)__cvta_generic_to_shared(to)), "l"(__cvta_generic_to_global(from)), "r"(zeros ? 0 : 16) : "memory");
}
// What this thread has begun since the last time is a group from now on.
__device__ __forceinline__ void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until at most the LEFT newest groups of this thread are under way. Other threads see the copies only behind a barrier.
template <int LEFT> __device__ __forceinline__ void copies_wait() { asm volatile("cp.async.wait_group %0;" :: "n"(LEFT) : "memory"); }

#endif
