// Multiplies a stage on the tensor cores of compute capability 9.0 (sm_90a), by wgmma: four warps together, a warpgroup, multiply 64 rows by all BN
// columns of the tile, and both factors are read from shared memory by the tensor cores themselves, without a register of any thread. Two
// warpgroups share the 128 rows. Sums are float.
//
// Factors are read as they are stored: float16 (TENSOR=3), or float of which the lower 13 bits are cut off (TENSOR=1). That is where this tf32 differs
// from the one of tensor.cuh, which rounds: a factor comes out up to 2^-10 of itself too small, never too large. tf32 has to run along k in
// both factors; float16 may run either way. bf16 as a precision of stored floats is a conversion on the way from shared memory, and there is no way
// here: it stays with tensor.cuh, as do the operands that tf32 cannot have.
//
// wgmma reads memory through the asynchronous proxy: what threads and cp.async have written is visible to it behind a fence of the thread that wrote
// (and a barrier); what it reads may be overwritten when it was waited for.
//
// A step ends before the next barrier, and what hides that wait is the second block on the multiprocessor (or the third, in tiles of 128 x 64). Not
// tried, as nothing could be timed: deeper stages, which need dynamic shared memory; warps that only copy; TMA.
// Confirmed nowhere but in the simulator, which was written after PTX's documentation; tests/gpu will do that on a device before it is believed.
#pragma once
#include "mma.cuh"

// -- the instructions, with a second definition for the simulator -------------------------------------------------------------------------

// Registers of a result, in the order of the instruction: register r of a thread is row (r / 2 % 2) * 8 + lane / 4 of its warp's 16 rows and
// column r / 4 * 8 + lane % 4 * 2 + r % 2. d[i][j] has the same, by row i and column j of the thread.
#ifdef CUDASIM

__device__ __forceinline__ unsigned shared_address(const void* p) { return sim::shared_address(p); }
__device__ __forceinline__ void warpgroup_fence() { sim::warpgroup_fence(); }
__device__ __forceinline__ void warpgroup_commit() { sim::warpgroup_commit(); }
template <int N> __device__ __forceinline__ void warpgroup_wait(float (&)[2][N / 4]) { sim::warpgroup_wait(0); }
__device__ __forceinline__ void proxy_fence() { sim::proxy_fence(); }

template <int N, bool A_ACROSS, bool B_ACROSS>
__device__ __forceinline__ void warpgroup_multiply(float (&d)[2][N / 4], unsigned long long a, unsigned long long b) {
    float* registers[N / 2];
    for (int r = 0; r < N / 2; r++) registers[r] = &d[r / 2 % 2][r / 4 * 2 + r % 2];
    sim::warpgroup_multiply(registers, N, TENSOR == 3 ? sim::F16 : sim::TF32, A_ACROSS, B_ACROSS, a, b);
}

#else

__device__ __forceinline__ unsigned shared_address(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }
// Orders what threads did with registers before what wgmma does with them.
__device__ __forceinline__ void warpgroup_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// All products begun since the last time are a group from now on.
__device__ __forceinline__ void warpgroup_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Orders what this thread wrote to shared memory, or its copies did, before what wgmma reads there; for others behind a barrier.
__device__ __forceinline__ void proxy_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

#define WGMMA_4(q) "+f"(d[0][2 * q]), "+f"(d[0][2 * q + 1]), "+f"(d[1][2 * q]), "+f"(d[1][2 * q + 1])
#define WGMMA_32 WGMMA_4(0), WGMMA_4(1), WGMMA_4(2), WGMMA_4(3), WGMMA_4(4), WGMMA_4(5), WGMMA_4(6), WGMMA_4(7)
#define WGMMA_64 WGMMA_32, WGMMA_4(8), WGMMA_4(9), WGMMA_4(10), WGMMA_4(11), WGMMA_4(12), WGMMA_4(13), WGMMA_4(14), WGMMA_4(15)
#define WGMMA_TO_31 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define WGMMA_TO_63 \
    WGMMA_TO_31 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
                "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

// Until all groups are done; from here on d is the thread's own again.
template <int N> __device__ __forceinline__ void warpgroup_wait(float (&d)[2][N / 4]) {
    if constexpr (N == 128) asm volatile("wgmma.wait_group.sync.aligned 0;" : WGMMA_64 :: "memory");
    else asm volatile("wgmma.wait_group.sync.aligned 0;" : WGMMA_32 :: "memory");
}

