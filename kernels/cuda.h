/* cuda.h - what the host side of every CUDA kernel shares.
 *
 * WHAT    kernels/<op>/<op>_cuda.h declares the launchers of an operation, <op>_cuda.cu holds them and
 *         their kernels. A launcher checks its arguments by asserts (they come from our own engine),
 *         enqueues on the caller's stream and returns; it takes no memory, waits for nothing and
 *         asks the driver nothing, so that it can be captured in a graph. Workspace comes from the
 *         caller, its size from a function beside the launcher.
 * ERRORS  A launch that fails is ERR_DEVICE with the operation's name; later failures of the device
 *         show at the next synchronization and are the engine's.
 * ARCH    One source serves sm_80, sm_90a and sm_100. What only Hopper has (wgmma, TMA) is compiled
 *         under __CUDA_ARCH_FEAT_SM90_ALL and chosen at run time by bt_cuda_arch(); the rest runs the
 *         mma.sync path, which on a Hopper card is also what a build of compute_80 PTX runs.
 * C++     .cu files include our C headers inside extern "C" { }. */
#ifndef BT_KERNELS_CUDA_H
#define BT_KERNELS_CUDA_H

#include "common/base/status.h"

#include <cuda_runtime_api.h>

/* OK, or ERR_DEVICE with "what: text of error" in err (which may be NULL). */
bt_status bt_cuda_status(cudaError_t error, const char *what, bt_err *err);

/* What the last launch of this thread reported; clears it. */
bt_status bt_cuda_launched(const char *what, bt_err *err);

/* The architecture the kernels of this program were compiled for, as loaded for the current device:
 * 80, 90 or 100; 80 also for PTX of compute_80 on a newer card. 0 if none of them runs here. Asks the
 * runtime: call once at start and keep it. */
int bt_cuda_arch(void);

#endif
