// The backward pass: from the gradient of a block's output to those of its weights and input.

#pragma once

#include "task.h"

namespace {

template <class T>
void Task<T>::backward(int number, const Team& team) {
    Layer& layer = layers_[number];
    reduce(layer, number + 1 < BLOCKS ? layers_[number + 1].x : features_, team);
    team.meet();
    if (team.rank == 0) tilt(layer);
    team.meet();
    if (number > 0 || !pooled_) {
        const int positions = layer.conv * layer.conv;
        for (int i = team.from(positions); i < team.to(positions); ++i) {
            T* y = (pooled_ ? layer.y : layer.d) + Index(i) * batch_ * wide_;
            spread(layer, i / layer.conv, i % layer.conv, y);
        }
        team.meet();
    }
    if (number == 0) {
        first_gradient(team);
        return;
    }
    kernel_gradient(number, team);
    map_gradient(number, team);
    team.meet();
}

// Masks the output's gradient where ReLU was zero, and sums it, alone and times BatchNorm's normalised values.
template <class T>
void Task<T>::reduce(const Layer& layer, const T* x, const Team& team) const {
    const int positions = layer.out * layer.out;
    for (int part = team.from(PARTS); part < team.to(PARTS); ++part) {
        T* sums = sums_ + Index(part) * 2 * wide_;
        std::memset(sums, 0, sizeof(T) * 2 * std::size_t(wide_));
        for (int position = positions * part / PARTS; position < positions * (part + 1) / PARTS; ++position) {
            const Index wide = wide_, end = batch_ * wide;
            const T *active = x + position * end, *winner = layer.winner + position * end;
            T* gradient = layer.d + position * end;
            for (Index c = 0; c < wide; c += WIDTH<T>) {
                const Vec<T> mean = load(layer.mean + c);
                Vec<T> sum = load(sums + c), with = load(sums + wide + c);
                for (Index i = c; i < end; i += wide) {
                    const Vec<T> d = load(active + i) <= Vec<T>{} ? Vec<T>{} : load(gradient + i);
                    store(gradient + i, d);
                    sum += d;
                    with += d * (load(winner + i) - mean);
                }
                store(sums + c, sum);
                store(sums + wide + c, with);
            }
        }
    }
}

template <class T>
void Task<T>::tilt(Layer& layer) const {
    const double pixels = double(pixels_of(layer.conv));
    for (int c = 0; c < wide_; ++c) {
        double sum = 0, with = 0;
        for (int part = 0; part < PARTS; ++part) {
            sum += double(sums_[Index(part) * 2 * wide_ + c]);
            with += double(sums_[Index(part) * 2 * wide_ + wide_ + c]);
        }
        const double scale = double(layer.scale[c]), slope = scale * double(layer.gamma[c]);
        layer.d_beta[c] = T(sum);
        layer.d_gamma[c] = T(with * scale);
        layer.tilt[c] = T(-slope * scale * scale * with / pixels);
        layer.level[c] = T(-slope * sum / pixels);
    }
}

// The gradient of one position's convolution; overwrites y (B, wide), which is the layer's d in strided networks.
template <class T>
void Task<T>::spread(const Layer& layer, int row, int column, T* y) const {
    const Index wide = wide_, end = batch_ * wide;
    if (!pooled_) {
        const T* from = layer.y + at(layer.conv, row, column);
        for (Index c = 0; c < wide; c += WIDTH<T>) {
            const Vec<T> slope = load(layer.slope + c), mean = load(layer.mean + c);
            const Vec<T> tilt = load(layer.tilt + c), level = load(layer.level + c);
            for (Index i = c; i < end; i += wide) {
                store(y + i, load(y + i) * slope + ((load(from + i) - mean) * tilt + level));
            }
        }
        return;
    }
    const Index window = at(layer.out, row / 2, column / 2);
    const int q = row % 2 * 2 + column % 2;
    const std::int8_t* place = layer.place + window;
    const T* d_window = layer.d + window;
    for (Index c = 0; c < wide; c += WIDTH<T>) {
        const Vec<T> slope = load(layer.slope + c), mean = load(layer.mean + c);
        const Vec<T> tilt = load(layer.tilt + c), level = load(layer.level + c);
        for (Index i = c; i < end; i += wide) {
            const Vec<T> d = widen<T>(place + i) == q ? load(d_window + i) * slope : Vec<T>{};
            store(y + i, (load(y + i) - mean) * tilt + level + d);
        }
    }
}

template <class T>
void Task<T>::kernel_gradient(int number, const Team& team) const {
    const Layer& layer = layers_[number];
    const int columns = layer.conv < near_columns_ ? layer.conv : near_columns_;
    const int rows = near_columns_ / columns;
    row_blocks(layer.conv, rows, [&](int row, int height) {
        row_blocks(layer.conv, columns, [&](int column, int width) {
            kernel_gradient_of(number, row, height, column, width, team);
        });
    });
}

// Adds the contribution of these positions to the kernel's gradient; threads share the taps and inputs.
template <class T>
void Task<T>::kernel_gradient_of(int number, int row, int rows, int column, int columns, const Team& team) const {
    const Layer& layer = layers_[number];
    const T* dy = pooled_ ? layer.y : layer.d;
    const bool begins = row == 0 && column == 0;
    panels(vectors_, [&](auto v, int vector) {
        const int count = (wide_ + most_rows(v) - 1) / most_rows(v), units = TAPS * count;
        for (int unit = team.from(units); unit < team.to(units); ++unit) {
            const int tap = unit / count, down = tap / KERNEL - layer.before, right = tap % KERNEL - layer.before;
            const int k0 = wide_ * (unit % count) / count, k1 = wide_ * (unit % count + 1) / count;
            T* out = layer.gradient + (Index(tap) * wide_ + k0) * wide_ + vector * WIDTH<T>;
            if (begins) {
                for (int k = k0; k < k1; ++k) std::memset(out + Index(k - k0) * wide_, 0, sizeof(T) * v * WIDTH<T>);
            }
            int y0 = row, y1 = row + rows, x0 = column, x1 = column + columns;
            while (y0 * stride_ + down < 0) ++y0;
            while (x0 * stride_ + right < 0) ++x0;
            while (y1 > y0 && (y1 - 1) * stride_ + down >= layer.in) --y1;
            while (x1 > x0 && (x1 - 1) * stride_ + right >= layer.in) --x1;
            if (y0 >= y1 || x0 >= x1) continue;
            Pixels pixels{y1 - y0, x1 - x0, batch_,
                          at(layer.in, stride_, 0), at(layer.in, 0, stride_), wide_,
                          at(layer.conv, 1, 0), at(layer.conv, 0, 1), wide_};
            if (stride_ == 1) pixels.run *= pixels.nx, pixels.nx = 1;
            Tiles<T, v>::gradient[k1 - k0 - 1](pixels, nullptr,
                                               layer.x + at(layer.in, y0 * stride_ + down, x0 * stride_ + right) + k0,
                                               dy + at(layer.conv, y0, x0) + vector * WIDTH<T>, out, wide_);
        }
    });
}

// The first layer's kernel has few rows, so threads share the pixels instead. Networks with pooling compute its
// convolution again, which is cheaper than storing it.
template <class T>
void Task<T>::first_gradient(const Team& team) const {
    const Layer& layer = layers_[0];
    const Index size = Index(taps_) * wide_, pixel = Index(batch_) * channels_;
    T* scratch = scratch_ + team.rank * scratch_size_;
    for (int part = team.from(PARTS); part < team.to(PARTS); ++part) {
        T* sums = first_sums_ + part * size;
        std::memset(sums, 0, sizeof(T) * std::size_t(size));
        for (int row = layer.conv * part / PARTS; row < layer.conv * (part + 1) / PARTS; ++row) {
            row_blocks(layer.conv, near_columns_, [&](int column, int columns) {
                const T* dy = pooled_ ? scratch : layer.d + at(layer.conv, row, column);
                for (int i = 0; pooled_ && i < columns; ++i) {
                    T* y = scratch + at(columns, 0, i);
                    convolve(0, row, column + i, 0, batch_, y);
                    spread(layer, row, column + i, y);
                }
                Pixels pixels{1, columns, batch_, 0, stride_ * pixel, channels_, 0, at(layer.conv, 0, 1), wide_};
                if (stride_ == 1) pixels.run *= columns, pixels.nx = 1;
                const T* a = images_ + Index(row * padded_ + column) * stride_ * pixel;
                panels(vectors_, [&](auto v, int vector) {
                    row_blocks(taps_, most_rows(v), [&](int k, int rows) {
                        Tiles<T, v>::scattered[rows - 1](pixels, offsets_ + k, a, dy + vector * WIDTH<T>,
                                                         sums + Index(k) * wide_ + vector * WIDTH<T>, wide_);
                    });
                });
            });
        }
    }
    team.meet();
    for (int k = team.from(taps_); k < team.to(taps_); ++k) {
        for (Index i = Index(k) * wide_; i < Index(k + 1) * wide_; i += WIDTH<T>) {
            Vec<T> sum{};
            for (int part = 0; part < PARTS; ++part) sum += load(first_sums_ + part * size + i);
            store(layer.gradient + i, sum);
        }
    }
}

// The gradient of a layer's input. In a strided convolution a pixel meets every second tap along each axis.
template <class T>
void Task<T>::map_gradient(int number, const Team& team) const {
    const Layer& layer = layers_[number];
    const T* dy = pooled_ ? layer.y : layer.d;
    T* d = layers_[number - 1].d;
    const Index step = Index(wide_) * wide_;
    // Along one axis: the first tap, the output pixel it belongs to, and the number of taps.
    const auto reach = [&](int pixel, int& tap, int& out) {
        tap = (pixel + layer.before) % stride_;
        out = (pixel + layer.before - tap) / stride_;
        while (out >= layer.conv) tap += stride_, --out;
        int count = 0;
        while (tap + count * stride_ < KERNEL && out - count >= 0) ++count;
        return count;
    };
    const int positions = layer.in * layer.in;
    for (int position = team.from(positions); position < team.to(positions); ++position) {
        int tap_y, tap_x, row, column;
        const int ny = reach(position / layer.in, tap_y, row), nx = reach(position % layer.in, tap_x, column);
        const Taps taps{ny, nx, wide_,
                        wide_, -at(layer.conv, 1, 0), -at(layer.conv, 0, 1),
                        stride_ * KERNEL * step, stride_ * step, wide_};
        const T* a = dy + at(layer.conv, row, column);
        const T* b = layer.turned + (tap_y * KERNEL + tap_x) * step;
        T* out = d + Index(position) * batch_ * wide_;
        panels(vectors_, [&](auto v, int vector) {
            row_blocks(batch_, most_rows(v), [&](int from, int rows) {
                Tiles<T, v>::product[rows - 1](taps, a + Index(from) * wide_, b + vector * WIDTH<T>,
                                               out + Index(from) * wide_ + vector * WIDTH<T>, wide_);
            });
        });
    }
}

}  // namespace
