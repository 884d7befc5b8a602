// One tile of a matrix product, C[m][n] = sum over k of A[m][k] B[n][k]: the inside of matrix products and convolutions.
//
// A and B are not arrays but rules ("operands"): im2col, transposed weights and the like are made on the way into shared memory, so that
// no column is ever written to device memory. An operand has
//     Outer outer(int row)               what of a row can be worked out once, before the loop over k
//     Inner inner(int k)                 the same of a k, at the beginning of the loop
//     void advance(Inner&)               from a k to k + BK: in the loop nothing is divided
//     const Real* find(Outer, Inner)     where the element lies, or null where it is zero; row and k are inside their ranges
//     ALONG_K                            whether its neighbours in memory are neighbours in k, or else neighbouring rows
//     const Real* data                   any address of device memory
// A block of THREADS threads computes BM x BN results. Along k it goes in steps of BK, through a ring of STAGES panels of either operand in
// shared memory, filled by a Feeder and read by Cores or TensorCores (tensor.cuh), which hold the results in registers. Two ways to fill:
//     ASYNC=0  number by number through registers, read while one stage is multiplied, written behind it: for any operand and device
//     ASYNC=1  16 bytes at a time by cp.async, two steps ahead, without a register: compute capability 8.0 and up, and operands whose runs of
//              16 bytes are whole: data on 16 bytes, and channels (or whatever runs along memory) a multiple of RUN. The launcher knows.
// Per step a block reads (BM + BN) BK numbers and does 2 BM BN BK operations: with 128 x 128 tiles 128 operations a number read from device
// memory or cache. Shared memory: 16 KiB a stage at 128 x 128 (64 bytes of every row), so the three of ASYNC=1 are just within the static limit.
//
// A third multiplier is wgmma's, of compute capability 9.0 (WGMMA=1, wgmma.cuh): it begins a product that goes on by itself, so the loop below begins
// products, fetches, and lets what has begun end before the next barrier.
//
// Tried, and judged by registers and spills as the compiler tells them: all ks of a stage unrolled on CUDA cores (more than 200 registers instead
// of 128, so one block on a multiprocessor instead of two); the digits of k found anew by division in every step; an address of shared memory worked out for
// each read (349 instructions for 256 multiplications in float32, now 281); neighbouring rows read at once where one factor runs along k (it spills). Weighed on paper: rows padded by
// 16 bytes, as free of bank conflicts as lines that change places, but a quarter more shared memory. Nothing has been timed.
#pragma once
#include "async.cuh"
#include "common.cuh"
#include "parts.cuh"

// SMALL=1 is for few results and for double: less waste at the edges, more blocks. TALL=1 beside it, 128 x 64, is for many rows of few columns.
#ifndef SMALL
#define SMALL 0
#endif
#ifndef TALL
#define TALL 0
#endif
#ifndef TENSOR
#define TENSOR 0
#endif
#ifndef ASYNC
#define ASYNC 0
#endif
#ifndef WGMMA
#define WGMMA 0
#endif
constexpr int THREADS = 256, BM = SMALL && !TALL ? 64 : 128, BN = SMALL ? 64 : 128, BK = (ASYNC || (TENSOR && sizeof(Real) == 4) ? 64 : 32) / sizeof(Real);
constexpr int LINE = 16 / sizeof(Real), RUN = ASYNC ? LINE : 1, STAGES = ASYNC ? 3 : 2;  // LINE: numbers in 16 bytes; RUN: copied at once
constexpr int NEIGHBOURS = TENSOR == 4 && (!ASYNC || TALL) ? 2 : 4;  // ks that a lane of tensor.cuh takes at a time: as many as there are registers for
constexpr bool HALF_LINES = TENSOR && NEIGHBOURS * sizeof(Real) == 8;  // that it reads at a time
constexpr bool FEW_REGISTERS = SMALL && (ASYNC || !TALL);  // of a thread that holds 32 results, and nothing on its way
constexpr int TOGETHER = FEW_REGISTERS || (WGMMA && TENSOR == 3) || (!TENSOR && sizeof(Real) == 4) ? 2 : 1;  // blocks on a multiprocessor

