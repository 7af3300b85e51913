// Matrix products in registers: a tile of R rows and V vectors of channels, summed up over everything, stored once.

#pragma once

#include <utility>

#include "vectors.h"

namespace {

constexpr int PANEL = REGISTERS == 32 ? 4 : 2;  // vectors of channels in a register tile
constexpr int MOST_ROWS = 10;                   // of a tile; each needs a pointer

// Rows that fit into the registers together with V vectors of the other factor.
constexpr int most_rows(int v) {
    const int rows = (REGISTERS - v - 2) / v;
    return rows < 1 ? 1 : rows > MOST_ROWS ? MOST_ROWS : rows;
}

// out[r] = sum over y, x, k of a[r * a_row + y * a_y + x * a_x + k] * b[y * b_y + x * b_x + k * b_row], V vectors each.
struct Taps {
    int ny, nx, k;
    Index a_row, a_y, a_x, b_y, b_x, b_row;
};

template <class T, int R, int V>
void tile(const Taps& taps, const T* a, const T* b, T* out, Index out_row) {
    Vec<T> sum[R][V] = {};
    for (int y = 0; y < taps.ny; ++y) {
        for (int x = 0; x < taps.nx; ++x) {
            const T* row[R];
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) row[r] = a + y * taps.a_y + x * taps.a_x + r * taps.a_row;
            const T* column = b + y * taps.b_y + x * taps.b_x;
            for (int k = 0; k < taps.k; ++k) {
                Vec<T> factor[V];
#pragma GCC unroll 16
                for (int v = 0; v < V; ++v) factor[v] = load(column + v * WIDTH<T>);
#pragma GCC unroll 16
                for (int r = 0; r < R; ++r) {
                    const Vec<T> one = all(row[r][k]);
#pragma GCC unroll 16
                    for (int v = 0; v < V; ++v) sum[r][v] += one * factor[v];
                }
                column += taps.b_row;
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
        for (int v = 0; v < V; ++v) store(out + r * out_row + v * WIDTH<T>, sum[r][v]);
    }
}

// Product of the first layer, whose few channels are not contiguous: offset[k] is where the k-th factor lies.
template <class T, int R, int V>
void first_tile(int k, const Index* offset, const T* a, Index a_row, const T* b, Index b_row, T* out, Index out_row) {
    Vec<T> sum[R][V] = {};
    const T* row[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) row[r] = a + r * a_row;
    for (int i = 0; i < k; ++i) {
        const Index at = offset[i];
        Vec<T> factor[V];
#pragma GCC unroll 16
        for (int v = 0; v < V; ++v) factor[v] = load(b + v * WIDTH<T>);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const Vec<T> one = all(row[r][at]);
#pragma GCC unroll 16
            for (int v = 0; v < V; ++v) sum[r][v] += one * factor[v];
        }
        b += b_row;
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
        for (int v = 0; v < V; ++v) store(out + r * out_row + v * WIDTH<T>, sum[r][v]);
    }
}

// out[r] += sum over pixels of a[pixel][offset of r] * b[pixel]; pixels come in ny * nx runs.
struct Pixels {
    int ny, nx, run;
    Index a_y, a_x, a_step, b_y, b_x, b_step;
};

template <class T, int R, int V, bool CONTIGUOUS>
void gradient_tile(const Pixels& pixels, const Index* offset, const T* a, const T* b, T* out, Index out_row) {
    Vec<T> sum[R][V];
    Index at[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        at[r] = CONTIGUOUS ? r : offset[r];
#pragma GCC unroll 16
        for (int v = 0; v < V; ++v) sum[r][v] = load(out + r * out_row + v * WIDTH<T>);
    }
    for (int y = 0; y < pixels.ny; ++y) {
        for (int x = 0; x < pixels.nx; ++x) {
            const T* row = a + y * pixels.a_y + x * pixels.a_x;
            const T* column = b + y * pixels.b_y + x * pixels.b_x;
            for (int k = 0; k < pixels.run; ++k) {
                Vec<T> factor[V];
#pragma GCC unroll 16
                for (int v = 0; v < V; ++v) factor[v] = load(column + v * WIDTH<T>);
#pragma GCC unroll 16
                for (int r = 0; r < R; ++r) {
                    const Vec<T> one = all(row[at[r]]);
#pragma GCC unroll 16
                    for (int v = 0; v < V; ++v) sum[r][v] += one * factor[v];
                }
                row += pixels.a_step;
                column += pixels.b_step;
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
        for (int v = 0; v < V; ++v) store(out + r * out_row + v * WIDTH<T>, sum[r][v]);
    }
}

// One function for each number of rows, indexed by that number less one.
template <class T, int V, class Rows = std::make_integer_sequence<int, most_rows(V)>>
struct Tiles;
template <class T, int V, int... R>
struct Tiles<T, V, std::integer_sequence<int, R...>> {
    static constexpr void (*product[])(const Taps&, const T*, const T*, T*, Index) = {&tile<T, R + 1, V>...};
    static constexpr void (*first[])(int, const Index*, const T*, Index, const T*, Index, T*, Index) = {
        &first_tile<T, R + 1, V>...};
    static constexpr void (*gradient[])(const Pixels&, const Index*, const T*, const T*, T*, Index) = {
        &gradient_tile<T, R + 1, V, true>...};
    static constexpr void (*scattered[])(const Pixels&, const Index*, const T*, const T*, T*, Index) = {
        &gradient_tile<T, R + 1, V, false>...};
};

// Calls work(V, first vector) for as few panels as cover `vectors`.
template <class Work>
inline void panels(int vectors, Work work) {
    int done = 0;
    if constexpr (PANEL == 4) {
        for (; vectors - done >= 4; done += 4) work(std::integral_constant<int, 4>(), done);
    }
    for (; vectors - done >= 2; done += 2) work(std::integral_constant<int, 2>(), done);
    if (done < vectors) work(std::integral_constant<int, 1>(), done);
}

// Divides `rows` into as few, and as even, blocks of at most `most` as possible: calls work(first row, rows).
template <class Work>
inline void row_blocks(int rows, int most, Work work) {
    const int count = (rows + most - 1) / most;
    for (int i = 0; i < count; ++i) {
        const int from = rows * i / count, to = rows * (i + 1) / count;
        work(from, to - from);
    }
}

}  // namespace
