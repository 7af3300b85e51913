// The linear layer and the cross-entropy, forward and backward.

#pragma once

#include <cmath>

#include "task.h"

namespace {

// Computes the logits; unless only those were requested, also the losses, and overwrites the logits by their gradient.
template <class T>
void Task<T>::head(const Team& team) {
    const T* bias = tensor(job_.params, 4 * BLOCKS + 1);
    const Index pixel = Index(batch_) * wide_;
    for (int image = team.from(batch_); image < team.to(batch_); ++image) {
        T* logits = logits_ + Index(image) * way_;
        for (int w = 0; w < way_; ++w) {
            const T* weight = head_ + Index(w) * spatial_ * wide_;
            Vec<T> sum{};
            for (int p = 0; p < spatial_; ++p) {
                const T* x = features_ + p * pixel + Index(image) * wide_;
                for (int c = 0; c < wide_; c += WIDTH<T>) sum += load(x + c) * load(weight + Index(p) * wide_ + c);
            }
            T total = bias[w];
            for (int i = 0; i < WIDTH<T>; ++i) total += sum[i];
            logits[w] = total;
        }
        if (job_.mode == LOGITS) {
            T* out = static_cast<T*>(job_.logits) + (task_ * batch_ + image) * way_;
            std::memcpy(out, logits, sizeof(T) * std::size_t(way_));
            continue;
        }
        T most = logits[0];
        for (int w = 1; w < way_; ++w) most = logits[w] > most ? logits[w] : most;
        T total = 0;
        for (int w = 0; w < way_; ++w) total += std::exp(logits[w] - most);
        const T log_total = most + std::log(total);
        const int label = int(job_.labels[task_ * batch_ + image]);
        losses_[image] = log_total - logits[label];
        for (int w = 0; w < way_; ++w) {
            logits[w] = (std::exp(logits[w] - log_total) - (w == label ? T(1) : T(0))) / T(batch_);
        }
    }
}

template <class T>
void Task<T>::head_back(const Team& team) {
    const Index pixel = Index(batch_) * wide_;
    if (team.rank == 0) {
        T loss = 0;
        for (int image = 0; image < batch_; ++image) loss += losses_[image];
        static_cast<T*>(job_.losses)[task_] = loss / T(batch_);
        T* bias = flat_ + sizes_[4 * BLOCKS];
        for (int w = 0; w < way_; ++w) {
            bias[w] = 0;
            for (int image = 0; image < batch_; ++image) bias[w] += logits_[Index(image) * way_ + w];
        }
    }
    T* d = layers_[BLOCKS - 1].d;
    for (int p = team.from(spatial_); p < team.to(spatial_); ++p) {
        for (int c = 0; c < wide_; c += WIDTH<T>) {
            for (int image = 0; image < batch_; ++image) {
                Vec<T> sum{};
                for (int w = 0; w < way_; ++w) {
                    sum += all(logits_[Index(image) * way_ + w]) * load(head_ + (Index(w) * spatial_ + p) * wide_ + c);
                }
                store(d + p * pixel + Index(image) * wide_ + c, sum);
            }
            for (int w = 0; w < way_; ++w) {
                Vec<T> sum{};
                for (int image = 0; image < batch_; ++image) {
                    const Vec<T> x = load(features_ + p * pixel + Index(image) * wide_ + c);
                    sum += all(logits_[Index(image) * way_ + w]) * x;
                }
                T* to = flat_ + (Index(w) * filters_ + c) * spatial_ + p;
                for (int i = 0; i < WIDTH<T> && c + i < filters_; ++i) to[Index(i) * spatial_] = sum[i];
            }
        }
    }
}

}  // namespace