// What a row or k of an operand usually means: a number of three digits, (high * mids + mid) * lows + low, such as (tap, tap, channel).
struct Digits { int high, mid, low; };
struct Base {
    int mids, lows;
    __device__ __forceinline__ Digits split(int number) const {
        int rest = number / lows;
        return {rest / mids, rest % mids, number % lows};
    }
    // Adds BK, with a carry or two: cheaper than splitting again unless there are very few lows.
    __device__ __forceinline__ void advance(Digits& d) const {
        for (d.low += BK; d.low >= lows; d.low -= lows)
            if (++d.mid == mids) {
                d.mid = 0;
                d.high++;
            }
    }
};

// ROWS x BK numbers of an operand in shared memory, in lines of 16 bytes that lie as in device memory: a row's four lines side by side if
// ALONG_K, else a k's ROWS / LINE. No padding, as that would break lines; instead the lines change places within a row by an exclusive or
// with (bits of) the row, or of k, so that threads that read at the same time read different banks:
//     ALONG_K   8 threads with neighbouring rows and the same line, or 2 rows and all four lines, find their lines in all 32 banks; HALF_LINES: so do
//               16 threads with 4 rows and the same two lines. What is copied number by number and read by two changes places in pairs
//     else      threads with neighbouring rows do so anyway; those NEIGHBOURS ks apart, as in tensor.cuh, are 8 banks apart
// tests/test_cuda_traffic.py counts that no read and no copy has to wait for another thread's bank.
// ATOMS: as wgmma wants it. ALONG_K it is as for whole lines; else 8 lines of each of 8 ks are an atom of 1024 bytes, in which lines change places with k.
template <bool ALONG, int ROWS, bool ATOMS = false>
struct Panel {
    static constexpr bool ALONG_K = ALONG;
    static constexpr int LENGTH = ROWS;
    static constexpr int PIECE = ASYNC || TENSOR || sizeof(Real) != 4 ? LINE : 2;  // numbers that change places together, if ALONG_K: no line need be whole
    static constexpr unsigned PIECES = BK / PIECE, AROUND = 128 / (BK * sizeof(Real));  // of a row; rows in all banks
    Real* data;

    __device__ __forceinline__ Real* at(unsigned row, unsigned k) const {
        if constexpr (ALONG_K) {
            unsigned turn = row / AROUND % PIECES;
            if (HALF_LINES && !ATOMS && PIECES == 4) turn = turn / 2 | turn % 2 * 2;  // two rows on, lines change places with the row's other half
            return data + row * BK + ((k / PIECE ^ turn) * PIECE | k % PIECE);
        } else if constexpr (ATOMS) {
            const unsigned line = row / LINE, atom = k / 8 * (ROWS / LINE / 8) + line / 8;
            return data + ((atom * 8 + k % 8) * 8 + (line % 8 ^ k % 8)) * LINE + row % LINE;
        } else return data + k * ROWS + ((row / LINE ^ (TENSOR ? k / NEIGHBOURS % 4 * 2 : 0)) * LINE | row % LINE);
    }
    // The same of row + step, where what the compiler knows of `step` comes last: added, or where lines change places exchanged, so that a thread works
    // out one address for all its steps. Steps are multiples of 8 if ALONG_K, and else have no bit in common with the row.
    __device__ __forceinline__ const Real* at(int row, int step, int k) const {
        static_assert(!ATOMS, "wgmma reads atoms, no thread does");
        if constexpr (ALONG_K) return at(row, k) + step * BK;
        else if constexpr (TENSOR) {
            constexpr int MOVED = 8 * LINE - 1;  // the bits that the exchange of lines may change
            const int first = ((row / LINE ^ k / NEIGHBOURS % 4 * 2) * LINE | row % LINE) ^ (step & MOVED);
            return data + first + (k / 16 * 16 * ROWS + (step & ~MOVED)) + k % 16 * ROWS;
        } else return data + (k * ROWS + row) + step;
    }
    // The numbers of SIDE rows from row + step on and of COUNT ks, all that are neighbours in memory at once, as Sum or as they are: ALONG_K those of
    // the ks, all in one line, and else those of the rows. row + step and k are multiples of SIDE and COUNT.
    template <class Number, int SIDE, int COUNT>
    __device__ __forceinline__ void read(int row, int step, int k, Number (&to)[SIDE][COUNT]) const {
        static_assert(!ALONG_K || SIDE == 1, "rows are no neighbours");
        constexpr int TOGETHER = ALONG_K ? COUNT : SIDE;
        struct alignas(TOGETHER * sizeof(Real)) Group { Real number[TOGETHER]; };
        const Real* from = at(row, step, k);
        #pragma unroll
        for (int q = 0; q < COUNT * SIDE / TOGETHER; q++) {
            const Group group = *reinterpret_cast<const Group*>(from + q * ROWS);
            #pragma unroll
            for (int s = 0; s < TOGETHER; s++) to[ALONG_K ? 0 : s][ALONG_K ? s : q] = Number(group.number[s]);
        }
    }
};

