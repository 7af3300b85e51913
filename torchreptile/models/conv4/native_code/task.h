// The job that the caller passes, and one of its tasks with its maps and weights in memory.
//
// Maps are laid out as (row, column, image, channel): the images of a position are neighbours, so all rows of a
// register tile see the same taps of the kernel, and taps on the padding are skipped. Channels are padded with zeros to
// a multiple of the vector width, called "wide". Every sum has a fixed order, whatever the number of threads: shared
// sums are divided into PARTS.

#pragma once

#include <cstdint>
#include <cstring>

#include "threads.h"
#include "tiles.h"

namespace {

constexpr int BLOCKS = 4, KERNEL = 3, TAPS = 9;
constexpr int PARTS = 16;         // shares of work whose sums are added up in order
constexpr Index NEAR = 24 * 1024;  // bytes that should stay in the nearest cache
constexpr double BATCH_NORM_EPS = 1e-3;

enum Mode : std::int64_t { LOGITS, GRADIENT, SGD, ADAM };

// A call of native.py, which declares the same members in the same order. Tensors of T tasks, one after another:
// kernels (T, 3, 3, in, out), then biases, gammas and betas (T, filters) of four blocks, the head's weight and bias.
constexpr int TENSORS = 4 * BLOCKS + 2;
struct Job {
    std::int64_t mode, tasks, batch, channels, size, filters, way, stride, threads;
    double lr, beta2, eps, correction;
    const void* images;           // (T, B, C, H, W)
    const std::int64_t* labels;   // (T, B)
    void *losses, *logits;        // (T,), (T, B, way)
    void* params[TENSORS];
    void* second[TENSORS];
    void* gradient[TENSORS];
};

// One task: everything from its images to its gradients or its changed parameters, computed by one team of threads.
template <class T>
class Task {
  public:
    Task(const Job& job, int team_size, Arena& arena);
    void run(int task, const Team& team);

  private:
    struct Layer {
        int in, conv, out, before;                           // sides of maps; padding before
        int inputs;                                          // channels of a tap, padded
        T *x, *y, *winner, *d;                               // input; convolution; pooling's choice; output's gradient
        std::int8_t* place;                                  // which of four pixels pooling chose
        T *packed, *turned, *gradient;                       // kernel, kernel with channels swapped, kernel's gradient
        T *gamma, *beta, *sign, *mean, *scale, *slope, *shift, *tilt, *level, *d_gamma, *d_beta;
        const T* kernel;                                     // (3, 3, inputs, wide)
    };

    void lay_out(int team_size, char* memory);
    template <class U>
    U* take(char* memory, Index count);
    T* tensor(void* const* tensors, int number) const {
        return static_cast<T*>(tensors[number]) + task_ * sizes_[number];
    }

    void pack(const Team& team);
    void pack_kernel(Layer& layer, int number, const Team& team);
    void pack_images(const Team& team);
    void forward(int number, const Team& team);
    void convolve(int number, int row, int column, int image, int images, T* out) const;
    void moments(const T* y, const T* origin, T* sums) const;
    void pool(const Layer& layer, int row, int column, const T* const* quarters, const T* origin, T* sums) const;
    void normalise(Layer& layer, const T* origin) const;
    void activate(const Layer& layer, T* x, const Team& team) const;
    void head(const Team& team);
    void head_back(const Team& team);
    void backward(int number, const Team& team);
    void reduce(const Layer& layer, const T* x, const Team& team) const;
    void tilt(Layer& layer) const;
    void spread(const Layer& layer, int row, int column, T* y) const;
    void kernel_gradient(int number, const Team& team) const;
    void kernel_gradient_of(int number, int row, int rows, int column, int columns, const Team& team) const;
    void first_gradient(const Team& team) const;
    void map_gradient(int number, const Team& team) const;
    void update(const Team& team) const;
    void apply(int number, Index at, const T* gradient, Index count) const;

    // Offset of a position's values, of all images, in maps with this side.
    Index at(int side, int row, int column) const { return Index(row * side + column) * batch_ * wide_; }
    Index pixels_of(int side) const { return Index(side) * side * batch_; }

