// Batched matrix products C[z] = A[z] B[z]: matmul and linear layers.
//
// gemm        rows, columns and k of each product are strides apart, so that a transposed factor, or one whose batches are spread over its
//             memory, is read where it lies. Batches are counted by two axes, with a stride each; a factor that is the same for all has
//             stride 0. Where there are few tiles and k is long, k is split into parts that sum_parts adds up in order: the same bits every time.
//             Grid (tiles of rows x tiles of columns x parts x batches), rows fastest, so that neighbouring blocks read the same columns.
// sum_parts   one thread per result; P + 1 numbers for each.
//
// Where the runs of 16 bytes of both factors are whole, they are copied as such (ASYNC, see tile.cuh): a layer of a multiple of 4 features in float32.
// Traffic: a block reads (BM + BN) K / P numbers, from memory or cache, and writes BM BN. Bound by arithmetic, 2 M N K operations a product,
// where all of M, N and K are more than a few dozen; by memory where M is small, as in a linear layer of few images: then the weights, N K
// numbers, are read once by N / BN columns of blocks, and tiles of 64 rows work mostly on zeros.
// A product of its own and not cuBLAS's, because CuPy cannot record cuBLAS in a CUDA graph. Not yet run on a GPU: nothing was tuned.
#include "tile.cuh"

#ifndef A_ALONG_K
#define A_ALONG_K 1
#endif
#ifndef B_ALONG_K
#define B_ALONG_K 0
#endif

template <bool ALONG>
struct Strided {  // element (row, k) at row * row_pitch + k * k_pitch
    typedef const Real* Outer;
    typedef int Inner;
    static constexpr bool ALONG_K = ALONG;
    const Real* data;
    int row_pitch, k_pitch;
    __device__ __forceinline__ Outer outer(int row) const { return data + row * row_pitch; }
    __device__ __forceinline__ Inner inner(int k) const { return k * k_pitch; }
    __device__ __forceinline__ void advance(Inner& k) const { k += BK * k_pitch; }
    __device__ __forceinline__ const Real* find(Outer row, Inner k) const { return row + k; }
};

// a (outer, inner, M, K), b (outer, inner, K, N), each at its four strides -> c (outer, inner, M, N) without gaps, or, where sums is not null,
// sums (parts, outer, inner, M, N): part p over p share <= k < (p + 1) share.
extern "C" __global__ void __launch_bounds__(256, WGMMA ? ProductOf<Strided<A_ALONG_K>, Strided<B_ALONG_K>>::BLOCKS : 1 + FEW_REGISTERS)
gemm(const Real* __restrict__ a, const Real* __restrict__ b, Real* __restrict__ c, Sum* __restrict__ sums, int rows, int columns, int depth,
     int share, int inner, int parts, int a_outer, int a_inner, int a_row, int a_k, int b_outer, int b_inner, int b_k, int b_column) {
    const int down = divide_up(rows, BM), across = divide_up(columns, BN);
    int rest = blockIdx.x;
    const int m0 = rest % down * BM; rest /= down;
    const int n0 = rest % across * BN; rest /= across;
    const int part = rest % parts, z = rest / parts, batches = gridDim.x / (down * across * parts), begin = part * share;
    ProductOf<Strided<A_ALONG_K>, Strided<B_ALONG_K>> tile;
    tile.multiply(Strided<A_ALONG_K>{a + z / inner * a_outer + z % inner * a_inner, a_row, a_k},
                  Strided<B_ALONG_K>{b + z / inner * b_outer + z % inner * b_inner, b_column, b_k}, m0, rows, n0, columns, begin,
                  min(begin + share, depth));
    const int to = z * rows * columns, to_sums = (part * batches + z) * rows * columns;
    const bool whole = sums ? tile.whole(sums, columns, 0, columns) : tile.whole(c, columns, 0, columns);
    #pragma unroll
    for (int i = 0; i < tile.ROWS; i++)
        #pragma unroll
        for (int j = 0; j < tile.COLUMNS; j += tile.NEXT) {
            const int m = tile.row(i), n = tile.column(j), at = m * columns + n;
            if (m >= rows || n >= columns) continue;
            if (sums) tile.put(sums + (to_sums + at), whole, columns - n, [&](int s) { return tile.result[i][j + s]; });
            else tile.put(c + (to + at), whole, columns - n, [&](int s) { return Real(tile.result[i][j + s]); });
        }
}