// Fills panels with rows row0 .. of an operand that has `rows` of them; a thread keeps to its rows, or to its ks.
template <class Operand, int ROWS, bool ATOMS>
struct Feeder {
    typedef Panel<Operand::ALONG_K, ROWS, ATOMS> To;
    static constexpr int COUNT = ROWS * BK / RUN / THREADS, ACROSS = (Operand::ALONG_K ? BK : ROWS) / RUN, STEP = THREADS / ACROSS;
    static_assert(COUNT * RUN * THREADS == ROWS * BK && THREADS % ACROSS == 0, "each thread copies the same number of elements");
    static constexpr int FIXED_ROWS = Operand::ALONG_K ? COUNT : 1, KS = Operand::ALONG_K ? 1 : COUNT;
    const Operand& operand;
    int row, k, rows, ks;  // this thread's first ones within the panel, and how many there are from there on
    typename Operand::Outer outer[FIXED_ROWS];
    typename Operand::Inner inner[KS];
    Real held[COUNT];  // on their way, unless ASYNC

    __device__ __forceinline__ Feeder(const Operand& o, int row0, int row_count, int k_begin, int k_end) : operand(o) {
        row = Operand::ALONG_K ? threadIdx.x / ACROSS : threadIdx.x % ACROSS * RUN;
        k = Operand::ALONG_K ? threadIdx.x % ACROSS * RUN : threadIdx.x / ACROSS;
        rows = row_count - row0 - row;
        ks = k_end - k_begin - k;
        #pragma unroll
        for (int e = 0; e < FIXED_ROWS; e++) outer[e] = operand.outer(e * STEP < rows ? row0 + row + e * STEP : 0);
        #pragma unroll
        for (int q = 0; q < KS; q++) {
            inner[q] = {};
            if (q * STEP < ks) inner[q] = operand.inner(k_begin + k + q * STEP);
        }
    }
    // Begins to fetch the next BK elements of every row; zeros beyond the rows and the ks.
    __device__ __forceinline__ void fetch(To panel) {
        #pragma unroll
        for (int q = 0; q < KS; q++) {
            bool within = q * STEP < ks;
            #pragma unroll
            for (int e = 0; e < FIXED_ROWS; e++) {
                const Real* from = within && e * STEP < rows ? operand.find(outer[e], inner[q]) : nullptr;
                if constexpr (ASYNC) copy_16(panel.at(row + e * STEP, k + q * STEP), from ? from : operand.data, !from);
                else held[q + e] = from ? *from : Real(0);
            }
            operand.advance(inner[q]);
        }
        ks -= BK;
    }
    // Writes what fetch left in registers.
    __device__ __forceinline__ void put(To panel) const {
        if constexpr (!ASYNC)
            #pragma unroll
            for (int q = 0; q < KS; q++)
                #pragma unroll
                for (int e = 0; e < FIXED_ROWS; e++) *panel.at(row + e * STEP, k + q * STEP) = held[q + e];
    }
};

// Multiplies a stage as soon as it is there, in add(), and leaves nothing under way.
struct AtOnce {
    static constexpr bool ATOMS = false;
    template <class A, class B> __device__ __forceinline__ void begin(const A&, const B&) {}  // of a product that goes on by itself
    __device__ __forceinline__ void settle() {}                                               // before a barrier: the end of all products
};

