// What the simulator's runtime library offers to the code of a simulated kernel. device.h builds CUDA's names out of it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

// These functions touch memory on the runtime's behalf, not on the kernel's: the compiler must not instrument them.
#define SIM_UNCHECKED __attribute__((no_sanitize("thread")))

struct uint3 { unsigned x, y, z; };

// The extent of the kernel's own shared library: addresses inside it are constants and string literals.
extern "C" __attribute__((visibility("hidden"))) const char __ehdr_start[], _end[];

namespace sim __attribute__((visibility("default"))) {

// The special registers of the CUDA thread that is running.
struct Registers {
    uint3 thread, block, block_dim, grid_dim;
    int lane;
};
extern __thread Registers registers __attribute__((tls_model("initial-exec")));

enum Access { READ, WRITE, ATOMIC };
enum Vote { NO_VOTE, ANY, ALL, COUNT };  // what __syncthreads_or, _and and _count combine

void sync_block(int line, Vote vote, int* predicate);
void* static_shared(const void* key, size_t size, size_t align);  // one object per declaration and block
void* dynamic_shared();

// All lanes of `mask` meet; the last to come runs `combine` on everybody's payload. `orders_memory`: __syncwarp does, shuffles don't.
using Combine = void (*)(void** payload_of_lane, unsigned lanes);
void warp_collective(unsigned mask, void* payload, Combine combine, int line, bool orders_memory);

void check_access(const void* address, size_t bytes, Access kind);  // does nothing outside check mode
void count_access(const void* address, size_t bytes, Access kind, bool shared);  // traffic.cpp
void async_copy(void* to, const void* from, size_t bytes, size_t zeros);
void async_commit();
void async_wait(int groups_left);

// wgmma (warpgroup.cpp). `registers` are a thread's N / 2 sums, in the order of the instruction; ACROSS: rows lie along memory, not ks.
enum Factors { F16, TF32, BF16 };  // BF16 is for mma.sync (mma.h)
unsigned shared_address(const void*);  // as __cvta_generic_to_shared gives it
void warpgroup_multiply(float* const* registers, int n, Factors, bool a_across, bool b_across, uint64_t a, uint64_t b);
void warpgroup_fence();
void warpgroup_commit();
void warpgroup_wait(int groups_left);
void proxy_fence();  // fence.proxy.async
[[noreturn]] void trap(const char* what, int line);

// -- what the loader must know of a kernel: its parameters, and how to call it ------------------------------------------------------

struct Parameter {
    char kind;          // 'p' pointer, 'f' floating point, 'i' signed, 'u' unsigned, 's' struct, 'b' bits that PTX gives no type
    int size;
    char element;       // of a pointer: the kind of what it points to, '?' for void
    int element_size;
};
struct Kernel {
    const char* name;
    int count;
    const Parameter* parameters;
    void (*call)(void** arguments);
    const char *low, *high;  // of the library
};

template <class T> constexpr bool untyped = false;
template <class T> constexpr char kind_of() {
    return untyped<T> ? 'b' : std::is_floating_point_v<T> ? 'f' : std::is_integral_v<T> ? (std::is_signed_v<T> ? 'i' : 'u') : 's';
}

template <class T> constexpr Parameter parameter_of() {
    if constexpr (std::is_pointer_v<T>) {
        using Element = std::remove_cv_t<std::remove_pointer_t<T>>;
        if constexpr (std::is_void_v<Element>) return {'p', 8, '?', 1};
        else return {'p', 8, kind_of<Element>(), static_cast<int>(sizeof(Element))};
    } else {
        return {kind_of<T>(), static_cast<int>(sizeof(T)), 0, 0};
    }
}

template <auto Function> struct Record;
template <class... T, void (*Function)(T...)> struct Record<Function> {
    static constexpr Parameter parameters[sizeof...(T) + 1] = {parameter_of<std::remove_cv_t<T>>()...};
    template <size_t... I> SIM_UNCHECKED __attribute__((noinline)) static void spread(void** a, std::index_sequence<I...>) {
        Function(*static_cast<std::remove_cv_t<T>*>(a[I])...);
    }
    SIM_UNCHECKED __attribute__((noinline)) static void call(void** a) { spread(a, std::index_sequence_for<T...>{}); }
    static constexpr Kernel make(const char* name) { return {name, sizeof...(T), parameters, &call, __ehdr_start, _end}; }
};

}  // namespace sim
