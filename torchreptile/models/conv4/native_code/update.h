// The gradients are returned, or used for the inner step.

#pragma once

#include <cmath>

#include "task.h"

namespace {

template <class T>
void Task<T>::update(const Team& team) const {
    for (int number = 0; number < BLOCKS; ++number) {
        const Layer& layer = layers_[number];
        const int inputs = number == 0 ? channels_ : filters_;
        const int rows = TAPS * inputs;
        const int from = team.from(rows), to = team.to(rows);
        if (filters_ == wide_) {
            apply(number, Index(from) * filters_, layer.gradient + Index(from) * wide_, Index(to - from) * filters_);
        } else {
            for (int row = from; row < to; ++row) {
                const Index packed = Index(row / inputs) * layer.inputs + row % inputs;
                apply(number, Index(row) * filters_, layer.gradient + packed * wide_, filters_);
            }
        }
        if (team.rank != 0) continue;
        apply(BLOCKS + number, 0, zeros_, filters_);  // BatchNorm removes a bias, whose gradient is therefore zero
        apply(2 * BLOCKS + number, 0, layer.d_gamma, filters_);
        apply(3 * BLOCKS + number, 0, layer.d_beta, filters_);
    }
    if (team.rank != 0) return;
    apply(4 * BLOCKS, 0, flat_, sizes_[4 * BLOCKS]);
    apply(4 * BLOCKS + 1, 0, flat_ + sizes_[4 * BLOCKS], way_);
}

// Returns the gradient, or takes the inner step with it.
template <class T>
void Task<T>::apply(int number, Index at, const T* __restrict__ g, Index count) const {
    if (job_.mode == GRADIENT) {
        std::memcpy(tensor(job_.gradient, number) + at, g, sizeof(T) * std::size_t(count));
        return;
    }
    T* __restrict__ p = tensor(job_.params, number) + at;
    const T lr = T(job_.lr);
    if (job_.mode == SGD) {
        for (Index i = 0; i < count; ++i) p[i] -= lr * g[i];
        return;
    }
    T* __restrict__ v = tensor(job_.second, number) + at;
    const T beta2 = T(job_.beta2), rest = T(1 - job_.beta2), eps = T(job_.eps), correction = T(job_.correction);
    for (Index i = 0; i < count; ++i) {
        v[i] = beta2 * v[i] + rest * g[i] * g[i];
        p[i] -= lr * g[i] / (std::sqrt(v[i]) / correction + eps);
    }
}

}  // namespace