// Multiplies a stage on CUDA cores: each thread has TM x TN results. Along either axis they are blocks of SIDE neighbours, one block for each thread
// before the next one begins, so that the threads of a warp read neighbouring rows. Where rows are neighbours in memory, in both factors, a thread reads a
// block of them at once. A number read from shared memory is used TM or TN times.
template <int TM, int TN, bool A_ALONG, bool B_ALONG>
struct Cores : AtOnce {
    static_assert(BM / TM * (BN / TN) == THREADS, "one thread for each TM x TN results");
    static constexpr int ROWS = TM, COLUMNS = TN, STRIDE_M = BM / TM, STRIDE_N = BN / TN;  // ROWS, COLUMNS: of `result`
    static constexpr bool ACROSS = !A_ALONG && !B_ALONG;
    static constexpr int SIDE_M = !ACROSS ? 1 : TM < LINE ? TM : LINE, SIDE_N = !ACROSS ? 1 : TN < LINE ? TN : LINE;
    static constexpr int NEXT = SIDE_N < 4 ? SIDE_N : 4;  // columns of `result` that are neighbours in the tile, and are stored together
    Sum result[TM][TN];
    int m, n;  // of result[0][0] in the tile

    __device__ __forceinline__ Cores() : m(threadIdx.x / STRIDE_N * SIDE_M), n(threadIdx.x % STRIDE_N * SIDE_N) {}
    __device__ __forceinline__ int row(int i) const { return m + i / SIDE_M * SIDE_M * STRIDE_M + i % SIDE_M; }
    __device__ __forceinline__ int column(int j) const { return n + j / SIDE_N * SIDE_N * STRIDE_N + j % SIDE_N; }

    template <class A, class B>
    __device__ __forceinline__ void add(const A& a, const B& b) {
        constexpr bool LINES = ASYNC && LINE >= 4 && (SMALL ? !ACROSS : A_ALONG && B_ALONG);  // as many ks at a time as there are registers for
        constexpr int GROUP = LINES ? 4 : 2;
        #pragma unroll 1  // else the compiler reads all of the stage first
        for (int k = 0; k < BK; k += GROUP) {
            Sum x[TM / SIDE_M][SIDE_M][GROUP];
            #pragma unroll
            for (int i = 0; i < TM / SIDE_M; i++) a.read(m, i * SIDE_M * STRIDE_M, k, x[i]);
            #pragma unroll
            for (int j = 0; j < TN; j += SIDE_N) {
                Sum y[SIDE_N][GROUP];
                b.read(n, j * STRIDE_N, k, y);
                #pragma unroll
                for (int s = 0; s < SIDE_N; s++)
                    #pragma unroll
                    for (int i = 0; i < TM; i++)
                        #pragma unroll
                        for (int q = 0; q < GROUP; q++) result[i][j + s] += x[i / SIDE_M][i % SIDE_M][q] * y[s][q];
            }
        }
    }
};

#if TENSOR
#include "tensor.cuh"
#endif
#if WGMMA
#include "wgmma.cuh"
template <bool SUITED> struct MultiplierIf { typedef Warpgroups Type; };
template <> struct MultiplierIf<false> { typedef TensorCores Type; };
template <bool A_ALONG, bool B_ALONG> using Multiplier = typename MultiplierIf<TENSOR == 3 || (A_ALONG && B_ALONG)>::Type;
#elif TENSOR == 4
template <bool, bool> using Multiplier = SplitCores;
#elif TENSOR
template <bool, bool> using Multiplier = TensorCores;
#else
template <bool A_ALONG, bool B_ALONG> using Multiplier = Cores<SMALL && !TALL ? 4 : 8, SMALL ? 4 : 8, A_ALONG, B_ALONG>;
#endif

