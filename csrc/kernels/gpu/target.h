// What lets one source be device code for nvcc and plain C++ for the emulation on the CPU.
#pragma once

#if defined(__CUDACC__)
/// Arithmetic that packing on the host and kernels on the device share.
#define PYSIM_HD __host__ __device__ __forceinline__
/// Kernel bodies: device code for nvcc; for another compiler an ordinary function that the emulation calls.
#define PYSIM_DEVICE __device__ __forceinline__
#define PYSIM_UNROLL _Pragma("unroll")
#else
#define PYSIM_HD inline
#define PYSIM_DEVICE inline
#define PYSIM_UNROLL
#endif
