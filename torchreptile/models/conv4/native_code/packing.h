// Copies images and weights from the caller's memory into the task's memory, in its layout.

#pragma once

#include "task.h"

namespace {

template <class T>
void Task<T>::pack(const Team& team) {
    pack_images(team);
    for (int number = 0; number < BLOCKS; ++number) pack_kernel(layers_[number], number, team);
    if (team.rank != 0) return;
    for (int number = 0; number < BLOCKS; ++number) {
        Layer& layer = layers_[number];
        const T *gamma = tensor(job_.params, 2 * BLOCKS + number), *beta = tensor(job_.params, 3 * BLOCKS + number);
        for (int c = 0; c < wide_; ++c) {
            layer.gamma[c] = c < filters_ ? gamma[c] : T(0);
            layer.beta[c] = c < filters_ ? beta[c] : T(0);
            layer.sign[c] = layer.gamma[c] < 0 ? T(-1) : layer.gamma[c] > 0 ? T(1) : T(0);
        }
    }
    const T* weight = tensor(job_.params, 4 * BLOCKS);  // (way, filters, pixels)
    for (int w = 0; w < way_; ++w) {
        for (int p = 0; p < spatial_; ++p) {
            T* to = head_ + (Index(w) * spatial_ + p) * wide_;
            for (int c = 0; c < wide_; ++c) {
                to[c] = c < filters_ ? weight[(Index(w) * filters_ + c) * spatial_ + p] : T(0);
            }
        }
    }
}

template <class T>
void Task<T>::pack_kernel(Layer& layer, int number, const Team& team) {
    const int inputs = number == 0 ? channels_ : filters_;
    const T* kernel = tensor(job_.params, number);
    if (team.rank == 0) layer.kernel = layer.packed ? layer.packed : kernel;
    if (layer.packed) {
        const int rows = TAPS * layer.inputs;
        for (int row = team.from(rows); row < team.to(rows); ++row) {
            const int tap = row / layer.inputs, k = row % layer.inputs;
            for (int c = 0; c < wide_; ++c) {
                const bool real = k < inputs && c < filters_;
                layer.packed[Index(row) * wide_ + c] = real ? kernel[(Index(tap) * inputs + k) * filters_ + c] : T(0);
            }
        }
    }
    if (!layer.turned || job_.mode == LOGITS) return;
    constexpr int BLOCK = 16;
    const int blocks = (wide_ + BLOCK - 1) / BLOCK, units = TAPS * blocks;
    for (int unit = team.from(units); unit < team.to(units); ++unit) {
        const int tap = unit / blocks, first = unit % blocks * BLOCK;
        const int last = first + BLOCK < wide_ ? first + BLOCK : wide_;
        const T* from = kernel + Index(tap) * filters_ * filters_;
        T* to = layer.turned + Index(tap) * wide_ * wide_;
        for (int c = first; c < last; ++c) {
            for (int k = 0; k < wide_; ++k) {
                to[Index(c) * wide_ + k] = k < filters_ && c < filters_ ? from[Index(k) * filters_ + c] : T(0);
            }
        }
    }
}

// (B, C, H, W) into padded (H, W, B, C).
template <class T>
void Task<T>::pack_images(const Team& team) {
    const int size = layers_[0].in, before = layers_[0].before;
    const T* images = static_cast<const T*>(job_.images) + task_ * batch_ * channels_ * size * size;
    const Index pixel = Index(batch_) * channels_;
    for (int row = team.from(padded_); row < team.to(padded_); ++row) {
        T* to = images_ + row * padded_ * pixel;
        const int r = row - before;
        if (r < 0 || r >= size) {
            std::memset(to, 0, sizeof(T) * std::size_t(padded_ * pixel));
            continue;
        }
        for (int column = 0; column < padded_; ++column, to += pixel) {
            const int c = column - before;
            if (c < 0 || c >= size) {
                std::memset(to, 0, sizeof(T) * std::size_t(pixel));
                continue;
            }
            const T* from = images + Index(r) * size + c;
            for (Index plane = 0; plane < pixel; ++plane) to[plane] = from[plane * size * size];
        }
    }
}

}  // namespace
