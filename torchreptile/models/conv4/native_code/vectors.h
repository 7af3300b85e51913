// Vectors as wide as this processor has them, by the vector extension that g++ and clang++ share.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

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

using Index = std::ptrdiff_t;

template <class T>
struct Simd;
template <>
struct Simd<float> {
    using Integer = std::int32_t;
    typedef float Vector __attribute__((vector_size(BYTES)));
    typedef float Anywhere __attribute__((vector_size(BYTES), aligned(4), may_alias));
    typedef std::int32_t Mask __attribute__((vector_size(BYTES)));
};
template <>
struct Simd<double> {
    using Integer = std::int64_t;
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

// Conversions between masks and bytes are loops: g++ compiles these to single instructions, but
// __builtin_convertvector to dozens.
template <class T>
inline void narrow(typename Simd<T>::Mask wide, std::int8_t* to) {
    typename Simd<T>::Integer numbers[WIDTH<T>];
    std::memcpy(numbers, &wide, sizeof numbers);
    for (int i = 0; i < WIDTH<T>; ++i) to[i] = std::int8_t(numbers[i]);
}
template <class T>
inline typename Simd<T>::Mask widen(const std::int8_t* from) {
    typename Simd<T>::Integer numbers[WIDTH<T>];
    for (int i = 0; i < WIDTH<T>; ++i) numbers[i] = from[i];
    typename Simd<T>::Mask wide;
    std::memcpy(&wide, numbers, sizeof wide);
    return wide;
}

}  // namespace