    const Job& job_;
    const int batch_, channels_, filters_, wide_, vectors_, way_, stride_;
    const bool pooled_;
    Index task_ = 0, sizes_[TENSORS];
    Layer layers_[BLOCKS];
    int padded_, spatial_, taps_;  // side of the padded images; pixels the head sees; 9 * channels
    int near_columns_;             // positions whose values fit into the nearest cache
    Index scratch_size_, used_ = 0;
    Index* offsets_;
    T *images_, *features_, *logits_, *losses_, *sums_, *first_sums_, *scratch_, *zeros_;
    T *head_, *flat_;  // the head's weight (way, pixels, wide); its gradient in the caller's layout, then the bias's
};

inline int half(int n) { return (n + 1) / 2; }

template <class T>
Task<T>::Task(const Job& job, int team_size, Arena& arena)
    : job_(job), batch_(int(job.batch)), channels_(int(job.channels)), filters_(int(job.filters)),
      wide_((int(job.filters) + WIDTH<T> - 1) / WIDTH<T> * WIDTH<T>), vectors_(wide_ / WIDTH<T>), way_(int(job.way)),
      stride_(int(job.stride)), pooled_(job.stride == 1) {
    int size = int(job.size);
    for (int number = 0; number < BLOCKS; ++number) {
        Layer& layer = layers_[number];
        layer.in = size;
        layer.conv = stride_ == 2 ? half(size) : size;
        layer.out = pooled_ ? half(layer.conv) : layer.conv;
        const int padding = (layer.conv - 1) * stride_ + KERNEL - size;
        layer.before = padding > 0 ? padding / 2 : 0;  // TensorFlow's 'SAME'
        layer.inputs = number == 0 ? channels_ : wide_;
        size = layer.out;
        sizes_[number] = Index(TAPS) * (number == 0 ? channels_ : filters_) * filters_;
        for (int kind = 1; kind < 4; ++kind) sizes_[kind * BLOCKS + number] = filters_;
    }
    spatial_ = size * size;
    sizes_[4 * BLOCKS] = Index(way_) * filters_ * spatial_;
    sizes_[4 * BLOCKS + 1] = way_;
    padded_ = stride_ * (layers_[0].conv - 1) + KERNEL;
    taps_ = TAPS * channels_;
    near_columns_ = int(NEAR / (Index(batch_) * wide_ * Index(sizeof(T))));
    if (near_columns_ < 1) near_columns_ = 1;
    scratch_size_ = Index(near_columns_ > 4 ? near_columns_ : 4) * batch_ * wide_ + wide_;
    lay_out(team_size, nullptr);
    const Index bytes = used_;
    lay_out(team_size, arena.of(std::size_t(bytes)));
    for (int k = 0; k < taps_; ++k) {
        const int tap = k / channels_;
        offsets_[k] = (Index(tap / KERNEL) * padded_ + tap % KERNEL) * batch_ * channels_ + k % channels_;
    }
    std::memset(zeros_, 0, sizeof(T) * std::size_t(filters_));
}

template <class T>
template <class U>
U* Task<T>::take(char* memory, Index count) {
    const Index here = used_;
    used_ += (count * Index(sizeof(U)) + 127) / 64 * 64;  // and one more vector, for loads beyond the end
    return reinterpret_cast<U*>(memory + here);
}

// Assigns the memory; given a null pointer, only counts how much is needed.
template <class T>
void Task<T>::lay_out(int team_size, char* memory) {
    used_ = 0;
    const Index kernel = Index(TAPS) * wide_ * wide_;
    images_ = take<T>(memory, Index(padded_) * padded_ * batch_ * channels_);
    for (int number = 0; number < BLOCKS; ++number) {
        Layer& layer = layers_[number];
        const Index conv = pixels_of(layer.conv) * wide_, out = pixels_of(layer.out) * wide_;
        layer.x = number == 0 ? images_ : take<T>(memory, pixels_of(layer.in) * wide_);
        layer.y = pooled_ && number == 0 ? nullptr : take<T>(memory, conv);
        layer.d = take<T>(memory, out);
        layer.winner = pooled_ ? take<T>(memory, out) : layer.y;
        layer.place = pooled_ ? take<std::int8_t>(memory, out) : nullptr;
        layer.packed = filters_ == wide_ ? nullptr : take<T>(memory, number == 0 ? taps_ * wide_ : kernel);
        layer.turned = number == 0 ? nullptr : take<T>(memory, kernel);
        layer.gradient = take<T>(memory, number == 0 ? taps_ * wide_ : kernel);
        for (T** each : {&layer.gamma, &layer.beta, &layer.sign, &layer.mean, &layer.scale, &layer.slope, &layer.shift,
                         &layer.tilt, &layer.level, &layer.d_gamma, &layer.d_beta}) {
            *each = take<T>(memory, wide_);
        }
    }
    offsets_ = take<Index>(memory, taps_);
    features_ = take<T>(memory, pixels_of(layers_[BLOCKS - 1].out) * wide_);
    head_ = take<T>(memory, Index(way_) * spatial_ * wide_);
    flat_ = take<T>(memory, sizes_[4 * BLOCKS] + way_);
    logits_ = take<T>(memory, Index(batch_) * way_);
    losses_ = take<T>(memory, batch_);
    sums_ = take<T>(memory, Index(PARTS) * 2 * wide_);
    first_sums_ = take<T>(memory, Index(PARTS) * taps_ * wide_);
    scratch_ = take<T>(memory, scratch_size_ * team_size);
    zeros_ = take<T>(memory, filters_);
}

template <class T>
void Task<T>::run(int task, const Team& team) {
    team.meet();  // the memory may still be in use by the task before
    if (team.rank == 0) task_ = task;
    team.meet();
    pack(team);
    team.meet();
    for (int number = 0; number < BLOCKS; ++number) forward(number, team);
    head(team);
    team.meet();
    if (job_.mode == LOGITS) return;
    head_back(team);
    team.meet();
    for (int number = BLOCKS - 1; number >= 0; --number) backward(number, team);
    team.meet();
    update(team);
}

}  // namespace
