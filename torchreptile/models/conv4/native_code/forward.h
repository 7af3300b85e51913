// Convolution, BatchNorm, ReLU and pooling.

#pragma once

#include <cmath>

#include "task.h"

namespace {

template <class T>
void Task<T>::forward(int number, const Team& team) {
    Layer& layer = layers_[number];
    T *origin = scratch_ + team.rank * scratch_size_, *quarters = origin + wide_;
    // Moments are taken about one pixel's value, so that a large mean costs no precision.
    convolve(number, layer.conv / 2, layer.conv / 2, 0, 1, origin);
    const int units = layer.out * layer.out;
    for (int part = team.from(PARTS); part < team.to(PARTS); ++part) {
        T* sums = sums_ + Index(part) * 2 * wide_;
        std::memset(sums, 0, sizeof(T) * 2 * std::size_t(wide_));
        for (int unit = units * part / PARTS; unit < units * (part + 1) / PARTS; ++unit) {
            const int row = unit / layer.out, column = unit % layer.out;
            if (!pooled_) {
                T* y = layer.y + at(layer.conv, row, column);
                convolve(number, row, column, 0, batch_, y);
                moments(y, origin, sums);
                continue;
            }
            const T* found[4] = {};
            for (int q = 0; q < 4; ++q) {
                const int r = 2 * row + q / 2, c = 2 * column + q % 2;
                if (r >= layer.conv || c >= layer.conv) continue;
                T* y = layer.y ? layer.y + at(layer.conv, r, c) : quarters + Index(q) * batch_ * wide_;
                convolve(number, r, c, 0, batch_, y);
                found[q] = y;
            }
            pool(layer, row, column, found, origin, sums);
        }
    }
    team.meet();
    if (team.rank == 0) normalise(layer, origin);
    team.meet();
    activate(layer, number + 1 < BLOCKS ? layers_[number + 1].x : features_, team);
    team.meet();
}

// One position's convolution: (images, wide).
template <class T>
void Task<T>::convolve(int number, int row, int column, int image, int images, T* out) const {
    const Layer& layer = layers_[number];
    if (number == 0) {
        const T* a = images_ + (Index(row * padded_ + column) * stride_ * batch_ + image) * channels_;
        panels(vectors_, [&](auto v, int vector) {
            row_blocks(images, most_rows(v), [&](int from, int rows) {
                Tiles<T, v>::first[rows - 1](taps_, offsets_, a + Index(from) * channels_, channels_,
                                             layer.kernel + vector * WIDTH<T>, wide_,
                                             out + Index(from) * wide_ + vector * WIDTH<T>, wide_);
            });
        });
        return;
    }
    const int top = row * stride_ - layer.before, left = column * stride_ - layer.before;
    const int y0 = top < 0 ? -top : 0, y1 = layer.in - top < KERNEL ? layer.in - top : KERNEL;
    const int x0 = left < 0 ? -left : 0, x1 = layer.in - left < KERNEL ? layer.in - left : KERNEL;
    const Index step = Index(wide_) * wide_;
    const Taps taps{y1 - y0, x1 - x0, wide_, wide_, at(layer.in, 1, 0), at(layer.in, 0, 1), KERNEL * step, step, wide_};
    const T* a = layer.x + at(layer.in, top + y0, left + x0) + Index(image) * wide_;
    const T* b = layer.kernel + (y0 * KERNEL + x0) * step;
    panels(vectors_, [&](auto v, int vector) {
        row_blocks(images, most_rows(v), [&](int from, int rows) {
            Tiles<T, v>::product[rows - 1](taps, a + Index(from) * wide_, b + vector * WIDTH<T>,
                                           out + Index(from) * wide_ + vector * WIDTH<T>, wide_);
        });
    });
}

// Adds one position's sums, and sums of squares, of the differences from the origin.
template <class T>
void Task<T>::moments(const T* y, const T* origin, T* sums) const {
    for (int c = 0; c < wide_; c += WIDTH<T>) {
        const Vec<T> zero = load(origin + c);
        Vec<T> sum = load(sums + c), squares = load(sums + wide_ + c);
        for (int image = 0; image < batch_; ++image) {
            const Vec<T> more = load(y + Index(image) * wide_ + c) - zero;
            sum += more;
            squares += more * more;
        }
        store(sums + c, sum);
        store(sums + wide_ + c, squares);
    }
}

// Chooses in each 2x2 window the pixel that will be largest after BatchNorm, which follows from the sign of its
// scale; the first of equal ones, as in PyTorch.
template <class T>
void Task<T>::pool(const Layer& layer, int row, int column, const T* const* quarters, const T* origin, T* sums) const {
    using Mask = typename Simd<T>::Mask;
    const Index to = at(layer.out, row, column), wide = wide_, end = batch_ * wide;
    T* winners = layer.winner + to;
    std::int8_t* places = layer.place + to;
    for (Index c = 0; c < wide; c += WIDTH<T>) {
        const Vec<T> zero = load(origin + c), sign = load(layer.sign + c);
        Vec<T> sum = load(sums + c), squares = load(sums + wide + c);
        for (Index here = c; here < end; here += wide) {
            Vec<T> winner = load(quarters[0] + here), best = winner * sign;
            Mask place{};
            Vec<T> more = winner - zero;
            sum += more;
            squares += more * more;
#pragma GCC unroll 4
            for (int q = 1; q < 4; ++q) {
                if (!quarters[q]) continue;
                const Vec<T> y = load(quarters[q] + here), value = y * sign;
                const Mask better = value > best;
                best = better ? value : best;
                winner = better ? y : winner;
                place = better ? Mask{} + q : place;
                more = y - zero;
                sum += more;
                squares += more * more;
            }
            store(winners + here, winner);
            narrow<T>(place, places + here);
        }
        store(sums + c, sum);
        store(sums + wide + c, squares);
    }
}

template <class T>
void Task<T>::normalise(Layer& layer, const T* origin) const {
    const double pixels = double(pixels_of(layer.conv));
    for (int c = 0; c < wide_; ++c) {
        double sum = 0, squares = 0;
        for (int part = 0; part < PARTS; ++part) {
            sum += double(sums_[Index(part) * 2 * wide_ + c]);
            squares += double(sums_[Index(part) * 2 * wide_ + wide_ + c]);
        }
        const double offset = sum / pixels, measured = squares / pixels - offset * offset;
        const double variance = measured < 0 ? 0 : measured;  // NaN stays NaN
        const double mean = double(origin[c]) + offset, scale = 1 / std::sqrt(variance + BATCH_NORM_EPS);
        layer.mean[c] = T(mean);
        layer.scale[c] = T(scale);
        layer.slope[c] = T(scale * double(layer.gamma[c]));
        layer.shift[c] = T(double(layer.beta[c]) - mean * scale * double(layer.gamma[c]));
    }
}

// BatchNorm and ReLU.
template <class T>
void Task<T>::activate(const Layer& layer, T* x, const Team& team) const {
    const int positions = layer.out * layer.out;
    for (int position = team.from(positions); position < team.to(positions); ++position) {
        const Index wide = wide_, end = batch_ * wide;
        const T* from = layer.winner + position * end;
        T* to = x + position * end;
        for (Index c = 0; c < wide; c += WIDTH<T>) {
            const Vec<T> slope = load(layer.slope + c), shift = load(layer.shift + c);
            for (Index i = c; i < end; i += wide) {
                const Vec<T> value = load(from + i) * slope + shift;
                store(to + i, value < Vec<T>{} ? Vec<T>{} : value);  // NaN stays NaN
            }
        }
    }
}

}  // namespace
