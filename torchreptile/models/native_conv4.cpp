// Losses, gradients and inner steps of T Conv4 networks on a CPU, for models/native.py.
//
// Maps lie in memory as (row, column, image, channel): the images of a position are neighbours, so all rows of a
// register tile see the same taps of the kernel, and taps that would meet the padding are left out.
// Channels are padded with zeros to whole vectors ("wide" below). All vectors are GCC's and clang's own extension.
//
// Every sum has a fixed order, whatever the number of threads: what threads share is cut into PARTS.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

namespace {

#if defined(__AVX512F__)
constexpr int BYTES = 64, REGISTERS = 32;
#elif defined(__AVX__)
constexpr int BYTES = 32, REGISTERS = 16;
#elif defined(__aarch64__)
constexpr int BYTES = 16, REGISTERS = 32;
#else
constexpr int BYTES = 16, REGISTERS = 16;
#endif

constexpr int BLOCKS = 4, KERNEL = 3, TAPS = 9;
constexpr int PARTS = 16;                          // shares of work whose sums are added up in order
constexpr int PANEL = REGISTERS == 32 ? 4 : 2;     // vectors of channels in a register tile
constexpr int MOST_ROWS = 10;                      // rows of one: a pointer each
constexpr std::ptrdiff_t NEAR = 24 * 1024;         // bytes that are to stay in the nearest cache
constexpr int SPINS = 2000;                        // before a waiting thread lets others have its core
constexpr double BATCH_NORM_EPS = 1e-3;

using Index = std::ptrdiff_t;

// Rows that fit into registers beside V vectors of the other factor.
constexpr int most_rows(int v) {
    const int rows = (REGISTERS - v - 2) / v;
    return rows < 1 ? 1 : rows > MOST_ROWS ? MOST_ROWS : rows;
}

template <class T>
struct Simd;
template <>
struct Simd<float> {
    using Whole = std::int32_t;
    typedef float Vector __attribute__((vector_size(BYTES)));
    typedef float Anywhere __attribute__((vector_size(BYTES), aligned(4), may_alias));
    typedef std::int32_t Mask __attribute__((vector_size(BYTES)));
};
template <>
struct Simd<double> {
    using Whole = std::int64_t;
    typedef double Vector __attribute__((vector_size(BYTES)));
    typedef double Anywhere __attribute__((vector_size(BYTES), aligned(8), may_alias));
    typedef std::int64_t Mask __attribute__((vector_size(BYTES)));
};

template <class T>
using Vec = typename Simd<T>::Vector;
template <class T>
constexpr int WIDTH = BYTES / int(sizeof(T));

template <class T>
inline Vec<T> load(const T* p) {
    return *reinterpret_cast<const typename Simd<T>::Anywhere*>(p);
}
template <class T>
inline void store(T* p, Vec<T> v) {
    *reinterpret_cast<typename Simd<T>::Anywhere*>(p) = v;
}
template <class T>
inline Vec<T> all(T x) {
    return Vec<T>{} + x;
}

// ---------------------------------------------------------------------------------------------- matrix products

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

// The same for the first layer: few channels, so the k-th factor lies at an offset of its own.
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

template <class T, int R, int V, bool TOGETHER>
void gradient_tile(const Pixels& pixels, const Index* offset, const T* a, const T* b, T* out, Index out_row) {
    Vec<T> sum[R][V];
    Index at[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        at[r] = TOGETHER ? r : offset[r];
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

// One function per number of rows, looked up by it.
template <class T, int V, class Rows = std::make_integer_sequence<int, most_rows(V)>>
struct Tiles;
template <class T, int V, int... R>
struct Tiles<T, V, std::integer_sequence<int, R...>> {
    static constexpr void (*product[])(const Taps&, const T*, const T*, T*, Index) = {&tile<T, R + 1, V>...};
    static constexpr void (*first[])(int, const Index*, const T*, Index, const T*, Index, T*, Index) = {
        &first_tile<T, R + 1, V>...};
    static constexpr void (*gradient[])(const Pixels&, const Index*, const T*, const T*, T*, Index) = {
        &gradient_tile<T, R + 1, V, true>...};
    static constexpr void (*apart[])(const Pixels&, const Index*, const T*, const T*, T*, Index) = {
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

// Cuts `rows` into as few pieces of at most `most` as possible, as even as possible: work(first row, rows).
template <class Work>
inline void pieces(int rows, int most, Work work) {
    const int count = (rows + most - 1) / most;
    for (int i = 0; i < count; ++i) {
        const int from = rows * i / count, to = rows * (i + 1) / count;
        work(from, to - from);
    }
}

// ------------------------------------------------------------------------------------------------------ threads

// Threads of a team meet here; they spin, for what lies between two meetings is short.
class Barrier {
  public:
    void meet(int size) {
        if (size == 1) return;
        const int round = round_.load(std::memory_order_acquire);
        if (waiting_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
            waiting_.store(0, std::memory_order_relaxed);
            round_.store(round + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; round_.load(std::memory_order_acquire) == round; ++spins) {
            if (spins > SPINS) std::this_thread::yield();
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        }
    }

  private:
    alignas(64) std::atomic<int> waiting_{0};
    alignas(64) std::atomic<int> round_{0};
};

struct Team {
    int rank, size;
    Barrier* barrier;

    void meet() const { barrier->meet(size); }
    int from(int n) const { return int(std::int64_t(n) * rank / size); }
    int to(int n) const { return int(std::int64_t(n) * (rank + 1) / size); }
};

// Threads made once; run(n, work) calls work(0) ... work(n - 1), work(0) on the calling thread.
class Pool {
  public:
    void run(int threads, void (*work)(void*, int), void* context) {
        while (int(threads_.size()) < threads - 1) threads_.emplace_back(&Pool::serve, this, int(threads_.size()) + 1);
        {
            std::lock_guard<std::mutex> hold(lock_);
            work_ = work, context_ = context, wanted_ = threads, running_ = threads - 1, ++job_;
        }
        if (threads > 1) started_.notify_all();
        work(context, 0);
        std::unique_lock<std::mutex> hold(lock_);
        ended_.wait(hold, [this] { return running_ == 0; });
    }

  private:
    void serve(int rank) {
        long seen = 0;
        std::unique_lock<std::mutex> hold(lock_);
        seen = rank < wanted_ ? job_ - 1 : job_;
        for (;;) {
            started_.wait(hold, [&] { return job_ != seen; });
            seen = job_;
            if (rank >= wanted_) continue;
            hold.unlock();
            work_(context_, rank);
            hold.lock();
            if (--running_ == 0) ended_.notify_one();
        }
    }

    std::mutex lock_;
    std::condition_variable started_, ended_;
    std::vector<std::thread> threads_;
    void (*work_)(void*, int) = nullptr;
    void* context_ = nullptr;
    int wanted_ = 0, running_ = 0;
    long job_ = 0;
};

// Memory of one thread's current task, kept from call to call and grown when too small.
class Arena {
  public:
    Arena() = default;
    Arena(const Arena&) = delete;
    ~Arena() { std::free(memory_); }

    char* of(std::size_t bytes) {
        if (bytes > size_) {
            std::free(memory_);
            size_ = 0;
            const std::size_t rounded = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
            memory_ = std::aligned_alloc(HUGE_PAGE, rounded);
            if (memory_ == nullptr) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
            madvise(memory_, rounded, MADV_HUGEPAGE);
#endif
            size_ = rounded;
        }
        return static_cast<char*>(memory_);
    }

  private:
    static constexpr std::size_t HUGE_PAGE = 2 * 1024 * 1024;
    void* memory_ = nullptr;
    std::size_t size_ = 0;
};

// ------------------------------------------------------------------------------------------------------ the work

enum Mode : std::int64_t { LOGITS, GRADIENT, SGD, ADAM };

// What models/native.py asks for, member by member the same there. Tensors of T tasks, one after another:
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

    // Where the numbers of a position's images begin, in maps of that side.
    Index at(int side, int row, int column) const { return Index(row * side + column) * batch_ * wide_; }
    Index pixels_of(int side) const { return Index(side) * side * batch_; }

    const Job& job_;
    const int batch_, channels_, filters_, wide_, vectors_, way_, stride_;
    const bool pooled_;
    Index task_ = 0, sizes_[TENSORS];
    Layer layers_[BLOCKS];
    int padded_, spatial_, taps_, near_columns_;  // side of the padded images; pixels the head sees; 9 * channels
    Index scratch_size_, used_ = 0;
    Index* offsets_;
    T *images_, *features_, *head_, *head_gradient_, *flat_, *logits_, *losses_, *sums_, *first_sums_, *scratch_, *zeros_;
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
    used_ += (count * Index(sizeof(U)) + 127) / 64 * 64;  // and a vector more, for loads beyond the end
    return reinterpret_cast<U*>(memory + here);
}

// Hands out the memory; without any, counts how much there must be.
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
    head_gradient_ = take<T>(memory, Index(way_) * spatial_ * wide_);
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
    team.meet();  // the memory may still have been another's
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

// ------------------------------------------------------------------------------------------------------- packing

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
            for (int c = 0; c < wide_; ++c) to[c] = c < filters_ ? weight[(Index(w) * filters_ + c) * spatial_ + p] : T(0);
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

// ------------------------------------------------------------------------------------------------------- forward

template <class T>
void Task<T>::forward(int number, const Team& team) {
    Layer& layer = layers_[number];
    T *origin = scratch_ + team.rank * scratch_size_, *quarters = origin + wide_;
    // Moments are counted from some pixel's value, so that a large mean costs no digits.
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
            pieces(images, most_rows(v), [&](int from, int rows) {
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
        pieces(images, most_rows(v), [&](int from, int rows) {
            Tiles<T, v>::product[rows - 1](taps, a + Index(from) * wide_, b + vector * WIDTH<T>,
                                           out + Index(from) * wide_ + vector * WIDTH<T>, wide_);
        });
    });
}

// Adds one position's sums, and sums of squares, of what exceeds the origin.
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

// Chooses of each 2x2 pixels the one that will be largest after BatchNorm, which its scale's sign tells before.
// Of equals the first, as PyTorch has it.
template <class T>
void Task<T>::pool(const Layer& layer, int row, int column, const T* const* quarters, const T* origin, T* sums) const {
    typedef std::int8_t Small __attribute__((vector_size(WIDTH<T>)));
    using Mask = typename Simd<T>::Mask;
    const Index to = at(layer.out, row, column);
    for (int c = 0; c < wide_; c += WIDTH<T>) {
        const Vec<T> zero = load(origin + c), sign = load(layer.sign + c);
        Vec<T> sum = load(sums + c), squares = load(sums + wide_ + c);
        for (int image = 0; image < batch_; ++image) {
            const Index here = Index(image) * wide_ + c;
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
            store(layer.winner + to + here, winner);
            const Small small = __builtin_convertvector(place, Small);
            std::memcpy(layer.place + to + here, &small, sizeof small);
        }
        store(sums + c, sum);
        store(sums + wide_ + c, squares);
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
        const Index here = Index(position) * batch_ * wide_;
        for (int c = 0; c < wide_; c += WIDTH<T>) {
            const Vec<T> slope = load(layer.slope + c), shift = load(layer.shift + c);
            for (Index i = here + c; i < here + Index(batch_) * wide_; i += wide_) {
                const Vec<T> value = load(layer.winner + i) * slope + shift;
                store(x + i, value < Vec<T>{} ? Vec<T>{} : value);  // NaN stays NaN
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------------- head

// Logits, and unless they are all that is wanted, losses and the gradient of the logits in their place.
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

// ------------------------------------------------------------------------------------------------------ backward

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

// Lets the output's gradient through where ReLU did, and sums it up, alone and with BatchNorm's numbers.
template <class T>
void Task<T>::reduce(const Layer& layer, const T* x, const Team& team) const {
    const int positions = layer.out * layer.out;
    for (int part = team.from(PARTS); part < team.to(PARTS); ++part) {
        T* sums = sums_ + Index(part) * 2 * wide_;
        std::memset(sums, 0, sizeof(T) * 2 * std::size_t(wide_));
        for (int position = positions * part / PARTS; position < positions * (part + 1) / PARTS; ++position) {
            const Index here = Index(position) * batch_ * wide_;
            for (int c = 0; c < wide_; c += WIDTH<T>) {
                const Vec<T> mean = load(layer.mean + c);
                Vec<T> sum = load(sums + c), with = load(sums + wide_ + c);
                for (Index i = here + c; i < here + Index(batch_) * wide_; i += wide_) {
                    const Vec<T> d = load(x + i) <= Vec<T>{} ? Vec<T>{} : load(layer.d + i);
                    store(layer.d + i, d);
                    sum += d;
                    with += d * (load(layer.winner + i) - mean);
                }
                store(sums + c, sum);
                store(sums + wide_ + c, with);
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

// The gradient of one position's convolution: y (B, wide) is overwritten; of strided nets it is the layer's d.
template <class T>
void Task<T>::spread(const Layer& layer, int row, int column, T* y) const {
    typedef std::int8_t Small __attribute__((vector_size(WIDTH<T>)));
    using Mask = typename Simd<T>::Mask;
    if (!pooled_) {
        const T* from = layer.y + at(layer.conv, row, column);
        for (int c = 0; c < wide_; c += WIDTH<T>) {
            const Vec<T> slope = load(layer.slope + c), mean = load(layer.mean + c);
            const Vec<T> tilt = load(layer.tilt + c), level = load(layer.level + c);
            for (Index i = c; i < Index(batch_) * wide_; i += wide_) {
                store(y + i, load(y + i) * slope + ((load(from + i) - mean) * tilt + level));
            }
        }
        return;
    }
    const Index window = at(layer.out, row / 2, column / 2);
    const int q = row % 2 * 2 + column % 2;
    for (int c = 0; c < wide_; c += WIDTH<T>) {
        const Vec<T> slope = load(layer.slope + c), mean = load(layer.mean + c);
        const Vec<T> tilt = load(layer.tilt + c), level = load(layer.level + c);
        for (Index i = c; i < Index(batch_) * wide_; i += wide_) {
            Small small;
            std::memcpy(&small, layer.place + window + i, sizeof small);
            const Mask chosen = __builtin_convertvector(small, Mask) == q;
            const Vec<T> d = chosen ? load(layer.d + window + i) * slope : Vec<T>{};
            store(y + i, (load(y + i) - mean) * tilt + level + d);
        }
    }
}

template <class T>
void Task<T>::kernel_gradient(int number, const Team& team) const {
    const Layer& layer = layers_[number];
    const int columns = layer.conv < near_columns_ ? layer.conv : near_columns_;
    const int rows = near_columns_ / columns;
    pieces(layer.conv, rows, [&](int row, int height) {
        pieces(layer.conv, columns, [&](int column, int width) {
            kernel_gradient_of(number, row, height, column, width, team);
        });
    });
}

// What these positions of the convolution's gradient add to the kernel's; threads share the taps and inputs.
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
            const Index next = at(layer.in, 0, stride_), next_y = at(layer.conv, 0, 1);
            Pixels pixels{y1 - y0, x1 - x0, batch_, at(layer.in, stride_, 0), next, wide_, at(layer.conv, 1, 0), next_y, wide_};
            if (stride_ == 1) pixels.run *= pixels.nx, pixels.nx = 1;
            Tiles<T, v>::gradient[k1 - k0 - 1](pixels, nullptr,
                                               layer.x + at(layer.in, y0 * stride_ + down, x0 * stride_ + right) + k0,
                                               dy + at(layer.conv, y0, x0) + vector * WIDTH<T>, out, wide_);
        }
    });
}

// Of the first layer: few rows, so threads share the pixels. Pooled nets compute its convolution again, which is
// cheaper than to keep it.
template <class T>
void Task<T>::first_gradient(const Team& team) const {
    const Layer& layer = layers_[0];
    const Index size = Index(taps_) * wide_, pixel = Index(batch_) * channels_;
    T* scratch = scratch_ + team.rank * scratch_size_;
    for (int part = team.from(PARTS); part < team.to(PARTS); ++part) {
        T* sums = first_sums_ + part * size;
        std::memset(sums, 0, sizeof(T) * std::size_t(size));
        for (int row = layer.conv * part / PARTS; row < layer.conv * (part + 1) / PARTS; ++row) {
            pieces(layer.conv, near_columns_, [&](int column, int columns) {
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
                    pieces(taps_, most_rows(v), [&](int k, int rows) {
                        Tiles<T, v>::apart[rows - 1](pixels, offsets_ + k, a, dy + vector * WIDTH<T>,
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

// The gradient of a layer's input. Of strided convolutions, a pixel meets every second tap of each axis.
template <class T>
void Task<T>::map_gradient(int number, const Team& team) const {
    const Layer& layer = layers_[number];
    const T* dy = pooled_ ? layer.y : layer.d;
    T* d = layers_[number - 1].d;
    const Index step = Index(wide_) * wide_;
    // Along one axis: the first tap, the pixel of the output it belongs to, and how many taps there are.
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
        const Taps taps{ny, nx, wide_, wide_, -at(layer.conv, 1, 0), -at(layer.conv, 0, 1), stride_ * KERNEL * step, stride_ * step, wide_};
        const T* a = dy + at(layer.conv, row, column);
        const T* b = layer.turned + (tap_y * KERNEL + tap_x) * step;
        T* out = d + Index(position) * batch_ * wide_;
        panels(vectors_, [&](auto v, int vector) {
            pieces(batch_, most_rows(v), [&](int from, int rows) {
                Tiles<T, v>::product[rows - 1](taps, a + Index(from) * wide_, b + vector * WIDTH<T>,
                                               out + Index(from) * wide_ + vector * WIDTH<T>, wide_);
            });
        });
    }
}

// ------------------------------------------------------------------------------------------------------- updates

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
        apply(BLOCKS + number, 0, zeros_, filters_);  // BatchNorm takes a bias out again
        apply(2 * BLOCKS + number, 0, layer.d_gamma, filters_);
        apply(3 * BLOCKS + number, 0, layer.d_beta, filters_);
    }
    if (team.rank != 0) return;
    apply(4 * BLOCKS, 0, flat_, sizes_[4 * BLOCKS]);
    apply(4 * BLOCKS + 1, 0, flat_ + sizes_[4 * BLOCKS], way_);
}

// Hands the gradient out, or takes the inner step with it.
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

// ------------------------------------------------------------------------------------------------------ all tasks

// Threads and memory live as long as the process. A forked child has no threads: it makes its own.
struct Crew {
    Pool pool;
    std::vector<Arena> arenas;
    pid_t process = getpid();
};
std::mutex crew_lock;
Crew* crew = nullptr;

// Whole tasks to single threads as long as there are as many as threads; the rest to teams.
template <class T>
int run_all(const Job& job) {
    for (std::int64_t i = 0; job.mode != LOGITS && i < job.tasks * job.batch; ++i) {
        if (job.labels[i] < 0 || job.labels[i] >= job.way) return 1;
    }
    std::lock_guard<std::mutex> hold(crew_lock);
    if (!crew || crew->process != getpid()) crew = new Crew;
    const int tasks = int(job.tasks);
    const int threads = int(std::max<std::int64_t>(1, std::min<std::int64_t>(job.threads, job.tasks * PARTS)));
    const int whole = tasks / threads, left = tasks % threads;
    if (int(crew->arenas.size()) < 2 * threads) crew->arenas = std::vector<Arena>(std::size_t(2 * threads));
    struct Work {
        const Job& job;
        int whole, left, threads;
        std::vector<std::unique_ptr<Task<T>>> single, teams;
        std::vector<Barrier> barriers;
    } work{job, whole, left, threads, {}, {}, std::vector<Barrier>(std::size_t(left))};
    for (int i = 0; whole > 0 && i < threads; ++i) {
        work.single.push_back(std::make_unique<Task<T>>(job, 1, crew->arenas[std::size_t(i)]));
    }
    for (int i = 0; i < left; ++i) {
        Arena& arena = crew->arenas[std::size_t(threads + i)];
        work.teams.push_back(std::make_unique<Task<T>>(job, threads / left + 1, arena));
    }
    crew->pool.run(
        threads,
        [](void* context, int rank) {
            Work& work = *static_cast<Work*>(context);
            Barrier none;
            for (int i = 0; i < work.whole; ++i) work.single[std::size_t(rank)]->run(rank * work.whole + i, Team{0, 1, &none});
            if (work.left == 0) return;
            const int team = int(std::int64_t(rank) * work.left / work.threads);
            int first = rank, last = rank;  // the ranks of this team
            while (first > 0 && int(std::int64_t(first - 1) * work.left / work.threads) == team) --first;
            while (last + 1 < work.threads && int(std::int64_t(last + 1) * work.left / work.threads) == team) ++last;
            work.teams[std::size_t(team)]->run(work.whole * work.threads + team,
                                               Team{rank - first, last - first + 1, &work.barriers[std::size_t(team)]});
        },
        &work);
    return 0;
}

}  // namespace

extern "C" {

// 0, or 1 for a label that is not a class, 2 for want of memory, 3 for want of threads.
int native_conv4_float(const Job* job) {
    try {
        return run_all<float>(*job);
    } catch (const std::bad_alloc&) {
        return 2;
    } catch (const std::system_error&) {
        return 3;
    }
}

int native_conv4_double(const Job* job) {
    try {
        return run_all<double>(*job);
    } catch (const std::bad_alloc&) {
        return 2;
    } catch (const std::system_error&) {
        return 3;
    }
}
}