// Begins d += a b: 64 x N results of 8 ks in tf32 or 16 in float16. ACROSS: rows lie along memory, not ks.
template <int N, bool A_ACROSS, bool B_ACROSS>
__device__ __forceinline__ void warpgroup_multiply(float (&d)[2][N / 4], unsigned long long a, unsigned long long b) {
    static_assert(N == 128 || N == 64, "one instruction for each number of columns");
    if constexpr (TENSOR == 3 && N == 128)
        asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" WGMMA_TO_63 "}, %64, %65, 1, 1, 1, %66, %67;"
                     : WGMMA_64 : "l"(a), "l"(b), "n"(A_ACROSS), "n"(B_ACROSS) : "memory");
    else if constexpr (TENSOR == 3)
        asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" WGMMA_TO_31 "}, %32, %33, 1, 1, 1, %34, %35;"
                     : WGMMA_32 : "l"(a), "l"(b), "n"(A_ACROSS), "n"(B_ACROSS) : "memory");
    else if constexpr (N == 128)
        asm volatile("wgmma.mma_async.sync.aligned.m64n128k8.f32.tf32.tf32 {" WGMMA_TO_63 "}, %64, %65, 1, 1, 1;"
                     : WGMMA_64 : "l"(a), "l"(b) : "memory");
    else
        asm volatile("wgmma.mma_async.sync.aligned.m64n64k8.f32.tf32.tf32 {" WGMMA_TO_31 "}, %32, %33, 1, 1, 1;"
                     : WGMMA_32 : "l"(a), "l"(b) : "memory");
}

#endif

// -- the multiplier ------------------------------------------------------------------------------------------------------------------------

// Where a factor lies in shared memory, in the 64 bits that wgmma takes: address and distances in units of 16 bytes, 14 bits each, and a swizzle, 1 for
// 128 bytes, which repeats every 1024, or 2 for 64, every 512. It exchanges bits of addresses, so atoms begin at multiples of that and no base is given.
__device__ __forceinline__ unsigned long long descriptor(const void* start, unsigned leading, unsigned stride, unsigned swizzle) {
    auto lines = [](unsigned bytes) { return (unsigned long long)(bytes >> 4 & 0x3fff); };
    return lines(shared_address(start)) | lines(leading) << 16 | lines(stride) << 32 | (unsigned long long)swizzle << 62;
}

struct Warpgroups {
    static_assert(BM == 128 && BK * sizeof(Real) == 64 && ASYNC, "64 rows for each of two warpgroups, 64 bytes of each row, copied by 16");
    static constexpr bool ATOMS = true;
    static constexpr int ROWS = 2, COLUMNS = BN / 4, NEXT = 2;  // of `result`; stored together
    static constexpr int K = 32 / sizeof(Real);       // of an instruction
    float result[ROWS][COLUMNS];
    int m, n;  // of result[0][0] in the tile

    __device__ __forceinline__ Warpgroups() : m(threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4), n(threadIdx.x % 4 * 2) {}
    __device__ __forceinline__ int row(int i) const { return m + i * 8; }
    __device__ __forceinline__ int column(int j) const { return n + j / 2 * 8 + j % 2; }

    template <class A, class B>
    __device__ __forceinline__ void begin(const A& a, const B& b) {
        const unsigned long long x = describe(a, threadIdx.x / 128 * 64), y = describe(b, 0);
        warpgroup_fence();
        #pragma unroll
        for (int k = 0; k < BK; k += K) warpgroup_multiply<BN, !A::ALONG_K, !B::ALONG_K>(result, x + ahead<A>(k), y + ahead<B>(k));
        warpgroup_commit();
    }
    template <class A, class B> __device__ __forceinline__ void add(const A&, const B&) {}
    __device__ __forceinline__ void settle() {
        warpgroup_wait<BN>(result);
        proxy_fence();
    }

    // Rows `row` .. of a panel. ALONG_K: a row's 64 bytes, 8 rows to an atom (Panel's exchange of lines is the 64-byte swizzle). Else atoms
    // of 64 rows by 8 ks, those of the same ks side by side, in the 128-byte swizzle.
    template <class P>
    __device__ __forceinline__ static unsigned long long describe(const P& panel, int row) {
        if constexpr (P::ALONG_K) return descriptor(panel.data + row * BK, 16, 512, 2);
        else return descriptor(panel.data + row * 8, 1024, P::LENGTH / 64 * 1024, 1);
    }
    // What a descriptor grows by from k = 0 to k.
    template <class P>
    __device__ __forceinline__ static unsigned long long ahead(int k) {
        return (P::ALONG_K ? k * sizeof(Real) : k / 8 * P::LENGTH / 64 * 1024) >> 4;
    }
};