// The tile of a block; ProductOf<A, B> is one that suits these operands.
template <class Multiplier>
struct Tile : Multiplier {
    static constexpr int BLOCKS = Multiplier::ATOMS ? 2 : TOGETHER;  // on a multiprocessor
    using Multiplier::result;
    int m0, n0;  // where the tile begins
    __device__ __forceinline__ int row(int i) const { return m0 + Multiplier::row(i); }
    __device__ __forceinline__ int column(int j) const { return n0 + Multiplier::column(j); }

    // Whether rows of `pitch` numbers, of which some `width` from `first` on get results, can be written NEXT at a time.
    template <class Number>
    __device__ __forceinline__ static bool whole(const Number* to, int pitch, int first, int width) {
        constexpr int NEXT = Multiplier::NEXT;
        return (pitch | first | width) % NEXT == 0 && reinterpret_cast<unsigned long long>(to) % (NEXT * sizeof(Number)) == 0;
    }
    // Writes what make(s) says to to[s], for NEXT neighbours of which `left` are within the row: by one instruction if they are `whole`.
    template <class Number, class Make>
    __device__ __forceinline__ static void put(Number* to, bool whole, int left, const Make& make) {
        constexpr int NEXT = Multiplier::NEXT;
        struct alignas(NEXT * sizeof(Number)) Group { Number number[NEXT]; } group;
        if (whole) {
            #pragma unroll
            for (int s = 0; s < NEXT; s++) group.number[s] = make(s);
            *reinterpret_cast<Group*>(to) = group;
        } else {
            #pragma unroll
            for (int s = 0; s < NEXT; s++)
                if (s < left) to[s] = make(s);
        }
    }

    // The product over k_begin <= k < k_end of rows m_begin .. of `a` (of m_count) and rows n_begin .. of `b` (of n_count).
    template <class A, class B>
    __device__ __forceinline__ void multiply(const A& a, const B& b, int m_begin, int m_count, int n_begin, int n_count, int k_begin, int k_end) {
        __shared__ __align__(1024) Real as[STAGES][BM * BK];  // atoms of wgmma begin at multiples of their size
        __shared__ __align__(1024) Real bs[STAGES][BN * BK];
        m0 = m_begin;
        n0 = n_begin;
        #pragma unroll
        for (int i = 0; i < Multiplier::ROWS; i++)
            #pragma unroll
            for (int j = 0; j < Multiplier::COLUMNS; j++) result[i][j] = 0;
        typedef Feeder<A, BM, Multiplier::ATOMS> FeedA;
        typedef Feeder<B, BN, Multiplier::ATOMS> FeedB;
        typedef typename FeedA::To PanelA;
        typedef typename FeedB::To PanelB;
        FeedA feed_a(a, m0, m_count, k_begin, k_end);
        FeedB feed_b(b, n0, n_count, k_begin, k_end);
        #pragma unroll
        for (int s = 0; s < STAGES - 1; s++) {  // one step ahead, or two
            if (k_begin + s * BK < k_end) {
                feed_a.fetch({as[s]});
                feed_b.fetch({bs[s]});
                feed_a.put({as[s]});
                feed_b.put({bs[s]});
            }
            if constexpr (ASYNC) copies_commit();
        }
        for (int k0 = k_begin, stage = 0; k0 < k_end; k0 += BK) {
            if constexpr (ASYNC) copies_wait<STAGES - 2>();
            this->settle();
            __syncthreads();  // now all of `stage` is there, and nobody reads the stage before it any more
            const int next = k0 + (STAGES - 1) * BK, to = stage == 0 ? STAGES - 1 : stage - 1;
            this->begin(PanelA{as[stage]}, PanelB{bs[stage]});
            if (next < k_end) {
                feed_a.fetch({as[to]});
                feed_b.fetch({bs[to]});
            }
            if constexpr (ASYNC) copies_commit();  // of nothing, near the end: the wait above counts groups
            this->add(PanelA{as[stage]}, PanelB{bs[stage]});
            if (next < k_end) {
                feed_a.put({as[to]});
                feed_b.put({bs[to]});
            }
            stage = stage + 1 == STAGES ? 0 : stage + 1;
        }
        this->settle();
    }
};
template <class A, class B> using ProductOf = Tile<Multiplier<A::ALONG_K, B::ALONG_K>>;
